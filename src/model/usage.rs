//! What a version has done so far.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::latency::{Latencies, LatencyCounts};
use super::observer::{Outcome, Protocol};
use crate::inference::{InferError, RunCounts, RunError, RunsReport, StagesReport, Timings};
use crate::tally::{Buckets, Durations, DurationsReport, nanoseconds};

/// Requests by [`Protocol`] and then by [`Outcome`], each in the order of its `ALL`.
pub type Outcomes = [[u64; Outcome::ALL.len()]; Protocol::ALL.len()];

/// Counters that requests bump without a lock.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Usage {
    /// First, beside the counts of who shares it.
    work: Work,
    epoch: Instant,
    epoch_at: SystemTime,
    outcomes: [[AtomicU64; Outcome::ALL.len()]; Protocol::ALL.len()],
    faults: AtomicU64,
    /// Of requests that were run and answered.
    latencies: Latencies,
    /// Of all others.
    others: Buckets,
    runs: Arc<RunCounts>,
}

/// Where the time of requests went. What each of them changes here is side by side, unless it has waited for long.
#[derive(Debug, Default)]
#[repr(C)]
struct Work {
    inferences: AtomicU64,
    /// Microseconds after the epoch when the last came to an end, plus one; zero for never.
    last_access: AtomicU64,
    /// In nanoseconds.
    success: AtomicU64,
    failure: AtomicU64,
    queue: Durations,
}

/// What a version has done, also once it is gone, for whoever counts. Clones read the same.
#[derive(Debug, Clone)]
pub struct UsageReader(Arc<Usage>);

impl UsageReader {
    /// All of it by now.
    pub fn read(&self) -> UsageReport {
        self.0.report()
    }
}

/// How often something happened, and how many nanoseconds it took in all.
#[derive(Debug, Default)]
pub(super) struct Total {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Total {
    pub(super) fn add(&self, took: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds(took), Ordering::Relaxed);
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
    /// The runs that are in none of these, and the entries of their batches.
    pub beyond: (u64, u64),
    /// How long runs took.
    pub stages: StagesReport,
}

/// A version's use, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageReport {
    /// Requests that came to an end, failures included.
    pub requests: u64,
    /// Requests that got no answer.
    pub failures: u64,
    /// Requests by what they came over and what became of them.
    pub outcomes: Outcomes,
    /// How long they took.
    pub durations: DurationsReport,
    /// How long those that were run and answered had waited for an instance.
    pub waits: DurationsReport,
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

impl Usage {
    /// Of a version whose runs are counted there.
    pub(super) fn new(runs: &Arc<RunCounts>) -> Arc<Self> {
        Arc::new(Self {
            epoch: Instant::now(),
            epoch_at: SystemTime::now(),
            outcomes: array::from_fn(|_| array::from_fn(|_| AtomicU64::new(0))),
            faults: AtomicU64::new(0),
            latencies: Latencies::default(),
            others: Buckets::default(),
            work: Work::default(),
            runs: Arc::clone(runs),
        })
    }

    pub(super) fn reader(self: &Arc<Self>) -> UsageReader {
        UsageReader(Arc::clone(self))
    }

    /// Counts a request with a batch of so many that was answered; without timings where its answer had been
    /// kept, which tells nothing of how the version runs.
    pub(super) fn answered(
        &self,
        (protocol, total): (Protocol, Duration),
        (timings, batch): (Option<Timings>, u64),
    ) {
        self.work.inferences.fetch_add(batch, Ordering::Relaxed);
        self.work.success.fetch_add(nanoseconds(total), Ordering::Relaxed);
        match timings {
            Some(timings) => {
                self.latencies.add(total);
                self.work.queue.add(timings.queue);
            }
            None => self.others.add(total),
        }
        self.ended(protocol, Outcome::Success);
    }

    /// Counts one that was not; `error` is `None` when its caller has gone.
    pub(super) fn failed(
        &self,
        (protocol, total): (Protocol, Duration),
        error: Option<&InferError>,
    ) {
        if error.is_some_and(is_fault) {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
        self.ended_without((protocol, total), error.map_or(Outcome::Cancelled, Outcome::from));
    }

    /// Counts one that was refused for what its caller has sent.
    pub(super) fn refused(&self, protocol: Protocol) {
        self.ended_without((protocol, Duration::ZERO), Outcome::Invalid);
    }

    fn ended_without(&self, (protocol, total): (Protocol, Duration), outcome: Outcome) {
        self.work.failure.fetch_add(nanoseconds(total), Ordering::Relaxed);
        self.others.add(total);
        self.ended(protocol, outcome);
    }

    fn ended(&self, protocol: Protocol, outcome: Outcome) {
        self.outcomes[protocol as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
        let now = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.work.last_access.store(now + 1, Ordering::Relaxed);
    }

    /// How long no request has come to an end; since the version was made where none ever has.
    pub(super) fn idle(&self) -> Duration {
        let last = self.work.last_access.load(Ordering::Relaxed).saturating_sub(1);
        self.epoch.elapsed().saturating_sub(Duration::from_micros(last))
    }

    pub(super) fn tally(&self) -> Tally {
        let (faults, latencies) = (self.faults.load(Ordering::Relaxed), self.latencies.counts());
        Tally { judged: faults + latencies.total(), faults, latencies }
    }

    pub(super) fn report(&self) -> UsageReport {
        let last = self.work.last_access.load(Ordering::Relaxed).checked_sub(1);
        let counts = self.latencies.counts();
        let at = |share| counts.quantile(share);
        let latency = at(0.5).zip(at(0.9)).zip(at(0.99));
        let outcomes: Outcomes =
            array::from_fn(|protocol| self.outcomes[protocol].each_ref().map(read));
        let of = |outcome: Outcome| outcomes.iter().map(|counts| counts[outcome as usize]).sum();
        let (requests, success) = (outcomes.iter().flatten().sum(), of(Outcome::Success));
        let work = self.work(success, requests - success);
        let mut durations = DurationsReport {
            buckets: self.others.read(),
            total: work.success.total + work.failure.total,
        };
        durations.add(&DurationsReport { buckets: counts.buckets(), total: Duration::ZERO });
        UsageReport {
            requests,
            failures: requests - success,
            outcomes,
            durations,
            waits: self.work.queue.read(),
            last_access: last.map(|micros| self.epoch_at + Duration::from_micros(micros)),
            latency: latency.map(|((p50, p90), p99)| LatencyReport { p50, p90, p99 }),
            work,
        }
    }

    fn work(&self, success: u64, failure: u64) -> WorkReport {
        let waits = self.work.queue.read();
        let spent =
            |count, total: &AtomicU64| Spent { count, total: Duration::from_nanos(read(total)) };
        WorkReport {
            inferences: read(&self.work.inferences),
            success: spent(success, &self.work.success),
            failure: spent(failure, &self.work.failure),
            queue: Spent { count: waits.count(), total: waits.total },
            runs: self.runs.total(),
            batches: self.runs.by_size(),
            beyond: self.runs.beyond(),
            stages: self.runs.stages(),
        }
    }
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
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
        let usage = Usage::new(&Arc::default());
        let took = |micros| (Protocol::Http, Duration::from_micros(micros));
        usage.answered(took(1), (None, 3));
        assert_eq!(usage.tally(), Usage::new(&Arc::default()).tally());
        assert_eq!(usage.work.inferences.load(Ordering::Relaxed), 3);
        usage.answered(took(1_000), (Some(Timings::default()), 1));
        assert_eq!(usage.tally().judged, 1);
        let report = usage.report();
        assert_eq!((report.requests, report.failures, report.durations.count()), (2, 0, 2));
        assert_eq!(report.durations.total, Duration::from_micros(1_001));
    }

    #[test]
    fn requests_are_told_apart_by_what_they_came_over() {
        let usage = Usage::new(&Arc::default());
        usage.refused(Protocol::Grpc);
        usage.failed(
            (Protocol::Http, Duration::from_millis(1)),
            Some(&InferError::DeadlineExceeded),
        );
        usage.failed((Protocol::Http, Duration::from_millis(1)), None);
        let of = |protocol: Protocol, outcome: Outcome| {
            usage.report().outcomes[protocol as usize][outcome as usize]
        };
        assert_eq!(of(Protocol::Grpc, Outcome::Invalid), 1);
        assert_eq!(of(Protocol::Http, Outcome::DeadlineExceeded), 1);
        assert_eq!(of(Protocol::Http, Outcome::Cancelled), 1);
        assert_eq!((usage.tally().faults, usage.report().failures), (1, 3));
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
        for (place, protocol) in Protocol::ALL.into_iter().enumerate() {
            assert_eq!(protocol as usize, place);
        }
    }
}
