//! The public keys by which tokens are signed, from a JSON Web Key Set (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

/// What a signature is made by. There is no other, so that nothing weaker can be asked for: none that
/// has no key, and none whose key is a secret that the other side has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            // Its name, and the one that says which curve it is.
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// What is wrong with a set of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum JwkError {
    #[error("it is not a JSON Web Key Set, an object with `keys`")]
    Form,
    #[error("key {0} has a private part, which is nobody's business here")]
    Private(usize),
    #[error("key {0} cannot be read")]
    Key(usize),
    #[error("two keys have the id '{0}'")]
    Twice(String),
    #[error("none of its keys has an id (kid), and is one for RS256, ES256 or EdDSA")]
    Empty,
}

#[derive(Deserialize)]
struct SetJson {
    keys: Vec<KeyJson>,
}

#[derive(Deserialize)]
struct KeyJson {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// The private part of all but symmetric ones.
    d: Option<Value>,
}

/// A public key, which knows the one algorithm it is for.
#[derive(Debug)]
pub(super) struct PublicKey {
    pub(super) id: String,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point, uncompressed.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// Those of a set that can be used; keys for other things may stand beside them.
///
/// # Errors
/// [`JwkError`].
pub(super) fn parse(text: &[u8]) -> Result<Vec<PublicKey>, JwkError> {
    let set: SetJson = serde_json::from_slice(text).map_err(|_| JwkError::Form)?;
    let mut keys: Vec<PublicKey> = Vec::new();
    for (number, key) in (1..).zip(set.keys) {
        if key.d.is_some() {
            return Err(JwkError::Private(number));
        }
        let Some(id) = key.kid.clone().filter(|_| key.signs()) else { continue };
        let Some(material) = key.material().map_err(|()| JwkError::Key(number))? else { continue };
        if keys.iter().any(|other| other.id == id) {
            return Err(JwkError::Twice(id));
        }
        keys.push(PublicKey { id, material });
    }
    if keys.is_empty() { Err(JwkError::Empty) } else { Ok(keys) }
}

impl KeyJson {
    fn signs(&self) -> bool {
        self.r#use.as_deref().is_none_or(|purpose| purpose == "sig")
    }

    /// `None` where it is a key for something else.
    fn material(self) -> Result<Option<Material>, ()> {
        let material = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                Material::Rsa { n: unsigned(self.n.as_ref())?, e: unsigned(self.e.as_ref())? }
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes(self.x.as_ref())?, bytes(self.y.as_ref())?);
                if (x.len(), y.len()) != (32, 32) {
                    return Err(());
                }
                Material::P256([&[4], &x[..], &y[..]].concat())
            }
            ("OKP", Some("Ed25519")) => {
                let x = bytes(self.x.as_ref())?;
                if x.len() != 32 {
                    return Err(());
                }
                Material::Ed25519(x)
            }
            _ => return Ok(None),
        };
        // An RSA key may be for RS512 or PS256.
        let algorithm = self.alg.as_deref().map(Algorithm::from_name);
        let fits = algorithm.is_none_or(|named| named == Some(material.algorithm()));
        Ok(fits.then_some(material))
    }
}

fn bytes(text: Option<&String>) -> Result<Vec<u8>, ()> {
    let decoded = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    decoded.filter(|bytes| !bytes.is_empty()).ok_or(())
}

/// A number without zeros before it, which some write.
fn unsigned(text: Option<&String>) -> Result<Vec<u8>, ()> {
    let bytes = bytes(text)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes[zeros..].to_vec())
}

impl Material {
    const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { .. } => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }
}

impl PublicKey {
    pub(super) const fn algorithm(&self) -> Algorithm {
        self.material.algorithm()
    }

    /// Whether the signature of the message is by this key.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.material {
            Material::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
            Material::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Material::Ed25519(point) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
            }
        };
        verified.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(keys: &Value) -> Result<Vec<(String, Algorithm)>, JwkError> {
        let keys = parse(json!({ "keys": keys }).to_string().as_bytes())?;
        Ok(keys.iter().map(|key| (key.id.clone(), key.algorithm())).collect())
    }

    fn coded(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    #[test]
    fn keys_for_something_else_are_passed_over() {
        let ed = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": coded(&[1; 32]) });
        let mut others = vec![
            json!({ "kty": "oct", "kid": "b", "k": coded(&[1; 32]) }),
            json!({ "kty": "EC", "crv": "P-521", "kid": "c", "x": "AQ", "y": "AQ" }),
            json!({ "kty": "OKP", "crv": "X25519", "kid": "d", "x": coded(&[1; 32]) }),
            json!({ "kty": "RSA", "alg": "RS512", "kid": "e", "n": "AQ", "e": "AQAB" }),
            json!({ "kty": "RSA", "use": "enc", "kid": "f", "n": "AQ", "e": "AQAB" }),
            json!({ "kty": "OKP", "crv": "Ed25519", "x": coded(&[1; 32]) }),
        ];
        assert_eq!(read(&Value::Array(others.clone())), Err(JwkError::Empty));
        others.push(ed);
        let found = read(&Value::Array(others)).unwrap();
        assert_eq!(found, [("a".to_owned(), Algorithm::EdDsa)]);
    }

    #[test]
    fn what_is_no_set_of_public_keys_is_refused() {
        let ed = |id: &str, x: &[u8]| json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": coded(x) });
        assert_eq!(read(&json!([ed("a", &[1; 31])])), Err(JwkError::Key(1)));
        assert_eq!(read(&json!([ed("a", &[])])), Err(JwkError::Key(1)));
        let twice = json!([ed("a", &[1; 32]), ed("a", &[2; 32])]);
        assert_eq!(read(&twice), Err(JwkError::Twice("a".to_owned())));
        let mut private = ed("a", &[1; 32]);
        private["d"] = json!("AQ");
        assert_eq!(read(&json!([private])), Err(JwkError::Private(1)));
        assert_eq!(read(&json!({})), Err(JwkError::Form));
        assert_eq!(parse(b"").err(), Some(JwkError::Form));
    }
}
