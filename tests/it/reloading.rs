//! SIGHUP: the configuration read anew while the server runs.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{interval, timeout};

use crate::support::onnx::add_constant;
use crate::support::process::PATIENCE;
use crate::support::{Repository, Server};

/// A server with a configuration file, which can be changed.
struct Fixture {
    server: Server,
    file: PathBuf,
    _home: TempDir,
}

impl Fixture {
    async fn start(content: &str) -> Self {
        let home = TempDir::new().unwrap();
        let file = home.path().join("onward.yaml");
        fs::write(&file, content).unwrap();
        let repository = Repository::of("add", &add_constant(1.0));
        let path = file.to_str().unwrap();
        let server = Server::start_with(repository, &[("config", path)]).await;
        Self { server, file, _home: home }
    }

    /// Changes the file, sends SIGHUP, and waits until the event tells what has become of it.
    async fn reload(&self, content: &str) -> Value {
        let page = self.server.get("/lifecycle/events?kind=configuration").await.ok();
        let since = page["last"].as_u64().unwrap();
        fs::write(&self.file, content).unwrap();
        self.server.process.signal("HUP");
        let told = async {
            let mut ticks = interval(Duration::from_millis(10));
            loop {
                ticks.tick().await;
                let path = format!("/lifecycle/events?kind=configuration&since={since}");
                let page = self.server.get(&path).await.ok();
                if let Some(event) = page["events"].as_array().unwrap().first() {
                    return event["data"].clone();
                }
            }
        };
        timeout(PATIENCE, told).await.expect("the reload is told")
    }

    async fn setting(&self, key: &str) -> Value {
        let config = self.server.get("/lifecycle/config").await.ok();
        let settings = config["settings"].as_array().unwrap();
        settings.iter().find(|setting| setting["key"] == key).unwrap().clone()
    }
}

#[tokio::test]
async fn what_can_change_does_and_the_rest_is_told() {
    let fixture = Fixture::start("server: {max_body_size: 1MiB}\n").await;
    let server = &fixture.server;
    assert_eq!(fixture.setting("server.max_body_size").await["value"], "1MiB");
    let content =
        "server:\n  max_body_size: 50B\n  workers: 7\nmodels:\n  required: [add, absent]\n";
    let told = fixture.reload(content).await;
    let changed = json!(["server.max_body_size", "models.required"]);
    let expected = json!({ "changed": changed, "ignored": ["server.workers"], "detail": "" });
    assert_eq!(told, expected);
    let input = json!({ "name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0, 1] });
    let large = server.post("/v2/models/add/infer", &json!({ "inputs": [input] })).await;
    large.refused(413, "payload_too_large", &["50 bytes"]);
    assert_eq!(server.get("/readyz").await.status, 503, "absent is required now");
    let workers = fixture.setting("server.workers").await;
    assert_eq!((&workers["value"], &workers["pending"]), (&json!("auto"), &json!(7)));
    assert_eq!(workers["origin"]["layer"], "default", "the value in effect is still the default");
    let place = format!("{}:2", fixture.file.display());
    assert_eq!(fixture.setting("server.max_body_size").await["origin"]["place"], place);
    server.process.logged(&["change only when the server is started anew", "server.workers"]).await;
}

#[tokio::test]
async fn a_mistake_changes_nothing() {
    let fixture = Fixture::start("telemetry: {log_level: info}\n").await;
    let content = "server: {max_body_size: 100B, workrs: 1}\ntelemetry: {log_level: debug}\n";
    let told = fixture.reload(content).await;
    assert_eq!((&told["changed"], &told["ignored"]), (&json!([]), &json!([])));
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains("did you mean server.workers?"), "{detail}");
    assert_eq!(fixture.setting("server.max_body_size").await["value"], "64MiB");
    assert_eq!(fixture.setting("telemetry.log_level").await["value"], "info");
    assert_eq!(fixture.server.get("/readyz").await.status, 200);
    let told = fixture.reload("telemetry: {log_level: 'off'}\n").await;
    assert_eq!(told["changed"], json!(["telemetry.log_level"]));
    fixture.server.process.logged(&["configuration read anew", "telemetry.log_level"]).await;
    let page = String::from_utf8(fixture.server.get("/metrics").await.body).unwrap();
    for result in ["failure", "success"] {
        let line = format!("onward_configuration_reloads_total{{result=\"{result}\"}} 1");
        assert!(page.lines().any(|have| have == line), "no {line} in\n{page}");
    }
}
