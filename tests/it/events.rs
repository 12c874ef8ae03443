//! Events over REST: pages and the stream.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::onnx::add_constant;
use crate::support::process::PATIENCE;
use crate::support::{Repository, Server};

/// A stream of server-sent events.
struct Stream {
    response: reqwest::Response,
    text: String,
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
struct Sent {
    id: Option<String>,
    kind: String,
    data: Value,
}

impl Stream {
    async fn open(server: &Server, query: &str, seen: Option<&str>) -> Self {
        let path = format!("/lifecycle/events/stream{query}");
        let mut request = server.request(Method::GET, &path);
        if let Some(seen) = seen {
            request = request.header("last-event-id", seen);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event; `None` at the stream's end.
    async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                if !event.starts_with(':') {
                    return Some(parse(&event));
                }
                continue;
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.unwrap().unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn some(&mut self) -> Sent {
        self.next().await.expect("the stream goes on")
    }
}

fn parse(event: &str) -> Sent {
    let field = |name: &str| {
        event
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .map(str::to_owned)
    };
    let data = serde_json::from_str(&field("data").unwrap()).unwrap();
    Sent { id: field("id"), kind: field("event").unwrap(), data }
}

async fn swap(server: &Server, to: u64) {
    server.post("/lifecycle/models/add/swap", &json!({ "to": to })).await.ok();
}

fn versions() -> Repository {
    Repository::of("add", &add_constant(1.0))
        .and("add", 2, &add_constant(2.0))
        .with_settings("add", "version_policy: { specific: [1] }\n")
}

/// The order that `docs/lifecycle.md` promises.
#[tokio::test]
async fn events_come_in_the_documented_order() {
    let server = Server::start(versions()).await;
    swap(&server, 2).await;
    let page = server.get("/lifecycle/events").await.ok();
    let told: Vec<String> = page["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| {
            let data = &event["data"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            match event["type"].as_str().unwrap().strip_prefix("onward.").unwrap() {
                "application" => Some(text(&data["to"])),
                "resource" => Some(format!("{} {}", text(&data["resource"]), text(&data["state"]))),
                "model_version" => {
                    Some(format!("{} {}", text(&data["version"]), text(&data["to"])))
                }
                "model_swapped" => Some(format!("current {}", text(&data["to"]))),
                _ => None,
            }
        })
        .collect();
    let mut expected = vec!["INITIALIZING"];
    expected.extend(["metrics INITIALIZING", "metrics READY"]);
    expected.extend(["onnxruntime INITIALIZING", "onnxruntime READY"]);
    expected.extend(["repository INITIALIZING", "repository READY"]);
    expected.extend(["http INITIALIZING", "http READY", "grpc INITIALIZING", "grpc READY"]);
    expected.extend(["READY", "STARTING"]);
    expected.extend(["1 FETCHING", "1 VERIFYING", "1 LOADING", "1 WARMING", "1 READY"]);
    expected.extend(["current 1", "RUNNING"]);
    expected.extend(["2 FETCHING", "2 VERIFYING", "2 LOADING", "2 WARMING"]);
    expected.extend(["1 DRAINING", "2 READY", "current 2", "1 UNLOADING", "1 UNLOADED"]);
    assert_eq!(told, expected);
}

#[tokio::test]
async fn events_are_listed_without_gaps() {
    let server = Server::start(versions()).await;
    swap(&server, 2).await;
    let page = server.get("/lifecycle/events").await.ok();
    let events = page["events"].as_array().unwrap();
    let numbers: Vec<u64> =
        events.iter().map(|event| event["sequence"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.last().copied().unwrap()).collect::<Vec<_>>());
    let instance = page["instance"].as_str().unwrap();
    assert!(events.iter().all(|event| event["source"] == format!("/onward/{instance}")));
    let swaps = server.get("/lifecycle/events?kind=model_swapped").await.ok();
    let told: Vec<&Value> =
        swaps["events"].as_array().unwrap().iter().map(|event| &event["data"]).collect();
    let expected = [
        json!({ "model": "add", "from": null, "to": "1" }),
        json!({ "model": "add", "from": "1", "to": "2" }),
    ];
    assert_eq!(told, expected.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn pages_follow_each_other() {
    let server = Server::start(versions()).await;
    let (mut since, mut seen) = (json!(0), Vec::new());
    loop {
        let page = server.get(&format!("/lifecycle/events?limit=3&since={since}")).await.ok();
        let events = page["events"].as_array().unwrap().clone();
        assert!(events.len() <= 3);
        since = page["last"].clone();
        if events.is_empty() {
            break;
        }
        seen.extend(events.into_iter().map(|event| event["id"].clone()));
    }
    let all = server.get("/lifecycle/events").await.ok();
    let ids: Vec<Value> =
        all["events"].as_array().unwrap().iter().map(|event| event["id"].clone()).collect();
    assert!(ids.len() > 6);
    assert_eq!(seen, ids[..seen.len()]);
    for bad in ["since=-1", "since=x", "limit=x", "limit=0", "kind=nothing", "since=1&since=2"] {
        let answer = server.get(&format!("/lifecycle/events?{bad}")).await;
        answer.refused(400, "invalid_request", &[]);
    }
}

#[tokio::test]
async fn a_client_that_comes_back_misses_nothing() {
    let server = Server::start(versions()).await;
    let mut stream = Stream::open(&server, "?kind=model_swapped", None).await;
    swap(&server, 2).await;
    let first = stream.some().await;
    assert_eq!((first.kind.as_str(), &first.data["data"]["to"]), ("model_swapped", &json!("2")));
    drop(stream);
    swap(&server, 1).await;
    swap(&server, 2).await;
    let seen = first.id.as_deref();
    let mut stream = Stream::open(&server, "?kind=model_swapped", seen).await;
    let (second, third) = (stream.some().await, stream.some().await);
    assert_eq!((&second.data["data"]["to"], &third.data["data"]["to"]), (&json!("1"), &json!("2")));
    swap(&server, 1).await;
    assert_eq!(stream.some().await.data["data"]["to"], json!("1"));
    assert_eq!(first.data["id"], json!(first.id));
}

#[tokio::test]
async fn a_client_that_was_away_too_long_is_told() {
    let server = Server::start_with(versions(), &[("events.history", "8")]).await;
    let mut stream = Stream::open(&server, "?since=0", None).await;
    let missed = stream.some().await;
    assert_eq!((missed.kind.as_str(), missed.id.as_deref()), ("missed", None));
    let first = stream.some().await;
    let count = missed.data["count"].as_u64().unwrap();
    assert_eq!(first.data["sequence"], json!((count + 1).to_string()));
    let instance = server.get("/lifecycle/events").await.ok()["instance"].clone();
    let mut stream = Stream::open(&server, "", Some("0123456789abcdef-7")).await;
    let reset = stream.some().await;
    assert_eq!((reset.kind.as_str(), &reset.data["instance"]), ("reset", &instance));
    assert_eq!(stream.some().await.kind, "missed");
}

#[tokio::test]
async fn the_end_of_the_server_ends_the_stream_and_not_the_other_way_round() {
    let mut server = Server::start(versions()).await;
    let mut stream = Stream::open(&server, "?kind=application", None).await;
    server.process.signal("TERM");
    let stopping = stream.some().await;
    assert_eq!(stopping.data["data"]["to"], json!("STOPPING"));
    assert_eq!(stream.next().await, None);
    assert_eq!(server.process.exit_code().await, 0);
}
