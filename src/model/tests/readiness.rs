//! The readiness check `required_models`.

use futures_util::future::join_all;

use super::fakes::{Fault, Step};
use super::*;

fn requiring(models: &[&str]) -> Fixture {
    let fixture = Fixture::with(|options| {
        options.terms.required = models.iter().map(|model| name(model)).collect();
    });
    fixture.world.put_each(&["a", "b", "c"]);
    fixture
}

fn health_events(fixture: &Fixture) -> usize {
    let is_health = |event: &Event| matches!(event, Event::Health { .. });
    fixture.events.since(0).events.iter().filter(|record| is_health(&record.event)).count()
}

#[tokio::test]
async fn it_passes_while_every_required_model_serves() {
    let fixture = requiring(&["a", "b"]);
    assert!(!fixture.is_ready());
    fixture.load("a").await.unwrap();
    let verdict = fixture.health.verdict(CheckKind::Readiness);
    let missing = "required models without a ready version: b";
    let of_models = verdict.checks.iter().find(|check| check.name == "required_models").unwrap();
    assert_eq!(of_models.last_error.as_deref(), Some(missing));
    assert!(!verdict.passing);
    fixture.load("b").await.unwrap();
    assert!(fixture.is_ready());
    fixture.unload("a").await.unwrap();
    assert!(!fixture.is_ready());
    fixture.load("a").await.unwrap();
    assert!(fixture.is_ready());
}

#[tokio::test]
async fn it_fails_while_the_only_version_still_warms() {
    let fixture = requiring(&["a"]);
    let door = fixture.world.door(Step::Run, "a/1");
    let load = fixture.begin_load("a");
    door.has_waiting(1).await;
    assert!(!fixture.is_ready());
    door.open();
    soon(load).await.unwrap().unwrap();
    assert!(fixture.is_ready());
}

#[tokio::test]
async fn it_passes_without_required_models_whatever_the_others_do() {
    let fixture = requiring(&[]);
    assert!(fixture.is_ready());
    fixture.world.break_at(Step::Open, "b/1", Fault::Fail);
    fixture.load("a").await.unwrap();
    fixture.load("b").await.unwrap_err();
    fixture.unload("a").await.unwrap();
    assert!(fixture.is_ready());
}

#[tokio::test]
async fn it_never_flaps_for_an_optional_model_or_a_change_that_keeps_serving() {
    let fixture = requiring(&["a"]);
    fixture.load("a").await.unwrap();
    let told = health_events(&fixture);
    fixture.load("b").await.unwrap();
    fixture.unload("b").await.unwrap();
    fixture.world.put("a", 2, "two");
    fixture.world.break_at(Step::Open, "a/2", Fault::Panic);
    fixture.load("a").await.unwrap_err();
    fixture.world.heal();
    fixture.swap("a", 2).await.unwrap();
    fixture.world.put("a", 2, "new");
    fixture.load("a").await.unwrap();
    assert!(fixture.is_ready());
    assert_eq!(health_events(&fixture), told);
}

/// Models that become ready at once must not overwrite what the others have told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_tells_the_truth_after_changes_at_once() {
    const MODELS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let fixture = Fixture::with(|options| {
        options.load_threads = many(MODELS.len());
        options.terms.required = MODELS.map(name).to_vec();
    });
    fixture.world.put_each(&MODELS);
    for _ in 0..100 {
        let loads = MODELS.map(|model| fixture.begin_load(model));
        assert!(soon(join_all(loads)).await.iter().flatten().all(Result::is_ok));
        assert!(fixture.is_ready());
        let unloads = MODELS.map(|model| fixture.begin_unload(model));
        assert!(soon(join_all(unloads)).await.iter().flatten().all(Result::is_ok));
        assert!(!fixture.is_ready());
    }
}

#[tokio::test]
async fn loading_everything_fails_for_a_required_model_only() {
    let fixture = requiring(&["a"]);
    fixture.world.break_at(Step::Open, "a/1", Fault::Fail);
    let error = soon(fixture.manager.load_all()).await.unwrap_err();
    assert!(causes(&error).contains("Open of a/1 fails"));
    assert_eq!((fixture.answers("b").await, fixture.answers("c").await), (1, 1));
    assert!(!fixture.is_ready());
}

#[tokio::test]
async fn a_required_model_that_is_not_there_is_told() {
    let fixture = requiring(&["absent"]);
    let error = soon(fixture.manager.load_all()).await.unwrap_err();
    assert_eq!(causes(&error), "failed to load 'absent': the repository has no model 'absent'");
    assert_eq!(fixture.answers("a").await, 1);
    assert!(!fixture.is_ready());
}
