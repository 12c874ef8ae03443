//! Unloads: everything is answered first, then the memory comes back.

use super::fakes::{Fault, Step};
use super::*;
use StateKind::{Draining, Ready, Unloaded, Unloading};

#[tokio::test]
async fn an_unloaded_model_says_so_and_can_be_loaded_again() {
    let fixture = Fixture::serving_a().await;
    let report = fixture.unload("a").await.unwrap();
    assert_eq!((report.versions, report.drained), (vec![version(1)], true));
    for number in [None, Some(1)] {
        let refusal = fixture.refusal("a", number);
        let expected = LookupError::NotServing {
            model: "a".to_owned(),
            version: number.map(version),
            state: Unloaded,
            reason: String::new(),
        };
        assert_eq!(refusal, expected);
    }
    assert_eq!((fixture.world.instances(), fixture.observed_versions()), (0, 0));
    assert_eq!(fixture.world.released(), 1);
    let told = fixture.story("a");
    let expected =
        ["1 READY>DRAINING", "current 1>-", "1 DRAINING>UNLOADING", "1 UNLOADING>UNLOADED"];
    assert_eq!(told[told.len() - 4..], expected);
    assert_eq!(fixture.report("a").current, None);
    fixture.load("a").await.unwrap();
    assert_eq!(fixture.answers("a").await, 1);
    assert_eq!(fixture.states("a"), [(1, Ready)], "a life that is over is forgotten");
}

#[tokio::test]
async fn what_is_not_loaded_cannot_be_unloaded() {
    let fixture = Fixture::serving_a().await;
    let absent = fixture.unload("b").await.unwrap_err();
    assert!(matches!(*absent, ChangeError::UnknownModel(_)), "{absent:?}");
    fixture.unload("a").await.unwrap();
    let twice = fixture.unload("a").await.unwrap_err();
    assert!(matches!(*twice, ChangeError::NotLoaded(_)), "{twice:?}");
}

#[tokio::test]
async fn every_version_is_unloaded() {
    let fixture = Fixture::new();
    (1..=3).for_each(|number| fixture.world.put("a", number, "x"));
    fixture.world.edit("a", |a| a.settings.version_policy = VersionPolicy::All);
    fixture.load("a").await.unwrap();
    let report = fixture.unload("a").await.unwrap();
    assert_eq!(report.versions, [version(1), version(2), version(3)]);
    assert_eq!(fixture.states("a"), [(1, Unloaded), (2, Unloaded), (3, Unloaded)]);
    assert_eq!(fixture.world.instances(), 0);
}

#[tokio::test]
async fn an_unload_waits_for_the_requests_inside_as_long_as_it_may() {
    let fixture = Fixture::with(|options| options.terms.drain_timeout = BRIEF);
    fixture.world.put("a", 1, "one");
    fixture.load("a").await.unwrap();
    let door = fixture.world.door(Step::Run, "a/1");
    let inside = fixture.begin_stuck("a", &door).await;
    let queued = begin_request(fixture.acquire("a"), 2);
    assert!(!fixture.unload("a").await.unwrap().drained);
    assert_eq!(fixture.states("a"), [(1, Draining)]);
    assert_eq!(fixture.manager.in_flight(), [("a/1".to_owned(), 2)]);
    door.open();
    assert_eq!(soon(inside).await.unwrap(), Ok(1));
    assert_eq!(soon(queued).await.unwrap(), Ok(1), "what was queued is answered too");
    fixture.reaches("a", &[(1, Unloaded)]).await;
    assert_eq!((fixture.world.instances(), fixture.manager.in_flight()), (0, vec![]));
}

#[tokio::test]
async fn a_model_can_be_loaded_while_its_last_life_drains() {
    let fixture = Fixture::serving_a().await;
    let handle = fixture.acquire("a");
    let unload = fixture.begin_unload("a");
    fixture.reaches("a", &[(1, Draining)]).await;
    fixture.load("a").await.unwrap();
    assert_eq!(fixture.states("a"), [(1, Draining), (1, Ready)]);
    drop(handle);
    assert!(soon(unload).await.unwrap().unwrap().drained);
    assert_eq!(fixture.states("a"), [(1, Ready)]);
    assert_eq!(fixture.answers("a").await, 1);
}

#[tokio::test]
async fn an_unload_forgets_the_failures_before_it() {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "two");
    fixture.world.break_at(Step::Open, "a/2", Fault::Fail);
    fixture.load("a").await.unwrap_err();
    fixture.unload("a").await.unwrap();
    let refusal = fixture.refusal("a", None);
    assert!(matches!(refusal, LookupError::NotServing { state: Unloaded, .. }), "{refusal:?}");
    assert_eq!((fixture.states("a"), fixture.report("a").problem), (vec![(1, Unloaded)], None));
}

#[tokio::test]
async fn engines_that_cannot_be_interrupted_hold_up_only_their_own_unload() {
    let models = ["a", "b", "c"];
    let fixture = Fixture::with(|options| options.terms.drain_timeout = BRIEF);
    let mut doors = Vec::new();
    for model in models {
        fixture.world.put(model, 1, "one");
        fixture.load(model).await.unwrap();
        let door = fixture.world.door(Step::Run, &format!("{model}/1"));
        let caller = fixture.begin_stuck(model, &door).await;
        caller.abort();
        soon(caller).await.unwrap_err();
        doors.push(door);
    }
    for model in models {
        assert!(!fixture.unload(model).await.unwrap().drained);
        fixture.reaches(model, &[(1, Unloading)]).await;
    }
    fixture.world.put("d", 1, "one");
    fixture.load("d").await.unwrap();
    fixture.unload("d").await.unwrap();
    fixture.reaches("d", &[(1, Unloaded)]).await;
    assert_eq!(soon(fixture.manager.index()).await.unwrap().len(), 4);
    for door in doors {
        door.open();
    }
    for model in models {
        fixture.reaches(model, &[(1, Unloaded)]).await;
    }
    assert_eq!((fixture.world.instances(), fixture.observed_versions()), (0, 0));
}

#[tokio::test]
async fn hundreds_of_loads_and_unloads_leave_nothing() {
    let fixture = Fixture::new();
    fixture.world.put("a", 1, "one");
    for _ in 0..200 {
        fixture.load("a").await.unwrap();
        assert!(fixture.unload("a").await.unwrap().drained);
    }
    assert_eq!((fixture.world.instances(), fixture.observed_versions()), (0, 0));
    assert_eq!(fixture.states("a"), [(1, Unloaded)]);
}
