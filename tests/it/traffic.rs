//! Aliases, weights and the way back, over the wire.

use serde_json::{Value, json};

use crate::support::onnx::{Elem, add_constant, identity};
use crate::support::{Answer, Repository, Server, x};

fn versions() -> Repository {
    Repository::of("add", &add_constant(1.0))
        .and("add", 2, &add_constant(2.0))
        .with_settings("add", "version_policy: all\n")
}

async fn post(server: &Server, change: &str, body: Value) -> Answer {
    server.post(&format!("/lifecycle/models/add/{change}"), &body).await
}

async fn alias(server: &Server, name: &str, version: Value) -> Answer {
    let path = format!("/lifecycle/models/add/aliases/{name}");
    server.put(&path, &json!({ "version": version })).await
}

/// The version that answers a request to this path, with this routing key.
async fn asked(server: &Server, path: &str, key: Option<&str>) -> String {
    let request =
        server.request(reqwest::Method::POST, path).body(x(&[1, 4], &[0.0; 4]).to_string());
    let request = match key {
        Some(key) => request.header("x-onward-routing-key", key),
        None => request,
    };
    let answer = Answer::of(request.send().await.unwrap()).await.unwrap();
    assert_eq!(
        answer.output("y")[0].as_f64().unwrap().to_string(),
        answer.header("x-onward-version")
    );
    answer.header("x-onward-version").to_owned()
}

const INFER: &str = "/v2/models/add/infer";

#[tokio::test]
async fn an_alias_is_good_wherever_a_version_is() {
    let server = Server::start(versions()).await;
    let rules = alias(&server, "stable", json!("1")).await.ok();
    assert_eq!(rules, json!({ "aliases": { "stable": "1" }, "weights": {}, "shadow": null }));
    let at = |rest: &str| format!("/v2/models/add/versions/stable{rest}");
    assert_eq!(asked(&server, &at("/infer"), None).await, "1");
    assert_eq!(server.get(&at("")).await.ok()["versions"], json!(["1"]));
    server.get(&at("/ready")).await.ok();
    alias(&server, "stable", json!(2)).await.ok();
    assert_eq!(asked(&server, &at("/infer"), None).await, "2");
    post(&server, "swap", json!({ "to": "stable" })).await.refused(409, "already_current", &["2"]);
    server.delete("/lifecycle/models/add/aliases/stable").await.ok();
    server.get(&at("")).await.refused(404, "unknown_alias", &["add", "stable"]);
}

#[tokio::test]
async fn requests_are_shared_and_keys_stay() {
    let server = Server::start(versions()).await;
    let traffic = "/lifecycle/models/add/traffic";
    let rules = server.put(traffic, &json!({ "weights": { "1": 75, "2": 25 } })).await.ok();
    assert_eq!(rules["weights"], json!({ "1": 75.0, "2": 25.0 }));
    let mut on_two = 0;
    for _ in 0..200 {
        on_two += usize::from(asked(&server, INFER, None).await == "2");
    }
    assert!((48..=52).contains(&on_two), "{on_two}");
    for user in 0..10 {
        let key = format!("user-{user}");
        let first = asked(&server, INFER, Some(&key)).await;
        for _ in 0..5 {
            assert_eq!(asked(&server, INFER, Some(&key)).await, first);
        }
        let mut body = x(&[1, 4], &[0.0; 4]);
        body["parameters"] = json!({ "routing_key": key });
        assert_eq!(
            server.infer("add", &body).await.ok()["model_version"],
            first,
            "one key, two ways"
        );
    }
    assert_eq!(server.get("/lifecycle/models/add").await.ok()["traffic"], rules);
    server.delete(traffic).await.ok();
    assert_eq!(asked(&server, INFER, None).await, "2");
}

#[tokio::test]
async fn the_version_before_is_kept_and_gone_back_to() {
    let repository = versions().with_settings("add", "version_policy: { specific: [1] }\n");
    let server = Server::start_with(repository, &[("models.keep_previous", "5m")]).await;
    let swap = post(&server, "swap", json!({ "to": "2" })).await.ok();
    assert_eq!((&swap["kept"], &swap["memory"]), (&json!(true), &Value::Null));
    assert!(swap["kept_until"].is_string(), "{swap}");
    let report = server.get("/lifecycle/models/add").await.ok();
    assert_eq!(report["parked_version"], "1");
    let back =
        server.send(reqwest::Method::POST, "/lifecycle/models/add/rollback", vec![]).await.ok();
    assert_eq!((&back["from"], &back["to"]), (&json!("2"), &json!("1")));
    assert!(back["load_seconds"].as_f64().unwrap() < 0.01, "{back}");
    assert_eq!(asked(&server, INFER, None).await, "1");
    let report = server.get("/lifecycle/models/add").await.ok();
    let causes: Vec<&Value> =
        report["history"].as_array().unwrap().iter().map(|tenure| &tenure["cause"]).collect();
    assert_eq!(causes, ["load", "swap", "rollback"]);
    let parked = post(&server, "unload", json!({ "version": 2 })).await.ok();
    assert_eq!((&parked["versions"], &parked["drained"]), (&json!(["2"]), &json!(true)));
    assert!(parked["memory"]["before_bytes"].as_u64().unwrap() > 1 << 20, "{parked}");
}

#[tokio::test]
async fn a_version_that_callers_cannot_call_is_refused_with_what_differs() {
    let repository = versions().and("add", 3, &identity(Elem::Int64, &[]));
    let repository = repository.with_settings("add", "version_policy: { specific: [1] }\n");
    let server = Server::start(repository).await;
    let refused = post(&server, "swap", json!({ "to": 3 })).await;
    refused.refused(
        409,
        "incompatible",
        &["'x' was FP32 [-1, 4] and is INT64 []", "allow_incompatible"],
    );
    assert_eq!(server.version("add", "3").await["state"], "FAILED");
    assert_eq!(asked(&server, INFER, None).await, "1");
    let allowed = json!({ "to": 3, "allow_incompatible": true });
    assert_eq!(post(&server, "swap", allowed).await.ok()["to"], "3");
}

#[tokio::test]
async fn rules_that_cannot_be_are_refused_and_change_nothing() {
    let server = Server::start(versions()).await;
    let traffic = "/lifecycle/models/add/traffic";
    alias(&server, "stable", json!("1")).await.ok();
    server.put(traffic, &json!({ "weights": { "stable": 50, "2": 50 } })).await.ok();
    let before = server.get("/lifecycle/models/add").await.ok()["traffic"].clone();
    for (weights, status, code, told) in [
        (json!({ "1": 50, "2": 49 }), 400, "invalid_request", "weights sum to 100, these to 99"),
        (json!({}), 400, "invalid_request", "these to 0"),
        (json!({ "1": -1, "2": 101 }), 400, "invalid_request", "weights.1"),
        (json!({ "1": 0.001, "2": 99.999 }), 400, "invalid_request", "two decimals"),
        (json!({ "1": "50" }), 400, "invalid_request", "weights"),
        (json!({ "1": 50, "stable": 50 }), 400, "invalid_request", "version 1 is weighted twice"),
        (json!({ "1": 50, "9": 50 }), 409, "version_not_loaded", "version 9 of model 'add'"),
        (json!({ "1": 50, "beta": 50 }), 404, "unknown_alias", "beta"),
        (json!({ "1": 50, "a b": 50 }), 400, "invalid_name", "a b"),
    ] {
        let refused = server.put(traffic, &json!({ "weights": weights })).await;
        refused.refused(status, code, &[told]);
    }
    alias(&server, "canary", json!("9")).await.refused(
        409,
        "version_not_loaded",
        &["load it first"],
    );
    alias(&server, "canary", json!("x")).await.refused(404, "unknown_alias", &["x"]);
    alias(&server, "7up", json!("1")).await.refused(400, "invalid_name", &["alias"]);
    alias(&server, &"x".repeat(65), json!("1")).await.refused(400, "invalid_name", &["64"]);
    let unknown = server.delete("/lifecycle/models/add/aliases/canary").await;
    unknown.refused(404, "unknown_alias", &["canary"]);
    for (version, by) in [(1, "alias 'stable'"), (2, "requests that name no version")] {
        let unload = post(&server, "unload", json!({ "version": version })).await;
        unload.refused(409, "version_in_use", &[by, "the traffic split"]);
    }
    post(&server, "unload", json!({ "version": 9 })).await.refused(
        409,
        "version_not_loaded",
        &["9"],
    );
    post(&server, "rollback", json!({})).await.refused(409, "nothing_before", &["add"]);
    assert_eq!(server.get("/lifecycle/models/add").await.ok()["traffic"], before);
}
