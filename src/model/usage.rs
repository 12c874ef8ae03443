//! What a version has done so far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::latency::{Latencies, LatencyCounts};
use super::runner::Runner;
use crate::inference::{InferError, RunError, RunsReport, Timings};

/// Counters that requests bump without a lock.
#[derive(Debug)]
pub(super) struct Usage {
    epoch: Instant,
    epoch_at: SystemTime,
    requests: AtomicU64,
    failures: AtomicU64,
    faults: AtomicU64,
    /// Of requests that were run and answered.
    latencies: Latencies,
    work: Work,
    /// Microseconds after `epoch`, plus one; zero for never.
    last_access: AtomicU64,
}

/// What became of requests, and where their time went.
#[derive(Debug, Default)]
struct Work {
    inferences: AtomicU64,
    success: Total,
    failure: Total,
    queue: Total,
}

/// How often something happened, and how many nanoseconds it took in all.
#[derive(Debug, Default)]
pub(super) struct Total {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Total {
    pub(super) fn add(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Spent {
        let total = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed));
        Spent { count: self.count.load(Ordering::Relaxed), total }
    }
}

/// How often something happened, and how long it took in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// How often.
    pub count: u64,
    /// How long in all.
    pub total: Duration,
}

/// What a version has worked on, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkReport {
    /// Inferences that were answered: a request with a batch has as many as that has entries.
    pub inferences: u64,
    /// Requests that were answered, from their beginning to their end.
    pub success: Spent,
    /// Requests that were not.
    pub failure: Spent,
    /// Of those that were answered, the wait for an instance.
    pub queue: Spent,
    /// The runs that gave answers; several requests may share one.
    pub runs: RunsReport,
    /// The same by the size of their batch, the smallest first. Of very many sizes, these are the first that
    /// there were.
    pub batches: Vec<(u64, RunsReport)>,
}

/// A version's use, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageReport {
    /// Requests that came to an end, failures included.
    pub requests: u64,
    /// Requests that got no answer.
    pub failures: u64,
    /// When the last one came to an end.
    pub last_access: Option<SystemTime>,
    /// How long requests took that were run and answered; `None` when none was.
    pub latency: Option<LatencyReport>,
    /// What became of requests, and where their time went.
    pub work: WorkReport,
}

/// Quantiles of durations, exact to within a sixteenth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencyReport {
    /// Half of the requests took no longer.
    pub p50: Duration,
    /// Nine of ten took no longer.
    pub p90: Duration,
    /// Ninety-nine of a hundred took no longer.
    pub p99: Duration,
}

/// What counts when a version is judged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Requests that were run and answered, or failed by the version's fault.
    pub(super) judged: u64,
    /// Those that failed by its fault.
    pub(super) faults: u64,
    pub(super) latencies: LatencyCounts,
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            epoch_at: SystemTime::now(),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            latencies: Latencies::default(),
            work: Work::default(),
            last_access: AtomicU64::new(0),
        }
    }
}

impl Usage {
    /// Counts a request with a batch of so many that was answered; without timings where its answer had been
    /// kept, which tells nothing of how the version runs.
    pub(super) fn answered(&self, total: Duration, (timings, batch): (Option<Timings>, u64)) {
        self.work.inferences.fetch_add(batch, Ordering::Relaxed);
        self.work.success.add(total);
        if let Some(timings) = timings {
            self.latencies.add(total);
            self.work.queue.add(timings.queue);
        }
        self.ended();
    }

    /// Counts one that was not; `error` is `None` when its caller has gone.
    pub(super) fn failed(&self, total: Duration, error: Option<&InferError>) {
        self.work.failure.add(total);
        self.failures.fetch_add(1, Ordering::Relaxed);
        if error.is_some_and(is_fault) {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
        self.ended();
    }

    /// Counts one that was refused for what its caller has sent.
    pub(super) fn refused(&self) {
        self.failed(Duration::ZERO, None);
    }

    fn ended(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let now = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.last_access.store(now + 1, Ordering::Relaxed);
    }

    /// How long no request has come to an end; since the version was made where none ever has.
    pub(super) fn idle(&self) -> Duration {
        let last = self.last_access.load(Ordering::Relaxed).saturating_sub(1);
        self.epoch.elapsed().saturating_sub(Duration::from_micros(last))
    }

    pub(super) fn tally(&self) -> Tally {
        let (faults, latencies) = (self.faults.load(Ordering::Relaxed), self.latencies.counts());
        Tally { judged: faults + latencies.total(), faults, latencies }
    }

    /// With what `runner` has run for it.
    pub(super) fn report(&self, runner: &Runner) -> UsageReport {
        let last = self.last_access.load(Ordering::Relaxed).checked_sub(1);
        let counts = self.latencies.counts();
        let at = |share| counts.quantile(share);
        let latency = at(0.5).zip(at(0.9)).zip(at(0.99));
        UsageReport {
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            last_access: last.map(|micros| self.epoch_at + Duration::from_micros(micros)),
            latency: latency.map(|((p50, p90), p99)| LatencyReport { p50, p90, p99 }),
            work: self.work.report(runner),
        }
    }
}

impl Work {
    fn report(&self, runner: &Runner) -> WorkReport {
        WorkReport {
            inferences: self.inferences.load(Ordering::Relaxed),
            success: self.success.read(),
            failure: self.failure.read(),
            queue: self.queue.read(),
            runs: runner.runs(),
            batches: runner.runs_by_size(),
        }
    }
}

impl Tally {
    /// What came after `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            judged: self.judged.saturating_sub(earlier.judged),
            faults: self.faults.saturating_sub(earlier.faults),
            latencies: self.latencies.since(&earlier.latencies),
        }
    }
}

/// Whether a request failed by the fault of the version, not of its caller. A caller cannot know what
/// only the graph refuses.
fn is_fault(error: &InferError) -> bool {
    !matches!(error.root(), InferError::Input(_) | InferError::Run(RunError::Cancelled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_were_kept_prove_nothing_of_a_version() {
        let usage = Usage::default();
        usage.answered(Duration::from_micros(1), (None, 3));
        assert_eq!(usage.tally(), Usage::default().tally());
        assert_eq!(usage.work.inferences.load(Ordering::Relaxed), 3);
        usage.answered(Duration::from_millis(1), (Some(Timings::default()), 1));
        assert_eq!(usage.tally().judged, 1);
        assert_eq!(usage.requests.load(Ordering::Relaxed), 2);
    }
}
