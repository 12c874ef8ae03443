//! How large the batches of a version are, and whether there are any.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::batch;
use super::costs::{Costs, Run};
use super::padding::Padding;
use super::request::PreparedRequest;

/// The most bytes that the inputs of a batch may have together: joining them costs a copy.
pub(super) const LARGEST: u64 = 64 << 20;

/// A batch that takes so many times as long as is expected does so for what it contains, ...
const PATIENCE: u32 = 20;

/// ... if it takes longer than this, ...
const LEAST_PATIENCE: Duration = Duration::from_millis(100);

/// ... and in any case if it takes longer than this, which is also for how long one may take of which nothing
/// is known.
const MOST_PATIENCE: Duration = Duration::from_secs(10);

/// How requests for a version may share runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchOptions {
    /// The most entries that a batch is made of. A request that has more is run alone.
    pub max_entries: NonZeroUsize,
    /// How long an instance waits for more, counted from when its first request came.
    pub max_delay: Duration,
    /// What is filled up so that requests of different lengths fit each other.
    pub padding: Padding,
    /// Inputs without entries: a request that has one is run alone.
    pub without_entries: Vec<usize>,
}

/// What became of batching, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchingReport {
    /// Requests that wait share runs.
    On {
        /// The most entries that a batch may have.
        max_entries: usize,
        /// How many are worth it, as far as was measured.
        entries: usize,
    },
    /// Every request has a run for itself.
    Off {
        /// Why.
        reason: String,
    },
}

/// Batching while a version serves.
#[derive(Debug)]
pub(super) struct Batching {
    pub(super) options: BatchOptions,
    costs: Costs,
    /// Why there are no batches any more.
    given_up: OnceLock<String>,
    /// Batches in a row that have failed.
    failures: AtomicU32,
    /// Runs to come that are not to be of a batch.
    pause: AtomicU32,
}

impl Batching {
    pub(super) fn new(options: BatchOptions) -> Self {
        let costs = Costs::new(options.max_entries.get());
        let (failures, pause) = (AtomicU32::new(0), AtomicU32::new(0));
        Self { options, costs, given_up: OnceLock::new(), failures, pause }
    }

    /// How many entries the next batch may have.
    pub(super) fn limit(&self) -> usize {
        let most = self.options.max_entries.get();
        if self.given_up.get().is_some() || self.is_paused() {
            1
        } else if self.waits() {
            // Who asks for a delay asks for large batches.
            most
        } else {
            self.costs.limit().min(most)
        }
    }

    /// Whether what is to be known next is how long one entry takes alone.
    pub(super) fn wants_one(&self) -> bool {
        self.costs.limit() == 1
    }

    /// Whether an instance waits for more requests than there are.
    pub(super) fn waits(&self) -> bool {
        !self.options.max_delay.is_zero() && self.given_up.get().is_none()
    }

    /// How long a batch of so many entries and bytes may take, before it is taken for one that does not end.
    pub(super) fn patience(&self, batch: (usize, u64)) -> Duration {
        let Some(usual) = self.costs.expected(batch) else { return MOST_PATIENCE };
        // One that is usual is never ended.
        let most = MOST_PATIENCE.max(usual * 2);
        usual.saturating_mul(PATIENCE).clamp(LEAST_PATIENCE, most)
    }

    /// How many entries a request brings into a batch; `None` where it cannot share a run.
    pub(super) fn entries(&self, request: &PreparedRequest) -> Option<usize> {
        let given = |place: &usize| request.inputs().get(*place).is_some_and(Option::is_some);
        batch::entries(request).filter(|_| !self.options.without_entries.iter().any(given))
    }

    fn is_paused(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        self.pause.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    pub(super) fn ran(&self, run: Run) {
        self.costs.ran(run);
    }

    pub(super) fn batch_answered(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// A batch has failed, so that each of its requests is run again: for what one of them contains, perhaps.
    /// Who sends such requests must not make all others run twice, so there are fewer batches for a time.
    pub(super) fn batch_failed(&self) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        self.pause.store(8 << failures.min(7), Ordering::Relaxed);
    }

    /// There are no batches from now on.
    pub(super) fn give_up(&self, reason: String) -> bool {
        self.given_up.set(reason).is_ok()
    }

    pub(super) fn report(&self) -> BatchingReport {
        if let Some(reason) = self.given_up.get() {
            return BatchingReport::Off { reason: reason.clone() };
        }
        let max_entries = self.options.max_entries.get();
        let worth = if self.waits() { max_entries } else { self.costs.worth() };
        BatchingReport::On { max_entries, entries: worth.min(max_entries) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batching(max_delay: Duration) -> Batching {
        let max_entries = NonZeroUsize::new(6).unwrap();
        Batching::new(BatchOptions {
            max_entries,
            max_delay,
            padding: Padding::default(),
            without_entries: Vec::new(),
        })
    }

    #[test]
    fn batches_that_fail_are_made_less_often() {
        let batching = batching(Duration::from_millis(1));
        let pause = || (0..2000).take_while(|_| batching.limit() == 1).count();
        assert_eq!((batching.limit(), pause()), (6, 0));
        for expected in [8, 16, 32, 64, 128, 256, 512, 1024, 1024] {
            batching.batch_failed();
            assert_eq!(pause(), expected);
        }
        batching.batch_answered();
        batching.batch_failed();
        assert_eq!(pause(), 8);
    }

    #[test]
    fn a_limit_that_is_no_power_of_two_is_kept() {
        let batching = batching(Duration::ZERO);
        for _ in 0..100 {
            let entries = batching.limit();
            assert!(entries <= 6);
            batching.ran(Run {
                entries,
                bytes: entries as u64 * 64,
                took: Duration::from_millis(1),
            });
        }
        assert_eq!(batching.report(), BatchingReport::On { max_entries: 6, entries: 6 });
        assert!(batching.give_up("it lies".to_owned()));
        assert!(!batching.give_up("it lies again".to_owned()));
        assert_eq!(batching.limit(), 1);
        assert_eq!(batching.report(), BatchingReport::Off { reason: "it lies".to_owned() });
    }
}
