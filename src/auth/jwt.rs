//! Tokens: JSON Web Tokens (RFC 7519), signed and not encrypted.
//!
//! A token says how it is signed, and is not believed: the key that it names has one algorithm, and
//! another than that is refused.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::denied::Invalid;
use super::digest::Digest;
use super::jwk::{self, Algorithm, JwkError, PublicKey};
use super::principal::{Known, Principal, is_name};
use super::role::{Role, Roles};
use super::scope::{Pattern, Scope};

/// What clocks may differ by.
const LEEWAY: Duration = Duration::from_mins(1);

/// The longest token, in bytes.
const LONGEST: usize = 16 << 10;

/// Tokens whose signature is not looked at again.
const REMEMBERED: usize = 4096;

/// No time after this is taken from a token: the year 9999.
const LAST: f64 = 253_402_300_799.0;

/// What tokens have to say.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) roles_claim: String,
    pub(super) models_claim: String,
}

/// Reads tokens that are signed by some keys.
pub(super) struct Tokens {
    keys: Vec<PublicKey>,
    /// By the token's digest; none outlives the keys.
    remembered: Cache<Digest, Arc<Principal>>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Names what has to be understood, and none of it is.
    crit: Option<Value>,
}

impl Tokens {
    /// # Errors
    /// What is wrong with the set of keys.
    pub(super) fn parse(set: &[u8]) -> Result<Self, JwkError> {
        Ok(Self { keys: jwk::parse(set)?, remembered: Cache::new(REMEMBERED) })
    }

    /// Whose token this is. `digest` is that of the token.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn find(
        &self,
        (token, digest): (&[u8], Digest),
        terms: &Terms,
    ) -> Result<Arc<Principal>, Invalid> {
        if let Some(known) = self.remembered.get(&digest) {
            return if known.is_valid() { Ok(known) } else { Err(Invalid::Expired) };
        }
        let principal = Arc::new(self.verify(token, terms, SystemTime::now())?);
        self.remembered.insert(digest, Arc::clone(&principal));
        Ok(principal)
    }

    fn verify(&self, token: &[u8], terms: &Terms, now: SystemTime) -> Result<Principal, Invalid> {
        let token = str::from_utf8(token).map_err(|_| Invalid::Malformed)?;
        if token.len() > LONGEST {
            return Err(Invalid::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Invalid::Malformed)?;
        let parts = message.split_once('.').filter(|(_, claims)| !claims.contains('.'));
        let (header, claims) = parts.ok_or(Invalid::Malformed)?;
        let header: Header = json(header)?;
        let key = self.signer(&header)?;
        if !key.has_signed(message.as_bytes(), &decode(signature)?) {
            return Err(Invalid::Signature);
        }
        principal(&json(claims)?, terms, now)
    }

    /// The key that a token names.
    fn signer(&self, header: &Header) -> Result<&PublicKey, Invalid> {
        if header.crit.is_some() {
            return Err(Invalid::Malformed);
        }
        let algorithm = Algorithm::from_name(&header.alg).ok_or(Invalid::Algorithm)?;
        let id = header.kid.as_deref().ok_or(Invalid::Signer)?;
        let key = self.keys.iter().find(|key| key.id == id).ok_or(Invalid::Signer)?;
        if key.algorithm() == algorithm { Ok(key) } else { Err(Invalid::Algorithm) }
    }
}

/// Whether something presented is a token rather than a key.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'.').count() == 3
}

fn decode(part: &str) -> Result<Vec<u8>, Invalid> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Invalid::Malformed)
}

fn json<T: DeserializeOwned>(part: &str) -> Result<T, Invalid> {
    serde_json::from_slice(&decode(part)?).map_err(|_| Invalid::Malformed)
}

/// Whoever the claims are of, where they hold now.
fn principal(
    claims: &Map<String, Value>,
    terms: &Terms,
    now: SystemTime,
) -> Result<Principal, Invalid> {
    let until = time(claims, "exp")?.ok_or(Invalid::Claim("exp"))? + LEEWAY;
    if now >= until {
        return Err(Invalid::Expired);
    }
    if time(claims, "nbf")?.is_some_and(|from| now + LEEWAY < from) {
        return Err(Invalid::Early);
    }
    if claims.get("iss").and_then(Value::as_str) != Some(&terms.issuer) {
        return Err(Invalid::Issuer);
    }
    if !is_for(claims.get("aud"), &terms.audience) {
        return Err(Invalid::Audience);
    }
    let name = claims.get("sub").and_then(Value::as_str).filter(|name| is_name(name));
    let name = name.ok_or(Invalid::Claim("sub"))?.to_owned();
    let roles = roles(claim(claims, &terms.roles_claim))?;
    let scope = scope(claim(claims, &terms.models_claim))?;
    Ok(Principal { known: Known::Token, name, roles, scope, until: Some(until) })
}

/// A moment, in seconds since 1970.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<SystemTime>, Invalid> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=LAST).contains(seconds));
    let seconds = seconds.ok_or(Invalid::Claim(name))?;
    Ok(Some(UNIX_EPOCH + Duration::from_secs_f64(seconds)))
}

fn is_for(audience: Option<&Value>, wanted: &str) -> bool {
    match audience {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(wanted)),
        _ => false,
    }
}

/// The claim of this name, or at this JSON Pointer.
fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let Some(path) = name.strip_prefix('/') else { return claims.get(name) };
    let (first, rest) = path.find('/').map_or((path, ""), |at| path.split_at(at));
    claims.get(&first.replace("~1", "/").replace("~0", "~"))?.pointer(rest)
}

/// Texts in a list, or separated by spaces.
fn texts<'a>(value: &'a Value, name: &'static str) -> Result<Vec<&'a str>, Invalid> {
    match value {
        Value::String(text) => Ok(text.split_ascii_whitespace().collect()),
        Value::Array(items) => {
            items.iter().map(|item| item.as_str().ok_or(Invalid::Claim(name))).collect()
        }
        _ => Err(Invalid::Claim(name)),
    }
}

/// Those that are known: an issuer has others for others. Nobody has one without being given it.
fn roles(value: Option<&Value>) -> Result<Roles, Invalid> {
    let Some(value) = value else { return Ok(Roles::default()) };
    Ok(texts(value, "of roles")?.into_iter().filter_map(Role::from_name).collect())
}

/// All models without the claim; none where it has none.
fn scope(value: Option<&Value>) -> Result<Scope, Invalid> {
    let Some(value) = value else { return Ok(Scope::Everything) };
    let wrong = Invalid::Claim("of models");
    let patterns = texts(value, "of models")?.into_iter();
    let patterns = patterns.map(|text| Pattern::new(text).ok_or(wrong));
    patterns.collect::<Result<_, _>>().map(Scope::Models)
}

/// The number of keys alone.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.keys.len())
    }
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
#[cfg(test)]
mod tests;
