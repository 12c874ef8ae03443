//! Optimised graphs, kept on disk from one life of a server to the next.

use std::fs;
use std::path::PathBuf;

use crate::support::onnx::{add_constant, mlp};
use crate::support::{Repository, Server, x};

fn entries(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut entries: Vec<PathBuf> = entries.collect();
    entries.sort();
    entries
}

async fn answers(server: &Server) -> serde_json::Value {
    let answer = server.infer("mlp", &x(&[1, 4], &[1.0, 2.0, 3.0, 4.0])).await.ok();
    answer["outputs"].clone()
}

#[tokio::test]
async fn what_is_kept_is_used_again_and_what_is_damaged_is_not() {
    let kept = tempfile::tempdir().unwrap();
    let folder = kept.path().join("graphs");
    let repository = Repository::of("mlp", &mlp(4, 16, 2)).and("add", 1, &add_constant(1.0));
    let settings = [("onnxruntime.cache", folder.to_str().unwrap())];
    let server = Server::start_with(repository, &settings).await;
    let expected = answers(&server).await;
    let first = entries(&folder);
    assert_eq!(first.len(), 2, "one for each model");
    let server = server.kill_and_restart().await;
    assert_eq!(answers(&server).await, expected);
    assert_eq!(entries(&folder), first);
    for entry in &first {
        fs::write(entry, b"damaged").unwrap();
    }
    let server = server.kill_and_restart().await;
    server.process.logged(&["WARN", "graph cache", "damaged"]).await;
    assert_eq!(answers(&server).await, expected);
    assert_eq!(entries(&folder), first);
    assert!(fs::read(&first[0]).unwrap().len() > 100, "it was made anew");
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_holds_no_model_up() {
    let kept = tempfile::tempdir().unwrap();
    let file = kept.path().join("file");
    fs::write(&file, b"").unwrap();
    let settings = [("onnxruntime.cache", file.to_str().unwrap())];
    let server = Server::start_with(Repository::of("mlp", &mlp(4, 16, 2)), &settings).await;
    server.process.logged(&["WARN", "graph cache"]).await;
    answers(&server).await;
}
