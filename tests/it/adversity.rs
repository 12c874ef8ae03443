//! Changes at the worst moment: while others go on, where something is gone, in the wrong order.

use std::fs;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support::onnx::{add_constant, mlp, slow, slow_by_input, two_inputs_two_outputs};
use crate::support::{Answer, Repository, Server, x};

/// So many rounds that a warm-up takes about half a second.
const LONG: i64 = 100_000;

fn versions() -> Repository {
    let repository = Repository::of("m", &add_constant(1.0)).and("m", 2, &add_constant(2.0));
    repository.with_settings("m", "version_policy: { specific: [1] }\n")
}

fn input() -> Value {
    x(&[1, 4], &[0.0; 4])
}

async fn change(server: &Server, what: &str, body: Value) -> Answer {
    server.post(&format!("/lifecycle/models/m/{what}"), &body).await
}

async fn report(server: &Server) -> Value {
    server.get("/lifecycle/models/m").await.ok()
}

async fn answered_by(server: &Server) -> String {
    server.infer("m", &input()).await.ok()["model_version"].as_str().unwrap().to_owned()
}

/// The operation that this answer is about, once it has ended.
async fn ended(server: &Server, accepted: &Answer) -> Value {
    loop {
        let operation = server.get(accepted.header("location")).await.ok();
        if operation["state"] != "running" {
            return operation;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_alias_that_is_about_to_be_traps_no_request() {
    let wrong = json!({
        "inputs": [{ "name": "x", "shape": [1], "datatype": "FP32", "data": [0.0] }],
        "outputs": [{ "name": "y", "shape": [1], "datatype": "FP32", "data": [-1.0] }],
    });
    let repository = Repository::of("m", &slow(1)).and("m", 2, &slow(LONG));
    repository.settings("m", "version_policy: { specific: [1] }\n");
    repository.write("m/golden/2/wrong.json", wrong.to_string().as_bytes());
    let server = Server::start(repository).await;
    let declaring = async {
        let to_be = json!({ "models": { "m": { "version": "2", "aliases": { "new": "2" } } } });
        let ended = server.put("/lifecycle/desired", &to_be).await.ok();
        assert_eq!(
            ended["changes"][0]["operation"]["error"]["code"], "verification_failed",
            "{ended}"
        );
    };
    let asking = async {
        server.started(("m", "2")).await;
        let of_new = "/v2/models/m/versions/new/infer";
        let input = x(&[1], &[0.0]);
        let asked = (0..16).map(|_| server.post(of_new, &input));
        for answer in join_all(asked).await {
            answer.refused(404, "unknown_alias", &["new"]);
        }
        server.get("/livez").await.ok();
    };
    tokio::join!(declaring, asking);
    server.post("/v2/models/m/versions/new/infer", &x(&[1], &[0.0])).await.refused(
        404,
        "unknown_alias",
        &[],
    );
    assert_eq!(server.stop().await, 0);
}

/// Versions that differ in nothing but their number, and room for one of them.
async fn room_for_one() -> Server {
    let graph = slow_by_input();
    let budget = format!("{}B", graph.len() * 3 / 2);
    let repository = Repository::of("m", &graph).and("m", 2, &graph);
    let repository = repository.with_settings("m", "version_policy: { specific: [1] }\n");
    let settings = [("models.memory_budget", budget.as_str()), ("inference.instances", "1")];
    Server::start_with(repository, &settings).await
}

fn rounds(count: i64) -> Value {
    json!({ "inputs": [
        { "name": "x", "shape": [1], "datatype": "FP32", "data": [0] },
        { "name": "iterations", "shape": [1], "datatype": "INT64", "data": [count] },
    ] })
}

#[tokio::test]
async fn nothing_is_loaded_before_the_memory_of_the_old_version_is_free() {
    let server = room_for_one().await;
    let swapping = async {
        server.until(("m", "1"), |report| report["in_flight"] == 1).await;
        let body = json!({ "to": 2, "strategy": "resource", "drain_timeout": "1ms" });
        let report = change(&server, "swap", body).await.ok();
        assert_eq!((&report["to"], &report["drained"]), (&json!("2"), &json!(false)));
    };
    let rounds = rounds(1_000_000);
    let (inside, ()) = tokio::join!(server.infer("m", &rounds), swapping);
    assert_eq!(inside.ok()["model_version"], "1");
    assert_eq!(report(&server).await["current_version"], "2");
}

#[tokio::test]
async fn a_model_that_a_swap_has_left_without_a_version_comes_back() {
    let server = room_for_one().await;
    for version in ["1", "2"] {
        server.repository.write(&format!("m/{version}/model.onnx"), b"broken");
    }
    let failed = change(&server, "swap", json!({ "to": 2, "strategy": "resource" })).await;
    failed.refused(400, "load_failed", &["serves nothing", "m/1", "m/2"]);
    server.infer("m", &rounds(1)).await.refused(503, "model_unavailable", &["m"]);
    server.repository.put("m", 1, &slow_by_input());
    change(&server, "load", json!({})).await.ok();
    assert_eq!(server.infer("m", &rounds(1)).await.ok()["model_version"], "1");
}

#[tokio::test]
async fn a_swap_that_gives_the_old_version_up_asks_who_needs_it() {
    let server = Server::start(versions()).await;
    let resource =
        async || change(&server, "swap", json!({ "to": 2, "strategy": "resource" })).await;
    let alias = "/lifecycle/models/m/aliases/stable";
    server.put(alias, &json!({ "version": 1 })).await.ok();
    resource().await.refused(409, "version_in_use", &["stable"]);
    server.delete(alias).await.ok();
    let lease = change(&server, "leases", json!({ "ttl": "1h", "holder": "me" })).await.ok();
    resource().await.refused(409, "leased", &["me"]);
    let lease = format!("/lifecycle/models/m/leases/{}", lease["id"].as_str().unwrap());
    server.delete(&lease).await.ok();
    // What is refused changes nothing: the way back is kept as long as it was to be.
    change(&server, "swap", json!({ "to": 2, "keep_previous": "1h" })).await.ok();
    let gone = change(&server, "swap", json!({ "to": 9, "strategy": "resource" })).await;
    gone.refused(404, "unknown_version", &[]);
    assert_eq!(report(&server).await["parked_version"], "1");
    resource().await.refused(409, "already_current", &[]);
    change(&server, "swap", json!({ "to": 1, "strategy": "resource" })).await.ok();
    assert_eq!(answered_by(&server).await, "1");
}

#[tokio::test]
async fn times_beyond_measure_are_refused() {
    let server = Server::start(versions()).await;
    for ttl in ["10000y", "366days", "18446744073709551615s"] {
        let refused = change(&server, "leases", json!({ "ttl": ttl })).await;
        refused.refused(400, "invalid_request", &["ttl", "a year at most"]);
    }
    for key in ["keep_previous", "bake", "drain_timeout"] {
        let refused = change(&server, "swap", json!({ "to": 2, key: "10000y" })).await;
        refused.refused(400, "invalid_request", &["ten years at most"]);
    }
    assert_eq!(answered_by(&server).await, "1");
    server.get("/lifecycle/operations").await.ok();
    let lease = change(&server, "leases", json!({ "ttl": "365days" })).await.ok();
    assert!(lease["expires"].as_str().unwrap() > "2027", "{lease}");
    server.get("/lifecycle/models").await.ok();
}

#[tokio::test]
async fn nobody_is_a_canary_beside_itself() {
    let server = Server::start(versions()).await;
    change(&server, "swap", json!({ "to": 2, "keep_previous": true })).await.ok();
    let traffic = "/lifecycle/models/m/traffic";
    server.put(traffic, &json!({ "weights": { "1": 50, "2": 50 } })).await.ok();
    let refused = change(&server, "swap", json!({ "to": 2, "strategy": "canary" })).await;
    refused.refused(409, "already_current", &["2"]);
}

#[tokio::test]
async fn loads_that_need_the_same_room_do_not_fail_for_each_other() {
    let graph = mlp(4, 512, 4);
    let budget = format!("{}B", graph.len() * 5 / 2);
    let names = ["a", "b", "c", "d"];
    let mut repository = Repository::empty();
    for name in names {
        repository = repository.and(name, 1, &graph).with_settings(name, "lazy: true\n");
    }
    let settings = [("models.memory_budget", budget.as_str()), ("inference.instances", "1")];
    let server = Server::start_with(repository, &settings).await;
    for _ in 0..5 {
        for pair in [["a", "b"], ["c", "d"]] {
            let asked = pair.map(async |name| server.infer(name, &input()).await.ok());
            join_all(asked).await;
        }
    }
}

#[tokio::test]
async fn a_bake_is_ended_by_who_rolls_back_and_is_no_decision() {
    let home = TempDir::new().unwrap();
    let settings = [("models.state", home.path().to_str().unwrap())];
    let server = Server::start_with(versions(), &settings).await;
    let bake = async |server: &Server| {
        let body = json!({ "to": 2, "bake": "6h" });
        let path = "/lifecycle/models/m/swap?wait=0s";
        let accepted = server.post(path, &body).await;
        while answered_by(server).await != "2" {}
        accepted
    };
    let accepted = bake(&server).await;
    let busy = change(&server, "unload", json!({})).await;
    let id = accepted.json()["id"].as_str().unwrap().to_owned();
    busy.refused(409, "change_in_progress", &[&id, "roll back"]);
    let back = change(&server, "rollback", json!({})).await.ok();
    assert_eq!((&back["from"], &back["to"]), (&json!("2"), &json!("1")));
    assert_eq!(ended(&server, &accepted).await["state"], "cancelled");
    assert_eq!(answered_by(&server).await, "1");
    let accepted = bake(&server).await;
    assert_eq!(server.delete(accepted.header("location")).await.status, 202);
    ended(&server, &accepted).await;
    assert_eq!(answered_by(&server).await, "1");
    change(&server, "rollback", json!({})).await.refused(409, "nothing_before", &[]);
    bake(&server).await;
    let server = server.kill_and_restart().await;
    assert_eq!(answered_by(&server).await, "1", "it had not proved itself");
}

#[tokio::test]
async fn what_was_taken_back_is_not_what_the_next_life_begins_with() {
    let home = TempDir::new().unwrap();
    let settings = [("models.state", home.path().to_str().unwrap())];
    // By its policy, the newest version is current.
    let server = Server::start_with(Repository::of("m", &add_constant(1.0)), &settings).await;
    server.repository.put("m", 2, &add_constant(2.0));
    let bake = json!({ "to": 2, "bake": "6h" });
    let accepted = server.post("/lifecycle/models/m/swap?wait=0s", &bake).await;
    while answered_by(&server).await != "2" {}
    let server = server.kill_and_restart().await;
    assert_eq!(answered_by(&server).await, "1", "killed while it was on trial");
    let canary = json!({ "to": 2, "strategy": "canary",
        "canary": { "steps": [50], "interval": "20ms", "patience": "40ms" } });
    change(&server, "swap", canary).await.refused(409, "rolled_back", &["too few requests"]);
    let server = server.kill_and_restart().await;
    assert_eq!(answered_by(&server).await, "1", "taken back by itself");
    change(&server, "load", json!({})).await.ok();
    assert_eq!(answered_by(&server).await, "1");
    server.repository.put("m", 3, &add_constant(3.0));
    change(&server, "load", json!({})).await.ok();
    assert_eq!(answered_by(&server).await, "3", "a newer one");
    drop(accepted);
}

#[tokio::test]
async fn callers_meet_nothing_they_cannot_call_after_a_restart() {
    let home = TempDir::new().unwrap();
    let settings = [("models.state", home.path().to_str().unwrap())];
    let server = Server::start_with(Repository::of("m", &add_constant(1.0)), &settings).await;
    server.repository.put("m", 2, &two_inputs_two_outputs());
    change(&server, "load", json!({})).await.refused(409, "incompatible", &["version 1"]);
    let server = server.kill_and_restart().await;
    assert_eq!(answered_by(&server).await, "1");
    let problem = report(&server).await["problem"].clone();
    assert!(problem.as_str().unwrap().contains("cannot take the place of version 1"), "{problem}");
    // Where nothing else is left, it is better than nothing.
    fs::remove_dir_all(server.repository.path().join("m/1")).unwrap();
    let server = server.kill_and_restart().await;
    assert_eq!(report(&server).await["current_version"], "2");
}

#[tokio::test]
async fn a_bad_version_takes_nothing_down_after_a_restart() {
    let server = Server::start(Repository::of("m", &add_constant(1.0))).await;
    server.repository.put("m", 2, b"no graph");
    let server = server.kill_and_restart().await;
    assert_eq!(answered_by(&server).await, "1");
    assert!(report(&server).await["problem"].as_str().unwrap().contains("m/2"));
}

#[tokio::test]
async fn what_is_gone_from_the_repository_takes_nothing_else_down() {
    let home = TempDir::new().unwrap();
    let settings = [("models.state", home.path().to_str().unwrap()), ("models.required", "m")];
    let server = Server::start_with(versions(), &settings).await;
    let alias = "/lifecycle/models/m/aliases/old";
    server.put(alias, &json!({ "version": 1 })).await.ok();
    change(&server, "swap", json!({ "to": 2 })).await.ok();
    fs::remove_dir_all(server.repository.path().join("m/1")).unwrap();
    server.repository.settings("m", "version_policy: { latest: 1 }\n");
    // As long as it is loaded it needs no files.
    change(&server, "load", json!({})).await.ok();
    server.get("/v2/models/m/versions/old/ready").await.ok();
    let server = server.kill_and_restart().await;
    assert_eq!(answered_by(&server).await, "2");
    let told = report(&server).await["warnings"].clone();
    assert!(told.to_string().contains("the alias 'old' is version 1"), "{told}");
    change(&server, "unload", json!({})).await.ok();
    server.delete(alias).await.ok();
    change(&server, "load", json!({})).await.ok();
    assert_eq!(report(&server).await["warnings"], json!([]));
    // Neither does a choice.
    server.repository.put("m", 3, &add_constant(3.0));
    fs::remove_dir_all(server.repository.path().join("m/2")).unwrap();
    let server = server.kill_and_restart().await;
    assert_eq!(answered_by(&server).await, "3");
}

#[tokio::test]
async fn who_waits_for_a_model_gets_a_place_in_its_queue() {
    let repository = Repository::of("m", &slow(2_000));
    repository.settings("m", "lazy: true\nqueue_capacity: 2\ninstances: 1\n");
    let server = Server::start(repository).await;
    let input = x(&[1], &[0.0]);
    let asked = (0..60).map(|_| server.infer("m", &input));
    for answer in join_all(asked).await {
        answer.ok();
    }
}

#[tokio::test]
async fn who_waits_for_a_model_is_answered_also_when_the_server_stops() {
    let repository = Repository::of("m", &slow(LONG)).with_settings("m", "lazy: true\n");
    let settings = [("lifecycle.pre_stop_delay", "100ms")];
    let server = Server::start_with(repository, &settings).await;
    let stopping = async {
        server.started(("m", "1")).await;
        server.process.signal("TERM");
    };
    let (input, path) = (x(&[1], &[0.0]), "/v2/models/m/infer");
    let ask = || server.try_send(reqwest::Method::POST, path, input.to_string().into_bytes());
    let (answers, ()) = tokio::join!(join_all((0..8).map(|_| ask())), stopping);
    for answer in answers {
        answer.unwrap().ok();
    }
}

#[tokio::test]
async fn who_waits_to_change_a_model_does_not_wait_out_a_canary() {
    let repository = Repository::of("m", &slow(1)).and("m", 2, &slow(LONG));
    let repository = repository.with_settings("m", "version_policy: { specific: [1] }\n");
    let server = Server::start(repository).await;
    let canary = json!({ "to": 2, "strategy": "canary" });
    let accepted = server.post("/lifecycle/models/m/swap?wait=0s", &canary).await;
    server.started(("m", "2")).await;
    let unload = timeout(Duration::from_secs(20), change(&server, "unload", json!({})));
    unload.await.unwrap().refused(409, "change_in_progress", &["'m'"]);
    server.delete(accepted.header("location")).await;
    ended(&server, &accepted).await;
    change(&server, "unload", json!({})).await.ok();
}

#[tokio::test]
async fn a_refusal_of_the_moment_is_not_remembered_by_its_key() {
    let server = Server::start(versions()).await;
    let canary = json!({ "to": 2, "strategy": "canary" });
    let accepted = server.post("/lifecycle/models/m/swap?wait=0s", &canary).await;
    server.started(("m", "2")).await;
    let unload = async || {
        let request = server.request(reqwest::Method::POST, "/lifecycle/models/m/unload");
        Answer::of(request.header("idempotency-key", "k").send().await.unwrap()).await.unwrap()
    };
    unload().await.refused(409, "change_in_progress", &[]);
    server.delete(accepted.header("location")).await;
    ended(&server, &accepted).await;
    unload().await.ok();
    unload().await.ok();
}

#[tokio::test]
async fn settings_of_a_model_hold_also_where_its_files_are_unchanged() {
    let server = Server::start(versions()).await;
    server.repository.settings("m", "version_policy: { specific: [1] }\npin: true\n");
    let loaded = change(&server, "load", json!({})).await.ok();
    assert_eq!(loaded["loaded"], json!([]));
    let plan = server.get("/lifecycle/eviction?free_bytes=1").await.ok();
    assert_eq!(plan["models"][0]["spared"], "it is pinned");
}

#[tokio::test]
async fn a_lazy_model_that_was_never_asked_goes_with_what_is_not_declared() {
    let repository = versions().and("lazy", 1, &add_constant(3.0));
    let server = Server::start(repository.with_settings("lazy", "lazy: true\n")).await;
    server.put("/lifecycle/desired", &json!({ "models": { "m": {} } })).await.ok();
    server.infer("lazy", &input()).await.refused(404, "model_not_loaded", &["lazy"]);
}

#[tokio::test]
async fn what_is_not_saved_is_said_to_who_has_decided_it() {
    let home = TempDir::new().unwrap();
    let state = home.path().join("state");
    let server = Server::start_with(versions(), &[("models.state", state.to_str().unwrap())]).await;
    let saved = change(&server, "swap", json!({ "to": 2 })).await;
    assert!(!saved.headers.contains_key("x-onward-unsaved"));
    fs::remove_dir_all(state).unwrap();
    let unsaved = change(&server, "swap", json!({ "to": 1 })).await;
    unsaved.ok();
    assert_eq!(unsaved.header("x-onward-unsaved"), "true");
    let all = server.get("/lifecycle/operations").await.ok();
    let last = all["operations"].as_array().unwrap().last().unwrap().clone();
    assert!(last["unsaved"].as_str().unwrap().contains("No such file"), "{last}");
}
