//! Checks one by one: what is told of them, runs on demand, exclusion, and what stalls.

use std::fs;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use onward::lifecycle::checks::RuntimeWatch;
use onward::lifecycle::{Check, CheckKind};
use serde_json::{Value, json};
use tokio::time::{interval, timeout};

use crate::support::onnx::add_constant;
use crate::support::process::PATIENCE;
use crate::support::{InProcess, Repository, Server};

/// With these no check runs but on demand, after its first run.
const ON_DEMAND: (&str, &str) = ("lifecycle.health_interval", "1h");

const REPOSITORY: &str = "/lifecycle/checks/readiness/repository";

fn names(list: &Value) -> Vec<(&str, &str)> {
    let checks = list["checks"].as_array().expect("checks are a list").iter();
    checks.map(|check| (check["kind"].as_str().unwrap(), check["name"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn every_check_is_told_of() {
    let settings = [ON_DEMAND, ("lifecycle.health_failure_threshold", "3")];
    let server = Server::start_with(Repository::empty(), &settings).await;
    let list = server.get("/lifecycle/checks").await.ok();
    let expected = [
        ("liveness", "application"),
        ("liveness", "runtime"),
        ("readiness", "application"),
        ("readiness", "disk_space"),
        ("readiness", "log"),
        ("readiness", "memory_pressure"),
        ("readiness", "metrics"),
        ("readiness", "reconciled"),
        ("readiness", "repository"),
        ("readiness", "required_models"),
        ("startup", "application"),
    ];
    assert_eq!(names(&list), expected);
    for (kind, name) in expected {
        let detail = server.get(&format!("/lifecycle/checks/{kind}/{name}")).await.ok();
        let told = (&detail["check"]["kind"], &detail["check"]["name"]);
        assert_eq!(told, (&json!(kind), &json!(name)));
        let runs =
            ["disk_space", "log", "memory_pressure", "metrics", "repository"].contains(&name);
        let schedule = json!({
            "interval_ms": 3_600_000.0,
            "timeout_ms": 2000.0,
            "failure_threshold": 3,
            "success_threshold": 1,
        });
        assert_eq!(detail["schedule"], if runs { schedule } else { Value::Null }, "{name}");
    }
    let started = server.get("/lifecycle/checks/startup/application").await.ok();
    let history = started["history"].as_array().unwrap();
    let statuses: Vec<&str> =
        history.iter().map(|change| change["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["failing", "passing"]);
    assert_eq!(history[0]["detail"], "the application is UNINITIALIZED");
}

#[tokio::test]
async fn a_check_that_is_not_there_is_told() {
    let server = Server::start(Repository::empty()).await;
    for (path, told) in [
        ("/lifecycle/checks/readiness/nope", "no readiness check 'nope'"),
        ("/lifecycle/checks/liveness/repository", "no liveness check 'repository'"),
        ("/lifecycle/checks/readiness/a%2Fb%20c", "'a/b c'"),
        ("/lifecycle/checks/ready/repository", "no kind of check 'ready'"),
    ] {
        server.get(path).await.refused(404, "unknown_check", &[told]);
        let run = server.post(&format!("{path}/run"), &json!({})).await;
        run.refused(404, "unknown_check", &[told]);
    }
    server.get("/lifecycle/checks/readiness/%FF").await.refused(400, "invalid_request", &["UTF-8"]);
    server.get(&format!("{REPOSITORY}/run")).await.refused(405, "method_not_allowed", &[]);
    assert_eq!(server.get("/lifecycle/checks/readiness/re%70ository").await.status, 200);
}

#[tokio::test]
async fn a_check_is_run_on_demand() {
    let server = Server::start_with(Repository::empty(), &[ON_DEMAND]).await;
    let run = async || server.post(&format!("{REPOSITORY}/run"), &json!({})).await.ok();
    assert_eq!(run().await["check"]["status"], "passing");
    let (there, away) = (server.repository.path(), server.repository.path().with_extension("away"));
    fs::rename(there, &away).unwrap();
    let failing = run().await;
    fs::rename(&away, there).unwrap();
    assert_eq!(failing["check"]["status"], "failing");
    assert_eq!(failing["check"]["consecutive_failures"], 1);
    let error = failing["check"]["last_error"].as_str().unwrap();
    assert!(error.contains("cannot read"), "{error}");
    assert_eq!(server.get("/readyz").await.status, 200, "the check is not critical");
    let again = run().await;
    assert_eq!(again["check"]["status"], "passing");
    let history = again["history"].as_array().unwrap();
    let told: Vec<(&Value, &Value)> =
        history.iter().map(|change| (&change["status"], &change["detail"])).collect();
    let [unknown, passing, failing] = ["unknown", "passing", "failing"].map(Value::from);
    let (error, nothing, not_yet) = (json!(error), json!(""), json!("it has not run yet"));
    let expected =
        [(&unknown, &not_yet), (&passing, &nothing), (&failing, &error), (&passing, &nothing)];
    assert_eq!(told, expected);
    assert_eq!(server.get(REPOSITORY).await.ok()["history"], again["history"]);
    let reported = server.post("/lifecycle/checks/liveness/runtime/run", &json!({})).await.ok();
    assert_eq!(reported["check"]["status"], "passing");
}

#[tokio::test]
async fn excluded_checks_do_not_count_and_are_listed() {
    let settings =
        [ON_DEMAND, ("models.required", "needed"), ("health.min_free_disk", "1048576GiB")];
    let repository = Repository::of("needed", &add_constant(1.0));
    let server = Server::start_with(repository, &settings).await;
    let disk = "/lifecycle/checks/readiness/disk_space/run";
    assert_eq!(server.post(disk, &json!({})).await.ok()["check"]["status"], "failing");
    assert_eq!(server.get("/readyz").await.ok(), json!({ "status": "pass" }), "it is not critical");
    let unload = "/v2/repository/models/needed/unload";
    assert_eq!(server.post(unload, &json!({})).await.status, 200);
    for (query, status, excluded, unmatched) in [
        ("", 503, json!([]), json!([])),
        ("?exclude=application", 503, json!(["application"]), json!([])),
        ("?exclude=required_models&verbose", 200, json!(["required_models"]), json!([])),
        (
            "?verbose&exclude=nope&exclude=required_models&exclude=nope",
            200,
            json!(["required_models"]),
            json!(["nope"]),
        ),
        ("?exclude=required%5Fmodels,nope", 503, json!([]), json!(["required_models,nope"])),
        ("?exclude&exclude=a%FFb", 503, json!([]), json!(["", "a\u{fffd}b"])),
    ] {
        let answer = server.get(&format!("/readyz{query}")).await;
        let body = answer.json();
        assert_eq!(answer.status, status, "{query}: {body}");
        assert_eq!((&body["excluded"], &body["unmatched"]), (&excluded, &unmatched), "{query}");
        let listed: Vec<&str> = names(&body).into_iter().map(|(_, name)| name).collect();
        let all = [
            "application",
            "disk_space",
            "log",
            "memory_pressure",
            "metrics",
            "reconciled",
            "repository",
            "required_models",
        ];
        assert_eq!(listed, all, "{query}");
    }
    let passing = server.get("/readyz?exclude=required_models").await.ok();
    assert_eq!(passing, json!({ "status": "pass" }));
    let other = server.get("/livez?exclude=required_models&verbose").await.ok();
    assert_eq!(other["unmatched"], json!(["required_models"]), "names are those of one probe");
}

/// A check that holds whoever runs it until what is returned is dropped, and counts its runs.
fn stuck() -> (Check, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (run, runs) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let check = Check::blocking("stuck", CheckKind::Readiness, move || {
        run.send(()).ok();
        held.lock().unwrap().recv().ok();
        Ok(())
    });
    (check, runs, release)
}

#[tokio::test]
async fn a_check_that_blocks_holds_up_no_probe_and_is_not_run_twice() {
    let server = InProcess::serve(1);
    let (check, runs, release) = stuck();
    let inside = server.runtime().enter();
    server.health.register(check.timeout(Duration::from_millis(50)));
    drop(inside);
    let run = "/lifecycle/checks/readiness/stuck/run";
    let first = server.post(run).await.ok();
    assert_eq!(first["check"]["status"], "failing");
    for path in ["/livez", "/readyz?exclude=stuck", "/lifecycle/checks"] {
        let status = server.get(path).await.status;
        assert!([200, 503].contains(&status), "{path}: {status}");
    }
    let second = server.post(run).await.ok();
    assert!(second["check"]["running_ms"].as_f64().unwrap() >= 50.0, "{second}");
    assert_eq!(runs.try_iter().count(), 1, "it was started beside itself");
    drop(release);
}

/// Puts so many workers inside a task, which they leave when what is returned is dropped.
fn block(server: &InProcess, workers: usize) -> Vec<mpsc::Sender<()>> {
    let (inside, is_inside) = mpsc::channel();
    let block = |_| {
        let (release, released) = mpsc::channel();
        let inside = inside.clone();
        server.runtime().spawn(async move {
            inside.send(()).unwrap();
            released.into_iter().for_each(drop);
        });
        release
    };
    let held = (0..workers).map(block).collect();
    (0..workers).for_each(|_| is_inside.recv_timeout(PATIENCE).unwrap());
    held
}

async fn until(server: &InProcess, status: u16) -> Value {
    let asking = async {
        let mut ticks = interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            let answer = server.get("/livez?verbose").await;
            if answer.status == status {
                return answer.json();
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("the probe comes to be as wanted")
}

#[tokio::test]
async fn a_stuck_worker_fails_the_liveness_probe_that_another_answers() {
    let server = InProcess::serve(2);
    let runtime = server.runtime().handle().clone();
    let watch = RuntimeWatch::start(&server.health, runtime, Duration::from_millis(50)).unwrap();
    until(&server, 200).await;
    let stuck = block(&server, 1);
    let failing = until(&server, 503).await;
    let checks = failing["checks"].as_array().unwrap();
    let runtime = checks.iter().find(|check| check["name"] == "runtime").unwrap();
    let error = runtime["last_error"].as_str().unwrap();
    assert!(error.contains("did not come back from a task for"), "{error}");
    drop(stuck);
    until(&server, 200).await;
    drop(watch);
}
