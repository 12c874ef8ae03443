//! The log where nobody reads it, and where it cannot be written: nothing waits for it, and it is told.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{interval, timeout};

use crate::support::onnx::{add_constant, failing_unless_zero, slow};
use crate::support::process::{PATIENCE, blocking, onward};
use crate::support::server::client;
use crate::support::{Repository, Server, grpc, project, x};

/// Killed when dropped.
struct Running(Child);

/// A server whose log goes to what the test says.
struct Logging {
    running: Running,
    address: SocketAddr,
    client: reqwest::Client,
    _repository: Repository,
    _home: TempDir,
}

impl Logging {
    /// Starts with a line for each request, and waits until it is ready.
    async fn start(log: impl Into<Stdio>, level: &str) -> Self {
        let home = TempDir::new().unwrap();
        let port_file = home.path().join("port");
        let repository = Repository::of("add", &add_constant(1.0));
        let mut command = onward();
        command.args(["serve", "--server.listen", "127.0.0.1:0", "--server.port_file"]);
        command.arg(&port_file).arg("--models.repository").arg(repository.path());
        command.args(["--telemetry.access_log", "true", "--telemetry.log_format", "json"]);
        command.args(["--telemetry.log_level", level, "--lifecycle.health_interval", "50ms"]);
        command.args(["--lifecycle.pre_stop_delay", "0s"]).current_dir(project(""));
        let running = Running(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let address = until(async || {
            let text = std::fs::read_to_string(&port_file).unwrap_or_default();
            text.trim().parse::<SocketAddr>().ok()
        });
        let address = address.await;
        let client = client();
        let server = Self { running, address, client, _repository: repository, _home: home };
        until(async || (server.get("/readyz").await.0 == 200).then_some(())).await;
        server
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.client.get(format!("http://{}{path}", self.address)).send();
        let answer = answer.await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Has this many requests answered, each of which has a line.
    async fn answers(&self, requests: usize) {
        for _ in 0..requests {
            assert_eq!(self.get("/v2/models/add").await.0, 200);
        }
    }

    /// Lines that were lost, by why.
    async fn lost(&self, reason: &str) -> u64 {
        let (_, page) = self.get("/metrics").await;
        let name = format!("onward_log_lines_lost_total{{reason=\"{reason}\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
        line.parse().unwrap()
    }

    /// Waits until the check is of this status; what is wrong.
    async fn check(&self, status: &str) -> String {
        let found = until(async || {
            let (_, text) = self.get("/lifecycle/checks/readiness/log").await;
            let check = serde_json::from_str::<Value>(&text).unwrap()["check"].clone();
            (check["status"] == status).then_some(check)
        });
        let error = found.await["last_error"].as_str().unwrap_or_default().to_owned();
        assert_eq!(self.get("/readyz").await.0, 200, "it is not critical");
        error
    }

    /// Asks it to stop, and waits until it has; its exit code.
    async fn stop(mut self) -> Option<i32> {
        let pid = self.running.0.id().to_string();
        let sent = std::process::Command::new("kill").args(["-s", "TERM", &pid]).status();
        assert!(sent.unwrap().success());
        until(async || self.running.0.try_wait().unwrap()).await.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn until<T>(mut asked: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        let mut ticks = interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            if let Some(found) = asked().await {
                return found;
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("it comes to be")
}

/// A server whose log nobody has read, and who has said more than there is room for.
async fn unread() -> (Logging, ChildStderr) {
    let mut server = Logging::start(Stdio::piped(), "info").await;
    let log = server.running.0.stderr.take().unwrap();
    while server.lost("queue_full").await == 0 {
        server.answers(1000).await;
    }
    (server, log)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_log_that_cannot_be_written_stops_nothing_and_fails_a_check() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let server = Logging::start(full, "debug").await;
    server.answers(20).await;
    let error = server.check("failing").await;
    assert!(error.contains("No space left on device"), "{error}");
    assert!(server.lost("failed").await >= 20);
    assert_eq!(server.lost("queue_full").await, 0);
    assert_eq!(server.stop().await, Some(0));
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing_and_what_is_lost_is_told_once_somebody_does() {
    let (server, log) = unread().await;
    let error = server.check("failing").await;
    assert!(error.contains("what reads standard error has stopped"), "{error}");

    let reading = tokio::spawn(blocking(|| {
        BufReader::new(log)
            .lines()
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect()
    }));
    server.check("passing").await;
    let lost = server.lost("queue_full").await;
    server.answers(1).await;
    assert_eq!(server.lost("queue_full").await, lost);
    assert_eq!(server.lost("failed").await, 0);
    assert_eq!(server.stop().await, Some(0));
    let lines: Vec<Value> = reading.await.unwrap();
    let told = lines.iter().rfind(|line| line["target"] == "onward::log").unwrap();
    assert_eq!(told["lines"], lost);
    assert_eq!(lines.iter().filter(|line| line["lines"] == told["lines"]).count(), 1);
    assert_eq!(lines.last().unwrap()["to"], "STOPPED");
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_log_that_nobody_reads() {
    let (server, _log) = unread().await;
    assert_eq!(server.stop().await, Some(0));
}

#[tokio::test]
async fn nothing_of_a_tensor_gets_into_the_log() {
    let settings = [
        ("telemetry.log_level", "trace"),
        ("telemetry.access_log", "true"),
        ("telemetry.slow_request", "1ms"),
    ];
    let repository = Repository::of("add", &add_constant(1.0))
        .and("strict", 1, &failing_unless_zero())
        .and("slow", 1, &slow(20_000));
    let server = Server::start_with(repository, &settings).await;
    let traced = json!({ "trace_rate": "1", "trace_level": ["TIMESTAMPS"] });
    assert_eq!(server.post("/v2/trace/setting", &traced).await.status, 200);
    let element = "71.015625";
    let number: f32 = element.parse().unwrap();
    assert_eq!(server.infer("add", &x(&[1, 4], &[number, 0.0, 0.0, 0.0])).await.status, 200);
    let mut wrong = x(&[1, 4], &[0.0; 4]);
    wrong["inputs"][0]["data"] = json!([element, 0, 0, 0]);
    server.infer("add", &wrong).await.refused(400, "invalid_request", &[element]);
    let predicted = server.post("/v1/models/add:predict", &json!({ "instances": [element] })).await;
    assert_eq!(predicted.status, 400);
    assert_eq!(server.infer("slow", &x(&[1], &[number])).await.status, 200);
    let refused = server.infer("strict", &x(&[1, 4], &[71.0; 4])).await;
    refused.refused(400, "invalid_request", &["71"]);
    let mut client = server.grpc().await;
    client.model_infer(grpc::x("add", &[1, 4], &[number; 4])).await.unwrap();
    client.model_infer(grpc::x("strict", &[1, 4], &[71.0; 4])).await.unwrap_err();
    assert_eq!(server.get("/v2").await.status, 200);
    server.process.logged(&["onward::access", "\"/v2\""]).await;
    let log = server.process.log();
    assert!(log.contains("onward::trace") && log.contains("onward::slow"), "{log}");
    for content in [element, "72.015625", "idx=71"] {
        let line = log.lines().find(|line| line.contains(content));
        assert_eq!(line, None, "{content}");
    }
}
