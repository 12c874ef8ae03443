//! What strangers may ask, and how much: ports, connections, heads, rates.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};
use tonic::Code;

use crate::support::connection::{Connection, head};
use crate::support::grpc::proto::{
    LogSettingsRequest, ModelMetadataRequest, ModelStatisticsRequest, RepositoryIndexRequest,
    RepositoryModelLoadRequest, RepositoryModelUnloadRequest, ServerLiveRequest,
};
use crate::support::grpc::{connect, refused, x as message};
use crate::support::onnx::add_constant;
use crate::support::process::{PATIENCE, blocking, onward, run};
use crate::support::server::client;
use crate::support::{Repository, Server, x};

const INFER: &str = "/v2/models/add/infer";

async fn start(settings: &[(&str, &str)]) -> Server {
    Server::start_with(Repository::of("add", &add_constant(1.0)), settings).await
}

fn input() -> Value {
    x(&[1, 4], &[0.0; 4])
}

#[tokio::test]
async fn management_is_on_its_own_port_alone() {
    let server = start(&[("server.management_listen", "127.0.0.1:0")]).await;
    let managed = server.management_address().await;
    let there = async |path: &str| {
        let answer = client().get(format!("http://{managed}{path}")).send().await.unwrap();
        answer.status().as_u16()
    };
    for path in ["/livez", "/readyz", "/v2", "/v2/models", "/v2/models/add", "/v1/models/add"] {
        assert_eq!((server.get(path).await.status, there(path).await), (200, 200), "{path}");
    }
    server.infer("add", &input()).await.ok();
    for path in [
        "/metrics",
        "/openapi.yaml",
        "/docs/",
        "/lifecycle",
        "/lifecycle/config",
        "/lifecycle/models",
        "/v2/logging",
        "/v2/trace/setting",
        "/v2/models/add/trace/setting",
        "/v2/models/stats",
        "/v2/models/add/stats",
    ] {
        let answer = server.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        let body: Value = answer.json().await.unwrap();
        let text = body["error"].as_str().unwrap();
        assert!(text.contains("server.management_listen"), "{path}: {text}");
        assert_eq!(there(path).await, 200, "{path}");
    }
    let unload = "/v2/repository/models/add/unload";
    let refused = server.request(Method::POST, unload).send().await.unwrap();
    assert_eq!(refused.status(), 404);
    server.infer("add", &input()).await.ok();
    let done = client().post(format!("http://{managed}{unload}")).send().await.unwrap();
    assert_eq!(done.status(), 200);
    server.infer("add", &input()).await.refused(404, "model_not_loaded", &["add"]);
    assert_eq!(server.stop().await, 0);
}

#[tokio::test]
async fn calls_that_manage_are_answered_there_alone() {
    let server = start(&[("server.management_listen", "127.0.0.1:0")]).await;
    for address in [server.address, server.grpc_address().await] {
        let mut client = connect(address).await;
        client.model_infer(message("add", &[1, 4], &[0.0; 4])).await.unwrap();
        client.server_live(ServerLiveRequest {}).await.unwrap();
        let name = "add".to_owned();
        client.model_metadata(ModelMetadataRequest { name, version: String::new() }).await.unwrap();
        let unload = RepositoryModelUnloadRequest {
            model_name: "add".to_owned(),
            ..RepositoryModelUnloadRequest::default()
        };
        let load = RepositoryModelLoadRequest {
            model_name: "add".to_owned(),
            ..RepositoryModelLoadRequest::default()
        };
        for status in [
            client.repository_index(RepositoryIndexRequest::default()).await.unwrap_err(),
            client.repository_model_unload(unload).await.unwrap_err(),
            client.repository_model_load(load).await.unwrap_err(),
            client.log_settings(LogSettingsRequest::default()).await.unwrap_err(),
            client.model_statistics(ModelStatisticsRequest::default()).await.unwrap_err(),
        ] {
            refused(&status, (Code::NotFound, "not_found"), &["server.management_listen"]);
        }
    }
    let mut client = connect(server.management_address().await).await;
    client.repository_index(RepositoryIndexRequest::default()).await.unwrap();
    client.log_settings(LogSettingsRequest::default()).await.unwrap();
}

#[tokio::test]
async fn a_reachable_port_without_management_needs_no_word() {
    let check = async |management: &'static str| {
        let mut command = onward();
        command.args(["config", "--check", "--server.listen", "0.0.0.0:8000"]);
        command.args(["--server.grpc_listen", "0.0.0.0:8001", "--server.management_listen"]);
        command.arg(management);
        blocking(move || run(&mut command)).await
    };
    let (code, _, error) = check("127.0.0.1:8002").await;
    assert_eq!(code, 0, "{error}");
    let (code, _, error) = check("0.0.0.0:8002").await;
    assert_eq!(code, 78);
    assert!(error.contains("server.management_listen: 0.0.0.0:8002 can be reached"), "{error}");
    let server = start(&[("server.management_listen", "127.0.0.1:0")]).await;
    let address = server.management_address().await.to_string();
    let mut command = onward();
    command.args(["health", "--server.listen", "127.0.0.1:1", "--server.management_listen"]);
    command.arg(address);
    let (code, _, error) = blocking(move || run(&mut command)).await;
    assert_eq!(code, 0, "{error}");
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let settings = [("server.rate_limit", "2"), ("server.rate_burst", "5")];
    let server = start(&settings).await;
    let asked = input();
    let answers = join_all((0..12).map(|_| server.infer("add", &asked))).await;
    let (let_in, told): (Vec<_>, Vec<_>) = answers.iter().partition(|one| one.status == 200);
    assert!((5..9).contains(&let_in.len()), "{} were let in", let_in.len());
    for answer in told {
        answer.refused(429, "rate_limited", &["server.rate_limit"]);
        assert_eq!(answer.header("retry-after"), "1");
    }
    for _ in 0..20 {
        assert_eq!(server.get("/livez").await.status, 200);
    }
    let mut client = server.grpc().await;
    let mut refusals = 0;
    for _ in 0..12 {
        client.server_live(ServerLiveRequest {}).await.unwrap();
        if let Err(status) = client.model_infer(message("add", &[1, 4], &[0.0; 4])).await {
            refused(&status, (Code::ResourceExhausted, "rate_limited"), &["server.rate_limit"]);
            refusals += 1;
        }
    }
    assert!(refusals > 4, "{refusals}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let page = String::from_utf8(server.get("/metrics").await.body).unwrap();
    let method = "inference.GRPCInferenceService/ModelInfer";
    let counted = format!(
        "onward_grpc_calls_total{{code=\"RESOURCE_EXHAUSTED\",method=\"{method}\"}} {refusals}\n"
    );
    assert!(page.contains(&counted), "{page}");
}

#[tokio::test]
async fn probes_are_answered_when_there_are_too_many_connections() {
    let server = start(&[("server.max_connections", "8"), ("server.grpc_listen", "off")]).await;
    let mut others = Vec::new();
    let crowding = async {
        while others.len() < 8 {
            let mut other = Connection::open(server.address).await;
            other.send(b"GET /v2 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
            if other.answer().await.status == 200 {
                others.push(other);
            }
        }
    };
    // That of the test itself may be there at first, and is closed then.
    timeout(PATIENCE, crowding).await.unwrap();
    let ask = async |path: &str| {
        let client = client();
        client.get(format!("http://{}{path}", server.address)).send().await.unwrap()
    };
    let told = ask("/v2").await;
    assert_eq!(told.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(told.headers()["retry-after"], "1");
    assert_eq!(told.headers()["connection"], "close");
    let body: Value = told.json().await.unwrap();
    assert_eq!(body["code"], "overloaded");
    for _ in 0..100 {
        assert_eq!(ask("/livez").await.status(), 200);
        assert_eq!(ask("/readyz").await.status(), 200);
    }
    others.pop();
    let let_in = async { while ask("/v2").await.status() != 200 {} };
    timeout(PATIENCE, let_in).await.expect("there is room again");
}

#[tokio::test]
async fn heads_are_bounded() {
    let server = start(&[("server.header_timeout", "500ms")]).await;
    let fields: Vec<(String, String)> =
        (0..200).map(|n| (format!("x-{n}"), n.to_string())).collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let long = "x".repeat(1 << 20);
    for fields in [&fields[..], &[("x-long", long.as_str())]] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // It may be closed before all of it was sent.
        stream.write_all(&head(INFER, fields)).await.ok();
        let mut answer = vec![0; 64];
        let read = timeout(PATIENCE, stream.read(&mut answer)).await.unwrap().unwrap_or_default();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(read == 0 || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let mut idle = Connection::open(server.address).await;
    let mut quiet = Connection::open(server.address).await;
    idle.send(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(idle.answer().await.status, 200);
    let begun = Instant::now();
    let mut half = Connection::open(server.address).await;
    half.send(b"GET /livez HTTP/1.1\r\nhost: ").await;
    let mut half_of_next = Connection::open(server.address).await;
    half_of_next.send(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(half_of_next.answer().await.status, 200);
    half_of_next.send(b"G").await;
    half.is_closed().await;
    half_of_next.is_closed().await;
    assert!(begun.elapsed() > Duration::from_millis(400), "{:?}", begun.elapsed());
    // Those that have begun nothing are kept.
    for kept in [&mut idle, &mut quiet] {
        kept.send(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert_eq!(kept.answer().await.status, 200);
    }
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_the_connection() {
    let server = start(&[]).await;
    let before = server.process.open_files();
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    flood.extend(frame(4, 0, 0, &[]));
    // GET http://a/
    let request = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
    for stream in (1..20_001).step_by(2) {
        flood.extend(frame(1, 5, stream, &request));
        flood.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    for _ in 0..5 {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        let flood = flood.clone();
        let sending = tokio::spawn(async move {
            writing.write_all(&flood).await.ok();
            writing
        });
        let mut told = Vec::new();
        let ended = timeout(PATIENCE, reading.read_to_end(&mut told)).await;
        ended.expect("the server ends the connection").ok();
        drop(sending.await);
        assert_eq!(server.get("/livez").await.status, 200);
    }
    settled(&server, before).await;
}

/// Waits until the server has as few files open as before, but for connections of the tests' client.
async fn settled(server: &Server, before: Option<usize>) {
    let Some(before) = before else { return };
    let looking = async {
        let mut looks = interval(Duration::from_millis(50));
        loop {
            looks.tick().await;
            let now = server.process.open_files().unwrap_or_default();
            if now <= before + 8 {
                return;
            }
        }
    };
    let ended = timeout(PATIENCE, looking).await;
    assert!(ended.is_ok(), "{before} files before, {:?} now", server.process.open_files());
}

/// The 99th percentile of requests one after the other.
async fn p99(server: &Server) -> Duration {
    let mut times = Vec::new();
    for _ in 0..400 {
        let begun = Instant::now();
        server.infer("add", &input()).await.ok();
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[tokio::test]
async fn those_who_never_finish_slow_nobody_down() {
    let settings = [("server.header_timeout", "5s"), ("server.request_timeout", "8s")];
    let server = start(&settings).await;
    p99(&server).await;
    let (files, memory) = (server.process.open_files(), server.process.resident());
    let quiet = p99(&server).await;
    let mut slow = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let mut begun = head(INFER, &[("content-length", "100000")]);
        if number % 2 == 0 {
            begun.truncate(40);
        } else {
            begun.extend(b"{\"inputs\":[");
        }
        stream.write_all(&begun).await.unwrap();
        slow.push(stream);
    }
    let among = p99(&server).await;
    println!("p99 {quiet:?} alone, {among:?} beside 300 that never finish");
    assert!(among < quiet * 2 + Duration::from_millis(100), "{quiet:?} became {among:?}");
    let ended = slow.iter_mut().map(|stream| async move {
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is ended").ok();
        String::from_utf8(answer).unwrap()
    });
    for (number, answer) in join_all(ended).await.into_iter().enumerate() {
        let told = if number % 2 == 0 { answer.is_empty() } else { answer.contains(" 408 ") };
        assert!(told, "{number}: {answer}");
    }
    settled(&server, files).await;
    if let (Some(before), Some(after)) = (memory, server.process.resident()) {
        println!("{before} bytes of memory before, {after} after");
        assert!(after < before + (32 << 20), "{before} bytes became {after}");
    }
    assert_eq!(server.stop().await, 0);
}

/// As many connections at once as this process may have, up to ten thousand.
#[tokio::test]
async fn thousands_of_connections_leave_nothing_behind() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find(|line| line.starts_with("Max open files"));
    let files = files.and_then(|line| line.split_whitespace().nth(3)?.parse::<usize>().ok());
    let count = 10_000.min(files.unwrap_or(256) / 2);
    let server = start(&[("server.max_connections", "20000")]).await;
    let files = server.process.open_files();
    let mut peaks = Vec::new();
    for _ in 0..3 {
        let mut open = Vec::with_capacity(count);
        for _ in 0..count {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            open.push(stream);
        }
        for stream in &mut open {
            let mut answer = [0; 12];
            timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
        }
        server.infer("add", &input()).await.ok();
        drop(open);
        settled(&server, files).await;
        peaks.extend(server.process.peak());
    }
    println!("{peaks:?} bytes of memory at most after {count} connections each");
    // What is left of the first is used for those that come.
    if let [first, .., last] = peaks[..] {
        assert!(last < first + first / 2, "{peaks:?}");
    }
    assert_eq!(server.stop().await, 0);
}

#[tokio::test]
async fn no_page_of_another_site_is_let_in() {
    let server = start(&[]).await;
    let origin =
        |method, path| server.request(method, path).header("origin", "http://evil.example");
    let mut answers = Vec::new();
    for path in ["/livez", "/v2", INFER, "/lifecycle", "/docs/", "/metrics", "/nowhere"] {
        answers.push(origin(Method::GET, path).send().await.unwrap());
        answers.push(origin(Method::POST, path).body("{}").send().await.unwrap());
        let preflight = origin(Method::OPTIONS, path);
        let preflight = preflight.header("access-control-request-method", "POST");
        let answer = preflight.send().await.unwrap();
        assert!(!answer.status().is_success(), "{path}: {}", answer.status());
        answers.push(answer);
    }
    for answer in &answers {
        let names = answer.headers().keys().map(reqwest::header::HeaderName::as_str);
        let told: Vec<&str> = names.filter(|name| name.starts_with("access-control")).collect();
        assert!(told.is_empty(), "{}: {told:?}", answer.url());
    }
    let page = server.get("/docs/").await;
    let policy = page.header("content-security-policy");
    for part in ["default-src 'none'", "frame-ancestors 'self'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    let refused = server.request(Method::POST, INFER).header("sec-fetch-site", "cross-site");
    let refused = refused.body(json!({}).to_string()).send().await.unwrap();
    assert_eq!(refused.status(), 403);
}
