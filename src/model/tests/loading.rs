//! Loads that succeed, and what they wait for.

use std::time::Duration;

use super::fakes::Step;
use super::*;
use StateKind::{Draining, Ready, Unloaded};

#[tokio::test]
async fn a_load_takes_every_phase_in_order() {
    let fixture = Fixture::serving_a().await;
    let expected = [
        "1 NEW>FETCHING",
        "1 FETCHING>VERIFYING",
        "1 VERIFYING>LOADING",
        "1 LOADING>WARMING",
        "1 WARMING>READY",
        "current ->1",
    ];
    assert_eq!(fixture.story("a"), expected);
    let report = fixture.version("a", 1);
    let phases: Vec<StateKind> = report.phases.iter().map(|(phase, _)| *phase).collect();
    assert_eq!(phases, StateKind::ALL[..5]);
    let total: Duration = report.phases.iter().map(|(_, lasted)| *lasted).sum();
    assert_eq!(report.load_duration(), Some(total));
    assert_eq!(fixture.answers("a").await, 1);
}

#[tokio::test]
async fn what_is_loaded_is_told() {
    let fixture = Fixture::with(|options| options.instances = many(3));
    fixture.world.put("a", 1, "one");
    let report = fixture.load("a").await.unwrap();
    assert_eq!((report.current, report.loaded), (version(1), vec![version(1)]));
    let model = fixture.report("a");
    assert_eq!((model.current, model.required, model.problem), (Some(version(1)), false, None));
    let serving = fixture.version("a", 1).serving.unwrap();
    assert_eq!((serving.digest.as_str(), serving.instances), ("one", 3));
    assert_eq!((serving.in_flight, serving.queue_depth, serving.queue_capacity), (0, 0, 2));
    assert_eq!(fixture.world.times(Step::Run, "a/1"), 3, "every instance has answered a warm-up");
    let handle = fixture.acquire("a");
    assert_eq!(handle.id().to_string(), "a/1");
    assert_eq!((handle.digest(), handle.platform()), ("one", "fake"));
    assert_eq!(handle.signature().inputs.len(), 1);
}

#[tokio::test]
async fn the_version_policy_selects() {
    let fixture = Fixture::new();
    (1..=3).for_each(|number| fixture.world.put("a", number, "x"));
    let policy = |policy| {
        fixture.world.edit("a", |a| a.settings.version_policy = policy);
    };
    fixture.load("a").await.unwrap();
    assert_eq!(fixture.states("a"), [(3, Ready)]);
    policy(VersionPolicy::All);
    let report = fixture.load("a").await.unwrap();
    assert_eq!((report.current, report.loaded), (version(3), vec![version(1), version(2)]));
    assert_eq!(fixture.states("a"), [(1, Ready), (2, Ready), (3, Ready)]);
    policy(VersionPolicy::Specific(vec![version(2)]));
    let report = fixture.load("a").await.unwrap();
    assert_eq!((report.current, report.loaded), (version(2), vec![]));
    fixture.reaches("a", &[(1, Unloaded), (2, Ready), (3, Unloaded)]).await;
    assert_eq!(fixture.world.instances(), 1);
    assert_eq!(
        fixture.story("a").last().unwrap().split(' ').next_back(),
        Some("UNLOADING>UNLOADED")
    );
}

#[tokio::test]
async fn loading_again_what_is_unchanged_does_nothing() {
    let fixture = Fixture::serving_a().await;
    let told = fixture.story("a");
    let report = fixture.load("a").await.unwrap();
    assert_eq!((report.current, report.loaded), (version(1), vec![]));
    assert_eq!(fixture.story("a"), told);
    assert_eq!(fixture.world.times(Step::Open, "a/1"), 1);
}

#[tokio::test]
async fn loading_again_what_has_changed_replaces_it_and_drains_the_old() {
    let fixture = Fixture::serving_a().await;
    let old = fixture.acquire("a");
    fixture.world.put("a", 1, "other");
    let report = fixture.load("a").await.unwrap();
    assert_eq!(report.loaded, [version(1)]);
    assert_eq!(fixture.acquire("a").digest(), "other");
    assert_eq!(fixture.states("a"), [(1, Draining), (1, Ready)]);
    assert_eq!(soon(ask(&old, 1)).await, Ok(1));
    drop(old);
    fixture.reaches("a", &[(1, Ready)]).await;
    assert_eq!(fixture.world.instances(), 1);
    let swaps = fixture.story("a").into_iter().filter(|event| event.starts_with("current"));
    assert_eq!(swaps.count(), 1, "the current version is still 1");
}

#[tokio::test]
async fn loading_again_with_other_settings_replaces_it() {
    let fixture = Fixture::serving_a().await;
    fixture.world.edit("a", |a| a.settings.instances = Some(many(2)));
    assert_eq!(fixture.load("a").await.unwrap().loaded, [version(1)]);
    fixture.world.edit("a", |a| a.settings.queue_capacity = Some(many(7)));
    assert_eq!(fixture.load("a").await.unwrap().loaded, [version(1)]);
    fixture.world.edit("a", |a| a.settings.version_policy = VersionPolicy::All);
    assert!(fixture.load("a").await.unwrap().loaded.is_empty());
    fixture.reaches("a", &[(1, Ready)]).await;
    let serving = fixture.version("a", 1).serving.unwrap();
    assert_eq!((serving.instances, serving.queue_capacity), (2, 7));
    assert_eq!(fixture.world.instances(), 2);
}

#[tokio::test]
async fn changes_of_one_model_come_one_after_the_other() {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    let door = fixture.world.door(Step::Open, "a/1");
    let first = fixture.begin_load("a");
    door.has_waiting(1).await;
    let second = fixture.begin_load("a");
    let busy = fixture.swap("a", 2).await.unwrap_err();
    assert!(matches!(*busy, ChangeError::Busy { .. }), "{busy:?}");
    let unload = fixture.begin_unload("a");
    tokio::task::yield_now().await;
    assert!(!second.is_finished());
    assert!(!unload.is_finished());
    door.open();
    assert_eq!(soon(first).await.unwrap().unwrap().loaded, [version(1)]);
    assert!(soon(second).await.unwrap().unwrap().loaded.is_empty());
    assert!(soon(unload).await.unwrap().unwrap().drained);
    assert_eq!(fixture.world.times(Step::Open, "a/1"), 1);
}

#[tokio::test]
async fn a_load_that_blocks_delays_no_other_model() {
    let fixture = Fixture::new();
    fixture.world.put_each(&["a", "b"]);
    let door = fixture.world.door(Step::Open, "a/1");
    let blocked = fixture.begin_load("a");
    door.has_waiting(1).await;
    fixture.load("b").await.unwrap();
    assert_eq!(fixture.answers("b").await, 1);
    fixture.unload("b").await.unwrap();
    assert_eq!(fixture.states("a"), [(1, StateKind::Loading)]);
    door.open();
    soon(blocked).await.unwrap().unwrap();
}

#[tokio::test]
async fn with_every_load_thread_blocked_all_else_goes_on() {
    let fixture = Fixture::with(|options| options.load_threads = many(1));
    fixture.world.put_each(&["a", "b", "c"]);
    fixture.load("a").await.unwrap();
    let door = fixture.world.door(Step::Open, "b/1");
    let blocked = fixture.begin_load("b");
    door.has_waiting(1).await;
    let waiting = fixture.begin_load("c");
    fixture.begins("c", 1).await;
    assert_eq!(fixture.answers("a").await, 1);
    assert_eq!(fixture.manager.reports().len(), 3);
    assert_eq!(soon(fixture.manager.index()).await.unwrap().len(), 3);
    assert!(fixture.unload("a").await.unwrap().drained);
    assert_eq!(fixture.world.times(Step::Fetch, "c/1"), 0, "one load at a time");
    door.open();
    soon(blocked).await.unwrap().unwrap();
    soon(waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_load_whose_caller_has_gone_goes_on() {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    let door = fixture.world.door(Step::Fetch, "a/1");
    let caller = fixture.begin_load("a");
    door.has_waiting(1).await;
    caller.abort();
    assert!(soon(caller).await.unwrap_err().is_cancelled());
    door.open();
    fixture.reaches("a", &[(1, Ready)]).await;
    assert_eq!(fixture.answers("a").await, 1);
}

#[tokio::test]
async fn scans_whose_callers_have_gone_take_no_more_threads() {
    let fixture = Fixture::new();
    let door = fixture.world.door(Step::List, "");
    for _ in 0..8 {
        let manager = fixture.manager.clone();
        let caller = tokio::spawn(async move { manager.index().await.map(drop) });
        tokio::task::yield_now().await;
        caller.abort();
        soon(caller).await.unwrap_err();
    }
    door.has_waiting(2).await;
    assert_eq!(fixture.world.times(Step::List, ""), 2);
    door.open();
    soon(fixture.manager.index()).await.unwrap();
}

#[tokio::test]
async fn all_models_load_and_one_that_fails_hurts_no_other() {
    let fixture = Fixture::new();
    fixture.world.put_each(&["a", "b", "c"]);
    fixture.world.break_at(Step::Open, "b/1", fakes::Fault::Panic);
    soon(fixture.manager.load_all()).await.unwrap();
    assert_eq!((fixture.answers("a").await, fixture.answers("c").await), (1, 1));
    assert_eq!(fixture.states("b"), [(1, StateKind::Failed)]);
}
