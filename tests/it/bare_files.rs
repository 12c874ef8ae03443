//! Models without a folder: a file at the root of the repository.

use std::fs;
use std::process::Command;

use reqwest::Method;
use serde_json::Value;

use crate::support::onnx::{add_constant, add_external};
use crate::support::{Repository, Server, x};

async fn adds(server: &Server, model: &str) -> (String, Option<f64>) {
    let answer = server.infer(model, &x(&[1, 4], &[0.0; 4])).await;
    (answer.header("x-onward-digest").to_owned(), answer.output("y")[0].as_f64())
}

async fn load(server: &Server, model: &str) {
    let path = format!("/v2/repository/models/{model}/load");
    assert_eq!(server.send(Method::POST, &path, vec![]).await.status, 200);
}

/// What `sha256sum` prints for files, called in the repository's folder.
fn sha256sum(server: &Server, files: &[&str]) -> String {
    let mut command = Command::new("sha256sum");
    let output = command.args(files).current_dir(server.repository.path()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn sha256(server: &Server, file: &str) -> String {
    format!("sha256:{}", &sha256sum(server, &[file])[..64])
}

#[tokio::test]
async fn a_file_is_served_as_version_1_of_its_name() {
    let repository = Repository::of("folder", &add_constant(1.0));
    repository.write("bare.onnx", &add_constant(2.0));
    repository.write("bare.model.yaml", b"queue_capacity: 7\n");
    let server = Server::start(repository).await;
    assert_eq!(server.get("/v2/models").await.ok()["models"].to_string(), r#"["bare","folder"]"#);
    let (digest, added) = adds(&server, "bare").await;
    assert_eq!((digest, added), (sha256(&server, "bare.onnx"), Some(2.0)));
    assert_eq!(server.version("bare", "1").await["queue_capacity"], 7);
    // It is loaded anew like any other, and the version in between serves on.
    server.repository.write("bare.onnx", b"no model");
    let refused = server.send(Method::POST, "/v2/repository/models/bare/load", vec![]).await;
    refused.refused(400, "load_failed", &["bare/1", "Protobuf parsing failed"]);
    assert_eq!(adds(&server, "bare").await.1, Some(2.0));
    server.repository.write("bare.onnx", &add_constant(3.0));
    load(&server, "bare").await;
    assert_eq!(adds(&server, "bare").await.1, Some(3.0));
}

#[tokio::test]
async fn what_a_file_refers_to_is_served_and_hashed_with_it() {
    let repository = Repository::empty();
    repository.write("bare.onnx", &add_external("bare.onnx.data"));
    repository.write("bare.onnx.data", &5_f32.to_le_bytes());
    // Not a part of it, though its name is in the graph.
    repository.write("value", &6_f32.to_le_bytes());
    let server = Server::start(repository).await;
    let (digest, added) = adds(&server, "bare").await;
    assert_eq!(added, Some(5.0));
    let listing = sha256sum(&server, &["bare.onnx.data", "bare.onnx"]);
    server.repository.write("listing", listing.replace("bare.onnx\n", "model.onnx\n").as_bytes());
    assert_eq!(digest, sha256(&server, "listing"));
    server.repository.write("bare.onnx.data", &7_f32.to_le_bytes());
    assert_eq!(adds(&server, "bare").await, (digest.clone(), Some(5.0)), "it is in memory");
    load(&server, "bare").await;
    let (other, added) = adds(&server, "bare").await;
    assert!(other != digest && added == Some(7.0));
    // In a folder, the same content has the same digest.
    server.repository.write("folder/1/model.onnx", &add_external("bare.onnx.data"));
    server.repository.write("folder/1/bare.onnx.data", &7_f32.to_le_bytes());
    load(&server, "folder").await;
    assert_eq!(adds(&server, "folder").await, (other, Some(7.0)));
    fs::remove_file(server.repository.path().join("bare.onnx.data")).unwrap();
    let refused = server.send(Method::POST, "/v2/repository/models/bare/load", vec![]).await;
    refused.refused(400, "load_failed", &["bare.onnx", "'bare.onnx.data'", "no such file"]);
}

#[tokio::test]
async fn a_model_that_is_there_twice_is_told_and_hurts_no_other() {
    let repository = Repository::of("both", &add_constant(1.0));
    repository.write("both.onnx", &add_constant(2.0));
    repository.write("other.onnx", &add_constant(3.0));
    let server = Server::start(repository).await;
    assert_eq!(adds(&server, "other").await.1, Some(3.0));
    let report: Value = server.get("/lifecycle/models/both").await.ok();
    let problem = report["problem"].as_str().unwrap();
    let path = |name: &str| server.repository.path().join(name).display().to_string();
    for told in [path("both"), path("both.onnx")] {
        assert!(problem.contains(&told), "{told}: {problem}");
    }
    let refused = server.infer("both", &x(&[1, 4], &[0.0; 4])).await;
    refused.refused(503, "model_unavailable", &["both.onnx"]);
    fs::remove_dir_all(server.repository.path().join("both")).unwrap();
    load(&server, "both").await;
    assert_eq!(adds(&server, "both").await.1, Some(2.0));
}

#[tokio::test]
async fn files_with_bad_names_are_logged_and_left_out() {
    let repository = Repository::empty();
    for name in [".onnx", "a\\b.onnx", "good.onnx", ".hidden.onnx", "upper.ONNX"] {
        repository.write(name, &add_constant(1.0));
    }
    let server = Server::start(repository).await;
    assert_eq!(server.get("/v2/models").await.ok()["models"].to_string(), r#"["good"]"#);
    server.process.logged(&["bad name", "/.onnx"]).await;
    server.process.logged(&["bad name", "a\\\\b.onnx"]).await;
    for _ in 0..3 {
        server.send(Method::POST, "/v2/repository/index", vec![]).await;
    }
    let log = server.process.log();
    assert_eq!(log.matches("bad name").count(), 2, "once each: {log}");
    assert!(!log.contains("hidden"));
}
