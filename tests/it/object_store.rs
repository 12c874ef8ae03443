//! The real binary over repositories in real object stores.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::onnx::{add_constant, add_external};
use crate::support::process::{Process, blocking, onward, run};
use crate::support::server::client;
use crate::support::stores::{Protocol, StoreServer};
use crate::support::{Answer, x};

struct Remote {
    store: StoreServer,
    cache: TempDir,
}

impl Remote {
    async fn new(protocol: Protocol) -> Self {
        let store = blocking(move || StoreServer::start(protocol)).await;
        store.prepare().await;
        Self { store, cache: TempDir::new().unwrap() }
    }

    async fn put(&self, path: &str, content: &[u8]) {
        self.store.put(&format!("models/{path}"), content).await;
    }

    async fn serve(&self) -> (Process, SocketAddr) {
        self.serve_with(&[]).await
    }

    /// Starts the server, which finds the store by its environment.
    async fn serve_with(&self, more: &[&str]) -> (Process, SocketAddr) {
        let (url, options) = self.store.seen("models");
        let mut command = onward();
        command.args(["serve", "--server.listen", "127.0.0.1:0", "--telemetry.log_format", "json"]);
        command.args(["--models.repository", url.as_str(), "--lifecycle.pre_stop_delay", "0s"]);
        command.arg("--models.cache").arg(self.cache.path()).args(more);
        for (name, value) in options {
            command.env(name.to_uppercase(), value);
        }
        let process = Process::spawn(&mut command);
        let line: Value = serde_json::from_str(&process.logged(&["\"listening\""]).await).unwrap();
        process.logged(&["health check passes", "application", "readiness"]).await;
        (process, line["address"].as_str().unwrap().parse().unwrap())
    }
}

async fn post(address: SocketAddr, path: &str, body: &Value) -> Answer {
    let http = client();
    let response = http.post(format!("http://{address}{path}")).body(body.to_string()).send().await;
    let response = response.unwrap();
    let (status, headers): (u16, HeaderMap) =
        (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
}

async fn load(address: SocketAddr) -> Answer {
    post(address, "/lifecycle/models/add/load", &json!({})).await
}

async fn adds(address: SocketAddr) -> (String, Option<f64>) {
    let answer = post(address, "/v2/models/add/infer", &x(&[1, 4], &[0.0; 4])).await;
    (answer.header("x-onward-version").to_owned(), answer.output("y")[0].as_f64())
}

/// What a version that adds its number answers.
fn version(number: u8) -> (String, Option<f64>) {
    (number.to_string(), Some(f64::from(number)))
}

#[tokio::test]
async fn models_are_served_from_a_store_and_follow_it() {
    for protocol in StoreServer::installed() {
        println!("over {protocol:?}");
        let remote = Remote::new(protocol).await;
        remote.put("add/1/model.onnx", &add_constant(1.0)).await;
        let (process, address) = remote.serve().await;
        assert_eq!(adds(address).await, version(1));
        remote.put("add/2/model.onnx", &add_external("weights.bin")).await;
        remote.put("add/2/weights.bin", &2_f32.to_le_bytes()).await;
        let loaded = load(address).await.ok();
        assert_eq!((&loaded["current_version"], &loaded["loaded"]), (&json!("2"), &json!(["2"])));
        assert_eq!(adds(address).await, version(2));
        post(address, "/lifecycle/models/add/rollback", &json!({})).await.ok();
        assert_eq!(adds(address).await, version(1));
        drop(process);
        // The next life finds the content in the cache.
        let (_process, address) = remote.serve().await;
        assert_eq!(adds(address).await, version(2));
    }
}

#[tokio::test]
async fn a_store_that_is_gone_is_told_and_what_is_loaded_serves_on() {
    let remote = Remote::new(Protocol::S3).await;
    remote.put("add/1/model.onnx", &add_constant(1.0)).await;
    let (process, address) = remote.serve().await;
    drop(remote.store);
    let refused = load(address).await;
    refused.refused(400, "load_failed", &["object store"]);
    assert_eq!(adds(address).await, version(1));
    let text = format!("{}{}", refused.json(), process.log());
    assert!(!text.contains("test/") && !text.contains("Signature"), "no credentials: {text}");
}

#[tokio::test]
async fn a_store_that_hangs_holds_up_neither_loads_nor_the_end() {
    let remote = Remote::new(Protocol::WebDav).await;
    remote.put("add/1/model.onnx", &add_constant(1.0)).await;
    let (mut process, address) = remote.serve_with(&["--models.load_timeout", "2s"]).await;
    remote.store.signal("STOP");
    let since = Instant::now();
    load(address).await.refused(400, "load_failed", &["2s"]);
    // The loads before it have not taken all the places for good.
    load(address).await.refused(400, "load_failed", &["2s"]);
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    assert_eq!(adds(address).await, version(1));
    remote.store.signal("CONT");
    remote.put("add/2/model.onnx", &add_constant(2.0)).await;
    load(address).await.ok();
    assert_eq!(adds(address).await, version(2));
    remote.store.signal("STOP");
    let (loading, ()) = tokio::join!(load(address), async {
        process.logged(&["operation", "add"]).await;
        process.signal("TERM");
    });
    assert!(loading.status >= 400);
    assert_eq!(process.exit_code().await, 0);
}

#[tokio::test]
async fn two_servers_may_have_one_cache() {
    let remote = Remote::new(Protocol::S3).await;
    remote.put("add/1/model.onnx", &add_constant(1.0)).await;
    let ((_one, first), (other, second)) = tokio::join!(remote.serve(), remote.serve());
    for number in 2..5 {
        let content = add_constant(f32::from(number));
        remote.put(&format!("add/{number}/model.onnx"), &content).await;
        let (here, there) = tokio::join!(load(first), load(second));
        here.ok();
        there.ok();
        assert_eq!((adds(first).await, adds(second).await), (version(number), version(number)));
    }
    drop(other);
    let (_another, third) = remote.serve().await;
    load(first).await.ok();
    assert_eq!((adds(first).await, adds(third).await), (version(4), version(4)));
}

#[test]
fn an_address_with_credentials_is_refused() {
    let mut command = onward();
    let (code, _, told) =
        run(command.args(["serve", "--models.repository", "s3://user:secret@bucket"]));
    assert_eq!(code, 1);
    assert!(told.contains("AWS_ACCESS_KEY_ID") && !told.contains("secret@"), "{told}");
}

#[test]
fn a_store_cannot_be_watched() {
    for command in [&["serve"][..], &["config", "--check"]] {
        let mut onward = onward();
        onward.args(command).args(["--models.repository", "s3://bucket/models"]);
        let (code, _, told) = run(onward.args(["--models.mode", "watch"]));
        assert_eq!(code, 78);
        assert!(told.contains("--models.mode: an object store gives no notice"), "{told}");
    }
}
