//! Repositories as they should not be: a precise reason, and everything else serves on.

use std::fs;
use std::os::unix::fs::symlink;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::onnx::{
    add_constant, add_external, huge, looping_external, of_operator_set, of_the_future,
    unknown_operator,
};
use crate::support::{Answer, Repository, Server, x};

/// A model `m` that serves version 1.
async fn server() -> Server {
    let repository = Repository::of("m", &add_constant(1.0));
    Server::start(repository.with_settings("m", "version_policy: { specific: [1] }\n")).await
}

async fn swap(server: &Server, to: Value) -> Answer {
    server.post("/lifecycle/models/m/swap", &json!({ "to": to, "keep_previous": false })).await
}

/// What version 1 adds, as it always did.
async fn serves_on(server: &Server) {
    let answer = server.infer("m", &x(&[1, 4], &[0.0; 4])).await;
    assert_eq!(
        (answer.header("x-onward-version"), answer.output("y")[0].as_f64()),
        ("1", Some(1.0))
    );
}

/// The reasons why a version has failed, as events tell them.
async fn failures(server: &Server) -> Vec<String> {
    let page = server.get("/lifecycle/events?kind=model_version&limit=1000").await.ok();
    let events = page["events"].as_array().unwrap().iter().map(|event| &event["data"]);
    let failed = events.filter(|data| data["to"] == "FAILED");
    failed.map(|data| data["detail"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn files_that_are_no_models_fail_with_the_cause() {
    let server = server().await;
    let sound = add_constant(2.0);
    let mut flipped = sound.clone();
    flipped[0] ^= 0xff;
    for (file, told) in [
        (b"".to_vec(), "cannot open"),
        (b"just some text\n".to_vec(), "Protobuf parsing failed"),
        (sound[..sound.len() / 2].to_vec(), "cannot open"),
        (flipped, "cannot open"),
        (of_operator_set(999), "opset"),
        (of_the_future(), "Unsupported model IR version: 100, max supported IR version: "),
        (unknown_operator(), "Transmogrify"),
        (huge(&[1 << 40, 1 << 40]), "cannot open"),
        (huge(&[1 << 30]), "cannot open"),
        (add_external("absent.bin"), "absent.bin"),
        (add_external("../../../../etc/hostname"), "cannot open"),
        (add_external("/etc/hostname"), "cannot open"),
    ] {
        server.repository.put("m", 2, &file);
        swap(&server, json!(2)).await.refused(400, "load_failed", &["m/2", told]);
        let report = server.version("m", "2").await;
        assert_eq!(report["state"], "FAILED");
        let reason = report["reason"].as_str().unwrap();
        assert!(reason.contains(told), "{report}");
        let of_the_engine = ["onnxruntime_src", "onnxruntime::", "Load model from", "\n"];
        assert!(!of_the_engine.iter().any(|text| reason.contains(text)), "{reason}");
        assert!(failures(&server).await.last().unwrap().contains(told));
        serves_on(&server).await;
    }
    // A swap to what has failed tries again, and tells the reason of this time.
    swap(&server, json!(2)).await.refused(400, "load_failed", &["m/2"]);
    server.repository.put("m", 2, &sound);
    swap(&server, json!(2)).await.ok();
}

#[tokio::test]
async fn an_execution_provider_that_is_not_there_fails_the_load_and_is_not_passed_over() {
    let server = server().await;
    for (settings, told) in [
        ("[cuda, cpu]", "the execution provider 'cuda'"),
        ("[cpu, cuda]", "'cpu' runs every node, so it comes last"),
    ] {
        server.repository.settings("m", &format!("execution_providers: {settings}\n"));
        server.repository.put("m", 2, &add_constant(2.0));
        let refused = swap(&server, json!(2)).await;
        refused.refused(400, "load_failed", &[told]);
        serves_on(&server).await;
    }
    server.repository.settings("m", "execution_providers: [cpu]\n");
    swap(&server, json!(2)).await.ok();
}

#[tokio::test]
async fn folders_that_are_no_versions_are_told_and_left_out() {
    let repository = Repository::of("m", &add_constant(1.0));
    for folder in ["01", "latest", "-1", "1.0"] {
        repository.write(&format!("m/{folder}/model.onnx"), &add_constant(9.0));
    }
    repository.write("none/latest/model.onnx", &add_constant(9.0));
    let server = Server::start(repository).await;
    serves_on(&server).await;
    let report = server.get("/lifecycle/models/m").await.ok();
    let warnings = report["warnings"].to_string();
    for folder in ["'01'", "'latest'", "'-1'", "'1.0'"] {
        assert!(warnings.contains(folder), "{folder}: {warnings}");
    }
    let load = server.send(Method::POST, "/v2/repository/models/none/load", vec![]).await;
    load.refused(400, "load_failed", &["no version to serve"]);
    let report = server.get("/lifecycle/models/none").await.ok();
    assert!(report["problem"].as_str().unwrap().contains("no version"), "{report}");
}

#[tokio::test]
async fn a_version_without_its_file_is_told() {
    let server = server().await;
    fs::create_dir(server.repository.path().join("m/2")).unwrap();
    swap(&server, json!(2)).await.refused(400, "load_failed", &["m/2/model.onnx", "no such file"]);
    server.repository.write("m/3/model.onnx/inner", b"a folder");
    swap(&server, json!(3)).await.refused(400, "load_failed", &["m/3/model.onnx"]);
    serves_on(&server).await;
}

#[tokio::test]
async fn links_out_of_the_repository_are_refused() {
    let server = server().await;
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("model.onnx"), add_constant(9.0)).unwrap();
    fs::write(outside.path().join("weights.bin"), 9_f32.to_le_bytes()).unwrap();
    let root = server.repository.path().to_owned();
    symlink(outside.path(), root.join("m/2")).unwrap();
    fs::create_dir(root.join("m/3")).unwrap();
    symlink(outside.path().join("model.onnx"), root.join("m/3/model.onnx")).unwrap();
    server.repository.put("m", 4, &add_external("weights.bin"));
    symlink(outside.path().join("weights.bin"), root.join("m/4/weights.bin")).unwrap();
    for version in [2, 3] {
        let refused = swap(&server, json!(version)).await;
        refused.refused(400, "load_failed", &["leads out of the repository"]);
    }
    swap(&server, json!(4)).await.refused(400, "load_failed", &["weights.bin"]);
    serves_on(&server).await;
    symlink(outside.path(), root.join("linked")).unwrap();
    let load = server.send(Method::POST, "/v2/repository/models/linked/load", vec![]).await;
    load.refused(400, "load_failed", &["leads out of the repository"]);
}

#[tokio::test]
async fn external_data_is_served_from_memory() {
    for location in ["weights.bin", "./weights.bin", "data/weights.bin", "data//weights.bin"] {
        let repository = Repository::of("m", &add_external(location));
        let write = |repository: &Repository, content: &[u8]| {
            repository.write(&format!("m/1/{location}"), content);
        };
        write(&repository, &5_f32.to_le_bytes());
        let server = Server::start_with(repository, &[("inference.instances", "2")]).await;
        let adds = async || server.infer("m", &x(&[1, 4], &[0.0; 4])).await.output("y")[0].as_f64();
        assert_eq!(adds().await, Some(5.0));
        write(&server.repository, &6_f32.to_le_bytes());
        assert_eq!(adds().await, Some(5.0), "not what somebody writes meanwhile");
        write(&server.repository, b"");
        for _ in 0..10 {
            assert_eq!(adds().await, Some(5.0), "{location}");
        }
        write(&server.repository, &7_f32.to_le_bytes());
        server.send(Method::POST, "/v2/repository/models/m/load", vec![]).await;
        assert_eq!(adds().await, Some(7.0));
    }
}

#[tokio::test]
async fn external_data_of_inner_graphs_is_nobody_elses() {
    let repository = Repository::of("m", &looping_external(3, "weights.bin"));
    repository.write("m/1/weights.bin", &5_f32.to_le_bytes());
    let server = Server::start_with(repository, &[("inference.instances", "2")]).await;
    let adds = async || server.infer("m", &x(&[1], &[0.0])).await.output("y")[0].as_f64();
    assert_eq!(adds().await, Some(15.0));
    for content in [&6_f32.to_le_bytes()[..], b""] {
        server.repository.write("m/1/weights.bin", content);
        for _ in 0..10 {
            assert_eq!(adds().await, Some(15.0));
        }
    }
}

#[tokio::test]
async fn hidden_files_are_no_part_of_a_version() {
    let server = server().await;
    server.repository.put("m", 2, &add_external(".weights.bin"));
    server.repository.write("m/2/.weights.bin", &5_f32.to_le_bytes());
    swap(&server, json!(2)).await.refused(400, "load_failed", &["'.weights.bin'", "hidden"]);
    serves_on(&server).await;
}

#[tokio::test]
async fn hidden_links_to_nowhere_are_in_nobodys_way() {
    let server = server().await;
    server.repository.put("m", 2, &add_constant(2.0));
    // As an editor does that has a file open.
    let folder = server.repository.path().join("m/2");
    symlink("nobody@nowhere:1", folder.join(".#model.onnx")).unwrap();
    swap(&server, json!(2)).await.ok();
}

#[tokio::test]
async fn a_fault_that_does_not_pass_is_not_waited_for() {
    let repository = Repository::of("m", &add_constant(1.0)).and("n", 1, &add_constant(2.0));
    symlink("weights.bin", repository.path().join("m/1/weights.bin")).unwrap();
    let server = Server::start_with(repository, &[("models.load_backoff", "1h")]).await;
    let report = server.version("m", "1").await;
    assert_eq!(report["state"], "FAILED", "{report}");
    assert_eq!(failures(&server).await.len(), 1);
    assert_eq!(server.infer("n", &x(&[1, 4], &[0.0; 4])).await.status, 200);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_manifest_that_is_none_holds_nobody_up() {
    let server = server().await;
    let folder = server.repository.path().join("m/2");
    server.repository.put("m", 2, &add_constant(2.0));
    let manifest = folder.join("manifest.json");
    let refused = async |told: &str| {
        swap(&server, json!(2)).await.refused(400, "load_failed", &["manifest.json", told]);
        fs::remove_file(&manifest).unwrap();
    };
    let made = std::process::Command::new("mkfifo").arg(&manifest).status().unwrap();
    assert!(made.success());
    refused("not a file").await;
    symlink("/dev/zero", &manifest).unwrap();
    refused("leads out of the repository").await;
    symlink("/etc/hostname", &manifest).unwrap();
    refused("leads out of the repository").await;
    let listed = json!({ "files": [
        { "path": "model.onnx", "size": 1, "sha256": "00" },
    ] });
    fs::remove_file(folder.join("model.onnx")).unwrap();
    symlink("/dev/zero", folder.join("model.onnx")).unwrap();
    fs::write(&manifest, listed.to_string()).unwrap();
    swap(&server, json!(2)).await.refused(400, "load_failed", &["m/2"]);
    serves_on(&server).await;
}

#[tokio::test]
async fn names_that_could_leave_the_repository_are_refused() {
    let server = server().await;
    for (name, status, code) in [
        ("..%2f..%2fetc", 400, "invalid_name"),
        ("..", 400, "invalid_name"),
        ("%2e%2e", 400, "invalid_name"),
        ("a%2fb", 400, "invalid_name"),
        ("a%5cb", 400, "invalid_name"),
        ("nul%00", 400, "invalid_name"),
        (&"x".repeat(300), 400, "invalid_name"),
        ("%ff", 400, "invalid_request"),
    ] {
        for path in
            [format!("/v2/repository/models/{name}/load"), format!("/lifecycle/models/{name}/swap")]
        {
            // A client would tidy up the dots.
            let raw = raw(&server, &path).await;
            raw.refused(status, code, &[]);
        }
    }
    serves_on(&server).await;
}

/// Sends a request whose path is left as it is.
async fn raw(server: &Server, path: &str) -> Answer {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    Answer::parse(&text)
}

#[tokio::test]
async fn swaps_and_unloads_that_make_no_sense_are_refused() {
    let server = server().await;
    swap(&server, json!(1)).await.refused(409, "already_current", &["version 1 already"]);
    swap(&server, json!(9)).await.refused(404, "unknown_version", &["version 9 of model 'm'"]);
    let post = async |path: &str| server.send(Method::POST, path, vec![]).await;
    post("/lifecycle/models/nope/unload").await.refused(404, "unknown_model", &["'nope'"]);
    post("/v2/repository/models/m/unload").await;
    post("/lifecycle/models/m/unload").await.refused(404, "model_not_loaded", &["'m'"]);
    swap(&server, json!(1)).await.refused(404, "model_not_loaded", &["'m'"]);
    post("/lifecycle/models/m/rollback").await.refused(404, "model_not_loaded", &["'m'"]);
}
