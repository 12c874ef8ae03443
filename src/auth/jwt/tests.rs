use ring::rand::SystemRandom;
use ring::rsa::KeyPair as RsaKeyPair;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaPublicKeyComponents,
};
use serde_json::json;

use super::*;

/// A key that nothing else uses.
const RSA: &[u8] = include_bytes!("../../../tests/it/keys/rsa_2048.der");

const NOW: u64 = 1_900_000_000;

struct Signers {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Signers {
    fn new() -> Self {
        let random = SystemRandom::new();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let p256 = p256.as_ref();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            rsa: RsaKeyPair::from_pkcs8(RSA).unwrap(),
            p256: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, p256, &random)
                .unwrap(),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
        }
    }

    fn set(&self) -> Value {
        let rsa = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        let (n, e) = (coded(&rsa.n), coded(&rsa.e));
        let point = &self.p256.public_key().as_ref()[1..];
        let (x, y) = (coded(&point[..32]), coded(&point[32..]));
        let ed = coded(self.ed.public_key().as_ref());
        json!({ "keys": [
            { "kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "n": n, "e": e },
            { "kty": "EC", "crv": "P-256", "kid": "p256", "x": x, "y": y },
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": ed },
        ]})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", part(header), part(claims));
        let bytes = message.as_bytes();
        let signature = match header["alg"].as_str() {
            Some("RS256") => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                let random = SystemRandom::new();
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).unwrap();
                signature
            }
            Some("ES256") => self.p256.sign(&SystemRandom::new(), bytes).unwrap().as_ref().to_vec(),
            _ => self.ed.sign(bytes).as_ref().to_vec(),
        };
        format!("{message}.{}", coded(&signature))
    }
}

fn coded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn part(value: &Value) -> String {
    coded(value.to_string().as_bytes())
}

fn terms() -> Terms {
    Terms {
        issuer: "https://issuer.example".to_owned(),
        audience: "onward".to_owned(),
        roles_claim: "roles".to_owned(),
        models_claim: "models".to_owned(),
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": "onward", "sub": "alice",
        "exp": NOW + 300, "roles": ["infer", "auditor"], "models": ["fraud-*"],
    })
}

/// The claims with this in the place of one; without it where it is nothing.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn verify(tokens: &Tokens, token: &str) -> Result<Principal, Invalid> {
    tokens.verify(token.as_bytes(), &terms(), UNIX_EPOCH + Duration::from_secs(NOW))
}

fn tokens(signers: &Signers) -> Tokens {
    Tokens::parse(signers.set().to_string().as_bytes()).unwrap()
}

#[test]
fn tokens_are_taken_by_each_algorithm() {
    let signers = Signers::new();
    let tokens = tokens(&signers);
    for (alg, kid) in [("RS256", "rsa"), ("ES256", "p256"), ("EdDSA", "ed"), ("Ed25519", "ed")] {
        let token = signers.sign(&json!({ "alg": alg, "kid": kid, "typ": "JWT" }), &claims());
        assert!(is_token(token.as_bytes()));
        let principal = verify(&tokens, &token).unwrap();
        assert_eq!(principal.to_string(), "jwt:alice", "{alg}");
        assert!(principal.roles.contains(Role::Infer) && !principal.roles.contains(Role::Read));
        assert!(principal.scope.has("fraud-eu") && !principal.scope.has("digits"));
    }
}

#[test]
fn a_token_does_not_choose_how_it_is_read() {
    let signers = Signers::new();
    let tokens = tokens(&signers);
    let set = signers.set();
    let public = URL_SAFE_NO_PAD.decode(set["keys"][0]["n"].as_str().unwrap()).unwrap();
    for (header, expected) in [
        (json!({ "alg": "none", "kid": "rsa" }), Invalid::Algorithm),
        (json!({ "alg": "None", "kid": "rsa" }), Invalid::Algorithm),
        (json!({ "alg": "HS256", "kid": "rsa" }), Invalid::Algorithm),
        (json!({ "alg": "RS512", "kid": "rsa" }), Invalid::Algorithm),
        (json!({ "alg": "ES256", "kid": "rsa" }), Invalid::Algorithm),
        (json!({ "alg": "EdDSA", "kid": "p256" }), Invalid::Algorithm),
        (json!({ "alg": "EdDSA", "kid": "other" }), Invalid::Signer),
        (json!({ "alg": "EdDSA" }), Invalid::Signer),
        (json!({ "alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false }), Invalid::Malformed),
        (json!({ "kid": "ed" }), Invalid::Malformed),
    ] {
        let signed = signers.sign(&header, &claims());
        assert_eq!(verify(&tokens, &signed).unwrap_err(), expected, "{header}");
        // With the public key as a secret, and without a signature.
        let message = format!("{}.{}", part(&header), part(&claims()));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &public);
        let tag = ring::hmac::sign(&key, message.as_bytes());
        let forged = format!("{message}.{}", coded(tag.as_ref()));
        assert_eq!(verify(&tokens, &forged).unwrap_err(), expected, "{header}");
        assert_eq!(verify(&tokens, &format!("{message}.")).unwrap_err(), expected, "{header}");
    }
}

#[test]
fn a_changed_token_is_none() {
    let signers = Signers::new();
    let tokens = tokens(&signers);
    let header = json!({ "alg": "EdDSA", "kid": "ed" });
    let token = signers.sign(&header, &claims());
    let parts: Vec<&str> = token.split('.').collect();
    let other = part(&with("sub", json!("mallory")));
    let swapped = format!("{}.{other}.{}", parts[0], parts[2]);
    assert_eq!(verify(&tokens, &swapped).unwrap_err(), Invalid::Signature);
    let mut flipped = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    flipped[0] ^= 1;
    let flipped = format!("{}.{}.{}", parts[0], parts[1], coded(&flipped));
    assert_eq!(verify(&tokens, &flipped).unwrap_err(), Invalid::Signature);
    for broken in [
        String::new(),
        "a.b.c".to_owned(),
        "..".to_owned(),
        format!("{token}."),
        format!("{token}="),
        format!("{}.{}", parts[0], parts[1]),
        token.replace('.', ".."),
        format!("{}{token}", "a".repeat(LONGEST)),
    ] {
        assert_eq!(verify(&tokens, &broken).unwrap_err(), Invalid::Malformed, "{broken}");
    }
}

#[test]
fn claims_have_to_hold() {
    let signers = Signers::new();
    let tokens = tokens(&signers);
    for (name, value, expected) in [
        ("exp", json!(NOW - 59), None),
        ("exp", json!(NOW - 60), Some(Invalid::Expired)),
        ("exp", json!(0), Some(Invalid::Expired)),
        ("exp", json!(-1), Some(Invalid::Claim("exp"))),
        ("exp", json!(1e300), Some(Invalid::Claim("exp"))),
        ("exp", json!("2030"), Some(Invalid::Claim("exp"))),
        ("exp", Value::Null, Some(Invalid::Claim("exp"))),
        ("nbf", json!(NOW + 60), None),
        ("nbf", json!(NOW + 61), Some(Invalid::Early)),
        ("nbf", json!("soon"), Some(Invalid::Claim("nbf"))),
        ("iss", json!("https://issuer.example/"), Some(Invalid::Issuer)),
        ("iss", json!(["https://issuer.example"]), Some(Invalid::Issuer)),
        ("iss", Value::Null, Some(Invalid::Issuer)),
        ("aud", json!(["other", "onward"]), None),
        ("aud", json!(["other"]), Some(Invalid::Audience)),
        ("aud", json!("other"), Some(Invalid::Audience)),
        ("aud", Value::Null, Some(Invalid::Audience)),
        ("sub", json!("a\nb"), Some(Invalid::Claim("sub"))),
        ("sub", json!(7), Some(Invalid::Claim("sub"))),
        ("sub", Value::Null, Some(Invalid::Claim("sub"))),
        ("roles", json!("infer read"), None),
        ("roles", Value::Null, None),
        ("roles", json!(7), Some(Invalid::Claim("of roles"))),
        ("roles", json!([7]), Some(Invalid::Claim("of roles"))),
        ("models", json!("fraud-eu digits"), None),
        ("models", json!({}), Some(Invalid::Claim("of models"))),
        ("models", json!([""]), Some(Invalid::Claim("of models"))),
    ] {
        let token =
            signers.sign(&json!({ "alg": "EdDSA", "kid": "ed" }), &with(name, value.clone()));
        assert_eq!(verify(&tokens, &token).err(), expected, "{name}: {value}");
    }
}

#[test]
fn what_a_token_does_not_say_gives_no_role_and_an_empty_list_no_model() {
    let signers = Signers::new();
    let tokens = tokens(&signers);
    let read = |claims: &Value| {
        verify(&tokens, &signers.sign(&json!({ "alg": "EdDSA", "kid": "ed" }), claims)).unwrap()
    };
    assert!(read(&with("roles", Value::Null)).roles.is_empty());
    assert!(read(&with("roles", json!(["admin", "root"]))).roles.is_empty());
    assert_eq!(read(&with("models", Value::Null)).scope, Scope::Everything);
    assert!(!read(&with("models", json!([]))).scope.has("fraud-eu"));
}

#[test]
fn claims_may_stand_inside_others() {
    let claims = json!({ "realm_access": { "roles": ["read"] }, "a/b": { "c": 1 }, "/x": 2 });
    let claims = claims.as_object().unwrap();
    assert_eq!(claim(claims, "/realm_access/roles"), Some(&json!(["read"])));
    assert_eq!(claim(claims, "/a~1b/c"), Some(&json!(1)));
    assert_eq!(claim(claims, "realm_access.roles"), None);
    assert_eq!(claim(claims, "/realm_access/other"), None);
    assert_eq!(claim(claims, "/nothing"), None);
}

#[test]
fn a_token_is_remembered_until_its_end() {
    let signers = Signers::new();
    let tokens = tokens(&signers);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = json!({ "alg": "EdDSA", "kid": "ed" });
    let token = signers.sign(&header, &with("exp", json!(now + 60)));
    let digest = Digest::of(token.as_bytes());
    let find = || tokens.find((token.as_bytes(), digest), &terms());
    let first = find().unwrap();
    assert!(Arc::ptr_eq(&first, &find().unwrap()));
    let ended = Principal { until: Some(UNIX_EPOCH), ..(*first).clone() };
    tokens.remembered.insert(digest, Arc::new(ended));
    assert_eq!(find().unwrap_err(), Invalid::Expired);
    assert_eq!(format!("{tokens:?}"), "Tokens(3)");
}
