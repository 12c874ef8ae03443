//! Loads that bring a model's configuration and files with them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tonic::Code;

use crate::support::grpc::proto::model_repository_parameter::ParameterChoice;
use crate::support::grpc::proto::{ModelRepositoryParameter, RepositoryModelLoadRequest};
use crate::support::grpc::refused;
use crate::support::onnx::{add_constant, negated, unknown_operator};
use crate::support::{Repository, Server, x};

/// The body of a load with this configuration and these graphs.
fn bringing(config: &Value, graphs: &[(&str, &[u8])]) -> Value {
    let mut parameters = json!({ "config": config.to_string() });
    for (path, graph) in graphs {
        parameters[format!("file:{path}")] = json!(STANDARD.encode(graph));
    }
    json!({ "parameters": parameters })
}

async fn load(server: &Server, model: &str, body: &Value) -> crate::support::Answer {
    server.post(&format!("/v2/repository/models/{model}/load"), body).await
}

/// What the model adds to zero, and the version that does.
async fn added(server: &Server, model: &str) -> (f64, String) {
    let answer = server.infer(model, &x(&[1, 4], &[0.0; 4])).await;
    (answer.output("y")[0].as_f64().unwrap(), answer.header("x-onward-version").to_owned())
}

#[tokio::test]
async fn a_configuration_holds_until_the_next_load_without_one() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let config = json!({ "max_batch_size": "2", "instance_group": [{ "count": 3 }] });
    assert_eq!(load(&server, "add", &bringing(&config, &[])).await.status, 200);
    let told = server.get("/v2/models/add/config").await.ok();
    assert_eq!(told["instance_group"][0]["count"], 3);
    assert_eq!(told["max_batch_size"], 2);
    let large = server.infer("add", &x(&[3, 4], &[0.0; 12])).await;
    large.refused(400, "invalid_request", &["batch-size must be <= 2"]);
    // What a server tells of a model can be sent back to it.
    assert_eq!(load(&server, "add", &bringing(&told, &[])).await.status, 200);
    assert_eq!(load(&server, "add", &json!({})).await.status, 200);
    assert_eq!(server.infer("add", &x(&[3, 4], &[0.0; 12])).await.status, 200);
}

#[tokio::test]
async fn files_are_the_whole_model() {
    let repository = Repository::of("add", &add_constant(1.0)).and("add", 7, &add_constant(7.0));
    let server = Server::start(repository).await;
    assert_eq!(added(&server, "add").await, (7.0, "7".to_owned()));
    let (two, three) = (add_constant(2.0), add_constant(3.0));
    let graphs: [(&str, &[u8]); 2] = [("2/model.onnx", &two), ("3/model.onnx", &three)];
    let body = bringing(&json!({ "version_policy": { "all": {} } }), &graphs);
    assert_eq!(load(&server, "add", &body).await.status, 200);
    assert_eq!(added(&server, "add").await, (3.0, "3".to_owned()));
    let versions = server.get("/v2/models/add").await.ok()["versions"].clone();
    assert_eq!(versions, json!(["2", "3"]));
    // Also a model that the repository does not have.
    let new = bringing(&json!({}), &[("1/model.onnx", &two)]);
    assert_eq!(load(&server, "new", &new).await.status, 200);
    assert_eq!(added(&server, "new").await, (2.0, "1".to_owned()));
    assert_eq!(load(&server, "add", &json!({})).await.status, 200);
    assert_eq!(added(&server, "add").await, (7.0, "7".to_owned()));
    // Which has nothing to go back to.
    let gone = load(&server, "new", &json!({})).await;
    gone.refused(404, "unknown_model", &[]);
    assert_eq!(added(&server, "new").await, (2.0, "1".to_owned()));
}

#[tokio::test]
async fn a_load_that_fails_changes_nothing() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let two = add_constant(2.0);
    let body = bringing(&json!({}), &[("2/model.onnx", &two)]);
    assert_eq!(load(&server, "add", &body).await.status, 200);
    let (good, bad) = (add_constant(3.0), unknown_operator());
    let graphs: [(&str, &[u8]); 2] = [("3/model.onnx", &good), ("4/model.onnx", &bad)];
    let broken = bringing(&json!({ "version_policy": { "all": {} } }), &graphs);
    load(&server, "add", &broken).await.refused(400, "load_failed", &[]);
    let other = bringing(&json!({}), &[("5/model.onnx", &negated())]);
    let refused = load(&server, "add", &other).await;
    assert!([200, 409].contains(&refused.status), "{}", refused.status);
    let wrong = bringing(&json!({ "colour": "blue" }), &[]);
    load(&server, "add", &wrong).await.refused(400, "load_failed", &["colour: there is no such"]);
    let sequences = bringing(&json!({ "sequence_batching": {} }), &[]);
    load(&server, "add", &sequences).await.refused(400, "load_failed", &["change answers"]);
    let unknown = load(&server, "none", &bringing(&json!({}), &[])).await;
    unknown.refused(404, "unknown_model", &[]);
    let again = load(&server, "add", &body).await;
    assert_eq!(again.status, 200);
    assert_eq!(added(&server, "add").await, (2.0, "2".to_owned()));
}

#[tokio::test]
async fn what_a_load_cannot_bring_is_refused() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let graph = add_constant(2.0);
    let long = format!("1/{}", "x".repeat(300));
    for path in ["model.onnx", "../1/model.onnx", "1/../../x", "1/a/b", "/1/x", "x/y", &long] {
        let body = bringing(&json!({}), &[(path, &graph)]);
        load(&server, "add", &body).await.refused(400, "invalid_request", &["file:"]);
    }
    for parameters in [
        json!({ "file:1/model.onnx": STANDARD.encode(&graph) }),
        json!({ "config": "{}", "file:1/model.onnx": "not base64" }),
        json!({ "config": "{}", "file:1/model.onnx": 7 }),
        json!({ "config": {} }),
    ] {
        let body = json!({ "parameters": parameters });
        load(&server, "add", &body).await.refused(400, "invalid_request", &[]);
    }
    let body = json!({ "parameters": { "config": "{", "unload_dependents": true } });
    load(&server, "add", &body).await.refused(400, "load_failed", &["EOF"]);
    assert_eq!(added(&server, "add").await, (1.0, "1".to_owned()));
}

#[tokio::test]
async fn a_load_over_grpc_brings_bytes() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let mut client = server.grpc().await;
    let parameter = |choice| ModelRepositoryParameter { parameter_choice: Some(choice) };
    let config = || parameter(ParameterChoice::StringParam("{}".to_owned()));
    let file = || parameter(ParameterChoice::BytesParam(add_constant(5.0).into()));
    let request = |parameters: Vec<(&str, ModelRepositoryParameter)>| {
        let named = parameters.into_iter().map(|(name, value)| (name.to_owned(), value));
        RepositoryModelLoadRequest {
            model_name: "add".to_owned(),
            parameters: named.collect::<BTreeMap<_, _>>(),
            ..RepositoryModelLoadRequest::default()
        }
    };
    let both = request(vec![("config", config()), ("file:4/model.onnx", file())]);
    client.repository_model_load(both).await.unwrap();
    assert_eq!(added(&server, "add").await, (5.0, "4".to_owned()));
    let alone = request(vec![("file:4/model.onnx", file())]);
    let error = client.repository_model_load(alone).await.unwrap_err();
    refused(&error, (Code::InvalidArgument, "invalid_request"), &["config"]);
    client.repository_model_load(request(Vec::new())).await.unwrap();
    assert_eq!(added(&server, "add").await, (1.0, "1".to_owned()));
}

#[tokio::test]
async fn nothing_is_left_of_what_was_brought() {
    let home = tempfile::tempdir().unwrap();
    let left = || std::fs::read_dir(home.path()).unwrap().count();
    let mut command = crate::support::process::onward();
    let repository = Repository::of("add", &add_constant(1.0));
    command.env("TMPDIR", home.path());
    let server = Server::start_by(command, repository, &[]).await;
    let two = add_constant(2.0);
    let body = bringing(&json!({}), &[("1/model.onnx", &two)]);
    assert_eq!(load(&server, "add", &body).await.status, 200);
    assert_eq!(left(), 1);
    assert_eq!(load(&server, "add", &body).await.status, 200);
    assert_eq!(left(), 1, "what was there before has gone");
    assert_eq!(load(&server, "add", &json!({})).await.status, 200);
    assert_eq!(left(), 0);
    assert_eq!(load(&server, "add", &body).await.status, 200);
    assert_eq!(server.stop().await, 0);
    assert_eq!(left(), 0, "the end of the server takes it along");
}
