//! Swapping versions under load.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::onnx::{add_constant, slow_by_input};
use crate::support::{Repository, Server, x};

fn versions() -> Repository {
    Repository::of("add", &add_constant(1.0))
        .and("add", 2, &add_constant(2.0))
        .with_settings("add", "version_policy: { specific: [1] }\n")
}

async fn swap(server: &Server, model: &str, body: Value) -> crate::support::Answer {
    server.post(&format!("/lifecycle/models/{model}/swap"), &body).await
}

/// Twice the number of swaps that have returned, and one more while a swap is under way. Between two
/// reads of the same even number no swap has begun. `SeqCst`, so that there is one order of them all.
#[derive(Default)]
struct Epoch(AtomicU64);

impl Epoch {
    /// Before a swap is sent, and again once its answer has come.
    fn turn(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// The one version that may answer what was sent and answered in this epoch.
    fn version(epoch: u64) -> Option<u32> {
        match epoch % 4 {
            0 => Some(1),
            2 => Some(2),
            _ => None,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_and_none_is_answered_by_the_old_version_after_the_swap() {
    const CLIENTS: u64 = 16;
    const SWAPS: u64 = 60;
    let server = Server::start(versions()).await;
    let (done, answered, bound) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let epoch = Epoch::default();
    let client = async || {
        while !done.load(Ordering::SeqCst) {
            let sent = epoch.read();
            let answer = server.infer("add", &x(&[1, 4], &[0.0; 4])).await;
            let received = epoch.read();
            let version: u32 = answer.ok()["model_version"].as_str().unwrap().parse().unwrap();
            assert_eq!(answer.header("x-onward-version"), version.to_string());
            assert_eq!(
                answer.output("y"),
                json!(vec![f64::from(version); 4]),
                "the answer of one version"
            );
            if let Some(current) = Epoch::version(sent).filter(|_| sent == received) {
                assert_eq!(version, current, "the old version answers after the swap");
                bound.fetch_add(1, Ordering::SeqCst);
            }
            answered.fetch_add(1, Ordering::SeqCst);
        }
    };
    let swapping = async {
        for round in 0..SWAPS {
            let target = answered.load(Ordering::SeqCst) + 4 * CLIENTS;
            while answered.load(Ordering::SeqCst) < target {
                tokio::task::yield_now().await;
            }
            let to = (2 - round % 2).to_string();
            epoch.turn();
            let body = json!({ "to": to, "keep_previous": false });
            let report = swap(&server, "add", body).await.ok();
            epoch.turn();
            assert_eq!((&report["to"], &report["drained"]), (&json!(to), &json!(true)));
        }
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(join_all((0..CLIENTS).map(|_| client())), swapping);
    assert!(bound.load(Ordering::SeqCst) >= SWAPS, "most answers are bound to one version");
}

#[tokio::test]
async fn a_request_that_began_on_the_old_version_finishes_on_it() {
    let graph = slow_by_input();
    let repository = Repository::of("slow", &graph).and("slow", 2, &graph);
    let repository = repository.with_settings("slow", "version_policy: { specific: [1] }\n");
    let server = Server::start(repository).await;
    let body = |iterations: u32| {
        json!({ "inputs": [
            { "name": "x", "shape": [1], "datatype": "FP32", "data": [0] },
            { "name": "iterations", "shape": [1], "datatype": "INT64", "data": [iterations] },
        ] })
    };
    let (request, quick) = (body(1_500_000), body(1));
    let long = async { server.infer("slow", &request).await };
    let swapping = async {
        server.until(("slow", "1"), |report| report["in_flight"] == 1).await;
        let hasty = json!({ "to": 2, "drain_timeout": "1ms" });
        let report = swap(&server, "slow", hasty).await.ok();
        assert_eq!(report["drained"], false);
        assert_eq!(server.version("slow", "1").await["state"], "DRAINING");
        let answer = server.infer("slow", &quick).await;
        assert_eq!(answer.ok()["model_version"], "2");
        assert_eq!(
            server.version("slow", "1").await["state"],
            "DRAINING",
            "the old one was waited for"
        );
    };
    let (long, ()) = tokio::join!(long, swapping);
    assert_eq!(long.ok()["model_version"], "1");
    assert_eq!(long.output("y"), json!([1_500_000.0]));
    server.until(("slow", "1"), |report| report["state"] == "UNLOADED").await;
}

#[tokio::test]
async fn the_old_version_can_be_kept_and_gone_back_to() {
    let server = Server::start(versions()).await;
    let there = swap(&server, "add", json!({ "to": "2", "keep_previous": true })).await.ok();
    assert_eq!((&there["from"], &there["to"]), (&json!("1"), &json!("2")));
    let old = server.post("/v2/models/add/versions/1/infer", &x(&[1, 4], &[0.0; 4])).await;
    assert_eq!(old.output("y")[0], json!(1.0));
    let back = swap(&server, "add", json!({ "to": "1" })).await.ok();
    assert!(back["load_seconds"].as_f64().unwrap() < 0.01, "{back}");
    assert_eq!(server.get("/v2/models/add").await.ok()["versions"], json!(["1"]));
}

#[tokio::test]
async fn a_swap_that_cannot_be_done_changes_nothing() {
    let server = Server::start(versions()).await;
    server.repository.put("add", 3, b"broken");
    swap(&server, "add", json!({ "to": "3" })).await.refused(400, "load_failed", &["add/3"]);
    swap(&server, "add", json!({ "to": "9" })).await.refused(404, "unknown_version", &["9"]);
    swap(&server, "add", json!({ "to": "1" })).await.refused(409, "already_current", &[]);
    swap(&server, "nope", json!({ "to": "1" })).await.refused(404, "unknown_model", &[]);
    for (body, told) in [
        (json!({}), "to"),
        (json!({ "to": "01" }), "version"),
        (json!({ "to": 0 }), "versions begin at 1"),
        (json!({ "to": "2", "drain_timeout": 5 }), "drain_timeout"),
        (json!({ "to": "2", "drain_timeout": "soon" }), "30s"),
        (json!({ "to": "2", "drain_timeout": "18446744073709551615s 1000ms" }), "30s"),
        (json!({ "to": "2", "keep": true }), "keep_previous"),
    ] {
        swap(&server, "add", body).await.refused(400, "invalid_request", &[told]);
    }
    assert_eq!(server.infer("add", &x(&[1, 4], &[0.0; 4])).await.ok()["model_version"], "1");
}
