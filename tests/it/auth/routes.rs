//! Every route of REST with everybody who may ask.

use onward::auth::{Deed, Reach, Rule};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Keys, Verdict, Who, ask, guarded};
use crate::support::{Answer, Server, contract, x};

/// A path of the table with something in the place of each parameter.
fn filled(path: &str, model: &str) -> String {
    let values = [
        ("{model}", model),
        ("{version}", "1"),
        ("{label}", "stable"),
        ("{alias}", "stable"),
        ("{kind}", "liveness"),
        ("{asset}", "start.js"),
    ];
    let path = values.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
    // Others name nothing that there is.
    path.split('/')
        .map(|part| if part.starts_with('{') { "x" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

/// What a handler is not to do is sent what it cannot read.
async fn verdict(
    server: &Server,
    keys: &Keys,
    who: Who,
    (method, path): (Method, &str),
) -> Verdict {
    let response = ask(server, keys.of(who), (method.clone(), path), "{").await;
    let (status, code) = match response.status().as_u16() {
        401 => (Verdict::Unknown, "unauthenticated"),
        403 => (Verdict::Forbidden, "forbidden"),
        _ => return Verdict::Allowed,
    };
    let answer = Answer::of(response).await.unwrap();
    contract::check(&method, path, &answer);
    answer.refused(answer.status, code, &[]);
    let challenge = answer.header("www-authenticate");
    assert!(challenge.starts_with("Bearer"), "{challenge}");
    status
}

/// Asks for every route with every credential.
async fn every_route_is_guarded(keys: &Keys) {
    let server = guarded(keys, &[("events.history", "16")]).await;
    // What ends the server, or its readiness, is left for the last.
    let mut rules = onward::http::rules();
    rules.sort_by_key(|(_, path, _)| path.ends_with("/shutdown"));
    for (method, path, rule) in rules {
        let models: &[&str] =
            if path.contains("{model}") { &["own", "other", "none"] } else { &[""] };
        for (model, who) in models.iter().flat_map(|model| Who::ALL.map(|who| (*model, who))) {
            let asked = filled(path, model);
            let got = verdict(&server, keys, who, (method.clone(), &asked)).await;
            let expected = who.expected(rule, (!model.is_empty()).then_some(model));
            assert_eq!(got, expected, "{method} {asked} by {who:?}");
        }
    }
}

#[tokio::test]
async fn every_route_lets_in_whom_its_rule_says() {
    every_route_is_guarded(&Keys::new()).await;
}

#[tokio::test]
async fn every_route_takes_tokens_as_it_takes_keys() {
    every_route_is_guarded(&Keys::tokens()).await;
}

/// The routes with another rule than their method and their path tell, and why.
const EXCEPTIONS: [(&str, &str, Rule, &str); 7] = [
    ("GET", "/livez", Rule::Open, "a probe has no credential"),
    ("GET", "/readyz", Rule::Open, "a probe has no credential"),
    ("GET", "/startupz", Rule::Open, "a probe has no credential"),
    ("GET", "/v2/health/live", Rule::Open, "a probe has no credential"),
    ("GET", "/v2/health/ready", Rule::Open, "a probe has no credential"),
    (
        "POST",
        "/v2/repository/index",
        Rule::Needs(Deed::Describe, Reach::Visible),
        "the protocol lists models by a POST, which changes nothing",
    ),
    (
        "DELETE",
        "/lifecycle/operations/{operation}",
        Rule::Needs(Deed::Manage, Reach::Visible),
        "the operation names the model, which its handler looks at",
    ),
];

/// Whether a rule is what the method and the path tell, of which the router's table knows nothing: what is no
/// GET asks a model or changes something, a GET only reads, what is of operators alone is not for whoever
/// infers, and whose path has a model is of that one.
fn is_usual(method: &Method, path: &str, rule: Rule) -> bool {
    let Rule::Needs(deed, reach) = rule else { return false };
    let is_read = *method == Method::GET;
    let deeds: &[Deed] = match path {
        _ if is_read && (path.starts_with("/v1/") || path.starts_with("/v2")) => {
            &[Deed::Describe, Deed::Read]
        }
        _ if is_read => &[Deed::Read],
        _ if path.ends_with("/infer") || path.ends_with(":predict") => &[Deed::Infer],
        _ => &[Deed::Manage],
    };
    let reaches: &[Reach] = match (path.contains("{model}"), is_read) {
        (true, _) => &[Reach::Model],
        (false, true) => &[Reach::Visible, Reach::Server],
        (false, false) => &[Reach::Server],
    };
    deeds.contains(&deed) && reaches.contains(&reach)
}

#[test]
fn rules_are_what_methods_and_paths_tell() {
    let mut exceptions = 0;
    for (method, path, rule) in onward::http::rules() {
        let is_it = |(verb, place, ..): &&(&str, &str, Rule, &str)| {
            (method.as_str(), path) == (*verb, *place)
        };
        let usual = is_usual(&method, path, rule);
        match EXCEPTIONS.iter().find(is_it) {
            None => assert!(usual, "{method} {path} has {rule:?}"),
            Some((.., expected, why)) => {
                assert_eq!((rule, usual), (*expected, false), "{method} {path}: {why}");
                exceptions += 1;
            }
        }
    }
    assert_eq!(exceptions, EXCEPTIONS.len(), "each is a route");
}

#[test]
fn the_document_says_which_routes_are_open() {
    for (method, path, rule) in onward::http::rules() {
        let operation = &contract::DOCUMENT["paths"][path][method.as_str().to_lowercase()];
        let is_open = operation["security"] == json!([]);
        assert_eq!(is_open, rule == Rule::Open, "{method} {path}");
        let refusals = ["401", "403"].map(|status| operation["responses"].get(status).is_some());
        assert!(is_open || refusals == [true, true], "{method} {path}");
    }
}

#[tokio::test]
async fn names_are_read_as_handlers_read_them() {
    let keys = Keys::new();
    let server = guarded(&keys, &[]).await;
    let body = x(&[1, 4], &[0.0; 4]).to_string();
    let infer = async |path: &str| {
        ask(&server, keys.of(Who::OwnInfer), (Method::POST, path), &body).await.status().as_u16()
    };
    for (path, expected) in [
        ("/v2/models/own/infer", 200),
        ("/v2/models/%6fwn/infer", 200),
        ("/v2/models/own/versions/1/infer", 200),
        ("/v2/models/other/infer", 403),
        ("/v2/models/%6fther/infer", 403),
        ("/v2/models/own%2f..%2fother/infer", 403),
        ("/v2/models/own/../other/infer", 403),
        ("/v2/models/other/versions/1/infer", 403),
        ("/v1/models/other:predict", 403),
        ("/v1/models/other%3Apredict", 403),
        ("/v1/models/own:predict:predict", 403),
    ] {
        assert_eq!(infer(path).await, expected, "{path}");
    }
    // A model may be called so.
    let get =
        ask(&server, keys.of(Who::OwnInfer), (Method::GET, "/v1/models/own:predict"), "").await;
    assert_eq!(get.status(), 403);
}

#[tokio::test]
async fn a_request_is_refused_before_its_body_comes() {
    let keys = Keys::new();
    let server = guarded(&keys, &[]).await;
    for path in ["/v2/models/own/infer", "/v1/models/own:predict", "/lifecycle/drain"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n");
        let mut connection = TcpStream::connect(server.address).await.unwrap();
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.unwrap();
        Answer::parse(&answer).refused(401, "unauthenticated", &[]);
    }
}

#[tokio::test]
async fn other_spellings_of_a_route_have_its_rule() {
    let keys = Keys::new();
    let server = guarded(&keys, &[]).await;
    for (method, path) in [(Method::GET, "/v2/"), (Method::HEAD, "/v2"), (Method::HEAD, "/metrics")]
    {
        for (who, expected) in [(Who::Nobody, 401), (Who::Read, 200)] {
            let answer = ask(&server, keys.of(who), (method.clone(), path), "").await;
            assert_eq!(answer.status().as_u16(), expected, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_refusal_does_not_tell_whether_a_model_exists() {
    let keys = Keys::new();
    let server = guarded(&keys, &[]).await;
    for who in [Who::Nobody, Who::OwnInfer, Who::Read] {
        let mut told = Vec::new();
        for model in ["other", "none"] {
            let path = format!("/v2/models/{model}/infer");
            let answer = ask(&server, keys.of(who), (Method::POST, &path), "{}").await;
            let answer = Answer::of(answer).await.unwrap();
            let mut body = answer.json();
            body["request_id"].take();
            told.push((answer.status, body));
        }
        assert_eq!(told[0], told[1]);
    }
}

#[tokio::test]
async fn lists_have_what_the_caller_may_see() {
    let keys = Keys::new();
    let server = guarded(&keys, &[]).await;
    let key = keys.of(Who::Manage);
    let loaded = ask(&server, key, (Method::POST, "/lifecycle/models/other/unload"), "").await;
    assert_eq!(loaded.status(), 200);
    let loaded = ask(&server, key, (Method::POST, "/lifecycle/models/other/load"), "").await;
    assert_eq!(loaded.status(), 200);
    let operations = ask(&server, key, (Method::GET, "/lifecycle/operations"), "").await;
    let operations: Value = operations.json().await.unwrap();
    let id = operations["operations"][0]["id"].as_str().unwrap().to_owned();
    for (method, path) in [
        (Method::GET, "/v2/models"),
        (Method::GET, "/v2/models/stats"),
        (Method::POST, "/v2/repository/index"),
        (Method::GET, "/lifecycle/models"),
        (Method::GET, "/lifecycle/operations"),
    ] {
        for (who, sees_other) in [(Who::Manage, true), (Who::OwnManage, false)] {
            let answer = ask(&server, keys.of(who), (method.clone(), path), "").await;
            assert_eq!(answer.status(), 200, "{path}");
            let text = answer.text().await.unwrap();
            assert_eq!(text.contains("other"), sees_other, "{path} by {who:?}: {text}");
            assert!(sees_other || text.contains("own") || path.ends_with("operations"), "{text}");
        }
    }
    let path = format!("/lifecycle/operations/{id}");
    for (who, expected) in [(Who::Manage, 200), (Who::OwnManage, 404)] {
        let answer = ask(&server, keys.of(who), (Method::GET, &path), "").await;
        assert_eq!(answer.status().as_u16(), expected, "{who:?}");
    }
    // It has ended, which is told to those alone who may see it.
    for (who, expected) in [(Who::Manage, 409), (Who::OwnManage, 404)] {
        let answer = ask(&server, keys.of(who), (Method::DELETE, &path), "").await;
        assert_eq!(answer.status().as_u16(), expected, "{who:?}");
    }
}

#[tokio::test]
async fn a_load_of_own_files_needs_a_credential_for_all_models() {
    let keys = Keys::new();
    let server = guarded(&keys, &[]).await;
    let steps = json!([{ "model_name": "other", "model_version": -1 }]);
    let config = json!({ "ensemble_scheduling": { "step": steps } }).to_string();
    let body = json!({ "parameters": { "config": config } }).to_string();
    let load = async |who| {
        let place = (Method::POST, "/v2/repository/models/own-2/load");
        ask(&server, keys.of(who), place, &body).await.status().as_u16()
    };
    assert_eq!(load(Who::OwnManage).await, 403);
    assert_ne!(load(Who::Manage).await, 403);
}

#[tokio::test]
async fn a_credential_is_presented_in_one_way() {
    let keys = Keys::new();
    let server = guarded(&keys, &[("auth.anonymous_roles", "read")]).await;
    let key = keys.of(Who::Infer).unwrap().to_owned();
    let get = async |headers: &[(&str, &str)]| {
        let request = server.request(Method::GET, "/v2/models/own");
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        Answer::of(request.send().await.unwrap()).await.unwrap()
    };
    let bearer = format!("Bearer {key}");
    for headers in [
        &[][..],
        &[("authorization", &*bearer)],
        &[("x-api-key", &*key)],
        &[("authorization", "Basic eDp5"), ("x-api-key", &*key)],
    ] {
        assert_eq!(get(headers).await.status, 200, "{headers:?}");
    }
    let wrong = format!("{bearer}x");
    for headers in [
        &[("authorization", "Bearer")][..],
        &[("authorization", &*wrong)],
        &[("authorization", &*bearer), ("x-api-key", &*key)],
        &[("x-api-key", &*key), ("x-api-key", &*key)],
        &[("x-api-key", "")],
    ] {
        let answer = get(headers).await;
        answer.refused(401, "invalid_credential", &[]);
        assert_eq!(answer.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    }
    // What everybody may is not everything.
    let infer = ask(&server, None, (Method::POST, "/v2/models/own/infer"), "{}").await;
    assert_eq!(infer.status(), 401);
}
