//! The manager's shutdown: no further change, everything drained, one deadline.

use super::fakes::Step;
use super::*;
use crate::lifecycle::Deadline;
use StateKind::{Draining, Failed, Unloaded};

async fn serving(models: &[&str]) -> Fixture {
    let fixture = Fixture::new();
    for model in models {
        fixture.world.put(model, 1, "one");
        fixture.load(model).await.unwrap();
    }
    fixture
}

fn begin_shutdown(fixture: &Fixture, deadline: Deadline) -> JoinHandle<Vec<(String, u64)>> {
    let manager = fixture.manager.clone();
    tokio::spawn(async move { manager.shutdown(deadline).await })
}

fn long() -> Deadline {
    Deadline::after(Duration::from_hours(1))
}

fn is_refused<T>(result: &Result<T, Arc<ChangeError>>) -> bool {
    result.as_ref().is_err_and(|error| matches!(**error, ChangeError::ShuttingDown))
}

#[tokio::test]
async fn it_unloads_everything_and_refuses_further_changes() {
    let fixture = serving(&["a", "b"]).await;
    assert_eq!(soon(fixture.manager.shutdown(long())).await, []);
    assert_eq!(
        (fixture.states("a"), fixture.states("b")),
        (vec![(1, Unloaded)], vec![(1, Unloaded)])
    );
    assert_eq!((fixture.world.instances(), fixture.observed_versions()), (0, 0));
    let refused = [
        fixture.load("a").await.map(drop),
        fixture.load("new").await.map(drop),
        fixture.unload("a").await.map(drop),
        fixture.swap("a", 2).await.map(drop),
    ];
    for result in refused {
        assert!(is_refused(&result), "{result:?}");
    }
    let refusal = fixture.refusal("a", None);
    assert!(matches!(refusal, LookupError::NotServing { state: Unloaded, .. }), "{refusal:?}");
}

#[tokio::test]
async fn it_waits_for_the_requests_inside() {
    let fixture = serving(&["a"]).await;
    let door = fixture.world.door(Step::Run, "a/1");
    let inside = fixture.begin_stuck("a", &door).await;
    let shutdown = begin_shutdown(&fixture, long());
    fixture.reaches("a", &[(1, Draining)]).await;
    assert!(!shutdown.is_finished());
    door.open();
    assert_eq!(soon(inside).await.unwrap(), Ok(1));
    assert_eq!(soon(shutdown).await.unwrap(), []);
    assert_eq!(fixture.world.instances(), 0);
}

#[tokio::test]
async fn at_the_deadline_it_names_who_is_still_inside() {
    let fixture = serving(&["a", "b"]).await;
    let door = fixture.world.door(Step::Run, "a/1");
    let inside = fixture.begin_stuck("a", &door).await;
    let held = fixture.acquire("a");
    let stragglers = soon(fixture.manager.shutdown(Deadline::after(BRIEF))).await;
    assert_eq!(stragglers, [("a/1".to_owned(), 2)]);
    fixture.reaches("b", &[(1, Unloaded)]).await;
    drop(held);
    door.open();
    assert_eq!(soon(inside).await.unwrap(), Ok(1));
}

#[tokio::test]
async fn a_load_under_way_is_given_up_and_not_waited_for() {
    let fixture = serving(&["a", "b"]).await;
    fixture.world.put("a", 2, "two");
    let door = fixture.world.door(Step::Open, "a/2");
    let load = fixture.begin_load("a");
    door.has_waiting(1).await;
    assert_eq!(soon(fixture.manager.shutdown(long())).await, []);
    let refused = soon(load).await.unwrap();
    assert!(is_refused(&refused), "{refused:?}");
    assert_eq!(fixture.states("a"), [(1, Unloaded), (2, Failed)]);
    assert_eq!(fixture.version("a", 2).reason, "the server is shutting down");
    assert_eq!(fixture.states("b"), [(1, Unloaded)]);
    // What the load goes on to make is dropped.
    let released = fixture.world.released();
    door.open();
    fixture.world.has_released(released + 1).await;
    assert_eq!((fixture.world.instances(), fixture.observed_versions()), (0, 0));
    assert_eq!(fixture.states("a"), [(1, Unloaded), (2, Failed)]);
}

#[tokio::test]
async fn a_swap_under_way_is_given_up_and_its_warm_up_ended() {
    let fixture = serving(&["a"]).await;
    fixture.world.put("a", 2, "two");
    let door = fixture.world.door(Step::Run, "a/2");
    let swap = fixture.begin_swap("a", swap_to(2));
    door.has_waiting(1).await;
    assert_eq!(soon(fixture.manager.shutdown(long())).await, []);
    let refused = soon(swap).await.unwrap();
    assert!(is_refused(&refused), "{refused:?}");
    assert_eq!(fixture.states("a"), [(1, Unloaded), (2, Failed)]);
    fixture.world.has_terminated(1).await;
    door.open();
}

#[tokio::test]
async fn loads_that_wait_for_a_thread_are_refused_at_once() {
    let fixture = Fixture::with(|options| options.load_threads = many(1));
    fixture.world.put_each(&["a", "b"]);
    let door = fixture.world.door(Step::Open, "a/1");
    let under_way = fixture.begin_load("a");
    door.has_waiting(1).await;
    let waiting = fixture.begin_load("b");
    fixture.begins("b", 1).await;
    let shutdown = begin_shutdown(&fixture, long());
    assert!(
        causes(&soon(waiting).await.unwrap().unwrap_err()).ends_with("the server is shutting down")
    );
    assert_eq!(fixture.states("b"), [(1, Failed)]);
    door.open();
    soon(under_way).await.unwrap().unwrap_err();
    assert_eq!(soon(shutdown).await.unwrap(), []);
}

#[tokio::test]
async fn what_serves_serves_on_while_changes_are_refused() {
    let fixture = serving(&["a"]).await;
    fixture.manager.refuse_changes();
    assert!(is_refused(&fixture.load("a").await));
    assert_eq!(fixture.answers("a").await, 1);
    assert_eq!(soon(fixture.manager.shutdown(long())).await, []);
}
