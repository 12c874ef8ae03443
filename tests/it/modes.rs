//! Which models are loaded without being asked for.

use std::fs;

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::support::onnx::add_constant;
use crate::support::{Repository, Server, x};

const POLL: [(&str, &str); 2] = [("models.mode", "poll"), ("models.poll_interval", "20ms")];

/// The version that answers, once it is this one.
async fn answers(server: &Server, model: &str, version: &str) {
    let input = x(&[1, 4], &[0.0; 4]);
    loop {
        let answer = server.infer(model, &input).await;
        if answer.status == 200 && answer.header("x-onward-version") == version {
            return;
        }
    }
}

/// Writes a version beside the repository and renames it into place.
fn rename_into_place(server: &Server, place: &str, graph: &[u8]) {
    let (root, aside) = (server.repository.path(), server.repository.path().join(".aside"));
    fs::create_dir_all(&aside).unwrap();
    fs::write(aside.join("model.onnx"), graph).unwrap();
    let target = root.join(place);
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::rename(aside, target).unwrap();
}

/// How often a version could not be loaded.
async fn failures(server: &Server) -> usize {
    let page = server.get("/lifecycle/events?kind=model_version&limit=1000").await.ok();
    let events = page["events"].as_array().unwrap().iter();
    events.filter(|event| event["data"]["to"] == "FAILED").count()
}

#[tokio::test]
async fn a_repository_that_is_polled_is_followed() {
    let repository = Repository::of("add", &add_constant(1.0));
    let server = Server::launch(repository, &POLL).await;
    answers(&server, "add", "1").await;
    rename_into_place(&server, "add/2", &add_constant(2.0));
    answers(&server, "add", "2").await;
    rename_into_place(&server, "other/1", &add_constant(3.0));
    answers(&server, "other", "1").await;
    fs::remove_dir_all(server.repository.path().join("other")).unwrap();
    server.until(("other", "1"), |report| report["state"] == "UNLOADED").await;
    // A way back is not undone by the next look.
    server.send(Method::POST, "/lifecycle/models/add/rollback", vec![]).await.ok();
    server.repository.settings("add", "queue_capacity: 7\n");
    server.until(("add", "1"), |report| report["queue_capacity"] == 7).await;
    answers(&server, "add", "1").await;
}

#[tokio::test]
async fn what_is_half_copied_is_not_loaded() {
    let server = Server::launch(Repository::of("add", &add_constant(1.0)), &POLL).await;
    answers(&server, "add", "1").await;
    let graph = add_constant(2.0);
    for end in [0, graph.len() / 3, graph.len() / 2, graph.len() - 1] {
        server.repository.put("add", 2, &graph[..end]);
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }
    server.repository.put("add", 2, &graph);
    answers(&server, "add", "2").await;
    assert_eq!(failures(&server).await, 0);
}

#[tokio::test]
async fn files_at_the_root_are_followed_too() {
    let server = Server::launch(Repository::of("add", &add_constant(1.0)), &POLL).await;
    answers(&server, "add", "1").await;
    let graph = add_constant(2.0);
    for end in [0, graph.len() / 2, graph.len() - 1, graph.len()] {
        server.repository.write("bare.onnx", &graph[..end]);
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }
    answers(&server, "bare", "1").await;
    assert_eq!(failures(&server).await, 0);
    let before = server.version("bare", "1").await["digest"].clone();
    let aside = server.repository.path().join(".aside");
    fs::write(&aside, add_constant(3.0)).unwrap();
    fs::rename(aside, server.repository.path().join("bare.onnx")).unwrap();
    server.until(("bare", "1"), |report| report["digest"] != before).await;
    fs::remove_file(server.repository.path().join("bare.onnx")).unwrap();
    server.until(("bare", "1"), |report| report["state"] == "UNLOADED").await;
}

#[tokio::test]
async fn what_an_operator_has_unloaded_stays_so() {
    let server = Server::launch(Repository::of("add", &add_constant(1.0)), &POLL).await;
    answers(&server, "add", "1").await;
    server.send(Method::POST, "/lifecycle/models/add/unload", vec![]).await.ok();
    rename_into_place(&server, "other/1", &add_constant(3.0));
    answers(&server, "other", "1").await;
    server.get("/v2/models/add/ready").await.refused(404, "model_not_loaded", &[]);
}

#[tokio::test]
async fn only_what_is_declared_is_loaded_where_that_is_asked_for() {
    let state = TempDir::new().unwrap();
    let repository = Repository::of("a", &add_constant(1.0)).and("b", 1, &add_constant(2.0));
    let settings = [
        ("models.mode", "explicit"),
        ("models.required", "a"),
        ("models.state", state.path().to_str().unwrap()),
    ];
    let server = Server::start_with(repository, &settings).await;
    assert_eq!(server.get("/v2/models").await.ok()["models"], json!(["a"]));
    server.send(Method::POST, "/v2/repository/models/b/load", vec![]).await;
    let server = server.kill_and_restart().await;
    assert_eq!(server.get("/v2/models").await.ok()["models"], json!(["a", "b"]));
}
