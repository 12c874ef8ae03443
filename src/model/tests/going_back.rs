//! The version before: kept for a while, gone back to, or loaded again.

use super::fakes::Step;
use super::*;
use crate::inference::DataType;
use crate::model::{Cause, Change, Conditions, Done, RollbackOptions};
use StateKind::{Failed, Ready, Unloaded};

async fn with_two() -> Fixture {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "two");
    fixture
}

fn keeping(to: u64, keep: Keep) -> SwapOptions {
    SwapOptions { keep_previous: Some(keep), ..swap_to(to) }
}

/// Lets time pass for timers, but not for the threads that work in between.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

impl Fixture {
    async fn roll_back(&self, options: RollbackOptions) -> Result<SwapReport, Arc<ChangeError>> {
        let change = Change::Rollback(options);
        let operation = self.manager.begin(&name("a"), change, Conditions::default()).unwrap();
        match soon(operation.done()).await? {
            Done::Swap(report) => Ok(report),
            other => panic!("{other:?}"),
        }
    }

    fn history(&self) -> Vec<(u64, Cause)> {
        let history = self.report("a").history;
        history.iter().map(|tenure| (tenure.version.number(), tenure.cause)).collect()
    }
}

#[tokio::test]
async fn the_way_back_to_a_version_that_was_kept_loads_nothing() {
    let fixture = with_two().await;
    let report = fixture.swap_with("a", keeping(2, Keep::Always)).await.unwrap();
    assert!(report.kept && report.memory.is_none());
    assert_eq!(fixture.report("a").parked, Some(version(1)));
    let back = fixture.roll_back(RollbackOptions::default()).await.unwrap();
    assert_eq!((back.from, back.to, back.kept), (version(2), version(1), false));
    assert_eq!(fixture.world.times(Step::Open, "a/1"), 1);
    assert_eq!(fixture.states("a"), [(1, Ready), (2, Unloaded)]);
    let expected = [(1, Cause::Load), (2, Cause::Swap), (1, Cause::Rollback)];
    assert_eq!(fixture.history(), expected);
}

#[tokio::test]
async fn what_is_kept_for_a_time_goes_when_it_is_over() {
    let fixture = with_two().await;
    let minute = Duration::from_mins(1);
    let report = fixture.swap_with("a", keeping(2, Keep::For(minute))).await.unwrap();
    assert!(report.kept && report.kept_until.is_some());
    assert_eq!(fixture.states("a"), [(1, Ready), (2, Ready)]);
    pass(minute).await;
    fixture.reaches("a", &[(1, Unloaded), (2, Ready)]).await;
    assert_eq!(fixture.report("a").parked, None);
}

#[tokio::test]
async fn a_newer_way_back_takes_the_place_of_an_older_one() {
    let fixture = with_two().await;
    fixture.world.put("a", 3, "three");
    let minute = Keep::For(Duration::from_mins(1));
    fixture.swap_with("a", keeping(2, minute)).await.unwrap();
    fixture.swap_with("a", keeping(3, Keep::For(Duration::from_hours(1)))).await.unwrap();
    fixture.reaches("a", &[(1, Unloaded), (2, Ready), (3, Ready)]).await;
    pass(Duration::from_mins(2)).await;
    assert_eq!(fixture.report("a").parked, Some(version(2)), "its own time is not over");
}

#[tokio::test]
async fn a_version_that_is_gone_is_loaded_again_if_its_files_are_the_same() {
    let fixture = with_two().await;
    fixture.swap("a", 2).await.unwrap();
    fixture.world.put("a", 1, "another");
    let refusal = fixture.roll_back(RollbackOptions::default()).await.unwrap_err();
    assert!(matches!(*refusal, ChangeError::ChangedSince(_)), "{refusal:?}");
    assert_eq!(fixture.states("a"), [(1, Failed), (2, Ready)]);
    assert_eq!(fixture.world.instances(), 1);
    let allowed = RollbackOptions { allow_changed: true, ..RollbackOptions::default() };
    assert_eq!(fixture.roll_back(allowed).await.unwrap().to, version(1));
    assert_eq!(fixture.answers("a").await, 1);
}

#[tokio::test]
async fn without_a_version_before_there_is_no_way_back() {
    let fixture = with_two().await;
    let refusal = fixture.roll_back(RollbackOptions::default()).await.unwrap_err();
    assert!(matches!(*refusal, ChangeError::NothingBefore(_)), "{refusal:?}");
}

#[tokio::test]
async fn what_was_rolled_back_from_is_not_loaded_again_until_something_newer_comes() {
    let fixture = with_two().await;
    fixture.load("a").await.unwrap();
    fixture.reaches("a", &[(1, Unloaded), (2, Ready)]).await;
    fixture.roll_back(RollbackOptions::default()).await.unwrap();
    let report = fixture.load("a").await.unwrap();
    assert_eq!((report.current, report.loaded), (version(1), vec![]));
    fixture.world.put("a", 3, "three");
    assert_eq!(fixture.load("a").await.unwrap().current, version(3));
}

#[tokio::test]
async fn callers_are_not_given_to_a_version_that_they_cannot_call() {
    let fixture = with_two().await;
    fixture.world.edit("a", |model| model.signature.inputs[0].datatype = DataType::Fp32);
    let refusal = fixture.swap("a", 2).await.unwrap_err();
    let told = causes(&refusal);
    assert!(told.contains("input 'x' was UINT64 [-1] and is FP32 [-1]"), "{told}");
    assert!(told.contains("allow_incompatible"), "{told}");
    assert!(causes(&fixture.load("a").await.unwrap_err()).contains("version 1"), "also by a load");
    assert_eq!((fixture.answers("a").await, fixture.world.instances()), (1, 1));
    let allowed = SwapOptions { allow_incompatible: true, ..swap_to(2) };
    assert_eq!(fixture.swap_with("a", allowed).await.unwrap().to, version(2));
}
