//! Requests that meet on a thread of the runtime.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::super::super::backend::RunError;
use super::super::super::costs::Run;
use super::*;

/// A pool of which the runs are known to be short, and to be worth sharing by four.
async fn sociable() -> (Arc<InstancePool>, Arc<Doubler>) {
    let (pool, doubler) = pool(options(Duration::ZERO));
    doubler.is_slow.store(true, Ordering::SeqCst);
    // Longer on a machine that is busy with others.
    for turns in 0.. {
        assert!(turns < 100_000, "four requests never share a run");
        assert_eq!(meeting(&pool, [1, 2, 3, 4]).await, each_alone(&[1, 2, 3, 4]));
        let limit = pool.shared.batching.as_ref().unwrap().limit();
        let is_inline = pool.placement() == Placement::Inline;
        if is_inline && limit.min(pool.shared.pace.short_together()) >= 4 {
            break;
        }
    }
    lock(&doubler.runs).clear();
    (pool, doubler)
}

/// Asks for each of these values, all of them before any goes on.
async fn meeting<const N: usize>(pool: &InstancePool, values: [i32; N]) -> Answers {
    let asked = values.map(|value| pool.run(request(1, &[value]), later()));
    let answers = futures_util::future::join_all(asked).await;
    answers.into_iter().map(|answer| answer.map(|completion| completion.outputs)).collect()
}

fn each_alone(values: &[i32]) -> Answers {
    values.iter().map(|value| Ok(alone(&request(1, &[*value])))).collect()
}

#[tokio::test]
async fn requests_that_meet_on_a_thread_share_a_run_there() {
    let (pool, doubler) = sociable().await;
    let threads = || lock(&pool.shared.threads).len();
    let before = threads();
    let asked = [1, 2, 3, 4].map(|value| {
        let mut asked = Box::pin(pool.run(request(1, &[value]), later()));
        assert!(asked.as_mut().now_or_never().is_none(), "others may be there");
        asked
    });
    assert!(doubler.rows().is_empty());
    for (asked, value) in asked.into_iter().zip(1..) {
        let Completion { outputs, timings } = asked.await.unwrap();
        assert_eq!(outputs, alone(&request(1, &[value])));
        assert_eq!((timings.requests, timings.entries), (4, 4));
        assert!(timings.gathering.is_some_and(|gathering| gathering <= timings.queue));
    }
    assert_eq!((doubler.rows(), threads()), (vec![4], before), "no thread has come for that");
}

#[tokio::test]
async fn who_comes_alone_is_not_kept_for_long() {
    let (pool, _) = sociable().await;
    for value in 0..20 {
        assert_eq!(meeting(&pool, [value]).await, each_alone(&[value]));
    }
    let mut kept = 0;
    for value in 0..64 {
        let mut asked = Box::pin(pool.run(request(1, &[value]), later()));
        if asked.as_mut().now_or_never().is_none() {
            kept += 1;
            asked.await.unwrap();
        }
    }
    assert!(kept <= 1, "now and then one looks whether there are others: {kept}");
}

#[tokio::test]
async fn those_that_come_alone_for_long_share_runs_again() {
    let (pool, _) = sociable().await;
    let company = &pool.shared.company;
    (0..20).for_each(|_| company.met(1));
    assert!(!company.is_usual());
    // As after a trial that has shown nothing.
    let batching = pool.shared.batching.as_ref().unwrap();
    let bytes = 4;
    for _ in 0..100_000 {
        if batching.wants_one() {
            break;
        }
        let took = Duration::from_micros(20 * batching.limit() as u64);
        batching.ran(Run {
            entries: batching.limit(),
            bytes: bytes * batching.limit() as u64,
            took,
        });
    }
    assert!(batching.wants_one());
    let mut turns = 0..100_000;
    while batching.wants_one() {
        turns.next().expect("runs of one are counted as long as nothing else is wanted");
        assert_eq!(meeting(&pool, [1]).await, each_alone(&[1]));
    }
}

#[tokio::test]
async fn who_goes_leaves_the_others_their_answers() {
    let (pool, doubler) = sociable().await;
    let [mut one, mut two, mut three] =
        [1, 2, 3].map(|value| Box::pin(pool.run(request(1, &[value]), later())));
    for asked in [&mut one, &mut two, &mut three] {
        assert!(asked.as_mut().now_or_never().is_none());
    }
    drop(one);
    // Nobody asks the second for its answer any more, which stays all the same.
    assert_eq!(three.await.unwrap().outputs, alone(&request(1, &[3])));
    assert_eq!(two.await.unwrap().outputs, alone(&request(1, &[2])));
    assert_eq!(doubler.rows(), [2], "the one that has gone is left out");
}

#[tokio::test]
async fn an_error_is_that_of_one_request_also_where_they_meet() {
    let (pool, doubler) = sociable().await;
    let answers = meeting(&pool, [1, POISON, 2]).await;
    assert_eq!([&answers[0], &answers[2]], [&each_alone(&[1])[0], &each_alone(&[2])[0]]);
    let rejected = RunError::Rejected("poison".to_owned());
    assert_eq!(answers[1], Err(InferError::Run(rejected)));
    assert_eq!(doubler.rows(), [3, 1, 1, 1]);
    // Who sends such requests does not make all others run twice.
    assert_eq!(meeting(&pool, [4, 5, 6]).await, each_alone(&[4, 5, 6]));
    assert_eq!(doubler.rows()[4..], [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_an_end_is_ended_also_where_requests_meet() {
    let (pool, doubler) = sociable().await;
    let patience = Instant::now() + Duration::from_secs(3);
    let asked = [1, POISON + 2, 2].map(|value| {
        let deadline = if value > POISON { patience } else { later() };
        pool.run(request(1, &[value]), deadline)
    });
    let answers = futures_util::future::join_all(asked).await;
    let outputs = |place: usize| answers[place].as_ref().map(|answer| answer.outputs.clone());
    assert_eq!([outputs(0), outputs(2)], [1, 2].map(|value| Ok(alone(&request(1, &[value])))));
    assert_eq!(outputs(1), Err(&InferError::DeadlineExceeded));
    assert_eq!(doubler.rows()[0], 3);
    assert_eq!(pool.placement(), Placement::Thread, "it has kept a thread from others");
}

#[tokio::test]
async fn a_model_that_lies_about_batches_has_none_any_more_where_requests_meet() {
    let (pool, doubler) = sociable().await;
    doubler.lies.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(meeting(&pool, [1, 2, 3]).await, each_alone(&[1, 2, 3]));
    }
    assert_eq!(doubler.rows(), [3, 1, 1, 1, 1, 1, 1]);
    assert!(matches!(pool.batching(), BatchingReport::Off { .. }));
}

#[tokio::test]
async fn what_fits_together_meets_beside_what_does_not() {
    let (pool, doubler) = sociable().await;
    let asked = [(1, vec![1]), (1, vec![2, 3]), (1, vec![4])];
    let asked = asked.map(|(rows, values)| request(rows, &values));
    let expected: Vec<_> = asked.iter().map(alone).collect();
    let asked = asked.map(|request| pool.run(request, later()));
    let answers = futures_util::future::join_all(asked).await;
    let outputs: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().outputs).collect();
    assert_eq!(outputs, expected);
    assert_eq!(doubler.rows(), [2, 1]);
}
