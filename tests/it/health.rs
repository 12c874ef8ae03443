//! Probes, from the first moment to the last.

use serde_json::{Value, json};

use crate::support::onnx::{add_constant, slow_by_input};
use crate::support::{Repository, Server, x};

#[tokio::test]
async fn every_probe_passes_once_the_server_runs() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    for path in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(server.get(path).await.ok(), json!({ "status": "pass" }));
    }
    assert_eq!(server.get("/v2/health/live").await.ok(), json!({ "live": true }));
    assert_eq!(server.get("/v2/health/ready").await.ok(), json!({ "ready": true }));
}

#[tokio::test]
async fn verbose_probes_list_their_checks() {
    let server = Server::start(Repository::empty()).await;
    let verbose = server.get("/readyz?verbose").await.ok();
    let checks = verbose["checks"].as_array().unwrap();
    let names: Vec<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    let expected = [
        "application",
        "disk_space",
        "log",
        "memory_pressure",
        "metrics",
        "reconciled",
        "repository",
        "required_models",
    ];
    assert_eq!(names, expected);
    let fails = |check: &&Value| check["critical"] == true && check["status"] != "passing";
    assert!(checks.iter().all(|check| check["kind"] == "readiness"));
    assert_eq!(checks.iter().find(fails), None);
    assert!(server.get("/readyz?verbose=false").await.ok().get("checks").is_none());
    server.get("/readyz?verbose=loud").await.refused(400, "invalid_request", &["loud"]);
}

#[tokio::test]
async fn a_required_model_decides_readiness_and_an_optional_one_does_not() {
    let repository =
        Repository::of("needed", &add_constant(1.0)).and("extra", 1, &add_constant(2.0));
    let server = Server::start_with(repository, &[("models.required", "needed")]).await;
    let unload = async |model: &str| {
        let path = format!("/v2/repository/models/{model}/unload");
        server.post(&path, &json!({})).await
    };
    assert_eq!(unload("extra").await.status, 200);
    assert_eq!(server.get("/readyz").await.status, 200);
    assert_eq!(unload("needed").await.status, 200);
    let failing = server.get("/readyz?verbose").await;
    assert_eq!(failing.status, 503);
    let checks = failing.json()["checks"].as_array().unwrap().clone();
    let required = checks.iter().find(|check| check["name"] == "required_models").unwrap();
    assert_eq!(required["status"], "failing");
    assert!(required["last_error"].as_str().unwrap().contains("needed"));
    assert_eq!(server.get("/v2/health/ready").await.json(), json!({ "ready": false }));
    assert_eq!(server.get("/livez").await.status, 200);
    assert_eq!(server.post("/v2/repository/models/needed/load", &json!({})).await.status, 200);
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn probes_are_answered_while_every_instance_is_busy() {
    let settings = [("inference.instances", "2"), ("server.workers", "1")];
    let server = Server::start_with(Repository::of("slow", &slow_by_input()), &settings).await;
    let body = json!({ "inputs": [
        { "name": "x", "shape": [1], "datatype": "FP32", "data": [0] },
        { "name": "iterations", "shape": [1], "datatype": "INT64", "data": [400_000] },
    ] });
    let busy = async { tokio::join!(server.infer("slow", &body), server.infer("slow", &body)) };
    let probing = async {
        server.until(("slow", "1"), |report| report["in_flight"] == 2).await;
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(server.get(path).await.status, 200);
        }
        assert_eq!(server.version("slow", "1").await["in_flight"], 2, "the probes had to wait");
    };
    let ((first, second), ()) = tokio::join!(busy, probing);
    assert_eq!(first.output("y"), second.output("y"));
}

#[tokio::test]
async fn the_lifecycle_page_tells_the_whole_story() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    server.infer("add", &x(&[1, 4], &[0.0; 4])).await.ok();
    let page = server.get("/lifecycle").await.ok();
    assert_eq!(page["state"], "RUNNING");
    assert!(page["uptime_seconds"].as_f64().unwrap() > 0.0);
    let history = page["history"].as_array().unwrap();
    let states: Vec<&str> = history.iter().map(|step| step["to"].as_str().unwrap()).collect();
    assert_eq!(states, ["INITIALIZING", "READY", "STARTING", "RUNNING"]);
    let resources = page["resources"].as_array().unwrap();
    assert!(resources.iter().all(|resource| resource["state"] == "READY"), "{resources:?}");
    let models = server.get("/lifecycle/models").await.ok();
    assert_eq!(models["models"][0], server.get("/lifecycle/models/add").await.ok());
    let version = server.version("add", "1").await;
    assert_eq!((&version["requests"], &version["failures"]), (&json!(1), &json!(0)));
    assert!(version["last_access"].is_string());
}
