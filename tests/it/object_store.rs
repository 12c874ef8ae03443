//! The real binary over a repository in a real S3 API.

use std::net::SocketAddr;

use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use crate::support::moto::Moto;
use crate::support::onnx::{add_constant, add_external};
use crate::support::process::{Process, blocking, onward, run};
use crate::support::server::client;
use crate::support::{Answer, x};

struct Remote {
    moto: Moto,
    client: Box<dyn ObjectStore>,
    cache: TempDir,
}

impl Remote {
    async fn new() -> Self {
        let (moto, http) = (blocking(Moto::start).await, client());
        let url = Url::parse("s3://bucket/models").unwrap();
        let (client, _) = object_store::parse_url_opts(&url, moto.options()).unwrap();
        let scope = "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request";
        let bucket = http.put(format!("{}/bucket", moto.endpoint)).header("authorization", scope);
        assert_eq!(bucket.send().await.unwrap().status(), 200);
        Self { moto, client, cache: TempDir::new().unwrap() }
    }

    async fn put(&self, path: &str, content: &[u8]) {
        let key = Key::from(format!("models/{path}"));
        self.client.put(&key, content.to_vec().into()).await.unwrap();
    }

    /// Starts the server, which finds the store by its environment.
    async fn serve(&self) -> (Process, SocketAddr) {
        let mut command = onward();
        command.args(["serve", "--server.listen", "127.0.0.1:0", "--telemetry.log_format", "json"]);
        command.args([
            "--models.repository",
            "s3://bucket/models",
            "--lifecycle.pre_stop_delay",
            "0s",
        ]);
        command.arg("--models.cache").arg(self.cache.path());
        for (name, value) in self.moto.options() {
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

async fn adds(address: SocketAddr) -> (String, Option<f64>) {
    let answer = post(address, "/v2/models/add/infer", &x(&[1, 4], &[0.0; 4])).await;
    (answer.header("x-onward-version").to_owned(), answer.output("y")[0].as_f64())
}

#[tokio::test]
async fn models_are_served_from_a_store_and_follow_it() {
    let remote = Remote::new().await;
    remote.put("add/1/model.onnx", &add_constant(1.0)).await;
    let (process, address) = remote.serve().await;
    assert_eq!(adds(address).await, ("1".to_owned(), Some(1.0)));
    remote.put("add/2/model.onnx", &add_external("weights.bin")).await;
    remote.put("add/2/weights.bin", &2_f32.to_le_bytes()).await;
    let loaded = post(address, "/lifecycle/models/add/load", &json!({})).await.ok();
    assert_eq!((&loaded["current_version"], &loaded["loaded"]), (&json!("2"), &json!(["2"])));
    assert_eq!(adds(address).await, ("2".to_owned(), Some(2.0)));
    post(address, "/lifecycle/models/add/rollback", &json!({})).await.ok();
    assert_eq!(adds(address).await, ("1".to_owned(), Some(1.0)));
    drop(process);
    // The next life finds the content in the cache, also where the store gives none.
    let (_process, address) = remote.serve().await;
    assert_eq!(adds(address).await, ("2".to_owned(), Some(2.0)));
}

#[tokio::test]
async fn a_store_that_is_gone_is_told_and_what_is_loaded_serves_on() {
    let remote = Remote::new().await;
    remote.put("add/1/model.onnx", &add_constant(1.0)).await;
    let (process, address) = remote.serve().await;
    drop(remote.moto);
    let refused = post(address, "/lifecycle/models/add/load", &json!({})).await;
    refused.refused(400, "load_failed", &["object store"]);
    assert_eq!(adds(address).await, ("1".to_owned(), Some(1.0)));
    let text = format!("{}{}", refused.json(), process.log());
    assert!(!text.contains("test/") && !text.contains("Signature"), "no credentials: {text}");
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
