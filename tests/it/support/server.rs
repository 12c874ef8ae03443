//! A running server, and a client that holds every answer against `openapi.yaml`.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{interval, timeout};

use super::contract;
use super::process::{PATIENCE, Process, onward};
use super::repository::Repository;

/// The real binary on a free port.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) repository: Repository,
    settings: Vec<(String, String)>,
    client: reqwest::Client,
    _home: TempDir,
}

/// What the server answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Server {
    /// Starts with the defaults and waits until it is ready.
    pub(crate) async fn start(repository: Repository) -> Self {
        Self::start_with(repository, &[]).await
    }

    /// Starts with these settings and waits until it is ready.
    pub(crate) async fn start_with(repository: Repository, settings: &[(&str, &str)]) -> Self {
        let server = Self::launch(repository, settings).await;
        server.is_ready().await;
        server
    }

    /// Starts this command, with these settings, and waits until it is ready.
    pub(crate) async fn start_by(
        command: Command,
        repository: Repository,
        settings: &[(&str, &str)],
    ) -> Self {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Self::launch_by(command, (anywhere, repository), settings).await;
        server.is_ready().await;
        server
    }

    async fn is_ready(&self) {
        self.process.logged(&["health check passes", "application", "readiness"]).await;
    }

    /// Starts with these settings and waits only until it listens.
    pub(crate) async fn launch(repository: Repository, settings: &[(&str, &str)]) -> Self {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::launch_on(anywhere, repository, settings).await
    }

    /// Kills it, and starts another with the same repository and settings on the same address.
    pub(crate) async fn kill_and_restart(self) -> Self {
        let Self { process, address, repository, settings, .. } = self;
        drop(process);
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let server = Self::launch_on(address, repository, &settings).await;
        server.is_ready().await;
        server
    }

    async fn launch_on(
        address: SocketAddr,
        repository: Repository,
        settings: &[(&str, &str)],
    ) -> Self {
        Self::launch_by(onward(), (address, repository), settings).await
    }

    async fn launch_by(
        mut command: Command,
        (address, repository): (SocketAddr, Repository),
        settings: &[(&str, &str)],
    ) -> Self {
        let home = TempDir::new().expect("the system has a temporary folder");
        command.arg("serve").arg("--server.listen").arg(address.to_string());
        command.arg("--models.repository").arg(repository.path());
        command.args(["--telemetry.log_format", "json"]);
        for (key, value) in [("lifecycle.pre_stop_delay", "0s"), ("models.keep_previous", "0s")] {
            if !settings.iter().any(|(given, _)| *given == key) {
                command.arg(format!("--{key}")).arg(value);
            }
        }
        for (key, value) in settings {
            command.arg(format!("--{key}")).arg(value);
        }
        let process = Process::spawn(&mut command);
        let line: Value = serde_json::from_str(&process.logged(&["\"listening\""]).await).unwrap();
        let address = line["address"].as_str().expect("the line tells the address");
        let address = address.parse().expect("it is a socket's address");
        let given = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let settings = settings.iter().map(given).collect();
        Self { process, address, repository, settings, client: client(), _home: home }
    }

    /// The address of management alone.
    pub(crate) async fn management_address(&self) -> SocketAddr {
        let line = self.process.logged(&["\"listening for management\""]).await;
        let line: Value = serde_json::from_str(&line).unwrap();
        line["address"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Vec::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, body.to_string().into_bytes()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, body.to_string().into_bytes()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, Vec::new()).await
    }

    /// Infers on the model's current version.
    pub(crate) async fn infer(&self, model: &str, body: &Value) -> Answer {
        self.post(&format!("/v2/models/{model}/infer"), body).await
    }

    /// Sends a request, and checks that the answer is one that `openapi.yaml` describes.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Answer {
        let answer = self.try_send(method.clone(), path, body).await.expect("the server answers");
        contract::check(&method, path, &answer);
        answer
    }

    /// Sends a request to a server that may be gone.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> reqwest::Result<Answer> {
        let request = self.request(method, path).body(body);
        Answer::of(request.send().await?).await
    }

    /// A request to be completed by the caller.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let secured = self.settings.iter().any(|(key, _)| key == "server.tls_certificate");
        let scheme = if secured { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// The same, asked by this client from now on.
    pub(crate) fn asked_by(self, client: reqwest::ClientBuilder) -> Self {
        Self { client: client.build().expect("the client is sound"), ..self }
    }

    /// The report on one version of a model.
    pub(crate) async fn version(&self, model: &str, version: &str) -> Value {
        let report = self.get(&format!("/lifecycle/models/{model}")).await.ok();
        let versions = report["versions"].as_array().expect("versions are a list").clone();
        let found = versions.into_iter().find(|entry| entry["version"] == version);
        found.unwrap_or_else(|| panic!("no version {version} in {report}"))
    }

    /// Asks for the report on a version until it is as wanted; that report.
    pub(crate) async fn until(
        &self,
        (model, version): (&str, &str),
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let asking = async {
            let mut ticks = interval(Duration::from_millis(10));
            loop {
                ticks.tick().await;
                let report = self.version(model, version).await;
                if wanted(&report) {
                    return report;
                }
            }
        };
        timeout(PATIENCE, asking).await.expect("the report comes to be as wanted")
    }

    /// Waits until a version has begun its life.
    pub(crate) async fn started(&self, (model, version): (&str, &str)) {
        let asking = async {
            let mut ticks = interval(Duration::from_millis(5));
            loop {
                ticks.tick().await;
                let report = self.get(&format!("/lifecycle/models/{model}")).await.json();
                let versions = report["versions"].as_array();
                if versions.is_some_and(|all| all.iter().any(|entry| entry["version"] == version)) {
                    return;
                }
            }
        };
        timeout(PATIENCE, asking).await.expect("the version begins its life");
    }

    /// Asks it to stop and waits; its exit code.
    pub(crate) async fn stop(mut self) -> i32 {
        self.process.signal("TERM");
        self.process.exit_code().await
    }
}

/// A client that goes to no proxy and nowhere else than it is told.
pub(crate) fn client() -> reqwest::Client {
    // Another test may have installed it before.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder().no_proxy().redirect(Policy::none());
    client.build().expect("the client is sound")
}

impl Answer {
    pub(crate) async fn of(response: reqwest::Response) -> reqwest::Result<Self> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Self { status, headers, body: response.bytes().await?.to_vec() })
    }

    /// Reads the bytes of a whole answer that has no chunks.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("it has a head");
        let head = std::str::from_utf8(&bytes[..end]).expect("heads are ASCII");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("it has a status");
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| {
            let name = reqwest::header::HeaderName::from_bytes(name.as_bytes());
            (name.expect("it is a name"), value.parse().expect("it is a value"))
        });
        let status = status.parse().expect("it is a number");
        Self { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The body of a 200.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Checks the status and the code of an error, and that its text has all of these.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str, texts: &[&str]) {
        let body = self.json();
        let told = (self.status, body["code"].as_str().unwrap_or_default());
        assert_eq!(told, (status, code), "{body}");
        let text = body["error"].as_str().expect("the error is a text");
        for expected in texts {
            assert!(text.contains(expected), "no {expected:?} in {text:?}");
        }
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(body["request_id"], self.header("x-request-id"));
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("there is no header {name}"));
        value.to_str().expect("it is visible ASCII")
    }

    /// The data of one output.
    #[track_caller]
    pub(crate) fn output(&self, name: &str) -> Value {
        let body = self.ok();
        let outputs = body["outputs"].as_array().expect("outputs are a list");
        let found = outputs.iter().find(|output| output["name"] == name);
        found.unwrap_or_else(|| panic!("no output {name} in {body}"))["data"].clone()
    }
}
