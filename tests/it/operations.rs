//! Changes as operations: watched, cancelled, begun once, and only on what the caller knows.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::onnx::{add_constant, mlp};
use crate::support::{Answer, Repository, Server};

fn versions() -> Repository {
    Repository::of("add", &add_constant(1.0))
        .and("add", 2, &add_constant(2.0))
        .with_settings("add", "version_policy: { specific: [1] }\n")
}

const SWAP: &str = "/lifecycle/models/add/swap";

/// Asks for a swap to version 2 with these headers.
async fn swap(server: &Server, headers: &[(&'static str, &str)]) -> Answer {
    let request = server.request(Method::POST, SWAP).body(json!({ "to": "2" }).to_string());
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Answer::of(request.send().await.unwrap()).await.unwrap()
}

/// Asks until the operation has ended.
async fn ended(server: &Server, path: &str) -> Value {
    loop {
        let operation = server.get(path).await.ok();
        if operation["state"] != "running" {
            return operation;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_change_that_is_not_waited_for_is_an_operation_to_watch() {
    let server = Server::start(versions()).await;
    let path = format!("{SWAP}?wait=0s");
    let accepted = server.post(&path, &json!({ "to": "2" })).await;
    assert_eq!(accepted.status, 202, "{}", accepted.json());
    let location = accepted.header("location").to_owned();
    assert_eq!(
        location,
        format!("/lifecycle/operations/{}", accepted.json()["id"].as_str().unwrap())
    );
    let operation = ended(&server, &location).await;
    assert_eq!(
        (&operation["state"], &operation["operation"]),
        (&json!("succeeded"), &json!("swap"))
    );
    assert_eq!((&operation["result"]["to"], &operation["error"]), (&json!("2"), &Value::Null));
    let steps: Vec<&Value> =
        operation["steps"].as_array().unwrap().iter().map(|step| &step["what"]).collect();
    assert_eq!(steps[..5], ["FETCHING", "VERIFYING", "LOADING", "WARMING", "FLIP"]);
    server.delete(&location).await.refused(409, "operation_committed", &["has ended"]);
    let all = server.get("/lifecycle/operations").await.ok();
    let kinds: Vec<&Value> = all["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|operation| &operation["operation"])
        .collect();
    assert_eq!(kinds, ["load", "swap"]);
    let told = server.get("/lifecycle/events?kind=operation").await.ok();
    let states: Vec<&Value> =
        told["events"].as_array().unwrap().iter().map(|event| &event["data"]["state"]).collect();
    assert_eq!(states, ["begun", "succeeded", "begun", "succeeded"]);
}

#[tokio::test]
async fn a_failure_is_told_to_who_waits_and_to_who_looks() {
    let server = Server::start(versions()).await;
    server.repository.put("add", 3, b"broken");
    let refused = server.post(SWAP, &json!({ "to": 3 })).await;
    refused.refused(400, "load_failed", &["add/3"]);
    let accepted = server.post(&format!("{SWAP}?wait=0s"), &json!({ "to": 3 })).await;
    let operation = ended(&server, accepted.header("location")).await;
    assert_eq!((&operation["state"], &operation["result"]), (&json!("failed"), &Value::Null));
    assert_eq!(operation["error"]["code"], "load_failed");
    assert_eq!(operation["error"]["error"], refused.json()["error"]);
}

#[tokio::test]
async fn a_load_can_be_cancelled() {
    // Takes long enough to be met under way: tens of megabytes of weights.
    let repository = versions().and("large", 1, &mlp(2048, 2048, 2048));
    let server = Server::start_with(repository, &[("models.load_threads", "1")]).await;
    let settings = "instances: 8\n";
    server.repository.put("large", 2, &mlp(2048, 4096, 2048));
    server.repository.settings("large", settings);
    let path = "/lifecycle/models/large/load?wait=0s";
    let accepted = server.send(Method::POST, path, vec![]).await;
    let location = accepted.header("location").to_owned();
    let cancelled = server.delete(&location).await;
    assert_eq!(cancelled.status, 202, "{}", cancelled.json());
    let operation = ended(&server, &location).await;
    assert_eq!(operation["state"], "cancelled", "{operation}");
    assert_eq!(operation["error"]["code"], "operation_cancelled");
    assert_eq!(server.version("large", "1").await["state"], "READY");
    server.delete("/lifecycle/operations/none").await.refused(404, "unknown_operation", &["none"]);
}

#[tokio::test]
async fn the_same_key_is_one_change() {
    let server = Server::start(versions()).await;
    let first = swap(&server, &[("idempotency-key", "a")]).await.ok();
    assert_eq!(first, swap(&server, &[("idempotency-key", "a")]).await.ok());
    swap(&server, &[]).await.refused(409, "already_current", &[]);
    let other = server.request(Method::POST, SWAP).header("idempotency-key", "a");
    let other = other.body(json!({ "to": "1" }).to_string()).send().await.unwrap();
    Answer::of(other).await.unwrap().refused(409, "key_reused", &["'a'"]);
    swap(&server, &[("idempotency-key", "")]).await.refused(
        400,
        "invalid_request",
        &["Idempotency-Key"],
    );
}

#[tokio::test]
async fn a_change_of_what_has_changed_is_refused() {
    let server = Server::start(versions()).await;
    let tag = server.get("/lifecycle/models/add").await.header("etag").to_owned();
    for stale in ["\"0.0\"", "nonsense", "\"\""] {
        let refused = swap(&server, &[("if-match", stale)]).await;
        refused.refused(412, "generation_mismatch", &[]);
    }
    swap(&server, &[("if-match", &tag)]).await.ok();
    let again = swap(&server, &[("if-match", &tag)]).await;
    again.refused(412, "generation_mismatch", &["generation"]);
    swap(&server, &[("if-match", "*")]).await.refused(409, "already_current", &[]);
}

#[tokio::test]
async fn what_a_change_says_besides_is_checked() {
    let server = Server::start(versions()).await;
    for query in ["?wait=soon", "?wait=-1s", "?wiat=1s"] {
        let refused = server.post(&format!("{SWAP}{query}"), &json!({ "to": "2" })).await;
        refused.refused(400, "invalid_request", &["wait"]);
    }
}
