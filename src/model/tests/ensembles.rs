//! Ensembles: one set of versions for each request, whatever becomes of the models of its steps.

use std::collections::BTreeMap;

use tokio::time::timeout;

use super::fakes::{Fault, Step};
use super::*;
use crate::inference::{Dim, RunError};
use crate::model::operation::By;
use crate::model::{
    Change, Conditions, EnsembleDefinition, LoadOptions, Resident, StepDefinition, WarmUp,
};
use StateKind::{Draining, Failed, Ready, Unloaded};

fn step(model: &str, input: &str, output: &str) -> StepDefinition {
    let named = |own: &str, tensor: &str| BTreeMap::from([(own.to_owned(), tensor.to_owned())]);
    let (model, inputs) = (name(model), named("x", input));
    StepDefinition { model, version: None, inputs, outputs: Some(named("y", output)) }
}

/// `x` over each of the models in a row to `y`.
fn row(models: &[&str]) -> EnsembleDefinition {
    let tensor = |number: usize| match number {
        0 => "x".to_owned(),
        last if last == models.len() => "y".to_owned(),
        number => format!("t{number}"),
    };
    let steps = models.iter().enumerate();
    let steps = steps.map(|(number, model)| step(model, &tensor(number), &tensor(number + 1)));
    EnsembleDefinition { steps: steps.collect(), ..EnsembleDefinition::default() }
}

fn define(fixture: &Fixture, model: &str, definition: EnsembleDefinition) {
    fixture.world.put(model, 1, &format!("files of {model}"));
    fixture.world.edit(model, |model| model.settings.ensemble = Some(definition));
}

/// Has the ensemble `e` of `a` and `b` in a row, each in versions 1 and 2 of which 1 is selected.
fn with_row() -> Fixture {
    let fixture = Fixture::new();
    for model in ["a", "b"] {
        fixture.world.put(model, 1, "one");
        fixture.world.put(model, 2, "two");
        select(&fixture, model, 1);
    }
    define(&fixture, "e", row(&["a", "b"]));
    fixture
}

fn select(fixture: &Fixture, model: &str, number: u64) {
    let policy = VersionPolicy::Specific(vec![version(number)]);
    fixture.world.edit(model, |model| model.settings.version_policy = policy);
}

/// The numbers that versions of `b` were asked with: those of the versions of `a`.
fn between(fixture: &Fixture) -> Vec<(u64, Vec<u64>)> {
    [1, 2].map(|number| (number, fixture.world.asked(&format!("b/{number}")))).to_vec()
}

fn steps(fixture: &Fixture, model: &str, number: u64) -> Vec<String> {
    let steps = fixture.version(model, number).serving.unwrap().steps;
    steps.iter().map(|step| format!("{}/{} {}", step.model, step.version, step.digest)).collect()
}

/// Evicts a model that has weight, as the one that was unused for longest.
async fn evict(fixture: &Fixture, model: &str) {
    let report = soon(fixture.manager.evict(1)).await;
    let gone = report.verdicts.iter().find(|verdict| verdict.resident.model.as_str() == model);
    assert!(gone.is_some_and(|verdict| verdict.evicted.is_some()), "{report:?}");
    assert!(fixture.manager.acquire(model, None).is_err());
}

async fn failure(fixture: &Fixture, model: &str) -> String {
    causes(&fixture.load(model).await.unwrap_err())
}

#[tokio::test]
async fn a_load_brings_its_steps_and_an_unload_lets_them_go() {
    let fixture = with_row();
    let report = fixture.load("e").await.unwrap();
    assert_eq!((report.current, report.loaded), (version(1), vec![version(1)]));
    assert_eq!(fixture.answers("e").await, 1);
    assert_eq!(steps(&fixture, "e", 1), ["a/1 one", "b/1 one"]);
    let serving = fixture.version("a", 1).serving.unwrap();
    let holders: Vec<String> = serving.held_by.iter().map(ToString::to_string).collect();
    assert_eq!((holders, serving.usage.requests, serving.in_flight), (vec!["e/1".into()], 1, 0));
    assert!(!fixture.acquire("e").digest().contains("files"), "its steps are in it too");
    let report = fixture.unload("e").await.unwrap();
    assert!(report.drained);
    for model in ["a", "b"] {
        fixture.reaches(model, &[(1, Unloaded)]).await;
    }
    assert_eq!((fixture.world.instances(), fixture.observed_versions()), (0, 0));
    assert!(fixture.manager.unmet().is_empty(), "nobody wants the steps for themselves");
}

#[tokio::test]
async fn steps_that_were_there_before_stay() {
    let fixture = with_row();
    fixture.load("a").await.unwrap();
    fixture.load("e").await.unwrap();
    fixture.load("b").await.unwrap();
    fixture.unload("e").await.unwrap();
    assert_eq!((fixture.answers("a").await, fixture.answers("b").await), (1, 1));
    assert_eq!(fixture.version("a", 1).serving.unwrap().held_by, []);
    assert_eq!(fixture.world.times(Step::Open, "a/1"), 1);
    assert_eq!(fixture.world.times(Step::Open, "b/1"), 1);
}

#[tokio::test]
async fn a_step_that_is_swapped_stays_as_it_was_for_the_ensemble() {
    let fixture = with_row();
    fixture.load("e").await.unwrap();
    let report = fixture.swap("a", 2).await.unwrap();
    assert!(report.kept && report.drained);
    assert_eq!(fixture.answers("a").await, 2);
    assert_eq!(fixture.states("a"), [(1, Ready), (2, Ready)]);
    assert_eq!(fixture.answers("e").await, 1);
    // The first of each is the warm-up.
    assert_eq!(between(&fixture), [(1, vec![1, 1]), (2, vec![])]);
    fixture.world.put("e", 2, "files of e");
    fixture.swap("e", 2).await.unwrap();
    fixture.reaches("a", &[(1, Unloaded), (2, Ready)]).await;
    assert_eq!(steps(&fixture, "e", 2), ["a/2 two", "b/1 one"]);
    fixture.answers("e").await;
    assert_eq!(between(&fixture), [(1, vec![1, 1, 2, 2]), (2, vec![])]);
}

#[tokio::test]
async fn a_step_that_is_unloaded_stays_for_the_ensemble_and_goes_with_it() {
    let fixture = with_row();
    fixture.load("e").await.unwrap();
    fixture.load("a").await.unwrap();
    let report = fixture.unload("a").await.unwrap();
    assert!(!report.drained, "the ensemble has it");
    assert_eq!(fixture.states("a"), [(1, Draining)]);
    assert!(matches!(fixture.refusal("a", None), LookupError::NotServing { .. }));
    assert_eq!(fixture.answers("e").await, 1);
    // The same again is another life of it, and the ensemble is none of its business.
    fixture.load("a").await.unwrap();
    assert_eq!(fixture.world.instances(), 3);
    fixture.unload("e").await.unwrap();
    fixture.reaches("a", &[(1, Ready)]).await;
    fixture.reaches("b", &[(1, Unloaded)]).await;
    assert_eq!(fixture.world.instances(), 1);
}

#[tokio::test]
async fn a_load_takes_what_serves_by_then_and_nothing_is_loaded_twice() {
    let fixture = with_row();
    fixture.load("e").await.unwrap();
    let digest = fixture.acquire("e").digest().to_owned();
    let again = fixture.load("e").await.unwrap();
    assert_eq!(again.loaded, [], "it is made of the same");
    fixture.swap("b", 2).await.unwrap();
    let anew = fixture.load("e").await.unwrap();
    assert_eq!(anew.loaded, [version(1)]);
    assert_eq!(fixture.answers("e").await, 2);
    assert_ne!(fixture.acquire("e").digest(), digest);
    fixture.reaches("b", &[(1, Unloaded), (2, Ready)]).await;
}

#[tokio::test]
async fn a_version_that_is_named_is_loaded_beside_what_serves() {
    let fixture = with_row();
    let mut definition = row(&["a", "b"]);
    definition.steps[1].version = Some(VersionRef::Number(version(2)));
    define(&fixture, "e", definition);
    fixture.load("b").await.unwrap();
    fixture.load("e").await.unwrap();
    assert_eq!((fixture.answers("e").await, fixture.answers("b").await), (2, 1));
    assert_eq!(fixture.states("b"), [(1, Ready), (2, Ready)]);
    fixture.unload("e").await.unwrap();
    fixture.reaches("b", &[(1, Ready), (2, Unloaded)]).await;
}

#[tokio::test]
async fn ensembles_may_be_steps_but_not_of_each_other() {
    let fixture = with_row();
    define(&fixture, "outer", row(&["e", "b"]));
    fixture.load("outer").await.unwrap();
    assert_eq!(fixture.answers("outer").await, 1);
    fixture.unload("outer").await.unwrap();
    fixture.reaches("e", &[(1, Unloaded)]).await;
    fixture.reaches("a", &[(1, Unloaded)]).await;
    define(&fixture, "own", row(&["own"]));
    let told = failure(&fixture, "own").await;
    assert!(told.contains("ensembles are steps of each other: own -> own"), "{told}");
    define(&fixture, "one", row(&["two"]));
    define(&fixture, "two", row(&["a", "one"]));
    let told = failure(&fixture, "one").await;
    assert!(told.contains("two -> one -> two"), "{told}");
    fixture.reaches("a", &[(1, Unloaded)]).await;
    let (one, two) = (fixture.begin_load("one"), fixture.begin_load("two"));
    assert!(soon(one).await.unwrap().is_err() && soon(two).await.unwrap().is_err());
    // One that serves may not become a step of what it has as a step.
    define(&fixture, "two", row(&["a"]));
    fixture.load("one").await.unwrap();
    define(&fixture, "two", row(&["one"]));
    let told = failure(&fixture, "two").await;
    assert!(told.contains("two -> one -> two"), "{told}");
    assert_eq!(fixture.answers("one").await, 1);
}

#[tokio::test]
async fn one_load_thread_is_enough_for_an_ensemble_of_ensembles() {
    let fixture = Fixture::with(|options| options.load_threads = many(1));
    fixture.world.put_each(&["a", "b"]);
    define(&fixture, "e", row(&["a", "b"]));
    define(&fixture, "outer", row(&["e", "a"]));
    soon(fixture.manager.load_all()).await.unwrap();
    assert_eq!(fixture.answers("outer").await, 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_step_is_told_and_leaves_nothing_behind() {
    let fixture = with_row();
    define(&fixture, "e", row(&["a", "nowhere"]));
    let told = failure(&fixture, "e").await;
    assert!(told.contains("step 2 ('nowhere') of the ensemble cannot be had"), "{told}");
    assert!(told.contains("no model 'nowhere'"), "{told}");
    assert_eq!(fixture.states("e"), [(1, Failed)]);
    define(&fixture, "e", row(&["a", "b"]));
    fixture.world.break_at(Step::Open, "b/1", Fault::Fail);
    let told = failure(&fixture, "e").await;
    assert!(told.contains("step 2 ('b') of the ensemble") && told.contains("Open of b/1 fails"));
    fixture.reaches("a", &[(1, Unloaded)]).await;
    fixture.world.heal();
    let mut definition = row(&["a", "b"]);
    definition.steps[0].inputs.insert("q".to_owned(), "x".to_owned());
    define(&fixture, "e", definition);
    let told = failure(&fixture, "e").await;
    assert!(told.contains("it is no ensemble: step 1 ('a') has no input 'q'"), "{told}");
    fixture.reaches("a", &[(1, Unloaded)]).await;
    fixture.reaches("b", &[(1, Unloaded)]).await;
    define(&fixture, "e", row(&["a", "b"]));
    fixture.load("e").await.unwrap();
    assert_eq!(fixture.answers("e").await, 1);
}

#[tokio::test]
async fn a_step_fails_the_request_with_its_name_and_its_kind() {
    let fixture = with_row();
    fixture.load("e").await.unwrap();
    fixture.world.break_at(Step::Run, "b/1", Fault::Fail);
    let error = soon(ask(&fixture.acquire("e"), 1)).await.unwrap_err();
    assert_eq!(error.to_string(), "step 2 ('b/1'): the engine failed: Run of b/1 fails");
    assert!(matches!(error.root(), InferError::Run(_)));
    fixture.world.heal();
    let door = fixture.world.door(Step::Run, "b/1");
    // One is with the instance, two wait.
    let stuck = fixture.begin_stuck("e", &door).await;
    let waiting: Vec<_> = (0..2).map(|_| begin_request(fixture.acquire("e"), 1)).collect();
    soon(async {
        while fixture.version("b", 1).serving.unwrap().queue_depth < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let refused = soon(ask(&fixture.acquire("e"), 1)).await.unwrap_err();
    assert!(matches!(refused.root(), InferError::Overloaded { .. }), "{refused}");
    let late = fixture.acquire("e").infer(request(1), Instant::now() + BRIEF).await;
    assert!(late.is_err_and(|error| matches!(
        error.root(),
        InferError::DeadlineExceeded | InferError::Overloaded { .. }
    )));
    door.open();
    assert_eq!(soon(stuck).await.unwrap(), Ok(1));
    for waiting in waiting {
        assert_eq!(soon(waiting).await.unwrap(), Ok(1));
    }
    let serving = fixture.version("e", 1).serving.unwrap();
    assert_eq!((serving.usage.requests, serving.usage.failures), (6, 3));
    assert_eq!(serving.usage.work.runs.count, 3);
}

#[tokio::test]
async fn a_request_whose_caller_has_gone_ends_the_step_that_runs() {
    let fixture = with_row();
    fixture.load("e").await.unwrap();
    let door = fixture.world.door(Step::Run, "a/1");
    let stuck = fixture.begin_stuck("e", &door).await;
    stuck.abort();
    fixture.world.has_terminated(1).await;
    door.open();
    assert_eq!(fixture.world.asked("b/1"), [1], "the warm-up");
    fixture.unload("e").await.unwrap();
    let late = with_row();
    late.load("e").await.unwrap();
    let door = late.world.door(Step::Run, "a/1");
    let answer = late.acquire("e").infer(request(1), Instant::now() + BRIEF).await;
    let error = answer.unwrap_err();
    assert_eq!(error.to_string(), "step 1 ('a/1'): the deadline passed before an answer was ready");
    late.world.has_terminated(1).await;
    door.open();
    assert_eq!(late.world.asked("b/1"), [1], "the warm-up");
}

#[tokio::test]
async fn steps_that_do_not_need_each_other_run_at_once() {
    let fixture = with_row();
    let mut definition = row(&["a"]);
    definition.steps.push(step("b", "x", "z"));
    define(&fixture, "e", definition);
    fixture.load("e").await.unwrap();
    let doors = ["a/1", "b/1"].map(|place| fixture.world.door(Step::Run, place));
    let request = begin_request(fixture.acquire("e"), 7);
    for door in &doors {
        door.has_waiting(1).await;
    }
    for door in doors {
        door.open();
    }
    assert_eq!(soon(request).await.unwrap(), Ok(1));
}

#[tokio::test]
async fn an_ensemble_goes_to_make_room_and_its_steps_with_it() {
    let fixture = Fixture::with(|options| options.terms.memory_budget = 30);
    for model in ["a", "b", "c"] {
        fixture.world.put(model, 1, "one");
        fixture.world.weigh(model, 10);
    }
    fixture.world.weigh("c", 20);
    define(&fixture, "e", row(&["a", "b"]));
    fixture.load("e").await.unwrap();
    let verdicts = fixture.manager.eviction(0).verdicts;
    let told = |model: &str| {
        let found = verdicts.iter().find(|verdict| verdict.resident.model.as_str() == model);
        let resident = &found.unwrap().resident;
        (resident.bytes, resident.spared.clone())
    };
    assert_eq!(told("e"), (20, None));
    assert_eq!(told("a"), (10, Some("it is a step of the ensemble e/1".to_owned())));
    fixture.load("c").await.unwrap();
    assert_eq!(fixture.answers("c").await, 1);
    fixture.reaches("a", &[(1, Unloaded)]).await;
    fixture.reaches("b", &[(1, Unloaded)]).await;
}

#[tokio::test]
async fn the_end_of_the_server_is_the_end_of_ensembles() {
    let fixture = with_row();
    define(&fixture, "outer", row(&["e", "b"]));
    fixture.load("outer").await.unwrap();
    fixture.load("a").await.unwrap();
    let left =
        soon(fixture.manager.shutdown(crate::lifecycle::Deadline::after(Duration::from_secs(20))));
    assert_eq!(left.await, []);
    assert_eq!(fixture.world.instances(), 0);
}

#[tokio::test]
async fn one_that_is_followed_is_tried_again_until_its_steps_have_come() {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    define(&fixture, "e", row(&["a", "b"]));
    soon(fixture.manager.follow(BRIEF)).await.unwrap();
    assert_eq!(fixture.states("e"), [(1, Failed)]);
    fixture.world.put("b", 1, "one");
    fixture.reaches("e", &[(1, Ready)]).await;
    assert_eq!(fixture.answers("e").await, 1);
}

#[tokio::test]
async fn a_step_that_an_ensemble_needs_makes_no_room_by_itself() {
    let fixture = with_row();
    fixture.load("a").await.unwrap();
    fixture.load("e").await.unwrap();
    let one_by_one = SwapOptions { strategy: Strategy::Resource, ..swap_to(2) };
    let told = causes(&fixture.swap_with("a", one_by_one).await.unwrap_err());
    assert!(told.contains("is needed by the ensemble e/1 and others"), "{told}");
    assert_eq!((fixture.answers("a").await, fixture.answers("e").await), (1, 1));
    fixture.swap("a", 2).await.unwrap();
    let change = Change::Unload(Some(version(1)));
    let operation = fixture.manager.begin(&name("a"), change, Conditions::default()).unwrap();
    let told = causes(&soon(operation.done()).await.unwrap_err());
    assert!(told.contains("the ensemble e/1"), "{told}");
}

#[tokio::test]
async fn steps_that_want_the_same_have_the_same() {
    let fixture = with_row();
    define(&fixture, "e", row(&["a", "b", "a"]));
    fixture.load("e").await.unwrap();
    assert_eq!(steps(&fixture, "e", 1), ["a/1 one", "b/1 one", "a/1 one"]);
    assert_eq!(fixture.version("a", 1).serving.unwrap().held_by.len(), 1);
    fixture.unload("e").await.unwrap();
    fixture.reaches("a", &[(1, Unloaded)]).await;
}

#[tokio::test]
async fn a_request_brings_an_ensemble_and_its_steps_past_a_load_that_nobody_waits_for() {
    let fixture = Fixture::with(|options| options.load_threads = many(1));
    fixture.world.put_each(&["a", "b", "slow"]);
    define(&fixture, "inner", row(&["a", "b"]));
    define(&fixture, "e", row(&["inner", "b"]));
    for model in ["a", "b", "inner", "e"] {
        fixture.world.edit(model, |model| model.settings.lazy = true);
    }
    let door = fixture.world.door(Step::Open, "slow/1");
    let manager = fixture.manager.clone();
    let starting = tokio::spawn(async move { manager.load_all().await });
    door.has_waiting(1).await;
    let handle = fixture.manager.acquire_waiting("e", None.into(), later());
    assert_eq!(soon(ask(&soon(handle).await.unwrap(), 1)).await, Ok(1));
    door.open();
    soon(starting).await.unwrap().unwrap();
}

#[tokio::test]
async fn steps_that_somebody_is_writing_are_not_taken_unasked() {
    let fixture = Fixture::new();
    fixture.world.put("b", 1, "one");
    fixture.world.put("c", 1, "one");
    fixture.world.put("c", 2, "half of it");
    select(&fixture, "c", 1);
    let mut definition = row(&["a", "b", "c"]);
    definition.steps[2].version = Some(VersionRef::Number(version(2)));
    define(&fixture, "e", definition);
    fixture.world.write("c/2", true);
    // A start would wait for it.
    soon(fixture.manager.follow(BRIEF)).await.unwrap();
    fixture.world.write("a", true);
    fixture.world.put("a", 1, "half of it");
    fixture.world.has_taken(Step::Glance, "a", 10).await;
    fixture.world.write("a", false);
    fixture.reaches("a", &[(1, Ready)]).await;
    let before = fixture.world.times(Step::Glance, "c");
    fixture.world.has_taken(Step::Glance, "c", before + 10).await;
    assert_eq!(fixture.world.times(Step::Open, "c/2"), 0);
    fixture.world.write("c/2", false);
    fixture.reaches("e", &[(1, Ready)]).await;
    assert_eq!(fixture.answers("e").await, 2);
}

#[tokio::test]
async fn a_request_takes_no_step_that_somebody_is_writing() {
    let fixture = with_row();
    fixture.world.edit("e", |model| model.settings.lazy = true);
    for model in ["a", "b"] {
        fixture.world.edit(model, |model| model.settings.lazy = true);
    }
    soon(fixture.manager.load_all()).await.unwrap();
    fixture.world.write("a", true);
    let refused = soon(fixture.manager.acquire_waiting("e", None.into(), later())).await;
    assert!(refused.is_err());
    assert_eq!(fixture.world.times(Step::Open, "a/1"), 0);
    // An operator says that it is complete.
    fixture.load("e").await.unwrap();
    assert_eq!(fixture.answers("e").await, 1);
}

#[tokio::test]
async fn what_a_model_serves_does_not_depend_on_which_step_comes_first() {
    let fixture = with_row();
    let mut definition = row(&["a", "b", "b"]);
    definition.steps[1].version = Some(VersionRef::Number(version(2)));
    define(&fixture, "e", definition);
    fixture.load("e").await.unwrap();
    assert_eq!(steps(&fixture, "e", 1), ["a/1 one", "b/2 two", "b/1 one"]);
    assert_eq!((fixture.answers("e").await, fixture.answers("b").await), (1, 1));
    fixture.unload("e").await.unwrap();
    fixture.reaches("b", &[(1, Unloaded), (2, Unloaded)]).await;
    let mut definition = row(&["b"]);
    definition.steps[0].version = Some(VersionRef::Number(version(2)));
    define(&fixture, "named", definition);
    fixture.load("named").await.unwrap();
    assert_eq!((fixture.answers("named").await, fixture.answers("b").await), (2, 1));
    fixture.unload("named").await.unwrap();
    fixture.reaches("b", &[(1, Unloaded), (2, Unloaded)]).await;
}

#[tokio::test]
async fn a_model_that_has_gone_comes_back_for_an_ensemble_as_it_was_and_stays() {
    let fixture = with_row();
    fixture.world.weigh("a", 10);
    fixture.load("a").await.unwrap();
    fixture.swap("a", 2).await.unwrap();
    fixture.reaches("a", &[(1, Unloaded), (2, Ready)]).await;
    fixture.world.put("a", 3, "three");
    fixture.world.edit("a", |model| model.settings.version_policy = VersionPolicy::default());
    evict(&fixture, "a").await;
    fixture.load("e").await.unwrap();
    assert_eq!(steps(&fixture, "e", 1), ["a/2 two", "b/1 one"]);
    fixture.unload("e").await.unwrap();
    fixture.reaches("b", &[(1, Unloaded)]).await;
    assert_eq!(fixture.answers("a").await, 2);
}

#[tokio::test]
async fn a_step_that_is_changed_for_long_holds_nobody_up() {
    let fixture = with_row();
    fixture.world.put("c", 1, "one");
    fixture.world.edit("c", |model| model.settings.idle_ttl = Some(BRIEF));
    fixture.load("c").await.unwrap();
    fixture.load("e").await.unwrap();
    fixture.world.put("a", 1, "anew");
    let door = fixture.world.door(Step::Open, "a/1");
    let change = fixture.manager.begin_load(&name("a"), By::Follower).unwrap();
    door.has_waiting(1).await;
    fixture.unload("e").await.unwrap();
    fixture.reaches("b", &[(1, Unloaded)]).await;
    fixture.manager.start_clean_up(BRIEF);
    fixture.reaches("c", &[(1, Unloaded)]).await;
    // Longer than one would wait for who only tidies up.
    let mut swap = fixture.begin_swap("a", swap_to(2));
    assert!(timeout(Duration::from_millis(300), &mut swap).await.is_err());
    door.open();
    soon(change.done()).await.unwrap();
    soon(swap).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_load_leaves_behind_that_was_given_up_goes_later() {
    let fixture = with_row();
    let mut definition = row(&["a", "b"]);
    definition.steps[1].version = Some(VersionRef::Number(version(2)));
    define(&fixture, "e", definition);
    fixture.load("b").await.unwrap();
    let fetching = fixture.world.door(Step::Digest, "e/1");
    let change = Change::Load(LoadOptions::default());
    let load = fixture.manager.begin(&name("e"), change, Conditions::default()).unwrap();
    fetching.has_waiting(1).await;
    let loading = fixture.world.door(Step::Digest, "e/1");
    fetching.open();
    loading.has_waiting(1).await;
    load.cancel().unwrap();
    soon(load.done()).await.unwrap_err();
    fixture.manager.start_clean_up(BRIEF);
    // The thread still has the steps.
    assert!(fixture.world.times(Step::Open, "b/2") == 1);
    fixture.reaches("b", &[(1, Ready), (2, Ready)]).await;
    loading.open();
    fixture.reaches("b", &[(1, Ready), (2, Unloaded)]).await;
    fixture.reaches("a", &[(1, Unloaded)]).await;
}

/// A row of `a` and `b` as `e`, where each takes ten bytes, as `c` does.
fn with_weights(budget: u64) -> Fixture {
    let fixture = Fixture::with(|options| options.terms.memory_budget = budget);
    fixture.world.put_each(&["a", "b", "c"]);
    for model in ["a", "b", "c"] {
        fixture.world.weigh(model, 10);
    }
    define(&fixture, "e", row(&["a", "b"]));
    fixture
}

fn resident(fixture: &Fixture, model: &str) -> Resident {
    let verdicts = fixture.manager.eviction(0).verdicts.into_iter();
    let mut residents = verdicts.map(|verdict| verdict.resident);
    residents.find(|resident| resident.model.as_str() == model).unwrap()
}

#[tokio::test]
async fn an_ensemble_whose_steps_could_not_come_back_is_not_evicted() {
    let fixture = with_weights(30);
    define(&fixture, "outer", row(&["e"]));
    fixture.load("outer").await.unwrap();
    fixture.world.remove("a");
    for _ in 0..2 {
        soon(fixture.manager.evict(u64::MAX)).await;
        assert_eq!(fixture.answers("outer").await, 1);
    }
    assert_eq!(resident(&fixture, "outer").spared.as_deref(), Some("its files are gone"));
    fixture.world.put("a", 1, "one");
    fixture.manager.start_clean_up(BRIEF);
    soon(async {
        while resident(&fixture, "outer").spared.is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon(fixture.manager.evict(u64::MAX)).await;
    assert_eq!(fixture.world.instances(), 0, "its steps have gone with it");
}

#[tokio::test]
async fn one_that_makes_room_with_its_steps_spares_others() {
    let fixture = with_weights(40);
    fixture.world.put("d", 1, "one");
    fixture.world.weigh("d", 20);
    fixture.load("e").await.unwrap();
    fixture.load("c").await.unwrap();
    // The ensemble was unused for longest, and its steps for shortest.
    for model in ["e", "c", "a", "b"] {
        fixture.answers(model).await;
    }
    fixture.load("d").await.unwrap();
    assert_eq!((fixture.answers("c").await, fixture.answers("d").await), (1, 1));
    assert_eq!(fixture.world.instances(), 2);
}

#[tokio::test]
async fn what_steps_take_counts_where_they_may_go_with_the_ensemble_or_after_it() {
    let fixture = with_weights(30);
    fixture.load("a").await.unwrap();
    define(&fixture, "e", row(&["a", "b", "a"]));
    fixture.load("e").await.unwrap();
    assert_eq!(resident(&fixture, "e").bytes, 20);
    let lease = fixture.manager.lease(&name("a"), "somebody", Duration::from_mins(1)).unwrap();
    assert_eq!(resident(&fixture, "e").bytes, 10);
    drop(lease);
}

#[tokio::test]
async fn a_step_of_an_ensemble_that_stays_is_not_waited_for() {
    let fixture = with_weights(20);
    fixture.world.edit("outer", |model| model.settings.pin = true);
    define(&fixture, "outer", row(&["e"]));
    fixture.load("outer").await.unwrap();
    let Resident { spared, for_now, .. } = resident(&fixture, "a");
    assert_eq!((spared.as_deref(), for_now), (Some("it is a step of the ensemble e/1"), false));
    let begun = Instant::now();
    assert!(fixture.load("c").await.unwrap_err().is_no_room());
    assert!(begun.elapsed() < Duration::from_secs(3), "it waits for nobody");
}

#[tokio::test]
async fn what_a_step_gives_and_another_does_not_take_is_no_fault_of_the_caller() {
    let fixture = with_row();
    fixture.world.edit("b", |model| model.signature.inputs[0].shape = Some(vec![Dim::Fixed(2)]));
    fixture.world.edit("b", |model| model.settings.warm_up = WarmUp::Off);
    fixture.world.edit("e", |model| model.settings.warm_up = WarmUp::Off);
    fixture.load("e").await.unwrap();
    let error = soon(ask(&fixture.acquire("e"), 1)).await.unwrap_err();
    assert!(matches!(error.root(), InferError::Run(RunError::Engine(_))), "{error}");
    let told = error.to_string();
    assert!(told.starts_with("step 2 ('b/1'): the engine failed: what it is given"), "{told}");
    assert!(told.contains("input 'x' must have shape"), "{told}");
    assert_eq!(fixture.version("e", 1).serving.unwrap().usage.failures, 1);
}

#[tokio::test]
async fn an_ensemble_that_takes_a_version_just_before_it_goes_keeps_it() {
    let fixture = with_row();
    fixture.load("a").await.unwrap();
    let door = fixture.world.door(Step::Settings, "a");
    let one_by_one = SwapOptions { strategy: Strategy::Resource, ..swap_to(2) };
    let swap = fixture.begin_swap("a", one_by_one.clone());
    door.has_waiting(1).await;
    fixture.load("e").await.unwrap();
    door.open();
    let told = causes(&soon(swap).await.unwrap().unwrap_err());
    assert!(told.contains("is needed by the ensemble e/1 and others"), "{told}");
    assert_eq!((fixture.answers("a").await, fixture.answers("e").await), (1, 1));
    fixture.unload("e").await.unwrap();
    fixture.reaches("b", &[(1, Unloaded)]).await;
    assert!(fixture.swap_with("a", one_by_one).await.unwrap().drained);
    fixture.load("e").await.unwrap();
    assert_eq!(steps(&fixture, "e", 1), ["a/2 two", "b/1 one"]);
}
