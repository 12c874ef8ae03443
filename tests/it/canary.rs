//! Trials of a new version under load: good ones are promoted, bad ones are taken back by themselves.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::onnx::{add_constant, failing_unless_zero, slow};
use crate::support::{Answer, Repository, Server, x};

/// Version 1 of `m` serves; version 2 is there.
async fn server(one: &[u8], two: &[u8]) -> Server {
    let repository = Repository::of("m", one).and("m", 2, two);
    let repository = repository.with_settings("m", "version_policy: { specific: [1] }\n");
    Server::start(repository).await
}

/// Swaps to version 2 with requests coming in all the time. What became of it, and how many requests
/// version 2 answered and failed.
async fn swap(server: &Server, input: &Value, body: &Value) -> (Answer, u64, u64) {
    let over = AtomicBool::new(false);
    let client = async || {
        let (mut by_two, mut failed) = (0_u64, 0_u64);
        while !over.load(Ordering::SeqCst) {
            let answer = server.infer("m", input).await;
            match answer.status {
                200 => by_two += u64::from(answer.header("x-onward-version") == "2"),
                _ => failed += 1,
            }
        }
        (by_two, failed)
    };
    let swapping = async {
        let answer = server.post("/lifecycle/models/m/swap", body).await;
        over.store(true, Ordering::SeqCst);
        answer
    };
    let (answer, one, two, three) = tokio::join!(swapping, client(), client(), client());
    (answer, one.0 + two.0 + three.0, one.1 + two.1 + three.1)
}

/// A canary in two quick steps; `limits` beside what is usual.
fn canary(compare: f64, limits: &Value) -> Value {
    let canary = json!({ "steps": [10, 50], "interval": "200ms", "compare": compare });
    json!({ "to": 2, "strategy": "canary", "canary": canary, "limits": limits })
}

async fn current(server: &Server) -> Value {
    server.get("/lifecycle/models/m").await.ok()["current_version"].clone()
}

/// The decisions that events tell, with their figures.
async fn decisions(server: &Server) -> Vec<(String, String)> {
    let page = server.get("/lifecycle/events?kind=model_decision").await.ok();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let events = page["events"].as_array().unwrap().iter();
    events
        .map(|event| (text(&event["data"]["decision"]), text(&event["data"]["figures"])))
        .collect()
}

#[track_caller]
fn rolled_back(answer: &Answer, told: &str) {
    answer.refused(409, "rolled_back", &["version 2 of model 'm' was rolled back", told]);
}

#[tokio::test]
async fn a_good_version_is_promoted_step_by_step() {
    let server = server(&add_constant(1.0), &add_constant(1.000_01)).await;
    let usual = json!({ "min_requests": 20, "max_p99_ratio": 50 });
    let (answer, by_two, failed) =
        swap(&server, &x(&[1, 4], &[5.0; 4]), &canary(50.0, &usual)).await;
    assert_eq!((answer.ok()["to"].clone(), failed), (json!("2"), 0));
    assert!(by_two >= 40, "{by_two}");
    assert_eq!(current(&server).await, "2");
    let told = decisions(&server).await;
    let words: Vec<&str> = told.iter().map(|(decision, _)| decision.as_str()).collect();
    assert_eq!(words, ["step passed", "step passed", "promoted"]);
    assert!(told[1].1.contains("errors 0; before: requests"), "{told:?}");
    let report = server.get("/lifecycle/models/m").await.ok();
    let none = json!({ "aliases": {}, "weights": {}, "shadow": null });
    assert_eq!(report["traffic"], none);
    let all = server.get("/lifecycle/operations").await.ok();
    let steps = all["operations"][1]["steps"].as_array().unwrap();
    let what: Vec<&str> = steps.iter().map(|step| step["what"].as_str().unwrap()).collect();
    assert!(what.contains(&"CANARY 10.00%") && what.contains(&"CANARY 50.00%"), "{what:?}");
}

#[tokio::test]
async fn a_version_that_fails_is_taken_back() {
    let server = server(&add_constant(1.0), &failing_unless_zero()).await;
    let limits = json!({ "min_requests": 50 });
    let (answer, ..) = swap(&server, &x(&[1, 4], &[5.0; 4]), &canary(0.0, &limits)).await;
    rolled_back(&answer, "error rate");
    assert_eq!(current(&server).await, "1");
    server.until(("m", "2"), |report| report["state"] == "UNLOADED").await;
    assert_eq!(decisions(&server).await.last().unwrap().0, "rolled back");
    assert_eq!(server.infer("m", &x(&[1, 4], &[5.0; 4])).await.ok()["model_version"], "1");
}

#[tokio::test]
async fn copies_find_out_what_fails_before_a_caller_does() {
    let server = server(&add_constant(1.0), &failing_unless_zero()).await;
    let canary = json!({ "steps": [0.01, 50], "interval": "200ms", "compare": 100 });
    let body = json!({ "to": 2, "strategy": "canary", "canary": canary });
    let (answer, by_two, _) = swap(&server, &x(&[1, 4], &[5.0; 4]), &body).await;
    rolled_back(&answer, "output mismatch");
    assert!(by_two <= 1, "{by_two}");
}

#[tokio::test]
async fn a_slow_version_is_taken_back() {
    let server = server(&slow(2_000), &slow(60_000)).await;
    let limits = json!({ "min_requests": 50, "max_p99_ratio": 3 });
    let (answer, _, failed) = swap(&server, &x(&[1], &[0.0]), &canary(0.0, &limits)).await;
    rolled_back(&answer, "p99");
    assert_eq!((current(&server).await, failed), (json!("1"), 0));
}

#[tokio::test]
async fn a_version_that_answers_otherwise_is_taken_back() {
    // Four numbers in a row: the largest of them is what an answer says.
    let server = server(&add_constant(1.0), &crate::support::onnx::negated()).await;
    let input = x(&[1, 4], &[1.0, 2.0, 3.0, 4.0]);
    let limits = json!({ "min_requests": 1_000_000 });
    let (answer, _, failed) = swap(&server, &input, &canary(100.0, &limits)).await;
    rolled_back(&answer, "output mismatch");
    assert_eq!((current(&server).await, failed), (json!("1"), 0));
}

#[tokio::test]
async fn a_flip_that_turns_out_bad_is_undone() {
    let server = server(&add_constant(1.0), &failing_unless_zero()).await;
    let body = json!({ "to": 2, "bake": "20s", "limits": { "min_requests": 20 } });
    let (answer, ..) = swap(&server, &x(&[1, 4], &[5.0; 4]), &body).await;
    rolled_back(&answer, "error rate");
    let report = server.get("/lifecycle/models/m").await.ok();
    let causes: Vec<&Value> =
        report["history"].as_array().unwrap().iter().map(|tenure| &tenure["cause"]).collect();
    assert_eq!(causes, ["load", "swap", "automatic_rollback"]);
    assert_eq!(report["current_version"], "1");
}

#[tokio::test]
async fn a_flip_that_turns_out_well_stays() {
    let server = server(&add_constant(1.0), &add_constant(2.0)).await;
    let limits = json!({ "min_requests": 20, "max_p99_ratio": 50 });
    let body = json!({ "to": 2, "bake": "300ms", "limits": limits, "keep_previous": false });
    let (answer, by_two, failed) = swap(&server, &x(&[1, 4], &[5.0; 4]), &body).await;
    let report = answer.ok();
    assert_eq!((&report["to"], &report["kept"], failed), (&json!("2"), &json!(false), 0));
    assert!(by_two > 0);
    assert_eq!(server.version("m", "1").await["state"], "UNLOADED");
}

#[tokio::test]
async fn a_canary_without_requests_is_taken_back_in_the_end_and_can_be_cancelled() {
    let server = server(&add_constant(1.0), &add_constant(2.0)).await;
    let patience = json!({ "interval": "20ms", "patience": "100ms" });
    let body = json!({ "to": 2, "strategy": "canary", "canary": patience });
    let answer = server.post("/lifecycle/models/m/swap", &body).await;
    rolled_back(&answer, "too few requests: 0 of 100");
    let body = json!({ "to": 2, "strategy": "canary" });
    let accepted = server.post("/lifecycle/models/m/swap?wait=0s", &body).await;
    server.until(("m", "2"), |report| report["state"] == "READY").await;
    for change in ["swap", "load", "unload"] {
        let path = format!("/lifecycle/models/m/{change}");
        let other = server.post(&path, &json!({ "to": 2 })).await;
        let other = if change == "swap" { other } else { server.post(&path, &json!({})).await };
        other.refused(409, "change_in_progress", &["'m'"]);
    }
    let weights = server.get("/lifecycle/models/m").await.ok()["traffic"]["weights"].clone();
    assert_eq!(weights, json!({ "1": 99.0, "2": 1.0 }));
    let location = accepted.header("location");
    assert_eq!(server.delete(location).await.status, 202);
    server.until(("m", "2"), |report| report["state"] == "UNLOADED").await;
    assert_eq!(current(&server).await, "1");
    server.post("/lifecycle/models/m/swap?wait=0s", &body).await;
    server.until(("m", "2"), |report| report["state"] == "READY").await;
    let taken_back = server.post("/lifecycle/models/m/rollback", &json!({})).await.ok();
    assert_eq!((&taken_back["from"], &taken_back["to"]), (&json!("2"), &json!("1")));
    assert_eq!(current(&server).await, "1");
}

#[tokio::test]
async fn a_shadow_is_asked_too_and_harms_nobody() {
    let repository = Repository::of("m", &add_constant(1.0))
        .and("m", 2, &crate::support::onnx::negated())
        .and("m", 3, &failing_unless_zero())
        .with_settings("m", "version_policy: all\n");
    let server = Server::start(repository).await;
    server.post("/lifecycle/models/m/swap", &json!({ "to": 1 })).await.ok();
    let shadow = "/lifecycle/models/m/shadow";
    let input = x(&[1, 4], &[1.0, 2.0, 3.0, 4.0]);
    for (version, percent, counted) in [(2, 50, "compared"), (3, 100, "failed")] {
        let rules =
            server.put(shadow, &json!({ "version": version, "percent": percent })).await.ok();
        assert_eq!(rules["shadow"]["version"], version.to_string());
        let mut tally = Value::Null;
        while tally[counted].as_u64().unwrap_or_default() < 10 {
            assert_eq!(server.infer("m", &input).await.ok()["model_version"], "1");
            tally = server.get("/lifecycle/models/m").await.ok()["traffic"]["shadow"].clone();
        }
        assert_eq!(tally["agreed"], 0);
        let distance = tally["max_abs_diff"].as_f64();
        assert_eq!(distance, (version == 2).then_some(9.0), "{tally}");
        assert_eq!(server.version("m", &version.to_string()).await["requests"], 0);
    }
    server.post("/lifecycle/models/m/unload", &json!({ "version": 3 })).await.refused(
        409,
        "version_in_use",
        &["the shadow"],
    );
    assert_eq!(server.delete(shadow).await.ok()["shadow"], Value::Null);
    server.put(shadow, &json!({ "version": 9, "percent": 1 })).await.refused(
        409,
        "version_not_loaded",
        &[],
    );
    server.put(shadow, &json!({ "version": 2, "percent": 101 })).await.refused(
        400,
        "invalid_request",
        &["percent"],
    );
}

#[tokio::test]
async fn plans_that_make_no_sense_are_refused() {
    let server = server(&add_constant(1.0), &add_constant(2.0)).await;
    for (change, told) in [
        (json!({ "strategy": "blue" }), "strategy"),
        (json!({ "canary": {} }), "\"strategy\": \"canary\""),
        (json!({ "strategy": "canary", "canary": { "steps": [] } }), "canary.steps"),
        (json!({ "strategy": "canary", "canary": { "steps": [50, 10] } }), "upwards"),
        (json!({ "strategy": "canary", "canary": { "steps": [0] } }), "canary.steps"),
        (json!({ "strategy": "canary", "canary": { "steps": [101] } }), "canary.steps"),
        (json!({ "limits": { "max_error_rate": 2 } }), "limits.max_error_rate"),
        (json!({ "limits": { "max_p99_ratio": 0.5 } }), "limits.max_p99_ratio"),
        (json!({ "limits": { "max_p98_ratio": 2 } }), "max_p98_ratio"),
        (json!({ "bake": 7 }), "bake"),
    ] {
        let mut body = change;
        body["to"] = json!(2);
        let refused = server.post("/lifecycle/models/m/swap", &body).await;
        refused.refused(400, "invalid_request", &[told]);
    }
    assert_eq!(current(&server).await, "1");
}
