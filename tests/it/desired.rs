//! The desired state: declared as a whole, and there again after whatever happens to the process.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::onnx::add_constant;
use crate::support::{Repository, Server};

fn versions() -> Repository {
    Repository::of("add", &add_constant(1.0))
        .and("add", 2, &add_constant(2.0))
        .and("add", 3, &add_constant(3.0))
        .and("other", 1, &add_constant(4.0))
        .with_settings("add", "version_policy: { specific: [1] }\n")
}

async fn server(state: &Path) -> Server {
    Server::start_with(versions(), &[("models.state", state.to_str().unwrap())]).await
}

async fn swap(server: &Server, to: u64) {
    server.post("/lifecycle/models/add/swap", &json!({ "to": to })).await.ok();
}

async fn desired(server: &Server) -> Value {
    server.get("/lifecycle/desired").await.ok()["models"].clone()
}

/// The check that tells whether the state is kept.
async fn check(server: &Server) -> Value {
    server.get("/lifecycle/checks/readiness/desired_state").await.ok()["check"].clone()
}

async fn current(server: &Server) -> Value {
    server.get("/lifecycle/models/add").await.ok()["current_version"].clone()
}

#[tokio::test]
async fn what_was_decided_is_there_after_a_kill() {
    let home = TempDir::new().unwrap();
    let server = server(home.path()).await;
    swap(&server, 2).await;
    let stable = "/lifecycle/models/add/aliases/stable";
    server.put(stable, &json!({ "version": 2 })).await.ok();
    swap(&server, 3).await;
    server
        .put("/lifecycle/models/add/traffic", &json!({ "weights": { "2": 10, "3": 90 } }))
        .await
        .ok();
    server.post("/v2/repository/models/other/unload", &json!({})).await;
    let before = desired(&server).await;
    let server = server.kill_and_restart().await;
    assert_eq!(desired(&server).await, before);
    assert_eq!(current(&server).await, "3");
    let traffic = server.get("/lifecycle/models/add").await.ok()["traffic"].clone();
    let expected = json!({ "aliases": { "stable": "2" }, "weights": { "2": 10.0, "3": 90.0 }, "shadow": null });
    assert_eq!(traffic, expected);
    server.get("/v2/models/other/ready").await.refused(404, "model_not_loaded", &[]);
    server.get("/v2/models/add/versions/stable/ready").await.ok();
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_the_one_before_is_used() {
    let home = TempDir::new().unwrap();
    let server = server(home.path()).await;
    swap(&server, 2).await;
    swap(&server, 3).await;
    let file = home.path().join("desired.json");
    let torn = fs::read(&file).unwrap();
    fs::write(&file, &torn[..torn.len() / 2]).unwrap();
    let server = server.kill_and_restart().await;
    assert_eq!(current(&server).await, "2");
    let told = server.get("/lifecycle/events?kind=health").await.ok();
    let told: Vec<&Value> = told["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| &event["data"])
        .filter(|data| data["check"] == "desired_state")
        .collect();
    assert_eq!(told[0]["passing"], false);
    assert!(told[0]["detail"].as_str().unwrap().contains("set aside as"), "{told:?}");
    let report = check(&server).await;
    assert_eq!((&report["status"], &report["critical"]), (&json!("passing"), &json!(false)));
    server.process.logged(&["the last good one is used", "set aside as"]).await;
}

#[tokio::test]
async fn a_state_that_cannot_be_saved_is_told_and_stops_nothing() {
    let home = TempDir::new().unwrap();
    let server = server(&home.path().join("state")).await;
    fs::remove_dir_all(home.path().join("state")).unwrap();
    swap(&server, 2).await;
    assert_eq!(current(&server).await, "2");
    let report = check(&server).await;
    assert!(report["last_error"].as_str().unwrap().contains("could not be saved"), "{report}");
}

#[tokio::test]
async fn the_whole_set_is_declared() {
    let home = TempDir::new().unwrap();
    let server = server(home.path()).await;
    let wanted = json!({ "models": { "add": {
        "version": 2, "aliases": { "stable": 1, "canary": "3" }, "weights": { "1": 60, "2": 40 },
    } } });
    let dry = server.put("/lifecycle/desired?dry_run=true", &wanted).await.ok();
    let actions = json!([
        "current: what the version policy selects -> version 2",
        "alias canary: none -> 3",
        "alias stable: none -> 1",
        "weights",
    ]);
    assert_eq!(dry["changes"][0], json!({ "model": "add", "actions": actions, "operation": null }));
    assert_eq!(
        (&dry["changes"][1]["model"], &dry["changes"][1]["actions"]),
        (&json!("other"), &json!(["unload"]))
    );
    assert_eq!(current(&server).await, "1", "nothing was done");
    let done = server.put("/lifecycle/desired", &wanted).await.ok();
    let states: Vec<&Value> = done["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| &change["operation"]["state"])
        .collect();
    assert_eq!(states, ["succeeded", "succeeded"], "{done}");
    assert_eq!(current(&server).await, "2");
    assert_eq!(server.get("/v2/models/add").await.ok()["versions"], json!(["1", "2", "3"]));
    server.get("/v2/models/other/ready").await.refused(404, "model_not_loaded", &[]);
    let again = server.put("/lifecycle/desired", &wanted).await.ok();
    assert_eq!(again, json!({ "changes": [] }));
    // What is told can be declared again.
    let told = server.get("/lifecycle/desired").await.ok();
    assert_eq!(server.put("/lifecycle/desired", &told).await.ok(), json!({ "changes": [] }));
    let server = server.kill_and_restart().await;
    assert_eq!(server.get("/lifecycle/desired").await.ok(), told);
}

#[tokio::test]
async fn a_set_that_cannot_be_changes_nothing() {
    let home = TempDir::new().unwrap();
    let server = server(home.path()).await;
    for (wrong, told) in [
        (json!({ "models": { "add": { "weights": { "1": 50 } } } }), "weights sum to 100"),
        (json!({ "models": { "add": { "version": "x" } } }), "specified version string 'x'"),
        (json!({ "models": { "add": { "version": 0 } } }), "specified version string '0'"),
        (json!({ "models": { "a/b": {} } }), "a/b"),
        (json!({ "models": { "add": { "alias": {} } } }), "alias"),
        (json!({}), "models"),
    ] {
        let refused = server.put("/lifecycle/desired", &wrong).await;
        assert_eq!(refused.status, 400);
        assert!(refused.json()["error"].as_str().unwrap().contains(told), "{}", refused.json());
    }
    assert_eq!(current(&server).await, "1");
}

#[tokio::test]
async fn what_cannot_be_yet_stays_declared_and_is_tried_until_it_can() {
    let home = TempDir::new().unwrap();
    let settings =
        [("models.state", home.path().to_str().unwrap()), ("models.reconcile_interval", "20ms")];
    let server = Server::start_with(versions(), &settings).await;
    let to_be = json!({ "models": {
        "add": { "version": "9", "aliases": { "next": "9" } }, "new": {}, "other": {},
    } });
    let failed = server.put("/lifecycle/desired", &to_be).await.ok();
    let code = |change: usize| failed["changes"][change]["operation"]["error"]["code"].clone();
    assert_eq!((code(0), code(1)), (json!("unknown_version"), json!("unknown_model")), "{failed}");
    // What served serves, and requests for what is only declared are told so.
    assert_eq!(current(&server).await, "1");
    server.get("/v2/models/add/versions/next").await.refused(404, "unknown_alias", &["next"]);
    let unmet = server.get("/lifecycle/desired").await.ok()["unmet"].clone();
    assert!(unmet["add"]["reason"].as_str().unwrap().contains("no version 9"), "{unmet}");
    assert!(unmet["new"]["reason"].as_str().unwrap().contains("no model 'new'"), "{unmet}");
    let report = server.get("/lifecycle/checks/readiness/reconciled").await.ok()["check"].clone();
    assert_eq!((&report["status"], &report["critical"]), (&json!("failing"), &json!(false)));
    server.get("/readyz").await.ok();
    // Also after a kill: what served is there again, and what is declared is still tried.
    let server = server.kill_and_restart().await;
    assert_eq!(current(&server).await, "1");
    server.repository.put("add", 9, &add_constant(9.0));
    server.repository.put("new", 1, &add_constant(5.0));
    server.started(("add", "9")).await;
    server.until(("add", "9"), |report| report["state"] == "READY").await;
    server.started(("new", "1")).await;
    server.until(("new", "1"), |report| report["state"] == "READY").await;
    server.get("/v2/models/add/versions/next/ready").await.ok();
    let told = server.get("/lifecycle/desired").await.ok();
    assert_eq!(told["unmet"], json!({}), "{told}");
    assert_eq!(told["models"]["add"]["version"], "9");
}

#[tokio::test]
async fn the_newest_decision_holds() {
    let home = TempDir::new().unwrap();
    let server = server(home.path()).await;
    let to_be = json!({ "models": { "add": { "version": "9" }, "other": {} } });
    server.put("/lifecycle/desired", &to_be).await.ok();
    assert_eq!(desired(&server).await["add"]["version"], "9");
    swap(&server, 2).await;
    let told = server.get("/lifecycle/desired").await.ok();
    assert_eq!((&told["models"]["add"]["version"], &told["unmet"]), (&json!("2"), &json!({})));
    // A model that was to be loaded and cannot be is given up by an unload.
    let gone = json!({ "models": { "add": { "version": "2" }, "gone": {}, "other": {} } });
    server.put("/lifecycle/desired", &gone).await.ok();
    server.post("/lifecycle/models/gone/unload", &json!({})).await.ok();
    assert_eq!(server.get("/lifecycle/desired").await.ok()["unmet"], json!({}));
}

/// After a kill at a random moment, what is there is what was acknowledged last, or what was under way.
#[tokio::test]
async fn fifty_kills_leave_nothing_half_written() {
    const KILLS: u64 = 50;
    let home = TempDir::new().unwrap();
    let mut server = server(home.path()).await;
    server.put("/lifecycle/models/add/aliases/stable", &json!({ "version": 1 })).await.ok();
    // The last alias that was acknowledged, by the number in its name.
    let (mut acknowledged, mut tried) = (0, 0);
    for round in 0..KILLS {
        let moment = Duration::from_micros((round * 7_919) % 40_000);
        let changing = async {
            loop {
                tried += 1;
                let path = format!("/lifecycle/models/add/aliases/n{tried}");
                let body = json!({ "version": 1 }).to_string().into_bytes();
                if server.try_send(reqwest::Method::PUT, &path, body).await.is_ok() {
                    acknowledged = tried;
                    let old = format!("/lifecycle/models/add/aliases/n{}", tried - 1);
                    server.try_send(reqwest::Method::DELETE, &old, vec![]).await.ok();
                }
            }
        };
        tokio::time::timeout(moment, changing).await.unwrap_err();
        server = server.kill_and_restart().await;
        let aliases = desired(&server).await["add"]["aliases"].clone();
        let names: Vec<u64> = aliases
            .as_object()
            .unwrap()
            .keys()
            .filter_map(|name| name.strip_prefix('n')?.parse().ok())
            .collect();
        assert_eq!(aliases["stable"], "1", "{aliases}");
        assert!(names.iter().all(|name| *name <= tried), "{aliases}");
        let newest = names.iter().max().copied().unwrap_or(0);
        assert!(newest >= acknowledged, "{newest} is there, {acknowledged} was acknowledged");
        let report = check(&server).await;
        assert_eq!(report["status"], "passing", "{report}");
    }
    assert!(acknowledged > KILLS, "{acknowledged} changes were made between the kills");
    let kept = fs::read_dir(home.path()).unwrap().filter_map(Result::ok);
    let corrupt = kept.filter(|entry| entry.file_name().to_string_lossy().contains("corrupt"));
    assert_eq!(corrupt.count(), 0);
}
