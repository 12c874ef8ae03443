//! Which models are loaded without being asked for.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::Location;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{interval, timeout};

use crate::support::onnx::add_constant;
use crate::support::process::{PATIENCE, blocking};
use crate::support::{Repository, Server, x};

const POLL: [(&str, &str); 2] = [("models.mode", "poll"), ("models.poll_interval", "20ms")];

/// So that nothing happens by the clock.
const WATCH: [(&str, &str); 2] = [("models.mode", "watch"), ("models.poll_interval", "1h")];

/// Waits until a version answers.
#[track_caller]
fn answers<'a>(server: &'a Server, model: &'a str, version: &'a str) -> impl Future<Output = ()> {
    soon(async move || {
        let answer = server.infer(model, &x(&[1, 4], &[0.0; 4])).await;
        answer.status == 200 && answer.header("x-onward-version") == version
    })
}

/// Waits until the report on a model is as wanted.
#[track_caller]
fn until(
    server: &Server,
    model: &str,
    wanted: impl Fn(&Value) -> bool,
) -> impl Future<Output = ()> {
    let path = format!("/lifecycle/models/{model}");
    soon(async move || wanted(&server.get(&path).await.ok()))
}

/// Asks until it is so; what does not come to be so fails.
#[track_caller]
fn soon(is_so: impl AsyncFn() -> bool) -> impl Future<Output = ()> {
    let at = Location::caller();
    async move {
        let asking = async {
            while !is_so().await {
                yield_now().await;
            }
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{at}: it does not happen"));
    }
}

/// A repository with one version, which adds its number and was renamed into place.
fn of(model: &str, version: u64) -> Repository {
    with(Repository::empty(), model, version)
}

/// Adds a version that adds its number.
fn with(repository: Repository, model: &str, version: u64) -> Repository {
    rename_into_place(repository.path(), model, version);
    repository
}

/// Writes a version that adds its number aside and renames it into place.
fn rename_into_place(root: &Path, model: &str, version: u64) {
    let (aside, folder) = (root.join(".aside"), root.join(model));
    fs::create_dir_all(&aside).unwrap();
    fs::create_dir_all(&folder).unwrap();
    let value = f32::from(u16::try_from(version).unwrap());
    fs::write(aside.join("model.onnx"), add_constant(value)).unwrap();
    pass_a_moment(&aside);
    fs::rename(aside, folder.join(version.to_string())).unwrap();
}

/// Waits until changes have another time than that of a folder and of what is in it: the clock of file
/// systems may stand still for some milliseconds.
fn pass_a_moment(folder: &Path) {
    let changed = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let last = changed(folder).max(changed(&folder.join("model.onnx")));
    let outside = tempfile::tempdir_in(folder.parent().unwrap().parent().unwrap()).unwrap();
    while changed(outside.path()) <= last {
        fs::create_dir(outside.path().join("probe")).unwrap();
        fs::remove_dir(outside.path().join("probe")).unwrap();
    }
}

/// How often a version could not be loaded.
async fn failures(server: &Server) -> usize {
    let page = server.get("/lifecycle/events?kind=model_version&limit=1000").await.ok();
    let events = page["events"].as_array().unwrap().iter();
    events.filter(|event| event["data"]["to"] == "FAILED").count()
}

#[tokio::test]
async fn a_repository_that_is_polled_is_followed() {
    is_followed(&POLL).await;
}

#[tokio::test]
async fn a_folder_that_is_watched_is_followed() {
    is_followed(&WATCH).await;
}

async fn is_followed(mode: &[(&str, &str)]) {
    let server = Server::launch(of("add", 1), mode).await;
    answers(&server, "add", "1").await;
    rename_into_place(server.repository.path(), "add", 2);
    answers(&server, "add", "2").await;
    rename_into_place(server.repository.path(), "other", 1);
    answers(&server, "other", "1").await;
    fs::remove_dir_all(server.repository.path().join("other")).unwrap();
    server.until(("other", "1"), |report| report["state"] == "UNLOADED").await;
    rename_into_place(server.repository.path(), "other", 7);
    answers(&server, "other", "7").await;
    // A way back is not undone by the next look.
    server.send(Method::POST, "/lifecycle/models/add/rollback", vec![]).await.ok();
    server.repository.settings("add", "queue_capacity: 7\n");
    server.until(("add", "1"), |report| report["queue_capacity"] == 7).await;
    answers(&server, "add", "1").await;
    assert_eq!(server.stop().await, 0);
}

#[tokio::test]
async fn what_is_half_copied_is_not_loaded() {
    tokio::join!(half_copied(&POLL), half_copied(&WATCH));
}

async fn half_copied(mode: &[(&str, &str)]) {
    let server = Server::launch(of("add", 1), mode).await;
    answers(&server, "add", "1").await;
    let graph = add_constant(2.0);
    for end in [0, graph.len() / 3, graph.len() / 2, graph.len() - 1] {
        server.repository.put("add", 2, &graph[..end]);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    server.repository.put("add", 2, &graph);
    answers(&server, "add", "2").await;
    assert_eq!(failures(&server).await, 0);
}

/// A file that is written all the time.
struct Copying(JoinHandle<()>);

impl Copying {
    /// A graph of which the last byte does not come.
    fn begin(repository: &Repository, path: &str) -> Self {
        let (file, graph) = (repository.path().join(path), add_constant(9.0));
        repository.write(path, b"");
        let half = graph[..graph.len() - 1].to_vec();
        Self(tokio::spawn(async move {
            let mut ticks = interval(Duration::from_millis(20));
            loop {
                ticks.tick().await;
                fs::write(&file, &half).unwrap();
            }
        }))
    }

    async fn end(self) {
        self.0.abort();
        assert!(self.0.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test]
async fn what_is_copied_and_not_selected_is_in_nobodys_way() {
    tokio::join!(beside_a_copy(&POLL), beside_a_copy(&WATCH));
}

async fn beside_a_copy(mode: &[(&str, &str)]) {
    let specific = |number| format!("version_policy: {{ specific: [{number}] }}\n");
    let repository = of("add", 1).with_settings("add", &specific(1));
    let copies = ["add/3/model.onnx", "add/.tmp/model.onnx", "add/4.partial/model.onnx"];
    let copies = copies.map(|path| Copying::begin(&repository, path));
    let server = Server::launch(repository, mode).await;
    answers(&server, "add", "1").await;
    rename_into_place(server.repository.path(), "add", 2);
    server.repository.settings("add", &specific(2));
    answers(&server, "add", "2").await;
    for copy in copies {
        copy.end().await;
    }
    // What is complete is noticed without a hint.
    server.repository.put("add", 3, &add_constant(3.0));
    server.repository.settings("add", &specific(3));
    answers(&server, "add", "3").await;
    assert_eq!(failures(&server).await, 0);
}

#[tokio::test]
async fn a_version_that_is_being_copied_hides_no_other() {
    tokio::join!(hides_no_other(&POLL), hides_no_other(&WATCH));
}

async fn hides_no_other(mode: &[(&str, &str)]) {
    let repository = of("add", 1);
    let copy = Copying::begin(&repository, "add/3/model.onnx");
    let server = Server::launch(repository, mode).await;
    answers(&server, "add", "1").await;
    rename_into_place(server.repository.path(), "add", 2);
    answers(&server, "add", "2").await;
    copy.end().await;
    server.repository.put("add", 3, &add_constant(3.0));
    answers(&server, "add", "3").await;
    // What serves is left as it is while somebody writes over it.
    let before = server.version("add", "3").await["digest"].clone();
    let copy = Copying::begin(&server.repository, "add/3/model.onnx");
    server.repository.settings("add", "version_policy: all\n");
    soon(async || server.infer("add/versions/2", &x(&[1, 4], &[0.0; 4])).await.status == 200).await;
    answers(&server, "add", "3").await;
    assert_eq!(server.version("add", "3").await["digest"], before);
    copy.end().await;
    server.repository.put("add", 3, &add_constant(4.0));
    server.until(("add", "3"), |report| report["digest"] != before).await;
    assert_eq!(failures(&server).await, 0);
}

#[tokio::test]
async fn files_at_the_root_are_followed_too() {
    tokio::join!(bare_files(&POLL), bare_files(&WATCH));
}

async fn bare_files(mode: &[(&str, &str)]) {
    let server = Server::launch(of("add", 1), mode).await;
    answers(&server, "add", "1").await;
    let graph = add_constant(2.0);
    for end in [0, graph.len() / 2, graph.len() - 1, graph.len()] {
        server.repository.write("bare.onnx", &graph[..end]);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    answers(&server, "bare", "1").await;
    assert_eq!(failures(&server).await, 0);
    let before = server.version("bare", "1").await["digest"].clone();
    let aside = server.repository.path().join(".aside");
    fs::write(&aside, add_constant(3.0)).unwrap();
    fs::rename(aside, server.repository.path().join("bare.onnx")).unwrap();
    server.until(("bare", "1"), |report| report["digest"] != before).await;
    fs::remove_file(server.repository.path().join("bare.onnx")).unwrap();
    server.until(("bare", "1"), |report| report["state"] == "UNLOADED").await;
}

#[tokio::test]
async fn a_whole_model_that_is_renamed_into_place_is_loaded() {
    let server = Server::launch(of("add", 1), &WATCH).await;
    answers(&server, "add", "1").await;
    server.repository.write(".new/1/model.onnx", &add_constant(1.0));
    server.repository.write(".new/2/model.onnx", &add_constant(2.0));
    let root = server.repository.path();
    fs::rename(root.join(".new"), root.join("new")).unwrap();
    answers(&server, "new", "2").await;
}

#[tokio::test]
async fn a_version_that_is_taken_away_gives_way_to_what_the_policy_selects() {
    tokio::join!(versions_go(&POLL), versions_go(&WATCH));
}

async fn versions_go(mode: &[(&str, &str)]) {
    let repository = (1..4).fold(Repository::empty(), |all, number| with(all, "add", number));
    let server = Server::launch(repository, mode).await;
    answers(&server, "add", "3").await;
    let version = |number| server.repository.path().join(format!("add/{number}"));
    fs::remove_dir_all(version(3)).unwrap();
    answers(&server, "add", "2").await;
    server.put("/lifecycle/models/add/aliases/stable", &json!({ "version": 2 })).await.ok();
    // What is named serves on, from memory, and that it is gone is told.
    fs::remove_dir_all(version(2)).unwrap();
    answers(&server, "add", "1").await;
    server.get("/v2/models/add/versions/stable/ready").await.ok();
    let report = server.get("/lifecycle/models/add").await.ok();
    assert!(report["warnings"].to_string().contains("as long as it is loaded"), "{report}");
    server.delete("/lifecycle/models/add/aliases/stable").await.ok();
    // With the last one, there is nothing that could take its place.
    fs::remove_dir_all(version(1)).unwrap();
    let told = |report: &Value| {
        let problem = report["problem"].as_str().unwrap_or_default();
        problem.contains("no version to serve")
    };
    until(&server, "add", told).await;
    answers(&server, "add", "1").await;
}

#[tokio::test]
async fn a_model_that_was_taken_away_may_come_back_in_another_life() {
    let state = TempDir::new().unwrap();
    let mut settings = vec![("models.state", state.path().to_str().unwrap())];
    settings.extend(WATCH);
    let server = Server::launch(with(of("add", 1), "other", 1), &settings).await;
    answers(&server, "other", "1").await;
    fs::remove_dir_all(server.repository.path().join("other")).unwrap();
    server.until(("other", "1"), |report| report["state"] == "UNLOADED").await;
    // That it is not declared any more is kept a moment later.
    let file = state.path().join("desired.json");
    soon(async || !fs::read_to_string(&file).unwrap().contains("other")).await;
    let server = server.kill_and_restart().await;
    rename_into_place(server.repository.path(), "other", 2);
    answers(&server, "other", "2").await;
}

#[tokio::test]
async fn a_model_that_nobody_used_outlasts_a_bad_version() {
    let mut settings = vec![("lifecycle.idle_ttl", "50ms"), ("lifecycle.cleanup_interval", "10ms")];
    settings.extend(WATCH);
    let server = Server::launch(of("add", 1), &settings).await;
    answers(&server, "add", "1").await;
    server.until(("add", "1"), |report| report["state"] == "UNLOADED").await;
    let (root, aside) = (server.repository.path(), server.repository.path().join(".bad"));
    fs::create_dir_all(&aside).unwrap();
    fs::write(aside.join("model.onnx"), b"no graph").unwrap();
    pass_a_moment(&aside);
    fs::rename(aside, root.join("add/2")).unwrap();
    let tried = async || {
        let answer = server.infer("add", &x(&[1, 4], &[0.0; 4])).await.ok();
        assert_eq!(answer["model_version"], "1");
        let report = server.get("/lifecycle/models/add").await.ok();
        report["problem"].as_str().is_some_and(|it| it.contains("add/2"))
    };
    soon(tried).await;
    rename_into_place(root, "add", 3);
    answers(&server, "add", "3").await;
}

#[tokio::test]
async fn one_model_with_two_layouts_is_told_and_serves_on() {
    let server = Server::launch(of("add", 1), &WATCH).await;
    answers(&server, "add", "1").await;
    server.repository.write("add.onnx", &add_constant(2.0));
    let told =
        |report: &Value| report["problem"].as_str().is_some_and(|it| it.contains("add.onnx"));
    until(&server, "add", told).await;
    answers(&server, "add", "1").await;
    rename_into_place(server.repository.path(), "other", 1);
    answers(&server, "other", "1").await;
    fs::remove_file(server.repository.path().join("add.onnx")).unwrap();
    until(&server, "add", |report| report["problem"].is_null()).await;
}

#[tokio::test]
async fn a_root_that_is_replaced_is_watched_like_the_one_before() {
    // The clock is for the moment in which there is none.
    let settings = [("models.mode", "watch"), ("models.poll_interval", "1s")];
    let server = Server::launch(of("add", 1), &settings).await;
    answers(&server, "add", "1").await;
    let (root, aside) = (server.repository.path(), tempfile::tempdir().unwrap());
    let new = of("add", 2);
    fs::rename(root, aside.path().join("old")).unwrap();
    fs::rename(new.path(), root).unwrap();
    answers(&server, "add", "2").await;
    rename_into_place(root, "add", 3);
    answers(&server, "add", "3").await;
}

#[tokio::test]
async fn a_repository_that_is_opened_anew_is_watched_anew() {
    let server = Server::launch(of("add", 1), &WATCH).await;
    answers(&server, "add", "1").await;
    server.send(Method::POST, "/lifecycle/resources/repository/reset", vec![]).await.ok();
    rename_into_place(server.repository.path(), "add", 2);
    answers(&server, "add", "2").await;
    rename_into_place(server.repository.path(), "add", 3);
    answers(&server, "add", "3").await;
}

#[tokio::test]
async fn a_storm_of_changes_hides_none() {
    let server = Server::launch(of("add", 1), &WATCH).await;
    answers(&server, "add", "1").await;
    let junk = server.repository.path().join("junk");
    fs::create_dir(&junk).unwrap();
    let storm = {
        let junk = junk.clone();
        blocking(move || {
            for count in 0..20_000 {
                let file = junk.join(format!("{}", count % 100));
                fs::write(&file, "x").unwrap();
                fs::remove_file(file).unwrap();
            }
        })
    };
    let changes = async {
        for number in 2..5 {
            rename_into_place(server.repository.path(), "add", number);
            answers(&server, "add", &number.to_string()).await;
        }
    };
    tokio::join!(storm, changes);
    rename_into_place(server.repository.path(), "add", 9);
    answers(&server, "add", "9").await;
}

#[tokio::test]
async fn what_an_operator_has_unloaded_stays_so() {
    let server = Server::launch(of("add", 1), &POLL).await;
    answers(&server, "add", "1").await;
    server.send(Method::POST, "/lifecycle/models/add/unload", vec![]).await.ok();
    rename_into_place(server.repository.path(), "other", 1);
    answers(&server, "other", "1").await;
    server.get("/v2/models/add/ready").await.refused(404, "model_not_loaded", &[]);
}

#[tokio::test]
async fn only_what_is_declared_is_loaded_where_that_is_asked_for() {
    let state = TempDir::new().unwrap();
    let repository = Repository::of("a", &add_constant(1.0)).and("b", 1, &add_constant(2.0));
    let settings = [
        ("models.mode", "explicit"),
        ("models.required", "a"),
        ("models.state", state.path().to_str().unwrap()),
    ];
    let server = Server::start_with(repository, &settings).await;
    assert_eq!(server.get("/v2/models").await.ok()["models"], json!(["a"]));
    server.send(Method::POST, "/v2/repository/models/b/load", vec![]).await;
    let server = server.kill_and_restart().await;
    assert_eq!(server.get("/v2/models").await.ok()["models"], json!(["a", "b"]));
}
