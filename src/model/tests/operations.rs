//! Operations: watched, cancelled, begun once, and only on the model that the caller knows.

use super::fakes::Step;
use super::*;
use crate::model::{CancelError, Change, Conditions, Done, IdempotencyKey, Operation};
use StateKind::{Failed, Ready};

async fn with_two() -> Fixture {
    let fixture = Fixture::serving_a().await;
    fixture.world.put("a", 2, "two");
    fixture
}

impl Fixture {
    fn begin(&self, conditions: Conditions) -> Result<Arc<Operation>, ChangeError> {
        self.manager.begin(&name("a"), Change::Swap(swap_to(2)), conditions)
    }
}

fn key(request: &str) -> Conditions {
    key_of("", request)
}

fn key_of(caller: &str, request: &str) -> Conditions {
    let (caller, request) = (caller.to_owned(), request.to_owned());
    let key = IdempotencyKey { caller, key: "k".to_owned(), request };
    Conditions { key: Some(key), ..Conditions::default() }
}

#[tokio::test]
async fn an_operation_tells_its_steps_and_its_result() {
    let fixture = with_two().await;
    let operation = fixture.begin(Conditions::default()).unwrap();
    let Ok(Done::Swap(report)) = soon(operation.done()).await else { panic!() };
    assert_eq!(report.to, version(2));
    let told = operation.report();
    let steps: Vec<_> = told
        .steps
        .iter()
        .map(|step| (step.what.as_str(), step.version.unwrap().number()))
        .collect();
    let loading = ["FETCHING", "VERIFYING", "LOADING", "WARMING", "FLIP", "READY"];
    assert_eq!(steps[..6], loading.map(|step| (step, 2)));
    assert!(steps.contains(&("DRAIN", 1)), "{steps:?}");
    assert!(!told.cancellable && told.end.is_some());
    assert_eq!(operation.cancel(), Err(CancelError::Ended));
    assert!(Arc::ptr_eq(&fixture.manager.operation(operation.id()).unwrap(), &operation));
    assert!(fixture.manager.operation("none").is_none());
}

#[tokio::test]
async fn a_cancelled_load_leaves_nothing_behind() {
    let fixture = with_two().await;
    for step in [Step::Fetch, Step::Open, Step::Run] {
        let door = fixture.world.door(step, "a/2");
        let operation = fixture.begin(Conditions::default()).unwrap();
        door.has_waiting(1).await;
        assert!(operation.report().cancellable);
        operation.cancel().unwrap();
        let refusal = soon(operation.done()).await.unwrap_err();
        assert!(matches!(*refusal, ChangeError::Cancelled), "{refusal:?}");
        assert_eq!(fixture.states("a"), [(1, Ready), (2, Failed)]);
        assert_eq!(fixture.version("a", 2).reason, "it was cancelled");
        door.open();
        door.has_waiting(0).await;
    }
    fixture.swap("a", 2).await.unwrap();
    assert_eq!(fixture.answers("a").await, 2);
}

#[tokio::test]
async fn who_waits_for_another_change_can_be_cancelled() {
    let fixture = with_two().await;
    let door = fixture.world.door(Step::Open, "a/2");
    let swap = fixture.begin(Conditions::default()).unwrap();
    door.has_waiting(1).await;
    let unload = fixture.manager.begin(&name("a"), Change::Unload(None), Conditions::default());
    let unload = unload.unwrap();
    unload.cancel().unwrap();
    assert!(matches!(*soon(unload.done()).await.unwrap_err(), ChangeError::Cancelled));
    door.open();
    soon(swap.done()).await.unwrap();
    assert_eq!(fixture.answers("a").await, 2);
}

#[tokio::test]
async fn a_change_that_is_made_cannot_be_cancelled() {
    let fixture = with_two().await;
    let handle = fixture.acquire("a");
    let operation = fixture.begin(Conditions::default()).unwrap();
    fixture.reaches("a", &[(1, StateKind::Draining), (2, Ready)]).await;
    assert_eq!(operation.cancel(), Err(CancelError::Committed));
    drop(handle);
    soon(operation.done()).await.unwrap();
}

#[tokio::test]
async fn the_same_key_begins_one_operation() {
    let fixture = with_two().await;
    let one = fixture.begin(key("swap to 2")).unwrap();
    let same = fixture.begin(key("swap to 2")).unwrap();
    assert!(Arc::ptr_eq(&one, &same));
    soon(one.done()).await.unwrap();
    let late = fixture.begin(key("swap to 2")).unwrap();
    assert!(soon(late.done()).await.is_ok(), "the first answer, not 'already current'");
    let other = fixture.begin(key("swap to 3")).unwrap_err();
    assert!(matches!(other, ChangeError::KeyReused(_)), "{other:?}");
    let of_another = fixture.begin(key_of("key:other", "swap to 2")).unwrap();
    assert!(!Arc::ptr_eq(&one, &of_another), "callers have their own keys");
}

#[tokio::test]
async fn a_change_of_what_the_caller_does_not_know_is_refused() {
    let fixture = with_two().await;
    let known = fixture.report("a").generation;
    let knowing = |generation| Conditions { generation: Some(generation), ..Conditions::default() };
    let stale = soon(fixture.begin(knowing(known + 1)).unwrap().done()).await.unwrap_err();
    assert!(matches!(*stale, ChangeError::Generation { .. }), "{stale:?}");
    soon(fixture.begin(knowing(known)).unwrap().done()).await.unwrap();
    assert!(fixture.report("a").generation > known);
}

#[tokio::test]
async fn a_bug_in_a_change_is_its_failure() {
    let fixture = with_two().await;
    fixture.world.break_at(Step::Settings, "a", fakes::Fault::Panic);
    let error = fixture.load("a").await.unwrap_err();
    assert!(causes(&error).contains("panic"), "{}", causes(&error));
    assert_eq!(fixture.answers("a").await, 1);
}
