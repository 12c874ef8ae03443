//! Tokens, over the wire.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::{Code, Request};

use super::{Keys, Source, Who, ask};
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

/// What a server has to be told to take tokens that are signed by a key of this file.
fn terms(keys: &Path) -> [(&'static str, &str); 4] {
    [
        ("auth.jwks_file", keys.to_str().unwrap()),
        ("auth.jwt_issuer", "https://issuer.example"),
        ("auth.jwt_audience", "onward"),
        ("auth.jwt_roles_claim", "/realm_access/roles"),
    ]
}

impl Keys {
    /// Tokens in the place of keys.
    pub(super) fn tokens() -> Self {
        let (home, issuer) = (TempDir::new().unwrap(), Issuer::new("2030"));
        let path = home.path().join("jwks.json");
        fs::write(&path, issuer.set().to_string()).unwrap();
        let token = |who: Who| {
            let mut claims = with("sub", json!(format!("{who:?}")));
            claims["realm_access"]["roles"] = json!([who.role()?.name()]);
            claims["models"] = json!(who.models());
            if !who.is_scoped() {
                claims.as_object_mut()?.remove("models");
            }
            Some((who, issuer.token(&claims)))
        };
        let keys = Who::ALL.into_iter().filter_map(token).collect();
        let settings = terms(&path).map(|(name, value)| (name, value.to_owned())).into();
        Self { keys, source: Source { home, settings } }
    }
}

/// A server that takes the tokens of an issuer, and the file with its keys.
async fn trusting(issuer: &Issuer, home: &TempDir) -> (Server, PathBuf) {
    let path = home.path().join("jwks.json");
    fs::write(&path, issuer.set().to_string()).unwrap();
    let repository = Repository::of("own", &add_constant(1.0)).and("other", 1, &add_constant(2.0));
    (Server::start_with(repository, &terms(&path)).await, path)
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

/// The line of the audit that says so of a request without a caller.
async fn denied(server: &Server, (path, reason): (&str, &str)) -> Value {
    let texts = ["\"onward::audit\"", "\"denied\"", path, reason];
    let line: Value = serde_json::from_str(&server.process.logged(&texts).await).unwrap();
    assert_eq!((&line["message"], &line["who"]), (&json!("denied"), &json!("unknown")), "{line}");
    assert!(line["reason"].as_str().unwrap().contains(reason), "{line}");
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    line
}

#[tokio::test]
async fn who_comes_with_a_token_that_is_none_is_written_down() {
    let (home, issuer) = (TempDir::new().unwrap(), Issuer::new("2030"));
    let (server, _) = trusting(&issuer, &home).await;
    let expired = issuer.token(&with("exp", json!(now() - 61)));
    let cut = expired.rsplit_once('.').unwrap().0.to_owned();
    for (token, model, reason) in [
        (&expired, "own", "the credential has expired"),
        (&"a.b.c".to_owned(), "other", "the credential cannot be read"),
        (&cut, "cut", "the credential is not known"),
    ] {
        let path = format!("/v2/models/{model}");
        let answer = get(&server, &path, token).await;
        answer.refused(401, "invalid_credential", &[reason]);
        let told = denied(&server, (&path, reason)).await;
        let expected = json!([401, "GET", path, model, answer.header("x-request-id")]);
        let told = ["status", "method", "path", "model", "request_id"].map(|name| &told[name]);
        assert_eq!(json!(told), expected);
    }
    let mut request = Request::new(x("own", &[1, 4], &[0.0; 4]));
    request.metadata_mut().insert("authorization", format!("Bearer {expired}").parse().unwrap());
    let status = connect(server.address).await.model_infer(request).await.unwrap_err();
    refused(&status, (Code::Unauthenticated, "invalid_credential"), &["has expired"]);
    let told = denied(&server, ("/inference.GRPCInferenceService/ModelInfer", "expired")).await;
    assert_eq!((&told["status"], &told["method"]), (&json!(16), &json!("gRPC")), "{told}");
    let log = server.process.log();
    assert!(!log.contains(expired.rsplit('.').next().unwrap()), "{log}");
}
