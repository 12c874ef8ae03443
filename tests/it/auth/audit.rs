//! What is written down, and what is not.

use reqwest::Method;
use serde_json::{Value, json};
use tonic::{Code, Request};

use super::{Keys, Who, ask, guarded};
use crate::support::grpc::proto::{
    LogSettingsRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
    SystemSharedMemoryStatusRequest, TraceSettingRequest,
};
use crate::support::grpc::{connect, x as grpc_x};
use crate::support::onnx::add_constant;
use crate::support::{Repository, Server};

/// The fields of a line of the audit that has all of these.
async fn line(server: &Server, texts: &[&str]) -> Value {
    let texts: Vec<&str> = texts.iter().copied().chain(["\"onward::audit\""]).collect();
    let line: Value = serde_json::from_str(&server.process.logged(&texts).await).unwrap();
    line
}

/// Where the formatter puts fields.
fn field<'a>(line: &'a Value, name: &str) -> &'a Value {
    line.get(name).or_else(|| line["fields"].get(name)).unwrap_or(&Value::Null)
}

fn unload_other(key: Option<&str>) -> Request<RepositoryModelUnloadRequest> {
    let mut request = Request::new(RepositoryModelUnloadRequest {
        model_name: "other".to_owned(),
        ..RepositoryModelUnloadRequest::default()
    });
    let bearer = format!("Bearer {}", key.unwrap()).parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

async fn over_grpc(server: &Server, keys: &Keys) {
    let mut client = connect(server.address).await;
    let of_others = client.repository_model_unload(unload_other(keys.of(Who::OwnManage))).await;
    assert_eq!(of_others.unwrap_err().code(), Code::PermissionDenied);
    let told = line(server, &["\"denied\"", "RepositoryModelUnload"]).await;
    assert_eq!(
        (field(&told, "who"), field(&told, "model")),
        (&json!("key:OwnManage"), &json!("other"))
    );
    assert_eq!(field(&told, "status"), &json!(7));
    let mut infer = Request::new(grpc_x("own", &[1, 4], &[0.0; 4]));
    infer.metadata_mut().insert("x-api-key", "onw_wrong".parse().unwrap());
    let denied = client.model_infer(infer).await.unwrap_err();
    let told = line(server, &["\"denied\"", "ModelInfer"]).await;
    assert_eq!(
        field(&told, "request_id"),
        denied.metadata().get("x-request-id").unwrap().to_str().unwrap()
    );
    client.repository_model_unload(unload_other(keys.of(Who::Manage))).await.unwrap();
    let told = line(server, &["\"change\"", "RepositoryModelUnload"]).await;
    assert_eq!((field(&told, "method"), field(&told, "model")), (&json!("gRPC"), &json!("other")));
    assert_eq!(field(&told, "status"), &json!(0));
}

#[tokio::test]
async fn changes_and_refusals_are_written_down() {
    let keys = Keys::new();
    let server = guarded(&keys, &[]).await;
    let manage = keys.of(Who::Manage);
    let unload = (Method::POST, "/lifecycle/models/own/unload");
    assert_eq!(ask(&server, manage, unload.clone(), "").await.status(), 200);
    let told = line(&server, &["\"change\"", "own/unload"]).await;
    for (name, expected) in [
        ("who", json!("key:Manage")),
        ("method", json!("POST")),
        ("path", json!("/lifecycle/models/own/unload")),
        ("model", json!("own")),
        ("status", json!(200)),
    ] {
        assert_eq!(field(&told, name), &expected, "{told}");
    }
    assert!(field(&told, "peer").as_str().unwrap().starts_with("127.0.0.1:"), "{told}");
    assert!(field(&told, "request_id").is_string(), "{told}");

    assert_eq!(ask(&server, keys.of(Who::Infer), unload, "").await.status(), 403);
    let told = line(&server, &["\"denied\"", "key:Infer"]).await;
    assert_eq!((field(&told, "status"), field(&told, "model")), (&json!(403), &json!("own")));
    let wrong = ask(&server, Some("onw_wrong"), (Method::POST, "/v2/models/own/infer"), "").await;
    assert_eq!(wrong.status(), 401);
    let told = line(&server, &["\"denied\"", "own/infer"]).await;
    assert_eq!((field(&told, "status"), field(&told, "who")), (&json!(401), &json!("unknown")));

    over_grpc(&server, &keys).await;
    let metrics = ask(&server, manage, (Method::GET, "/metrics"), "").await.text().await.unwrap();
    for (reason, count) in [("unauthenticated", 2), ("forbidden", 2), ("rate_limited", 0)] {
        let line = format!("onward_requests_refused_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
    let events = ask(&server, manage, (Method::GET, "/lifecycle/events?kind=audit"), "").await;
    let events: Value = events.json().await.unwrap();
    let whos: Vec<&Value> =
        events["events"].as_array().unwrap().iter().map(|event| &event["data"]["who"]).collect();
    assert_eq!(
        whos,
        ["key:Manage", "key:Infer", "unknown", "key:OwnManage", "unknown", "key:Manage"]
    );
}

#[tokio::test]
async fn changes_are_written_down_where_nobody_is_asked_for_a_credential() {
    let server = Server::start(Repository::of("own", &add_constant(1.0))).await;
    let unload = server.request(Method::POST, "/lifecycle/models/own/unload");
    let unloaded = unload.header("x-request-id", "mine-1").send().await.unwrap();
    assert_eq!(unloaded.status(), 200);
    let told = line(&server, &["\"change\"", "own/unload"]).await;
    for (name, expected) in [
        ("who", json!("anonymous")),
        ("model", json!("own")),
        ("status", json!(200)),
        ("request_id", json!("mine-1")),
    ] {
        assert_eq!(field(&told, name), &expected, "{told}");
    }

    let mut client = connect(server.address).await;
    let mut load = Request::new(RepositoryModelLoadRequest {
        model_name: "own".to_owned(),
        ..RepositoryModelLoadRequest::default()
    });
    load.metadata_mut().insert("x-request-id", "mine-2".parse().unwrap());
    client.repository_model_load(load).await.unwrap();
    let told = line(&server, &["\"change\"", "RepositoryModelLoad"]).await;
    let named = (field(&told, "who"), field(&told, "model"), field(&told, "request_id"));
    assert_eq!(named, (&json!("anonymous"), &json!("own"), &json!("mine-2")), "{told}");

    assert_eq!(server.get("/v2/models/own").await.status, 200);
    client.log_settings(LogSettingsRequest::default()).await.unwrap();
    client.trace_setting(TraceSettingRequest::default()).await.unwrap();
    client.system_shared_memory_status(SystemSharedMemoryStatusRequest::default()).await.ok();
    let events = server.get("/lifecycle/events?kind=audit").await.ok();
    let ids: Vec<&Value> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| &event["data"]["request_id"])
        .collect();
    assert_eq!(ids, ["mine-1", "mine-2"], "what changes nothing is not written down");
}

#[tokio::test]
async fn a_flood_of_refusals_leaves_room_for_other_events() {
    let keys = Keys::new();
    let server = guarded(&keys, &[("events.history", "64")]).await;
    for _ in 0..100 {
        assert_eq!(ask(&server, None, (Method::GET, "/v2"), "").await.status(), 401);
    }
    let place = (Method::GET, "/lifecycle/events?kind=audit&limit=1000");
    let events: Value = ask(&server, keys.of(Who::Read), place, "").await.json().await.unwrap();
    assert_eq!(events["events"].as_array().unwrap().len(), 10);
    assert_eq!(ask(&server, None, (Method::GET, "/lifecycle"), "").await.status(), 401);
    line(&server, &["\"denied\"", "\"/lifecycle\""]).await;
    let lines = server.process.log();
    assert_eq!(lines.lines().filter(|line| line.contains("\"denied\"")).count(), 101);
}

#[tokio::test]
async fn no_credential_is_shown_anywhere() {
    let keys = Keys::new();
    let settings = [("telemetry.log_level", "trace")];
    let server = guarded(&keys, &settings).await;
    let mut shown = String::new();
    for who in Who::ALL {
        for path in ["/lifecycle/config", "/lifecycle/events", "/metrics", "/v2/models/own"] {
            shown +=
                &ask(&server, keys.of(who), (Method::GET, path), "").await.text().await.unwrap();
        }
        ask(&server, keys.of(who), (Method::POST, "/lifecycle/models/none/load"), "").await;
    }
    let wrong = "onw_a_secret_of_another_server";
    let answer = ask(&server, Some(wrong), (Method::GET, "/v2"), "").await;
    shown += &answer.text().await.unwrap();
    line(&server, &["\"denied\"", "the credential is not known"]).await;
    shown += &server.process.log();
    assert!(shown.contains("auth.keys_file") && shown.contains("key:Manage"));
    let secrets = keys.keys.iter().map(|(_, key)| key.as_str()).chain([wrong]);
    for secret in secrets {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}
