//! Requests: overload, deadlines, callers that go away, engines that fail.

use super::fakes::{Fault, Step};
use super::*;
use crate::inference::{InputError, RunError};
use Outcome::{Cancelled, DeadlineExceeded, Failed, Invalid, Shed, Success};

/// A model whose only instance runs a request until the door is opened.
async fn busy() -> (Fixture, Arc<Door>, JoinHandle<Result<u64, InferError>>) {
    let fixture = Fixture::serving_a().await;
    let door = fixture.world.door(Step::Run, "a/1");
    let inside = fixture.begin_stuck("a", &door).await;
    (fixture, door, inside)
}

/// Begins requests that have entered the queue.
async fn queue(fixture: &Fixture, numbers: &[u64]) -> Vec<JoinHandle<Result<u64, InferError>>> {
    let begin = |number: &u64| begin_request(fixture.acquire("a"), *number);
    let queued = numbers.iter().map(begin).collect();
    tokio::task::yield_now().await;
    queued
}

fn queue_depth(fixture: &Fixture) -> usize {
    fixture.version("a", 1).serving.unwrap().queue_depth
}

#[tokio::test]
async fn past_the_queue_a_request_is_refused_at_once() {
    let (fixture, door, inside) = busy().await;
    let queued = queue(&fixture, &[2, 3]).await;
    assert_eq!(queue_depth(&fixture), 2);
    let refused = soon(ask(&fixture.acquire("a"), 4)).await;
    assert_eq!(refused, Err(InferError::Overloaded { capacity: 2 }));
    door.open();
    assert_eq!(soon(inside).await.unwrap(), Ok(1));
    for request in queued {
        assert_eq!(soon(request).await.unwrap(), Ok(1));
    }
    assert_eq!(fixture.world.asked("a/1"), [1, 2, 3]);
    assert_eq!(fixture.outcomes(), [Success, Success, Success, Shed]);
}

#[tokio::test]
async fn a_request_whose_deadline_passes_in_the_queue_is_never_run() {
    let (fixture, door, inside) = busy().await;
    let handle = fixture.acquire("a");
    let late = soon(handle.infer(request(2), Instant::now() + BRIEF)).await;
    assert_eq!(late.map(drop), Err(InferError::DeadlineExceeded));
    let past = soon(handle.infer(request(3), Instant::now())).await;
    assert_eq!(past.map(drop), Err(InferError::DeadlineExceeded));
    door.open();
    soon(inside).await.unwrap().unwrap();
    assert_eq!(soon(ask(&handle, 4)).await, Ok(1));
    assert_eq!(fixture.world.asked("a/1"), [1, 4]);
    assert_eq!(fixture.outcomes(), [Success, Success, DeadlineExceeded, DeadlineExceeded]);
}

#[tokio::test]
async fn a_run_is_interrupted_at_its_deadline() {
    let fixture = Fixture::serving_a().await;
    let door = fixture.world.door(Step::Run, "a/1");
    let inside = fixture.begin_stuck("a", &door).await;
    tokio::time::pause();
    tokio::time::advance(later() - Instant::now()).await;
    tokio::time::resume();
    assert_eq!(soon(inside).await.unwrap(), Err(InferError::DeadlineExceeded));
    fixture.world.has_terminated(1).await;
    door.open();
    assert_eq!(fixture.answers("a").await, 1);
}

#[tokio::test]
async fn a_request_whose_caller_has_gone_is_dropped() {
    let (fixture, door, inside) = busy().await;
    let queued = queue(&fixture, &[2, 3]).await;
    queued[0].abort();
    inside.abort();
    fixture.world.has_terminated(1).await;
    door.open();
    for request in queued {
        soon(request).await.ok();
    }
    assert_eq!(fixture.world.asked("a/1"), [1, 3]);
    assert_eq!(fixture.version("a", 1).serving.unwrap().in_flight, 0);
    let mut outcomes = fixture.outcomes();
    outcomes.sort_by_key(|outcome| outcome.name());
    assert_eq!(outcomes, [Cancelled, Cancelled, Success]);
}

#[tokio::test]
async fn requests_that_nobody_waits_for_take_no_place_in_the_queue() {
    let (fixture, door, inside) = busy().await;
    for request in queue(&fixture, &[2, 3]).await {
        request.abort();
        soon(request).await.unwrap_err();
    }
    let queued = queue(&fixture, &[4, 5]).await;
    assert_eq!(queue_depth(&fixture), 2);
    let refused = soon(ask(&fixture.acquire("a"), 6)).await;
    assert_eq!(refused, Err(InferError::Overloaded { capacity: 2 }));
    door.open();
    soon(inside).await.unwrap().unwrap();
    for request in queued {
        assert_eq!(soon(request).await.unwrap(), Ok(1));
    }
    assert_eq!(fixture.world.asked("a/1"), [1, 4, 5]);
}

#[tokio::test]
async fn an_instance_that_fails_or_panics_goes_on() {
    let fixture = Fixture::serving_a().await;
    let handle = fixture.acquire("a");
    fixture.world.break_at(Step::Run, "a/1", Fault::Panic);
    let panicked = RunError::Panicked("Run of a/1 panics".to_owned());
    assert_eq!(soon(ask(&handle, 1)).await, Err(panicked.into()));
    fixture.world.break_at(Step::Run, "a/1", Fault::Fail);
    let failed = RunError::Engine("Run of a/1 fails".to_owned());
    assert_eq!(soon(ask(&handle, 1)).await, Err(failed.into()));
    fixture.world.heal();
    assert_eq!(soon(ask(&handle, 1)).await, Ok(1));
    assert_eq!(fixture.outcomes(), [Success, Failed, Failed]);
    assert_eq!(fixture.world.instances(), 1);
}

#[tokio::test]
async fn an_engine_that_gives_too_few_outputs_has_failed() {
    let fixture = Fixture::serving_a().await;
    fixture.world.break_at(Step::Run, "a/1", Fault::Mute);
    let answer = soon(fixture.acquire("a").infer(request(1), later())).await;
    let failed = RunError::Engine("it gave 0 outputs, 1 were asked for".to_owned());
    assert_eq!(answer.map(drop), Err(failed.into()));
}

#[tokio::test]
async fn every_instance_takes_requests_from_the_one_queue() {
    let fixture = Fixture::with(|options| options.instances = many(3));
    fixture.world.put("a", 1, "one");
    fixture.load("a").await.unwrap();
    let door = fixture.world.door(Step::Run, "a/1");
    let requests = [1, 2, 3].map(|number| begin_request(fixture.acquire("a"), number));
    door.has_waiting(3).await;
    door.open();
    for request in requests {
        assert_eq!(soon(request).await.unwrap(), Ok(1));
    }
}

#[tokio::test]
async fn use_is_counted_however_it_ends() {
    let fixture = Fixture::serving_a().await;
    let usage = || fixture.version("a", 1).serving.unwrap().usage;
    assert_eq!((usage().requests, usage().failures, usage().last_access), (0, 0, None));
    assert_eq!(fixture.answers("a").await, 1);
    let first = usage().last_access.unwrap();
    let handle = fixture.acquire("a");
    let invalid = soon(handle.infer(InferenceRequest::default(), later())).await.unwrap_err();
    assert!(matches!(invalid, InferError::Input(InputError::MissingInput { .. })), "{invalid:?}");
    assert_eq!((usage().requests, usage().failures), (2, 1));
    assert!(usage().last_access.unwrap() >= first);
    assert_eq!(fixture.outcomes(), [Success, Invalid]);
    assert_eq!(fixture.version("a", 1).serving.unwrap().in_flight, 1, "the handle that is held");
    drop(handle);
    assert_eq!(fixture.manager.in_flight(), []);
}
