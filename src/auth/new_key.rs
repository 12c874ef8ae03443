//! Makes keys.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::digest::Digest;
use super::keys::{Keys, KeysError};
use super::presented::PREFIX;
use super::role::Role;

/// What a key is to be for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Whose it is.
    pub name: String,
    /// What they may do.
    pub roles: Vec<Role>,
    /// Patterns of the models it is for; all without any.
    pub models: Vec<String>,
    /// The end of it, as RFC 3339 has it.
    pub expires: Option<String>,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum NewKeyError {
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// A file with such an entry would be refused.
    #[error("no such key can be: {0}")]
    Wish(String),
}

/// A key, told once, and the entry that goes into the file of keys.
pub struct NewKey {
    /// The key. It is a secret.
    pub key: String,
    /// The entry, indented as one of the list `keys`.
    pub entry: String,
}

impl NewKey {
    /// Makes one.
    ///
    /// # Errors
    /// [`NewKeyError`].
    pub fn generate(wish: &Wish) -> Result<Self, NewKeyError> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NewKeyError::Random)?;
        let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let entry = entry(wish, Digest::of(key.as_bytes()));
        let wrong = |error: KeysError| NewKeyError::Wish(error.to_string());
        Keys::parse(&format!("keys:\n{entry}")).map_err(wrong)?;
        Ok(Self { key, entry })
    }
}

fn entry(wish: &Wish, digest: Digest) -> String {
    let Wish { name, roles, models, expires } = wish;
    let roles: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    let mut text = format!(
        "  - name: {}\n    sha256: \"{}\"\n    roles: [{}]\n",
        quoted(name),
        digest.to_hex(),
        roles.join(", ")
    );
    let mut line = |name: &str, value: String| {
        writeln!(text, "    {name}: {value}").expect("a string takes every text");
    };
    if !models.is_empty() {
        let models: Vec<String> = models.iter().map(|model| quoted(model)).collect();
        line("models", format!("[{}]", models.join(", ")));
    }
    if let Some(expires) = expires {
        line("expires", quoted(expires));
    }
    text
}

/// As JSON writes it, which YAML reads.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
        Wish { name: "ci".to_owned(), roles: vec![Role::Infer], models: vec![], expires: None }
    }

    #[test]
    fn the_entry_is_that_of_the_key() {
        let models = vec!["fraud-*".to_owned(), "\"x\"".to_owned()];
        let expires = Some("2999-01-01T00:00:00Z".to_owned());
        let NewKey { key, entry } = NewKey::generate(&Wish { models, expires, ..wish() }).unwrap();
        assert_eq!(key.len(), PREFIX.len() + 43);
        assert!(!entry.contains(&key[PREFIX.len()..]), "{entry}");
        let keys = Keys::parse(&format!("keys:\n{entry}")).unwrap();
        let found = keys.find(&Digest::of(key.as_bytes())).unwrap();
        assert!(found.scope.has("fraud-eu") && found.scope.has("\"x\"") && !found.scope.has("x"));
        assert_ne!(NewKey::generate(&wish()).unwrap().key, key);
    }

    #[test]
    fn what_a_file_would_not_have_is_refused() {
        for wrong in [
            Wish { name: String::new(), ..wish() },
            Wish { name: "a\nb".to_owned(), ..wish() },
            Wish { roles: vec![], ..wish() },
            Wish { models: vec!["a/b".to_owned()], ..wish() },
            Wish { expires: Some("tomorrow".to_owned()), ..wish() },
        ] {
            assert!(matches!(NewKey::generate(&wrong), Err(NewKeyError::Wish(_))), "{wrong:?}");
        }
    }
}
