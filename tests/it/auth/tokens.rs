//! Tokens, over the wire.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::{Code, Request};

use super::ask;
use crate::support::grpc::{connect, refused, x};
use crate::support::onnx::add_constant;
use crate::support::{Answer, Repository, Server};

/// Whoever issues tokens.
struct Issuer {
    pair: Ed25519KeyPair,
    kid: &'static str,
}

impl Issuer {
    fn new(kid: &'static str) -> Self {
        let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { pair: Ed25519KeyPair::from_pkcs8(pair.as_ref()).unwrap(), kid }
    }

    fn set(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x }] })
    }

    fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": "EdDSA", "kid": self.kid });
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": "onward", "sub": "alice", "exp": now() + 600,
        "realm_access": { "roles": ["infer"] }, "models": ["own"],
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

/// A server that takes the tokens of an issuer, and the file with its keys.
async fn trusting(issuer: &Issuer, home: &TempDir) -> (Server, PathBuf) {
    let path = home.path().join("jwks.json");
    fs::write(&path, issuer.set().to_string()).unwrap();
    let repository = Repository::of("own", &add_constant(1.0)).and("other", 1, &add_constant(2.0));
    let settings = [
        ("auth.jwks_file", path.to_str().unwrap()),
        ("auth.jwt_issuer", "https://issuer.example"),
        ("auth.jwt_audience", "onward"),
        ("auth.jwt_roles_claim", "/realm_access/roles"),
    ];
    (Server::start_with(repository, &settings).await, path)
}

async fn get(server: &Server, path: &str, token: &str) -> Answer {
    let answer = ask(server, Some(token), (Method::GET, path), "").await;
    Answer::of(answer).await.unwrap()
}

/// Signed by the public key as if it were a secret that both have.
fn forged(issuer: &Issuer) -> String {
    let header = json!({ "alg": "HS256", "kid": issuer.kid });
    let message = format!("{}.{}", part(&header), part(&claims()));
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, issuer.pair.public_key().as_ref());
    let tag = ring::hmac::sign(&secret, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[tokio::test]
async fn tokens_are_taken_from_their_issuer_alone() {
    let (home, issuer) = (TempDir::new().unwrap(), Issuer::new("2030"));
    let (server, _) = trusting(&issuer, &home).await;
    let unsigned = format!("{}.{}.", part(&json!({ "alg": "none" })), part(&claims()));
    for (token, told) in [
        (issuer.token(&with("exp", json!(now() - 61))), "has expired"),
        (issuer.token(&with("nbf", json!(now() + 120))), "not valid yet"),
        (issuer.token(&with("aud", json!("other"))), "another audience"),
        (issuer.token(&with("iss", json!("other"))), "another issuer"),
        (Issuer::new("2030").token(&claims()), "signature is wrong"),
        (Issuer::new("2031").token(&claims()), "a key that is not known"),
        (forged(&issuer), "algorithm"),
        (unsigned, "algorithm"),
        ("a.b.c".to_owned(), "cannot be read"),
        ("onw_nothing".to_owned(), "not known"),
    ] {
        let answer = get(&server, "/v2/models/own", &token).await;
        answer.refused(401, "invalid_credential", &[told]);
        assert_eq!(answer.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    }
}

#[tokio::test]
async fn a_token_has_roles_and_models_until_its_issuer_has_other_keys() {
    let (home, issuer) = (TempDir::new().unwrap(), Issuer::new("2030"));
    let (server, path) = trusting(&issuer, &home).await;
    let token = issuer.token(&claims());
    for _ in 0..2 {
        assert_eq!(get(&server, "/v2/models/own", &token).await.status, 200);
    }
    get(&server, "/v2/models/other", &token).await.refused(403, "forbidden", &["jwt:alice"]);
    let operators = get(&server, "/lifecycle/models/own", &token).await;
    operators.refused(403, "forbidden", &["the role read"]);

    let mut client = connect(server.address).await;
    let mut infer = async |model: &str| {
        let mut request = Request::new(x(model, &[1, 4], &[0.0; 4]));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        client.model_infer(request).await
    };
    assert!(infer("own").await.is_ok());
    refused(&infer("other").await.unwrap_err(), (Code::PermissionDenied, "forbidden"), &[]);

    let other = Issuer::new("2030");
    fs::write(&path, other.set().to_string()).unwrap();
    server.process.logged(&["configuration read anew", "auth.jwks_file"]).await;
    let before = get(&server, "/v2/models/own", &token).await;
    before.refused(401, "invalid_credential", &["signature"]);
    assert_eq!(get(&server, "/v2/models/own", &other.token(&claims())).await.status, 200);
    let log = server.process.log();
    assert!(!log.contains(token.rsplit('.').next().unwrap()), "{log}");
}
