//! The key that signs.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What the specification lets a key in base64 begin with.
const PREFIX: &str = "whsec_";

/// A key, which is never shown.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

/// Why a file has no key.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("the secret for webhooks, webhooks.secret_file, cannot be read")]
    Io(#[from] std::io::Error),
    /// What comes after `whsec_` is not base64.
    #[error("the secret for webhooks begins with whsec_, and is not base64 after it")]
    Encoding,
    /// There is nothing in it.
    #[error("the secret for webhooks is empty")]
    Empty,
}

impl Secret {
    /// Reads a file: `whsec_` and base64, as the specification writes keys, or any other text, of
    /// which white space around it is no part.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        Self::parse(std::fs::read_to_string(path)?.trim())
    }

    fn parse(text: &str) -> Result<Self, SecretError> {
        let key = match text.strip_prefix(PREFIX) {
            Some(coded) => STANDARD.decode(coded).map_err(|_| SecretError::Encoding)?,
            None => text.as_bytes().to_vec(),
        };
        if key.is_empty() { Err(SecretError::Empty) } else { Ok(Self(key)) }
    }

    /// The signature of a body that is sent under `id` at `timestamp`, in seconds since 1970.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key may have any length");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference implementations.
    #[test]
    fn the_specifications_example_is_signed_as_it_says() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_key_is_text_or_base64_and_not_nothing() {
        assert_eq!(Secret::parse("plain").unwrap().0, b"plain");
        assert_eq!(Secret::parse("whsec_AAEC").unwrap().0, [0, 1, 2]);
        assert!(matches!(Secret::parse(""), Err(SecretError::Empty)));
        assert!(matches!(Secret::parse("whsec_"), Err(SecretError::Empty)));
        assert!(matches!(Secret::parse("whsec_$"), Err(SecretError::Encoding)));
        assert_eq!(format!("{:?}", Secret::parse("plain").unwrap()), "Secret");
    }
}
