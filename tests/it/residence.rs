//! Who stays in memory: lazy models, idle ones, budgets, leases, and swaps where there is no room.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::onnx::{add_constant, mlp, slow_by_input};
use crate::support::{Repository, Server, x};

/// Models `a`, `b` and `c` of about 16 KiB each.
fn three() -> Repository {
    let graph = mlp(4, 512, 4);
    Repository::of("a", &graph).and("b", 1, &graph).and("c", 1, &graph)
}

async fn infer(server: &Server, model: &str) {
    server.infer(model, &x(&[1, 4], &[0.0; 4])).await.ok();
}

async fn states(server: &Server) -> Vec<(String, bool)> {
    let report = server.get("/lifecycle/models").await.ok();
    let loaded = |model: &Value| !model["current_version"].is_null();
    let name = |model: &Value| model["name"].as_str().unwrap().to_owned();
    report["models"].as_array().unwrap().iter().map(|model| (name(model), loaded(model))).collect()
}

#[tokio::test]
async fn a_lazy_model_is_loaded_once_by_the_requests_that_wait_for_it() {
    let repository = three().with_settings("b", "lazy: true\n");
    let server = Server::start(repository).await;
    let told = states(&server).await;
    assert_eq!(told, [("a".into(), true), ("b".into(), false), ("c".into(), true)]);
    tokio::join!(
        infer(&server, "b"),
        infer(&server, "b"),
        infer(&server, "b"),
        infer(&server, "b")
    );
    let all = server.get("/lifecycle/operations").await.ok();
    let loads = all["operations"].as_array().unwrap().iter();
    assert_eq!(loads.filter(|operation| operation["model"] == "b").count(), 1);
}

#[tokio::test]
async fn a_lazy_model_that_cannot_be_loaded_answers_why() {
    let repository = three().and("bad", 1, b"broken").with_settings("bad", "lazy: true\n");
    let server = Server::start(repository).await;
    for _ in 0..2 {
        let refused = server.infer("bad", &x(&[1, 4], &[0.0; 4])).await;
        refused.refused(503, "model_unavailable", &["bad", "FAILED"]);
    }
    let all = server.get("/lifecycle/operations").await.ok();
    let loads = all["operations"].as_array().unwrap().iter();
    let tries = loads.filter(|operation| operation["model"] == "bad").count();
    assert_eq!(tries, 1, "what has just failed is not tried by every request");
    let unload = server.send(Method::POST, "/lifecycle/models/bad/unload", vec![]).await.ok();
    assert_eq!(unload["versions"], json!([]));
}

#[tokio::test]
async fn what_nobody_uses_goes_and_comes_back() {
    let repository = three().with_settings("b", "pin: true\n").with_settings("c", "idle_ttl: 0s\n");
    let settings = [("lifecycle.idle_ttl", "100ms"), ("lifecycle.cleanup_interval", "20ms")];
    let server = Server::start_with(repository, &settings).await;
    server.until(("a", "1"), |report| report["state"] == "UNLOADED").await;
    assert_eq!(
        states(&server).await,
        [("a".into(), false), ("b".into(), true), ("c".into(), true)]
    );
    infer(&server, "a").await;
    let plan = server.get("/lifecycle/eviction").await.ok();
    let b = plan["models"].as_array().unwrap().iter().find(|model| model["model"] == "b").unwrap();
    assert_eq!((&b["spared"], &b["evicted"]), (&json!("it is pinned"), &Value::Null));
    let evicted = server.get("/lifecycle/operations").await.ok();
    let operation = evicted["operations"].as_array().unwrap().iter();
    let evicted: Vec<&Value> =
        operation.filter(|operation| operation["operation"] == "evict").collect();
    assert!(evicted[0]["steps"][0]["what"].as_str().unwrap().contains("unused for"), "{evicted:?}");
    let told = server.get("/lifecycle/events?kind=model_evicted").await.ok();
    let event = &told["events"][0];
    assert_eq!((&event["subject"], &event["data"]["model"]), (&json!("models/a"), &json!("a")));
    assert!(event["data"]["reason"].as_str().unwrap().contains("unused for"), "{event}");
    assert!(event["data"]["bytes"].as_u64().unwrap() > 0, "{event}");
}

#[tokio::test]
async fn the_budget_lets_the_longest_unused_go() {
    let settings = [("models.memory_budget", "45KiB"), ("inference.instances", "1")];
    let server = Server::start_with(three(), &settings).await;
    // There is room for two of them: the third made one go.
    let loaded = states(&server).await.iter().filter(|(_, loaded)| *loaded).count();
    assert_eq!(loaded, 2);
    for model in ["a", "b", "c", "a", "b", "c"] {
        infer(&server, model).await;
    }
    let told = states(&server).await;
    assert_eq!(told, [("a".into(), false), ("b".into(), true), ("c".into(), true)]);
    let plan = server.get("/lifecycle/eviction?free_bytes=1").await.ok();
    assert_eq!(plan["budget_bytes"], 45 << 10);
    assert_eq!(plan["models"][0]["model"], "b");
    assert!(plan["models"][0]["evicted"].as_str().unwrap().contains("least recently used"));
    assert_eq!(plan["models"][1]["evicted"], Value::Null);
    assert_eq!(states(&server).await, told, "a plan does nothing");
    server.post("/lifecycle/eviction", &json!({ "free_bytes": 1 })).await.ok();
    assert_eq!(
        states(&server).await,
        [("a".into(), false), ("b".into(), false), ("c".into(), true)]
    );
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_the_figures() {
    let repository =
        three().and("large", 1, &mlp(4, 4096, 4)).with_settings("large", "lazy: true\n");
    let settings = [("models.memory_budget", "100KiB"), ("inference.instances", "1")];
    let server = Server::start_with(repository, &settings).await;
    let refused = server.send(Method::POST, "/v2/repository/models/large/load", vec![]).await;
    refused.refused(507, "insufficient_memory", &["of 102400 are taken", "models.memory_budget"]);
    let all = states(&server).await;
    assert!(
        all.iter().filter(|(_, loaded)| *loaded).count() == 3,
        "nobody went for nothing: {all:?}"
    );
}

#[tokio::test]
async fn a_lease_keeps_a_model() {
    let server = Server::start(three()).await;
    let leases = "/lifecycle/models/a/leases";
    let lease = server.post(leases, &json!({ "ttl": "1h", "holder": "nightly" })).await.ok();
    let path = format!("{leases}/{}", lease["id"].as_str().unwrap());
    let report = server.get("/lifecycle/models/a").await.ok();
    assert_eq!(report["leases"], json!([lease]));
    for unload in ["/v2/repository/models/a/unload", "/lifecycle/models/a/unload"] {
        server.send(Method::POST, unload, vec![]).await.refused(409, "leased", &["nightly"]);
    }
    let plan = server.get("/lifecycle/eviction?free_bytes=1000000").await.ok();
    let a = plan["models"].as_array().unwrap().iter().find(|model| model["model"] == "a").unwrap();
    assert_eq!(a["spared"], "it is leased by nightly");
    let renewed = server.put(&path, &json!({ "ttl": "1ms" })).await.ok();
    assert_eq!(renewed["id"], lease["id"]);
    server.until(("a", "1"), |_| true).await;
    while !server.get("/lifecycle/models/a").await.ok()["leases"].as_array().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    server.delete(&path).await.refused(404, "unknown_lease", &[]);
    server.put(&path, &json!({ "ttl": "1h" })).await.refused(404, "unknown_lease", &[]);
    for (body, told) in [
        (json!({}), "ttl"),
        (json!({ "ttl": "soon" }), "ttl"),
        (json!({ "ttl": "0s" }), "ttl"),
        (json!({ "ttl": "1h", "holder": "x".repeat(256) }), "255"),
    ] {
        server.post(leases, &body).await.refused(400, "invalid_request", &[told]);
    }
    let unknown = server.post("/lifecycle/models/nope/leases", &json!({ "ttl": "1h" })).await;
    unknown.refused(404, "unknown_model", &[]);
    server.send(Method::POST, "/lifecycle/models/a/unload", vec![]).await.ok();
    server.post(leases, &json!({ "ttl": "1h" })).await.refused(404, "model_not_loaded", &[]);
}

#[tokio::test]
async fn where_there_is_no_room_for_two_requests_wait_between_them() {
    let repository = Repository::of("m", &mlp(4, 512, 4))
        .and("m", 2, &mlp(4, 513, 4))
        .and("m", 3, b"broken")
        .with_settings("m", "version_policy: { specific: [1] }\n");
    let settings = [("models.memory_budget", "30KiB"), ("inference.instances", "1")];
    let server = Server::start_with(repository, &settings).await;
    let swap = async |body: Value| server.post("/lifecycle/models/m/swap", &body).await;
    swap(json!({ "to": 2 })).await.refused(507, "insufficient_memory", &["'resource'"]);
    let over = std::sync::atomic::AtomicBool::new(false);
    let client = async || {
        let mut answered = 0;
        while !over.load(std::sync::atomic::Ordering::SeqCst) {
            infer(&server, "m").await;
            answered += 1;
        }
        answered
    };
    let swapping = async {
        for to in [2, 1, 2, 1, 2] {
            let report = swap(json!({ "to": to, "strategy": "resource" })).await.ok();
            assert_eq!((&report["to"], &report["drained"]), (&json!(to.to_string()), &json!(true)));
        }
        let failed = swap(json!({ "to": 3, "strategy": "resource" })).await;
        failed.refused(400, "load_failed", &["m/3"]);
        swap(json!({ "to": 9, "strategy": "resource" })).await.refused(404, "unknown_version", &[]);
        over.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    let ((), one, two) = tokio::join!(swapping, client(), client());
    assert!(one + two > 10);
    let report = server.get("/lifecycle/models/m").await.ok();
    assert_eq!(report["current_version"], "2", "the old one is back");
    let bake = json!({ "to": 1, "strategy": "resource", "bake": "1s" });
    swap(bake).await.refused(400, "invalid_request", &["bake"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_a_load_takes_of_the_memory_is_measured() {
    const MIB: i64 = 1 << 20;
    let large = mlp(512, 4_096, 4_096);
    let size = i64::try_from(large.len()).unwrap();
    let server =
        Server::start_with(Repository::of("large", &large), &[("inference.instances", "1")]).await;
    let measured = server.version("large", "1").await["measured_memory_bytes"].as_i64().unwrap();
    assert!((size / 2..4 * size).contains(&measured), "{} of {} MiB", measured / MIB, size / MIB);
}

#[tokio::test]
async fn who_is_inside_is_spared() {
    let repository = Repository::of("slow", &slow_by_input()).and("add", 1, &add_constant(1.0));
    let server = Server::start(repository).await;
    let body = json!({ "inputs": [
        { "name": "x", "shape": [1], "datatype": "FP32", "data": [0] },
        { "name": "iterations", "shape": [1], "datatype": "INT64", "data": [1_000_000] },
    ] });
    let looking = async {
        server.until(("slow", "1"), |report| report["in_flight"] == 1).await;
        let plan =
            server.post("/lifecycle/eviction", &json!({ "free_bytes": 1_000_000 })).await.ok();
        let models = plan["models"].as_array().unwrap();
        let slow = models.iter().find(|model| model["model"] == "slow").unwrap();
        assert_eq!(slow["spared"], "1 requests are inside");
    };
    let (answer, ()) = tokio::join!(server.infer("slow", &body), looking);
    answer.ok();
    assert_eq!(states(&server).await, [("add".into(), false), ("slow".into(), true)]);
}

#[tokio::test]
async fn instances_of_a_model_that_is_not_tiny_have_its_weights_once() {
    let repository = Repository::of("large", &mlp(64, 4096, 10)).and("tiny", 1, &mlp(4, 512, 4));
    let server = Server::start_with(repository, &[("inference.instances", "4")]).await;
    for (model, copies) in [("large", 1), ("tiny", 4)] {
        let file = server.repository.path().join(model).join("1/model.onnx");
        let report = server.version(model, "1").await;
        let expected = file.metadata().unwrap().len() * copies;
        assert_eq!(report["memory_bytes"], expected, "{report}");
    }
    let requests: Vec<_> = (0_u8..16).map(|seed| x(&[1, 64], &[f32::from(seed); 64])).collect();
    let ask = async |request: &Value| server.infer("large", request).await.ok()["outputs"].clone();
    let mut expected = Vec::new();
    for request in &requests {
        expected.push(ask(request).await);
    }
    for _ in 0..10 {
        let answers = join_all(requests.iter().map(&ask)).await;
        assert_eq!(answers, expected);
    }
}
