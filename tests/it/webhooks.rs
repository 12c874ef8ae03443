//! Events sent to an endpoint that is not always well.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::onnx::add_constant;
use crate::support::process::PATIENCE;
use crate::support::{Repository, Server};

const KEY: &[u8] = b"a key";

/// What came, refused or not.
#[derive(Debug, Clone)]
struct Post {
    headers: HeaderMap,
    body: Bytes,
    taken: bool,
}

/// An endpoint that takes nothing until it was asked so often.
struct Receiver {
    url: String,
    posts: mpsc::Receiver<Post>,
}

impl Receiver {
    async fn failing(times: usize, status: StatusCode) -> Self {
        let (sender, posts) = mpsc::channel(1000);
        let asked = Arc::new(AtomicUsize::new(0));
        let take = move |headers: HeaderMap, body: Bytes| async move {
            let taken = asked.fetch_add(1, Ordering::SeqCst) >= times;
            sender.send(Post { headers, body, taken }).await.unwrap();
            if taken { StatusCode::OK } else { status }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let router = Router::new().route("/events", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, posts }
    }

    async fn next(&mut self) -> Post {
        timeout(PATIENCE, self.posts.recv()).await.unwrap().unwrap()
    }
}

impl Post {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks the signature as a receiver would.
    fn check_signature(&self) {
        let timestamp = self.header("webhook-timestamp");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let sent = Duration::from_secs(timestamp.parse().unwrap());
        assert!(now.saturating_sub(sent) < Duration::from_mins(5));
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
        mac.update(format!("{}.{timestamp}.", self.header("webhook-id")).as_bytes());
        mac.update(&self.body);
        let signature = self.header("webhook-signature").strip_prefix("v1,").unwrap();
        mac.verify_slice(&STANDARD.decode(signature).unwrap()).expect("the signature is valid");
    }
}

async fn server(receiver: &Receiver, kinds: &str) -> (Server, TempDir) {
    let home = TempDir::new().unwrap();
    let secret = home.path().join("secret");
    std::fs::write(&secret, format!("whsec_{}\n", STANDARD.encode(KEY))).unwrap();
    let settings = [
        ("webhooks.urls", receiver.url.as_str()),
        ("webhooks.kinds", kinds),
        ("webhooks.secret_file", secret.to_str().unwrap()),
    ];
    let repository = Repository::of("add", &add_constant(1.0));
    (Server::start_with(repository, &settings).await, home)
}

#[tokio::test]
async fn an_endpoint_that_fails_twice_gets_the_event_on_the_third_try_once() {
    let mut receiver = Receiver::failing(2, StatusCode::INTERNAL_SERVER_ERROR).await;
    let (server, _home) = server(&receiver, "model_swapped").await;
    let tries = [receiver.next().await, receiver.next().await, receiver.next().await];
    for post in &tries {
        post.check_signature();
        assert_eq!(post.header("content-type"), "application/cloudevents+json");
        assert_eq!(post.body, tries[0].body);
        assert_eq!(post.header("webhook-id"), post.event()["id"]);
    }
    assert_eq!(tries.map(|post| post.taken), [false, false, true]);
    let unload = "/v2/repository/models/add/unload";
    assert_eq!(server.post(unload, &json!({})).await.status, 200);
    let next = receiver.next().await;
    next.check_signature();
    assert_eq!(next.event()["data"], json!({ "model": "add", "from": "1", "to": null }));
    assert_eq!(server.stop().await, 0);
    assert!(receiver.posts.try_recv().is_err(), "an event came twice");
}

#[tokio::test]
async fn an_endpoint_that_is_away_is_told_of_until_it_is_back() {
    let mut receiver = Receiver::failing(2, StatusCode::BAD_GATEWAY).await;
    let (server, _home) = server(&receiver, "model_swapped").await;
    let hook = async |wanted: &dyn Fn(&Value) -> bool| {
        loop {
            let hook = server.get("/lifecycle/hooks").await.ok()["hooks"][0].clone();
            if wanted(&hook) {
                return hook;
            }
            tokio::task::yield_now().await;
        }
    };
    receiver.next().await;
    let away = timeout(PATIENCE, hook(&|hook| hook["healthy"] == false)).await.unwrap();
    assert!(away["last_error"].as_str().unwrap().contains("502"), "{away}");
    assert!(away["pending"].as_u64().unwrap() >= 1, "{away}");
    assert_eq!((&away["handled"], &away["failed"]), (&json!(0), &json!(0)));
    let back = |hook: &Value| hook["healthy"] == true && hook["pending"] == 0;
    let back = timeout(PATIENCE, hook(&back)).await.unwrap();
    assert_eq!((&back["handled"], &back["failed"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn the_end_of_the_server_is_an_event_that_is_sent() {
    let mut receiver = Receiver::failing(0, StatusCode::OK).await;
    let (server, _home) = server(&receiver, "application").await;
    assert_eq!(server.stop().await, 0);
    let mut states = Vec::new();
    while states.last().is_none_or(|state| state != "STOPPED") {
        states.push(receiver.next().await.event()["data"]["to"].as_str().unwrap().to_owned());
    }
    let expected = ["INITIALIZING", "READY", "STARTING", "RUNNING", "STOPPING", "STOPPED"];
    assert_eq!(states, expected);
}

#[tokio::test]
async fn a_start_that_fails_is_undone_in_reverse_order_and_told_to_its_end() {
    let mut receiver = Receiver::failing(0, StatusCode::OK).await;
    let settings = [
        ("webhooks.urls", receiver.url.as_str()),
        ("webhooks.kinds", "application,resource"),
        ("models.required", "bad"),
    ];
    let repository = Repository::of("bad", b"broken").and("good", 1, &add_constant(1.0));
    let mut server = Server::launch(repository, &settings).await;
    assert_eq!(server.process.exit_code().await, 1);
    let (mut told, mut causes) = (Vec::new(), Vec::new());
    while told.last().is_none_or(|last| last != "STOPPED") {
        let data = receiver.next().await.event()["data"].clone();
        match data["resource"].as_str() {
            Some(resource) => told.push(format!("{resource} {}", data["state"].as_str().unwrap())),
            None => told.push(data["to"].as_str().unwrap().to_owned()),
        }
        causes.extend((data["to"] == "ERROR").then(|| data["reason"].clone()));
    }
    let resources = ["metrics", "onnxruntime", "repository", "http", "grpc"];
    let mut expected = vec!["INITIALIZING".to_owned()];
    let steps =
        |resource: &&str, states: [&str; 2]| states.map(|state| format!("{resource} {state}"));
    expected.extend(resources.iter().flat_map(|of| steps(of, ["INITIALIZING", "READY"])));
    expected.extend(["READY", "STARTING", "ERROR", "STOPPING"].map(str::to_owned));
    expected.extend(resources.iter().rev().flat_map(|of| steps(of, ["CLEANING", "CLEANED"])));
    expected.push("STOPPED".to_owned());
    assert_eq!(told, expected);
    let [cause] = causes.as_slice() else { panic!("{causes:?}") };
    let cause = cause.as_str().unwrap();
    assert!(cause.contains("'load models'") && cause.contains("failed to load 'bad/1'"), "{cause}");
}

#[tokio::test]
async fn an_event_that_is_refused_for_good_is_given_up_and_told() {
    let mut receiver = Receiver::failing(1, StatusCode::GONE).await;
    let (server, _home) = server(&receiver, "model_swapped").await;
    assert!(!receiver.next().await.taken);
    let failed = async {
        loop {
            let hook = server.get("/lifecycle/hooks").await.ok()["hooks"][0].clone();
            if hook["failed"] == 1 {
                return hook;
            }
            tokio::task::yield_now().await;
        }
    };
    let hook = timeout(PATIENCE, failed).await.unwrap();
    assert_eq!(hook["name"], format!("webhook {}", receiver.url));
    assert_eq!(hook["healthy"], false);
    assert!(hook["last_error"].as_str().unwrap().contains("410"), "{hook}");
    let load = async |action: &str| {
        let path = format!("/v2/repository/models/add/{action}");
        assert_eq!(server.post(&path, &json!({})).await.status, 200);
    };
    load("unload").await;
    assert!(receiver.next().await.taken);
    load("load").await;
    assert!(receiver.next().await.taken);
}

#[tokio::test]
async fn what_is_no_secret_and_no_address_is_a_mistake() {
    use crate::support::process::{onward, run};
    let refused = |arguments: [&str; 2]| {
        let (code, _, error) = run(onward().arg("serve").args(arguments));
        (code, error)
    };
    let (code, error) = refused(["--webhooks.urls", "ftp://example.com"]);
    assert_eq!(code, 78);
    assert!(error.contains("an http or https address"), "{error}");
    let (code, error) = refused(["--webhooks.kinds", "everything"]);
    assert_eq!(code, 78);
    assert!(error.contains("model_swapped"), "{error}");
    let (code, error) = refused(["--webhooks.secret_file", "/nowhere/secret"]);
    assert_eq!(code, 1);
    assert!(error.contains("webhooks.secret_file"), "{error}");
}
