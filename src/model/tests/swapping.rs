//! Swaps: no request fails, none is answered by the old version once the swap has returned.

use std::sync::atomic::AtomicBool;
use std::thread;

use tokio::runtime::Handle;

use super::fakes::{Fault, Step};
use super::*;
use crate::model::SourceError;
use StateKind::{Draining, Failed, Ready, Unloaded};

/// Serves version 1; version 2 is there.
async fn with_two() -> Fixture {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "two");
    fixture
}

fn brief(to: u64) -> SwapOptions {
    SwapOptions { drain_timeout: Some(BRIEF), ..swap_to(to) }
}

fn keeping(to: u64) -> SwapOptions {
    SwapOptions { keep_previous: Some(Keep::Always), ..swap_to(to) }
}

#[tokio::test]
async fn after_a_swap_the_new_version_answers_and_the_old_is_gone() {
    let fixture = with_two().await;
    let report = fixture.swap("a", 2).await.unwrap();
    assert_eq!((report.from, report.to, report.drained), (version(1), version(2), true));
    assert!(report.load_took <= report.took);
    assert_eq!(fixture.answers("a").await, 2);
    assert_eq!(fixture.states("a"), [(1, Unloaded), (2, Ready)]);
    assert_eq!((fixture.world.instances(), fixture.observed_versions()), (1, 1));
    assert_eq!(fixture.world.released(), 1);
    let expected =
        ["2 WARMING>READY", "current 1>2", "1 DRAINING>UNLOADING", "1 UNLOADING>UNLOADED"];
    let told = fixture.story("a");
    assert_eq!(told[told.len() - 4..], expected);
    assert_eq!(told[told.len() - 5], "1 READY>DRAINING");
}

#[tokio::test]
async fn a_request_inside_the_old_version_finishes_on_it() {
    let fixture = with_two().await;
    let door = fixture.world.door(Step::Run, "a/1");
    let inside = fixture.begin_stuck("a", &door).await;
    let report = fixture.swap_with("a", brief(2)).await.unwrap();
    assert!(!report.drained);
    assert_eq!(fixture.states("a"), [(1, Draining), (2, Ready)]);
    assert_eq!(fixture.version("a", 1).serving.unwrap().in_flight, 1);
    assert_eq!(fixture.answers("a").await, 2);
    assert!(matches!(
        fixture.refusal("a", Some(1)),
        LookupError::NotServing { state: Draining, .. }
    ));
    door.open();
    assert_eq!(soon(inside).await.unwrap(), Ok(1));
    fixture.reaches("a", &[(1, Unloaded), (2, Ready)]).await;
    assert_eq!(fixture.world.instances(), 1);
}

#[tokio::test]
async fn the_way_back_is_open_while_the_old_version_drains() {
    let fixture = with_two().await;
    let handle = fixture.acquire("a");
    let swap = fixture.begin_swap("a", swap_to(2));
    fixture.reaches("a", &[(1, Draining), (2, Ready)]).await;
    fixture.swap("a", 1).await.unwrap();
    assert_eq!(fixture.answers("a").await, 1);
    assert!(!swap.is_finished(), "the first life of version 1 is in use");
    drop(handle);
    assert!(soon(swap).await.unwrap().unwrap().drained);
}

#[tokio::test]
async fn a_version_that_is_kept_answers_by_number_and_is_the_way_back() {
    let fixture = with_two().await;
    assert!(fixture.swap_with("a", keeping(2)).await.unwrap().drained);
    assert_eq!(fixture.states("a"), [(1, Ready), (2, Ready)]);
    assert_eq!((fixture.answers("a").await, fixture.answers_for("a", 1).await), (2, 1));
    fixture.swap("a", 1).await.unwrap();
    assert_eq!(fixture.states("a"), [(1, Ready), (2, Unloaded)]);
    assert_eq!(fixture.world.times(Step::Open, "a/1"), 1, "the way back loads nothing");
}

#[tokio::test]
async fn swaps_that_cannot_be_are_refused() {
    let fixture = with_two().await;
    let current = fixture.swap("a", 1).await.unwrap_err();
    assert!(matches!(*current, ChangeError::AlreadyCurrent(_)), "{current:?}");
    let unknown = fixture.swap("a", 9).await.unwrap_err();
    assert!(
        matches!(&*unknown, ChangeError::Source { source: SourceError::UnknownVersion(_), .. }),
        "{unknown:?}"
    );
    let absent = fixture.swap("b", 1).await.unwrap_err();
    assert!(matches!(*absent, ChangeError::UnknownModel(_)), "{absent:?}");
    assert_eq!(fixture.states("a"), [(1, Ready)], "a refusal leaves no trace");
    fixture.unload("a").await.unwrap();
    let unloaded = fixture.swap("a", 2).await.unwrap_err();
    assert!(matches!(*unloaded, ChangeError::NotLoaded(_)), "{unloaded:?}");
}

#[tokio::test]
async fn a_swap_that_fails_leaves_the_old_version_serving() {
    let fixture = with_two().await;
    for step in [Step::Fetch, Step::Digest, Step::Open, Step::Instantiate, Step::Run] {
        for fault in [Fault::Fail, Fault::Panic] {
            fixture.world.break_at(step, "a/2", fault);
            let error = fixture.swap("a", 2).await.unwrap_err();
            assert!(causes(&error).contains(&format!("{step:?} of a/2")), "{}", causes(&error));
            assert_eq!(fixture.answers("a").await, 1);
            assert_eq!(fixture.states("a"), [(1, Ready), (2, Failed)]);
            assert_eq!(fixture.world.instances(), 1);
            fixture.world.heal();
        }
    }
    fixture.swap("a", 2).await.unwrap();
    assert_eq!(fixture.answers("a").await, 2);
}

#[tokio::test]
async fn the_old_version_serves_while_the_new_one_loads() {
    let fixture = with_two().await;
    let door = fixture.world.door(Step::Run, "a/2");
    let swap = fixture.begin_swap("a", swap_to(2));
    door.has_waiting(1).await;
    assert_eq!(fixture.states("a"), [(1, Ready), (2, StateKind::Warming)]);
    assert_eq!(fixture.answers("a").await, 1);
    let early = fixture.refusal("a", Some(2));
    assert!(matches!(early, LookupError::NotServing { state: StateKind::Warming, .. }));
    let busy = fixture.swap("a", 2).await.unwrap_err();
    assert!(matches!(*busy, ChangeError::Busy { .. }), "{busy:?}");
    door.open();
    soon(swap).await.unwrap().unwrap();
    assert_eq!(fixture.answers("a").await, 2);
}

#[tokio::test]
async fn a_swap_whose_caller_has_gone_completes() {
    let fixture = with_two().await;
    let door = fixture.world.door(Step::Open, "a/2");
    let caller = fixture.begin_swap("a", swap_to(2));
    door.has_waiting(1).await;
    caller.abort();
    assert!(soon(caller).await.unwrap_err().is_cancelled());
    door.open();
    fixture.reaches("a", &[(1, Unloaded), (2, Ready)]).await;
    assert_eq!(fixture.answers("a").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_during_fifty_swaps() {
    const CALLERS: usize = 8;
    let fixture = Fixture::with(|options| options.queue_capacity = many(CALLERS));
    fixture.world.put("a", 1, "one");
    fixture.world.put("a", 2, "two");
    fixture.load("a").await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let hammer = || {
        let (manager, over, runtime) =
            (fixture.manager.clone(), Arc::clone(&over), Handle::current());
        thread::spawn(move || {
            let mut last = false;
            while !last {
                last = over.load(Ordering::SeqCst);
                let handle = manager.acquire("a", None).unwrap();
                let answer = runtime.block_on(ask(&handle, 1)).unwrap();
                assert_eq!(answer, handle.id().version.number());
            }
        })
    };
    let callers: Vec<_> = (0..CALLERS).map(|_| hammer()).collect();
    for round in 0..50 {
        let to = 1 + round % 2;
        let options =
            SwapOptions { keep_previous: (round % 3 == 0).then_some(Keep::Always), ..swap_to(to) };
        assert!(fixture.swap_with("a", options).await.unwrap().drained);
        assert_eq!(fixture.acquire("a").id().version.number(), to);
    }
    over.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.join().unwrap();
    }
    assert_eq!((fixture.world.instances(), fixture.observed_versions()), (1, 1));
    let outcomes = fixture.outcomes();
    assert!(outcomes.len() >= CALLERS);
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Success));
}
