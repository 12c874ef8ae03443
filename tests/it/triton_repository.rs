//! A repository as Triton has it, served unchanged.

use serde_json::{Value, json};

use crate::support::grpc::proto::ModelConfigRequest;
use crate::support::onnx::{add_constant, two_inputs_two_outputs};
use crate::support::{Repository, Server, x};

/// Several models with the settings that Triton's users have.
fn repository() -> Repository {
    let repository = Repository::of("dense", &add_constant(1.0))
        .and("dense", 2, &add_constant(2.0))
        .and("dense", 3, &add_constant(3.0))
        .and("pairs", 1, &two_inputs_two_outputs())
        .and("plain", 1, &add_constant(1.0));
    repository.write(
        "dense/config.pbtxt",
        br#"
name: "dense"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [
  {
    name: "y"
    data_type: TYPE_FP32
    dims: [ 4 ]
    label_filename: "labels.txt"
  }
]
version_policy: { specific { versions: [ 1, 2 ] } }
instance_group [ { count: 3 kind: KIND_GPU gpus: [ 0 ] } ]
dynamic_batching { max_queue_delay_microseconds: 100 }
"#,
    );
    repository.write("dense/labels.txt", b"a\nb\nc\nd\n");
    repository.write(
        "pairs/config.pbtxt",
        br#"backend: "onnxruntime"
input { name: "a", data_type: TYPE_FP32, dims: [ -1, 2 ] }
input { name: "b", data_type: TYPE_INT64, dims: [ -1 ] }
instance_group { count: 1 kind: KIND_CPU }
"#,
    );
    repository
}

#[tokio::test]
async fn it_is_served_unchanged() {
    let server = Server::start(repository()).await;
    assert_eq!(server.get("/v2/models").await.ok()["models"], json!(["dense", "pairs", "plain"]));
    let dense = server.get("/v2/models/dense").await.ok();
    assert_eq!(dense["versions"], json!(["1", "2"]));
    assert_eq!(dense["inputs"][0]["shape"], json!([-1, 4]));
    let answer = server.infer("dense", &x(&[2, 4], &[0.0; 8])).await;
    assert_eq!(
        (answer.header("x-onward-version"), answer.output("y")[0].as_f64()),
        ("2", Some(2.0))
    );
    assert_eq!(server.version("dense", "2").await["instances"], 3);
    assert_eq!(server.version("pairs", "1").await["instances"], 1);
    let report = server.get("/lifecycle/models/dense").await.ok();
    let warnings: Vec<&str> =
        report["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    for field in ["instance_group.kind", "instance_group.gpus"] {
        assert!(warnings.iter().any(|warning| warning.contains(field)), "{field}: {warnings:?}");
        server.process.logged(&["the model has a warning", field]).await;
    }
    assert_eq!(server.get("/lifecycle/models/pairs").await.ok()["warnings"], json!([]));
}

#[tokio::test]
async fn outputs_are_classified_by_their_labels() {
    let server = Server::start(repository()).await;
    let ask = async |rows: usize| {
        let mut body = x(&[rows, 4], &[3.0, 1.0, 2.0, 0.0].repeat(rows));
        body["outputs"] = json!([{ "name": "y", "parameters": { "classification": 2 } }]);
        server.infer("dense", &body).await
    };
    let answer = ask(1).await;
    assert_eq!(answer.output("y"), json!(["5.000000:0:a", "4.000000:2:c"]));
    ask(8).await.ok();
    let told = ["batch-size must be <= 8 for 'dense'", "'x' has a batch of 9"];
    ask(9).await.refused(400, "invalid_request", &told);
    let config = server.get("/v2/models/dense/config").await.ok();
    assert_eq!(config["output"][0]["label_filename"], "labels.txt");
    let request = ModelConfigRequest { name: "dense".to_owned(), version: String::new() };
    let told = server.grpc().await.model_config(request).await.unwrap().into_inner();
    assert_eq!(told.config.unwrap().output[0].label_filename, "labels.txt");
    // What is told can be sent back.
    let back = json!({ "parameters": { "config": config.to_string() } });
    let load = server.post("/v2/repository/models/dense/load", &back).await;
    assert_eq!(load.status, 200, "{load:?}");
    assert_eq!(server.get("/v2/models/dense/config").await.ok(), config);
    assert_eq!(ask(1).await.output("y"), json!(["5.000000:0:a", "4.000000:2:c"]));
    let other = config.to_string().replace("labels.txt", "other.txt");
    let other = json!({ "parameters": { "config": other } });
    let refused = server.post("/v2/repository/models/dense/load", &other).await;
    refused.refused(400, "load_failed", &["label_filename", "no file 'other.txt'"]);
    // They are the labels of the next load.
    server.repository.write("dense/labels.txt", "α\n\nγ \n".as_bytes());
    server.post("/v2/repository/models/dense/load", &json!({})).await;
    assert_eq!(ask(1).await.output("y"), json!(["5.000000:0:α", "4.000000:2:γ"]));
    let ours = "max_batch_size: 0\nlabels: {y: [p, q, r, s]}\n";
    server.repository.settings("dense", ours);
    server.post("/v2/repository/models/dense/load", &json!({})).await;
    // Without batches, it is one row of eight.
    let answer = ask(2).await;
    assert_eq!(answer.output("y"), json!(["6.000000:0:p", "6.000000:4"]));
    std::fs::remove_file(server.repository.path().join("dense/model.yaml")).unwrap();
    std::fs::remove_file(server.repository.path().join("dense/labels.txt")).unwrap();
    let refused = server.post("/v2/repository/models/dense/load", &json!({})).await;
    refused.refused(400, "load_failed", &["label_filename", "no file 'labels.txt'"]);
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused_and_the_others_serve() {
    let repository = repository();
    repository.write("plain/config.pbtxt", b"sequence_batching { }");
    repository
        .write("pairs/config.pbtxt", br#"input { name: "b", data_type: TYPE_FP32, dims: [ -1 ] }"#);
    let server = Server::start(repository).await;
    assert_eq!(server.get("/v2/models").await.ok()["models"], json!(["dense"]));
    let load = |model: &str| format!("/v2/repository/models/{model}/load");
    let refused = server.post(&load("plain"), &json!({})).await;
    refused.refused(
        400,
        "load_failed",
        &["config.pbtxt", "line 1: sequence_batching", "change answers"],
    );
    let wrong = server.post(&load("pairs"), &json!({})).await;
    wrong.refused(400, "load_failed", &["input 'b' is declared as FP32, but is INT64"]);
    assert_eq!(server.version("pairs", "1").await["state"], "FAILED");
    server.repository.write("plain/config.pbtxt", b"\nname \"x");
    let torn = server.post(&load("plain"), &json!({})).await;
    torn.refused(400, "load_failed", &["config.pbtxt", "line 2"]);
}

#[tokio::test]
async fn our_own_settings_come_first() {
    let repository = repository().with_settings("dense", "instances: 1\n");
    let server = Server::start(repository).await;
    let report = server.get("/lifecycle/models/dense").await.ok();
    assert_eq!(report["current_version"], "3");
    let warning: &Value = &report["warnings"][0];
    assert!(warning.as_str().unwrap().contains("config.pbtxt is not read"), "{report}");
}
