//! Resources one by one: what is told of them, and what an operator may do to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use onward::lifecycle::{Backoff, Deadline, Resource};
use serde_json::{Value, json};

use crate::support::onnx::add_constant;
use crate::support::{InProcess, Repository, Server, x};

fn path(resource: &str, action: &str) -> String {
    format!("/lifecycle/resources/{resource}{action}")
}

#[tokio::test]
async fn the_server_stands_on_resources() {
    let mut server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let list = server.get("/lifecycle/resources").await.ok();
    let names = |list: &Value| -> Vec<String> {
        let resources = list["resources"].as_array().unwrap().iter();
        resources.map(|resource| resource["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&list), ["metrics", "onnxruntime", "repository", "http", "grpc"]);
    assert_eq!(names(&server.get("/lifecycle").await.ok()), names(&list));
    for resource in list["resources"].as_array().unwrap() {
        assert_eq!(resource["state"], "READY", "{resource}");
        assert_eq!(resource["initializations"], 1, "{resource}");
    }
    // Each model that is loaded uses the engine.
    let engine = server.get(&path("onnxruntime", "")).await.ok();
    assert_eq!((&engine["in_use"], &engine["lasting"]), (&json!(1), &json!(true)));
    let unload = server.post("/v2/repository/models/add/unload", &json!({})).await;
    assert_eq!(unload.status, 200);
    server.until(("add", "1"), |report| report["state"] == "UNLOADED").await;
    assert_eq!(server.get(&path("onnxruntime", "")).await.ok()["in_use"], 0);
    server.process.signal("TERM");
    assert_eq!(server.process.exit_code().await, 0);
    let log = server.process.log();
    let cleaned = ["grpc", "http", "repository", "onnxruntime", "metrics"]
        .map(|name| log.find(&format!(r#""resource":"{name}","state":"CLEANED""#)));
    assert!(cleaned.iter().all(Option::is_some) && cleaned.is_sorted(), "{cleaned:?}\n{log}");
}

#[tokio::test]
async fn what_lasts_is_not_cleaned_and_what_does_not_is_set_up_again_when_needed() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    for (resource, action) in [("http", "/clean"), ("onnxruntime", "/reset"), ("metrics", "/clean")]
    {
        let answer = server.post(&path(resource, action), &json!({})).await;
        answer.refused(409, "resource_in_use", &[resource, "lasts as long as the application"]);
    }
    let init = server.post(&path("http", "/init"), &json!({})).await.ok();
    assert_eq!((&init["state"], &init["initializations"]), (&json!("READY"), &json!(1)));
    let reset = server.post(&path("repository", "/reset"), &json!({})).await.ok();
    assert_eq!((&reset["state"], &reset["initializations"]), (&json!("READY"), &json!(2)));
    let clean = server.post(&path("repository", "/clean"), &json!({})).await.ok();
    assert_eq!((&clean["state"], &clean["in_use"]), (&json!("CLEANED"), &json!(0)));
    // What is loaded is served without it, and it is opened for who loads more.
    let answer = server.infer("add", &x(&[1, 4], &[0.0; 4])).await;
    assert_eq!(answer.output("y")[0], json!(1.0));
    assert_eq!(server.get("/readyz").await.status, 200);
    let load = server.post("/v2/repository/models/add/load", &json!({})).await;
    assert_eq!(load.status, 200);
    let opened = server.get(&path("repository", "")).await.ok();
    assert_eq!((&opened["state"], &opened["initializations"]), (&json!("READY"), &json!(3)));
}

#[tokio::test]
async fn a_repository_that_is_gone_is_told_and_serves_on() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let (there, away) = (server.repository.path(), server.repository.path().with_extension("away"));
    std::fs::rename(there, &away).unwrap();
    let reset = server.post(&path("repository", "/reset"), &json!({})).await;
    let told = ["models.repository", "cannot be opened", "No such file"];
    reset.refused(503, "resource_unavailable", &told);
    let failed = server.get(&path("repository", "")).await.ok();
    assert_eq!((&failed["state"], &failed["consecutive_failures"]), (&json!("FAILED"), &json!(1)));
    assert!(failed["error"].as_str().unwrap().contains("No such file"), "{failed}");
    let answer = server.infer("add", &x(&[1, 4], &[0.0; 4])).await;
    assert_eq!(answer.output("y")[0], json!(1.0));
    assert_eq!(server.get("/readyz").await.status, 200);
    std::fs::rename(&away, there).unwrap();
    let init = server.post(&path("repository", "/init"), &json!({})).await.ok();
    assert_eq!((&init["state"], &init["error"]), (&json!("READY"), &Value::Null));
}

#[tokio::test]
async fn a_repository_behind_a_link_is_read_anew_after_a_reset() {
    let repository = Repository::of("one", &add_constant(1.0));
    let (first, second) = (Repository::of("one", &add_constant(1.0)), Repository::empty());
    second.put("two", 1, &add_constant(2.0));
    std::fs::remove_dir_all(repository.path()).unwrap();
    std::os::unix::fs::symlink(first.path(), repository.path()).unwrap();
    let server = Server::start(repository).await;
    std::fs::remove_file(server.repository.path()).unwrap();
    std::os::unix::fs::symlink(second.path(), server.repository.path()).unwrap();
    let load = "/v2/repository/models/two/load";
    assert_eq!(server.post(load, &json!({})).await.status, 404);
    server.post(&path("repository", "/reset"), &json!({})).await.ok();
    assert_eq!(server.post(load, &json!({})).await.status, 200);
    for (model, expected) in [("one", 1.0), ("two", 2.0)] {
        let answer = server.infer(model, &x(&[1, 4], &[0.0; 4])).await;
        assert_eq!(answer.output("y")[0], json!(expected));
    }
}

#[tokio::test]
async fn a_resource_that_is_not_there_is_told() {
    let server = Server::start(Repository::empty()).await;
    server.get(&path("nope", "")).await.refused(404, "unknown_resource", &["'nope'"]);
    for action in ["/init", "/reset", "/clean"] {
        let answer = server.post(&path("no%2Fpe", action), &json!({})).await;
        answer.refused(404, "unknown_resource", &["'no/pe'"]);
    }
    server.get(&path("%ff", "")).await.refused(400, "invalid_request", &["UTF-8"]);
    let answer = server.post(&path("http", ""), &json!({})).await;
    answer.refused(405, "method_not_allowed", &[]);
}

#[tokio::test]
async fn what_is_needed_by_others_is_not_cleaned_before_them() {
    let server = InProcess::serve(2);
    let nothing = || async { Ok::<_, String>(()) };
    server.resources.register(Resource::new("base", nothing));
    server.resources.register(Resource::new("user", nothing).after("base").lazy());
    let user = server.post(&path("user", "/init")).await.ok();
    assert_eq!((&user["state"], &user["after"]), (&json!("READY"), &json!(["base"])));
    let refused = server.post(&path("base", "/reset")).await;
    refused.refused(409, "resource_in_use", &["'base' is needed by user"]);
    assert_eq!(server.post(&path("user", "/clean")).await.ok()["state"], "CLEANED");
    assert_eq!(server.post(&path("base", "/clean")).await.ok()["state"], "CLEANED");
    assert_eq!(server.post(&path("base", "/clean")).await.ok()["initializations"], 1);
}

#[tokio::test]
async fn a_failure_and_the_time_of_its_back_off_are_told() {
    let server = InProcess::serve(2);
    let (works, tried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (able, count) = (Arc::clone(&works), Arc::clone(&tried));
    let flaky = Resource::new("flaky", move || {
        count.fetch_add(1, Ordering::SeqCst);
        let result = if able.load(Ordering::SeqCst) { Ok(()) } else { Err("the disk is full") };
        async move { result }
    });
    let minute = Duration::from_mins(1);
    let flaky = flaky.lazy().retry(1, Backoff { first: minute, most: minute });
    let handle = server.resources.register(flaky);
    let told = ["resource 'flaky' failed", "the disk is full"];
    server.post(&path("flaky", "/init")).await.refused(503, "resource_unavailable", &told);
    let failed = server.get(&path("flaky", "")).await.ok();
    assert_eq!(failed["state"], "FAILED");
    let retry_in = failed["retry_in_ms"].as_f64().unwrap();
    assert!((20_000.0..=60_000.0).contains(&retry_in), "{failed}");
    // Who needs it waits for the back-off to be over; an operator does not.
    assert!(handle.get().await.unwrap_err().to_string().contains("not tried again"));
    assert_eq!(tried.load(Ordering::SeqCst), 1);
    works.store(true, Ordering::SeqCst);
    let ready = server.post(&path("flaky", "/init")).await.ok();
    assert_eq!((&ready["state"], &ready["retry_in_ms"]), (&json!("READY"), &Value::Null));
    server.resources.clean_all(Deadline::after(minute)).await;
    let answer = server.post(&path("flaky", "/init")).await;
    answer.refused(503, "resource_unavailable", &["'flaky' is CLEANED"]);
}
