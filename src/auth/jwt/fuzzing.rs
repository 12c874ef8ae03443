//! What of credentials is fuzzed.

use std::sync::LazyLock;

use super::*;
use crate::auth::Presented;

/// A set of one key, of which nobody has the private part.
static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let set = br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    Tokens::parse(set).expect("it is a set of keys")
});

/// What comes in `Authorization`, and the claims of a token whose signature was right. Nobody is let in by
/// a token that was made up, and what claims say is bounded.
pub fn credential(data: &[u8]) {
    let terms = Terms {
        issuer: "i".to_owned(),
        audience: "a".to_owned(),
        roles_claim: "/r/r".to_owned(),
        models_claim: "models".to_owned(),
    };
    let now = SystemTime::now();
    if let Presented::Bearer(token) = Presented::read([data], []) {
        assert!(token.iter().all(u8::is_ascii_graphic));
        assert!(TOKENS.verify(token, &terms, now).is_err(), "a made-up token is taken");
    }
    assert!(TOKENS.verify(data, &terms, now).is_err(), "a made-up token is taken");
    let Ok(claims) = serde_json::from_slice::<Map<String, Value>>(data) else { return };
    if let Ok(principal) = principal(&claims, &terms, now) {
        assert!(is_name(&principal.name) && principal.until.is_some_and(|until| until > now));
        assert!(claims.contains_key("exp") && claims["iss"] == "i");
    }
}
