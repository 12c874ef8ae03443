//! The file of API keys.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use super::digest::Digest;
use super::principal::{Known, Principal, is_name};
use super::role::{Role, Roles};
use super::scope::{Pattern, Scope};

/// What is wrong with a file of keys. It tells nothing that stands in the file but names, as what stands
/// there by mistake may be a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeysError {
    #[error("{}it is not `keys` with a list of entries, each with name, sha256, roles and, where there are \
             bounds, models and expires", at(*line))]
    Form { line: Option<u64> },
    #[error("entry {number}: {problem}")]
    Entry { number: usize, problem: &'static str },
    #[error("entry {number}, {name}: {problem}")]
    Named { number: usize, name: String, problem: &'static str },
}

fn at(line: Option<u64>) -> String {
    line.map(|line| format!("line {line}: ")).unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysYaml {
    keys: Vec<EntryYaml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryYaml {
    name: String,
    sha256: String,
    roles: Vec<String>,
    models: Option<Vec<String>>,
    expires: Option<String>,
}

/// Everybody who has a key.
#[derive(Default)]
pub(super) struct Keys(HashMap<Digest, (Digest, Arc<Principal>)>);

impl Keys {
    /// # Errors
    /// The first mistake.
    pub(super) fn parse(text: &str) -> Result<Self, KeysError> {
        let options = serde_saphyr::options! { with_snippet: false };
        let parsed = serde_saphyr::from_str_with_options::<KeysYaml>(text, options);
        let KeysYaml { keys: entries } = parsed.map_err(|error| KeysError::Form {
            line: error.location().map(|location| location.line()),
        })?;
        let mut keys = Self::default();
        for (number, entry) in (1..).zip(entries) {
            keys.add(number, entry)?;
        }
        Ok(keys)
    }

    fn add(&mut self, number: usize, entry: EntryYaml) -> Result<(), KeysError> {
        if !is_name(&entry.name) {
            let problem = "the name has to be 1 to 256 bytes, without control characters";
            return Err(KeysError::Entry { number, problem });
        }
        let name = entry.name.clone();
        let wrong = |problem| KeysError::Named { number, name: name.clone(), problem };
        let (digest, principal) = entry.read().map_err(wrong)?;
        if self.0.values().any(|(_, other)| other.name == name) {
            return Err(wrong("the name stands there twice"));
        }
        let before = self.0.insert(digest, (digest, Arc::new(principal)));
        if before.is_some() {
            return Err(wrong("the same key stands there twice"));
        }
        Ok(())
    }

    /// Whose key this is, also where it has expired.
    pub(super) fn find(&self, digest: &Digest) -> Option<&Arc<Principal>> {
        let (known, principal) = self.0.get(digest)?;
        known.is(digest).then_some(principal)
    }
}

impl EntryYaml {
    fn read(self) -> Result<(Digest, Principal), &'static str> {
        let Self { name, sha256, roles, models, expires } = self;
        let digest = Digest::from_hex(&sha256).ok_or(
            "sha256 has to be the 64 hexadecimal digits of the key's SHA-256, and never the key itself",
        )?;
        let roles: Option<Roles> = roles.iter().map(|role| Role::from_name(role)).collect();
        let roles = roles.filter(|roles| !roles.is_empty());
        let roles = roles.ok_or("roles has to be a list of some of read, infer and manage")?;
        let scope = models.as_deref().map(scope).transpose()?.unwrap_or(Scope::Everything);
        let until = expires.map(|at| humantime::parse_rfc3339(&at)).transpose();
        let until = until.map_err(|_| "expires has to be a time such as 2030-01-31T00:00:00Z")?;
        Ok((digest, Principal { known: Known::Key, name, roles, scope, until }))
    }
}

fn scope(models: &[String]) -> Result<Scope, &'static str> {
    let patterns: Option<Vec<Pattern>> = models.iter().map(|text| Pattern::new(text)).collect();
    let patterns = patterns.filter(|patterns| !patterns.is_empty());
    let wrong =
        "models has to be a list of names such as fraud or fraud-*; without it, all are meant";
    patterns.map(Scope::Models).ok_or(wrong)
}

/// Their number alone.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(rest: &str) -> String {
        let sha256 = Digest::of(b"onw_secret").to_hex();
        format!("keys:\n  - name: ci\n    sha256: \"{sha256}\"\n{rest}")
    }

    #[test]
    fn a_key_is_found_by_its_digest() {
        let text = entry("    roles: [infer]\n    models: ['fraud-*']\n");
        let keys = Keys::parse(&text).unwrap();
        let found = keys.find(&Digest::of(b"onw_secret")).unwrap();
        assert_eq!((found.to_string().as_str(), found.is_valid()), ("key:ci", true));
        assert!(found.scope.has("fraud-eu") && !found.scope.has("digits"));
        assert!(keys.find(&Digest::of(b"onw_secre")).is_none());
        assert_eq!(format!("{keys:?}"), "Keys(1)");
        assert!(Keys::parse("keys: []").unwrap().find(&Digest::of(b"")).is_none());
    }

    #[test]
    fn a_key_has_an_end() {
        let text = entry("    roles: [read]\n    expires: 2020-01-01T00:00:00Z\n");
        let keys = Keys::parse(&text).unwrap();
        assert!(!keys.find(&Digest::of(b"onw_secret")).unwrap().is_valid());
        let text = entry("    roles: [read]\n    expires: 2999-01-01T00:00:00Z\n");
        let keys = Keys::parse(&text).unwrap();
        assert!(keys.find(&Digest::of(b"onw_secret")).unwrap().is_valid());
    }

    #[test]
    fn what_is_wrong_is_told_without_what_stands_there() {
        let secret = "onw_secret_that_leaks";
        let twice = entry("    roles: [read]\n");
        let again = twice.strip_prefix("keys:\n").unwrap();
        for (text, expected) in [
            (String::new(), "it is not `keys`"),
            ("keys:".to_owned(), "it is not `keys`"),
            (secret.to_owned(), "it is not `keys`"),
            (entry(&format!("    roles: {secret}\n")), "line "),
            (entry(&format!("    {secret}: 1\n    roles: [read]\n")), "line "),
            (entry(&format!("    roles: [{secret}]\n")), "entry 1, ci: roles has to be"),
            (entry("    roles: []\n"), "roles has to be"),
            (entry("    roles: [read]\n    models: []\n"), "models has to be"),
            (entry("    roles: [read]\n    models: [a/b]\n"), "models has to be"),
            (entry("    roles: [read]\n    expires: 2030-01-01\n"), "expires has to be"),
            (format!("keys: [{{name: a, sha256: {secret}, roles: [read]}}]"), "sha256 has to be"),
            (format!("keys: [{{name: '', sha256: {secret}, roles: [read]}}]"), "entry 1: the name"),
            (format!("{twice}{again}"), "entry 2, ci: the name stands there twice"),
            (
                format!("{twice}{}", again.replace("ci", "other")),
                "entry 2, other: the same key stands there twice",
            ),
        ] {
            let told = Keys::parse(&text).unwrap_err().to_string();
            assert!(told.contains(expected), "{told} for {text}");
            assert!(!told.contains(secret), "{told}");
        }
    }
}
