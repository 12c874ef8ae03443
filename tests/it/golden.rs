//! Golden samples: what does not answer them never serves.

use serde_json::{Value, json};

use crate::support::onnx::add_constant;
use crate::support::{Repository, Server, x};

fn versions() -> Repository {
    Repository::of("add", &add_constant(1.0))
        .and("add", 2, &add_constant(2.0))
        .with_settings("add", "version_policy: { specific: [1] }\n")
}

/// A sample of one row of zeros, to be answered by `y` in each column.
fn sample(y: f64, tolerance: &Value) -> Vec<u8> {
    let tensor = |name: &str, data: [f64; 4]| json!({ "name": name, "shape": [1, 4], "datatype": "FP32", "data": data });
    let sample = json!({
        "inputs": [tensor("x", [0.0; 4])], "outputs": [tensor("y", [y; 4])], "tolerance": tolerance,
    });
    sample.to_string().into_bytes()
}

async fn swap(server: &Server, body: Value) -> crate::support::Answer {
    server.post("/lifecycle/models/add/swap", &body).await
}

#[tokio::test]
async fn a_version_that_answers_otherwise_does_not_take_over() {
    let server = Server::start(versions()).await;
    server.repository.write("add/golden/2/zeros.json", &sample(3.0, &json!({})));
    let told = ["zeros.json", "output 'y'", "4 of 4 elements differ", "expected 3, got 2"];
    swap(&server, json!({ "to": 2 })).await.refused(409, "verification_failed", &told);
    let report = server.version("add", "2").await;
    assert_eq!(report["state"], "FAILED");
    assert!(report["reason"].as_str().unwrap().contains("zeros.json"), "{report}");
    assert_eq!(server.infer("add", &x(&[1, 4], &[0.0; 4])).await.ok()["model_version"], "1");
    // Said by who knows better.
    swap(&server, json!({ "to": 2, "verify": false })).await.ok();
    let verify = server.post("/lifecycle/models/add/verify", &json!({})).await;
    verify.refused(409, "verification_failed", &["expected 3, got 2"]);
}

#[tokio::test]
async fn samples_are_for_all_versions_or_for_one() {
    let repository = versions();
    repository.write("add/golden/near.json", &sample(1.5, &json!({ "absolute": 0.6 })));
    repository.write("add/golden/1/exact.json", &sample(1.0, &json!({})));
    repository.write("add/golden/README.md", b"not a sample");
    let server = Server::start(repository).await;
    let verified = server.post("/lifecycle/models/add/verify", &json!({})).await.ok();
    assert_eq!(verified["samples"], json!(["exact.json", "near.json"]));
    swap(&server, json!({ "to": 2, "keep_previous": true })).await.ok();
    let verified =
        server.post("/lifecycle/models/add/verify", &json!({ "version": "2" })).await.ok();
    assert_eq!((&verified["version"], &verified["samples"]), (&json!("2"), &json!(["near.json"])));
    let earlier = server.post("/lifecycle/models/add/verify", &json!({ "version": 1 })).await.ok();
    assert_eq!(earlier["version"], "1");
    let absent = server.post("/lifecycle/models/add/verify", &json!({ "version": 9 })).await;
    absent.refused(404, "model_not_loaded", &["add"]);
}

#[tokio::test]
async fn samples_that_make_no_sense_are_told() {
    let server = Server::start(versions()).await;
    server.post("/lifecycle/models/add/verify", &json!({})).await.refused(
        409,
        "no_samples",
        &["add"],
    );
    let unknown = sample(2.0, &json!({}));
    let unknown = String::from_utf8(unknown).unwrap().replace("\"y\"", "\"z\"");
    for (text, code, told) in [
        (&b"{"[..], "load_failed", "EOF"),
        (br#"{"inputs": [], "outputs": []}"#, "load_failed", "names no output"),
        (unknown.as_bytes(), "verification_failed", "unexpected output 'z'"),
    ] {
        server.repository.write("add/golden/2/bad.json", text);
        let status = if code == "load_failed" { 400 } else { 409 };
        swap(&server, json!({ "to": 2 })).await.refused(status, code, &["bad.json", told]);
    }
    server.repository.write("add/golden/2/bad.json", &sample(2.0, &json!({})));
    server.repository.write("add/golden/2/bad.npz", b"PK");
    swap(&server, json!({ "to": 2 })).await.refused(400, "load_failed", &["bad.npz"]);
}

#[tokio::test]
async fn a_warm_up_by_batches_is_set_in_the_settings() {
    let settings = "warm_up: { batch_sizes: [1, 8, 32], budget: 10s }\n";
    let repository = Repository::of("add", &add_constant(1.0)).with_settings("add", settings);
    let server = Server::start(repository).await;
    server.get("/v2/models/add/ready").await.ok();
    server.repository.settings("add", "warm_up: { batch_sizes: [0] }\n");
    let load = server.post("/v2/repository/models/add/load", &json!({})).await;
    load.refused(400, "load_failed", &["model.yaml"]);
    server.repository.settings("add", "warm_up: { batch_sizes: [1], budget: soon }\n");
    let load = server.post("/v2/repository/models/add/load", &json!({})).await;
    load.refused(400, "load_failed", &["warm_up.budget"]);
}
