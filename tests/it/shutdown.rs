//! The end: what is promised, and what it is worth.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::onnx::{Dim, Elem, add_constant, identity, slow_by_input};
use crate::support::process::PATIENCE;
use crate::support::{Repository, Server, x};

fn slow(iterations: u32) -> Value {
    json!({ "inputs": [
        { "name": "x", "shape": [1], "datatype": "FP32", "data": [0] },
        { "name": "iterations", "shape": [1], "datatype": "INT64", "data": [iterations] },
    ] })
}

#[tokio::test]
async fn sigterm_answers_what_is_in_flight_and_exits_with_0() {
    let one_by_one = [("inference.instances", "1")];
    let mut server =
        Server::start_with(Repository::of("slow", &slow_by_input()), &one_by_one).await;
    // The first holds the others up until all are inside.
    let requests: Vec<_> = [1_000_000]
        .into_iter()
        .chain([20_000; 49])
        .map(|iterations| {
            let request = server.request(Method::POST, "/v2/models/slow/infer");
            tokio::spawn(request.body(slow(iterations).to_string()).send())
        })
        .collect();
    server.until(("slow", "1"), |report| report["in_flight"] == 50).await;
    server.process.signal("TERM");
    for request in requests {
        let answer = request.await.unwrap().expect("every request is answered");
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(server.process.exit_code().await, 0);
    assert!(server.process.log().contains("STOPPED"));
}

#[tokio::test]
async fn after_sigterm_the_server_is_unready_and_serves_on_for_the_pre_stop_delay() {
    let repository = Repository::of("add", &add_constant(1.0));
    let settings = [("lifecycle.pre_stop_delay", "2s")];
    let mut server = Server::start_with(repository, &settings).await;
    server.process.signal("TERM");
    server.process.logged(&["health check fails", "application"]).await;
    assert_eq!(server.get("/readyz").await.status, 503);
    assert_eq!(server.get("/livez").await.status, 200);
    let page = server.get("/lifecycle").await;
    assert_eq!(page.ok()["state"], "STOPPING");
    // So that the client's next request is on a connection to somebody else.
    assert_eq!(page.header("connection"), "close");
    let answer = server.infer("add", &x(&[1, 4], &[0.0; 4])).await;
    assert_eq!(answer.output("y")[0], json!(1.0));
    assert_eq!(server.process.exit_code().await, 0);
    assert!(server.try_send(Method::GET, "/livez", Vec::new()).await.is_err());
}

/// Each request on a connection of its own, until there is nobody to connect to.
async fn ask_until_refused(request: reqwest::RequestBuilder) -> Vec<u16> {
    let mut statuses = Vec::new();
    loop {
        match request.try_clone().unwrap().send().await {
            Ok(answer) => statuses.push(answer.status().as_u16()),
            Err(refusal) if refusal.is_connect() => return statuses,
            Err(lost) => panic!("a request was lost after {}: {lost:?}", statuses.len()),
        }
    }
}

#[tokio::test]
async fn whoever_connects_until_the_last_moment_is_answered() {
    for _ in 0..3 {
        let settings = [("lifecycle.pre_stop_delay", "300ms")];
        let repository = Repository::of("add", &add_constant(1.0));
        let mut server = Server::start_with(repository, &settings).await;
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        let client = client.build().unwrap();
        let infer = client.post(server.url("/v2/models/add/infer"));
        let infer = infer.body(x(&[1, 4], &[0.0; 4]).to_string());
        let asking = |request: &reqwest::RequestBuilder| {
            tokio::spawn(ask_until_refused(request.try_clone().unwrap()))
        };
        let inferring: Vec<_> = (0..8).map(|_| asking(&infer)).collect();
        let (live, ready) = (client.get(server.url("/livez")), client.get(server.url("/readyz")));
        let (live, early) = (asking(&live), server.get("/readyz").await.status);
        server.process.signal("TERM");
        server.process.logged(&["health check fails", "application"]).await;
        let ready = asking(&ready);
        let statuses = |answers: Vec<u16>, expected| {
            assert!(!answers.is_empty(), "nobody was answered");
            assert!(answers.iter().all(|status| *status == expected), "{expected}: {answers:?}");
        };
        for client in inferring {
            statuses(client.await.unwrap(), 200);
        }
        statuses(live.await.unwrap(), 200);
        assert_eq!(early, 200);
        statuses(ready.await.unwrap(), 503);
        assert_eq!(server.process.exit_code().await, 0);
    }
}

#[tokio::test]
async fn a_deadline_that_passes_cuts_off_and_exits_with_3() {
    let settings = [("lifecycle.shutdown_timeout", "200ms")];
    let mut server = Server::start_with(Repository::of("slow", &slow_by_input()), &settings).await;
    let request = server.request(Method::POST, "/v2/models/slow/infer");
    let request = tokio::spawn(request.body(slow(15_000_000).to_string()).send());
    server.until(("slow", "1"), |report| report["in_flight"] == 1).await;
    server.process.signal("TERM");
    assert_eq!(server.process.exit_code().await, 3);
    let log = server.process.log();
    let mut lines = log.lines();
    let told = lines.find(|line| line.contains("requests are still inside")).expect("it is told");
    assert!(told.contains("cut off") && told.contains("slow"), "{told}");
    assert!(request.await.unwrap().is_err());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let settings = [("lifecycle.pre_stop_delay", "10m")];
        let repository = Repository::of("add", &add_constant(1.0));
        let mut server = Server::start_with(repository, &settings).await;
        server.process.signal("TERM");
        server.process.logged(&["serving on"]).await;
        server.process.signal(signal);
        assert_eq!(server.process.exit_code().await, code);
    }
}

/// The promise is 100 ms. A busy machine may be late now and then, but not each time.
#[tokio::test]
async fn a_second_signal_ends_it_within_100_ms_whatever_runs() {
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let mut server = Server::start(Repository::of("slow", &slow_by_input())).await;
        let request = server.request(Method::POST, "/v2/models/slow/infer");
        let request = tokio::spawn(request.body(slow(1_000_000_000).to_string()).send());
        server.until(("slow", "1"), |report| report["in_flight"] == 1).await;
        server.process.signal("TERM");
        server.process.logged(&["serving on"]).await;
        let signalled = tokio::time::Instant::now();
        server.process.signal("TERM");
        assert_eq!(server.process.exit_code().await, 143);
        quickest = quickest.min(signalled.elapsed());
        assert!(request.await.unwrap().is_err());
    }
    assert!(quickest <= Duration::from_millis(100), "{quickest:?}");
}

#[tokio::test]
async fn after_a_kill_under_load_another_starts_as_if_nothing_had_been() {
    let repository = Repository::of("add", &add_constant(1.0)).and("add", 2, &add_constant(2.0));
    let server = Server::start(repository).await;
    let before = files(server.repository.path());
    let body = x(&[1, 4], &[0.0; 4]).to_string();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let request = server.request(Method::POST, "/v2/models/add/infer").body(body.clone());
            tokio::spawn(async move { while request.try_clone().unwrap().send().await.is_ok() {} })
        })
        .collect();
    server.until(("add", "2"), |report| report["requests"].as_u64() > Some(100)).await;
    let server = server.kill_and_restart().await;
    for client in clients {
        client.abort();
    }
    let answer = server.infer("add", &x(&[1, 4], &[0.0; 4])).await;
    assert_eq!(answer.output("y")[0], json!(2.0));
    assert_eq!(server.get("/readyz").await.status, 200);
    assert_eq!(files(server.repository.path()), before);
    assert_eq!(server.stop().await, 0);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

#[tokio::test]
async fn sigint_does_not_wait_for_the_pre_stop_delay() {
    let settings = [("lifecycle.pre_stop_delay", "10m")];
    let mut server = Server::start_with(Repository::empty(), &settings).await;
    server.process.signal("INT");
    assert_eq!(server.process.exit_code().await, 0);
}

#[tokio::test]
async fn a_connection_without_a_request_does_not_hold_the_end_up() {
    let mut server = Server::start(Repository::empty()).await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"POST /v2/mod").await.unwrap();
    // Answered after the half of a head was read, on connections that are kept alive.
    assert_eq!(server.get("/livez").await.status, 200);
    let started = tokio::time::Instant::now();
    server.process.signal("TERM");
    assert_eq!(server.process.exit_code().await, 0);
    assert!(started.elapsed() < Duration::from_secs(15), "it waited for the deadline");
    drop((idle, half));
}

#[tokio::test]
async fn a_drained_server_is_unready_and_serves_until_it_is_resumed() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let drained = server.post("/lifecycle/drain", &json!({ "reason": "maintenance" })).await;
    assert_eq!(drained.ok(), json!({ "drained": "maintenance" }));
    server.process.logged(&["health check fails", "maintenance"]).await;
    assert_eq!(server.get("/readyz").await.status, 503);
    assert_eq!(server.get("/livez").await.status, 200);
    let page = server.get("/lifecycle").await.ok();
    assert_eq!((&page["state"], &page["drained"]), (&json!("RUNNING"), &json!("maintenance")));
    server.infer("add", &x(&[1, 4], &[0.0; 4])).await.ok();
    let resumed = server.send(Method::POST, "/lifecycle/resume", Vec::new()).await;
    assert_eq!(resumed.ok(), json!({ "drained": null }));
    let ready = async { while server.get("/readyz").await.status != 200 {} };
    tokio::time::timeout(PATIENCE, ready).await.unwrap();
    let answer = server.post("/lifecycle/drain", &json!({ "cause": "x" })).await;
    answer.refused(400, "invalid_request", &["cause"]);
}

#[tokio::test]
async fn a_shutdown_can_be_requested() {
    let settings = [("lifecycle.pre_stop_delay", "1s")];
    let mut server = Server::start_with(Repository::empty(), &settings).await;
    let answer = server.post("/lifecycle/shutdown", &json!({ "reason": "enough" })).await;
    assert_eq!((answer.status, answer.json()["reason"].clone()), (202, json!("enough")));
    server.process.logged(&["STOPPING", "enough"]).await;
    let late = server.post("/lifecycle/drain", &json!({})).await;
    late.refused(409, "not_running", &["STOPPING"]);
    assert_eq!(server.process.exit_code().await, 0);
}

/// The answer is larger than what the system takes ahead of its reader.
#[tokio::test]
async fn an_answer_that_is_read_slowly_is_read_to_its_end() {
    let identity = identity(Elem::Float, &[Dim::Symbolic("n")]);
    let mut server = Server::start(Repository::of("id", &identity)).await;
    let body = x(&[2_000_000], &vec![0.123_456_78; 2_000_000]).to_string();
    let request = server.request(Method::POST, "/v2/models/id/infer").body(body);
    let mut answer = request.send().await.unwrap();
    let length = usize::try_from(answer.content_length().unwrap()).unwrap();
    let first = answer.chunk().await.unwrap().unwrap();
    server.process.signal("TERM");
    server.process.logged(&["STOPPING"]).await;
    // Longer than a connection that does nothing is kept.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let rest = async {
        let mut read = first.len();
        while let Some(chunk) = answer.chunk().await.unwrap() {
            read += chunk.len();
        }
        read
    };
    assert_eq!(rest.await, length);
    assert_eq!(server.process.exit_code().await, 0);
}

/// Most of the answer waits in the server's system when the connection ends there, and the client says
/// something before it reads that, as over HTTP/2 and TLS clients do.
#[tokio::test]
async fn an_answer_is_whole_although_its_reader_still_says_something() {
    let identity = identity(Elem::Float, &[Dim::Symbolic("n")]);
    let server = Server::start(Repository::of("id", &identity)).await;
    let body = x(&[8_000], &vec![0.123_456_78; 8_000]).to_string();
    let head = format!(
        "POST /v2/models/id/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(server.address).await.unwrap();
    client.write_all((head + &body).as_bytes()).await.unwrap();
    let mut read = vec![0; 512];
    client.read_exact(&mut read).await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.write_all(b"x").await.unwrap();
    }
    client.read_to_end(&mut read).await.expect("the connection ends as it should");
    let answer = String::from_utf8(read).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    drop(client);
    assert_eq!(server.stop().await, 0);
}

/// Nobody reads the body of what is refused by its size, and whoever sends it reads the answer at its end.
#[tokio::test]
async fn whoever_is_refused_while_sending_can_finish_and_read_why() {
    let settings = [("server.max_body_size", "1MiB")];
    let server = Server::start_with(Repository::empty(), &settings).await;
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /v2/models/id/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 33554432\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let zeros = vec![0; 65_536];
    for _ in 0..512 {
        client.write_all(&zeros).await.expect("it is taken");
    }
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("server.max_body_size"), "{answer}");
}
