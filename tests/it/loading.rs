//! Loading and unloading over the repository interface.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::onnx::{add_constant, slow};
use crate::support::{Repository, Server, x};

fn four() -> Value {
    x(&[1, 4], &[0.0; 4])
}

/// The first number of the answer of the model's current version: what it adds.
async fn adds(server: &Server, model: &str) -> f64 {
    server.infer(model, &four()).await.output("y")[0].as_f64().unwrap()
}

async fn load(server: &Server, model: &str) -> crate::support::Answer {
    server.send(Method::POST, &format!("/v2/repository/models/{model}/load"), Vec::new()).await
}

async fn unload(server: &Server, model: &str) -> crate::support::Answer {
    server.send(Method::POST, &format!("/v2/repository/models/{model}/unload"), Vec::new()).await
}

#[tokio::test]
async fn that_no_model_is_served_is_a_warning() {
    let server = Server::start(Repository::empty()).await;
    server.process.logged(&["WARN", "no model is served", &server.address.to_string()]).await;
    let explicit = Server::start_with(Repository::empty(), &[("models.mode", "explicit")]).await;
    explicit.process.logged(&["INFO", "models are served", "\"models\":0"]).await;
}

#[tokio::test]
async fn a_load_that_fails_is_warned_of_once() {
    let repository = Repository::of("good", &add_constant(1.0))
        .and("corrupt", 1, b"this is no model")
        .with_settings("unclear", "instances: many\n")
        .and("unclear", 1, &add_constant(1.0));
    let server = Server::start(repository).await;
    server.process.logged(&["INFO", "models are served", "\"models\":1", "\"failed\":2"]).await;
    let log = server.process.log();
    for model in ["corrupt", "unclear"] {
        let is_warning = |line: &&str| {
            line.contains("WARN") && line.contains(model) && !line.contains("health check")
        };
        assert_eq!(log.lines().filter(is_warning).count(), 1, "{log}");
    }
}

#[tokio::test]
async fn a_corrupt_model_fails_with_its_reason_and_the_others_serve() {
    let repository = Repository::of("good", &add_constant(1.0))
        .and("corrupt", 1, b"this is no model")
        .and("empty", 1, b"")
        .and("cut", 1, &add_constant(1.0)[..60])
        .with_settings("unclear", "instances: many\n")
        .and("unclear", 1, &add_constant(1.0));
    let server = Server::start(repository).await;
    assert_eq!(server.get("/readyz").await.status, 200);
    assert!((adds(&server, "good").await - 1.0).abs() < 1e-6);
    for model in ["corrupt", "empty", "cut"] {
        let report = server.version(model, "1").await;
        assert_eq!(report["state"], "FAILED", "{report}");
        let reason = report["reason"].as_str().unwrap();
        assert!(reason.contains("cannot open"), "{reason}");
        let answer = server.infer(model, &four()).await;
        answer.refused(503, "model_unavailable", &["FAILED", "cannot open"]);
        assert_eq!(answer.header("retry-after"), "1");
        server.get(&format!("/v2/models/{model}/ready")).await.refused(
            503,
            "model_unavailable",
            &[],
        );
    }
    let unclear = server.get("/lifecycle/models/unclear").await.ok();
    assert!(unclear["problem"].as_str().unwrap().contains("instances"), "{unclear}");
    let index = server.send(Method::POST, "/v2/repository/index", Vec::new()).await.ok();
    let states: Vec<(&str, Option<&str>)> = index
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["name"].as_str().unwrap(), item["state"].as_str()))
        .collect();
    let unavailable = Some("UNAVAILABLE");
    assert_eq!(
        states,
        [
            ("corrupt", unavailable),
            ("cut", unavailable),
            ("empty", unavailable),
            ("good", Some("READY")),
            ("unclear", None),
        ]
    );
    let ready = server.post("/v2/repository/index", &json!({ "ready": true })).await.ok();
    assert_eq!(ready, json!([{ "name": "good", "version": "1", "state": "READY", "reason": "" }]));
}

#[tokio::test]
async fn a_mended_model_can_be_loaded() {
    let server = Server::start(Repository::of("add", b"broken")).await;
    load(&server, "add").await.refused(400, "load_failed", &["failed to load 'add/1'"]);
    server.repository.put("add", 1, &add_constant(5.0));
    assert_eq!(load(&server, "add").await.status, 200);
    assert!((adds(&server, "add").await - 5.0).abs() < 1e-6);
}

#[tokio::test]
async fn a_failed_load_leaves_the_old_version_serving() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    server.repository.put("add", 2, b"broken");
    load(&server, "add").await.refused(400, "load_failed", &["failed to load 'add/2'"]);
    assert!((adds(&server, "add").await - 1.0).abs() < 1e-6);
    assert_eq!(server.version("add", "2").await["state"], "FAILED");
    assert_eq!(server.version("add", "1").await["state"], "READY");
    server.repository.put("add", 2, &add_constant(2.0));
    assert_eq!(load(&server, "add").await.status, 200);
    assert!((adds(&server, "add").await - 2.0).abs() < 1e-6);
    server.until(("add", "1"), |report| report["state"] == "UNLOADED").await;
}

#[tokio::test]
async fn an_unloaded_model_is_gone_until_it_is_loaded() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let unloaded = unload(&server, "add").await;
    assert_eq!((unloaded.status, unloaded.body.len()), (200, 0));
    server.infer("add", &four()).await.refused(404, "model_not_loaded", &["UNLOADED"]);
    unload(&server, "add").await.refused(404, "model_not_loaded", &[]);
    unload(&server, "nope").await.refused(404, "unknown_model", &[]);
    load(&server, "nope").await.refused(404, "unknown_model", &["nope"]);
    let loaded = load(&server, "add").await;
    assert_eq!((loaded.status, loaded.body.len()), (200, 0));
    assert!((adds(&server, "add").await - 1.0).abs() < 1e-6);
}

#[tokio::test]
async fn a_model_that_comes_later_is_listed_and_can_be_loaded() {
    let server = Server::start(Repository::empty()).await;
    server.repository.put("late", 1, &add_constant(3.0));
    let index = server.send(Method::POST, "/v2/repository/index", Vec::new()).await.ok();
    assert_eq!(index, json!([{ "name": "late", "reason": "" }]));
    let parameters = json!({ "parameters": {} });
    assert_eq!(server.post("/v2/repository/models/late/load", &parameters).await.status, 200);
    assert!((adds(&server, "late").await - 3.0).abs() < 1e-6);
}

#[tokio::test]
async fn a_version_policy_selects_several_versions() {
    let repository = Repository::of("add", &add_constant(1.0))
        .and("add", 2, &add_constant(2.0))
        .and("add", 10, &add_constant(10.0))
        .with_settings("add", "version_policy: all\n");
    let server = Server::start(repository).await;
    let metadata = server.get("/v2/models/add").await.ok();
    assert_eq!(metadata["versions"], json!(["1", "2", "10"]));
    assert!((adds(&server, "add").await - 10.0).abs() < 1e-6);
    let second = server.post("/v2/models/add/versions/2/infer", &four()).await;
    assert_eq!(second.output("y")[0], json!(2.0));
    assert_eq!(second.ok()["model_version"], "2");
}

/// Half a minute of warm-up, of which a second is allowed; then a place for others is free again.
#[tokio::test]
async fn a_load_that_takes_too_long_fails_and_holds_nobody_up() {
    let repository = Repository::of("stuck", &slow(36_000_000)).and("good", 1, &add_constant(1.0));
    let settings = [("models.load_timeout", "1s"), ("models.load_threads", "1")];
    let server = Server::start_with(repository, &settings).await;
    let stuck = server.version("stuck", "1").await;
    assert_eq!(stuck["state"], "FAILED");
    assert_eq!(stuck["reason"], "loading it took longer than 1s");
    assert!((adds(&server, "good").await - 1.0).abs() < 1e-6);
    load(&server, "stuck").await.refused(400, "load_failed", &["longer than 1s"]);
    assert_eq!(unload(&server, "good").await.status, 200);
    assert_eq!(load(&server, "good").await.status, 200);
}

/// The layout of a store that keeps each file once.
#[tokio::test]
async fn versions_that_are_links_have_digests_of_their_own() {
    let repository = Repository::empty();
    repository.put("blobs", 1, &add_constant(1.0));
    repository.put("blobs", 2, &add_constant(2.0));
    let link = |version: u64, to: u64| {
        let folder = repository.path().join(format!("add/{version}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::remove_file(folder.join("model.onnx")).ok();
        let target = format!("../../blobs/{to}/model.onnx");
        std::os::unix::fs::symlink(target, folder.join("model.onnx")).unwrap();
    };
    link(1, 1);
    link(2, 2);
    let server = Server::start(repository.with_settings("add", "version_policy: all\n")).await;
    let digest = async |version| server.version("add", version).await["digest"].clone();
    assert_ne!(digest("1").await, digest("2").await);
    let path = server.repository.path().join("add/2/model.onnx");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("../../blobs/1/model.onnx", &path).unwrap();
    assert_eq!(load(&server, "add").await.status, 200);
    // The life that was replaced is listed until it is unloaded.
    let first = digest("1").await;
    server.until(("add", "2"), |report| report["digest"] == first).await;
    assert!((adds(&server, "add").await - 1.0).abs() < 1e-6);
}
