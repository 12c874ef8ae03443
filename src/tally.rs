//! Counts that many threads add to without a lock, and that are read whenever somebody asks.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The end of the first bucket, in microseconds. Each of the others is twice as long as the one before.
const FIRST: u64 = 16;

/// Buckets with an end, up to 33.6 s.
pub const BOUNDED: usize = 22;

/// All buckets: the last has what took longer.
pub const BUCKETS: usize = BOUNDED + 1;

/// The ends of the buckets, the shortest first; the last bucket has none.
pub fn bounds() -> [Duration; BOUNDED] {
    array::from_fn(|place| Duration::from_micros(FIRST << place))
}

/// The bucket of a duration: the first that ends after it.
pub(crate) fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let power = (micros / FIRST).checked_ilog2().map_or(0, |power| power + 1);
    usize::try_from(power).unwrap_or(BOUNDED).min(BOUNDED)
}

/// How many durations fell into each bucket.
#[derive(Debug)]
pub(crate) struct Buckets([AtomicU64; BUCKETS]);

/// Durations by their buckets, and all of them together, which is beside the first of these: what many threads count
/// is to be in as few lines of their caches as possible.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Durations {
    nanoseconds: AtomicU64,
    buckets: Buckets,
}

/// Durations, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DurationsReport {
    /// How many fell into each bucket.
    pub buckets: [u64; BUCKETS],
    /// All of them together.
    pub total: Duration,
}

/// How often something was done, by what came of it, and how long it took. Of few results, what is counted is in one line
/// of the cache, where that is quick.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Calls<const RESULTS: usize> {
    results: [AtomicU64; RESULTS],
    durations: Durations,
}

/// The same, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallsReport<const RESULTS: usize> {
    /// How often, by what came of it.
    pub results: [u64; RESULTS],
    /// How long it took.
    pub durations: DurationsReport,
}

impl Default for Buckets {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Buckets {
    pub(crate) fn add(&self, duration: Duration) {
        self.0[bucket(duration)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> [u64; BUCKETS] {
        array::from_fn(|place| self.0[place].load(Ordering::Relaxed))
    }
}

impl Durations {
    /// Counts one.
    pub fn add(&self, duration: Duration) {
        self.buckets.add(duration);
        self.nanoseconds.fetch_add(nanoseconds(duration), Ordering::Relaxed);
    }

    /// What there is by now.
    pub fn read(&self) -> DurationsReport {
        let total = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed));
        DurationsReport { buckets: self.buckets.read(), total }
    }
}

impl DurationsReport {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.buckets.iter_mut().zip(other.buckets) {
            *count += more;
        }
        self.total += other.total;
    }
}

impl<const RESULTS: usize> Default for Calls<RESULTS> {
    fn default() -> Self {
        let results = array::from_fn(|_| AtomicU64::new(0));
        Self { results, durations: Durations::default() }
    }
}

impl<const RESULTS: usize> Calls<RESULTS> {
    /// Counts one. A result that there is none of is the last.
    pub fn add(&self, result: usize, took: Duration) {
        self.results[result.min(RESULTS - 1)].fetch_add(1, Ordering::Relaxed);
        self.durations.add(took);
    }

    /// What there is by now; `None` before the first.
    pub fn read(&self) -> Option<CallsReport<RESULTS>> {
        let results = array::from_fn(|place| self.results[place].load(Ordering::Relaxed));
        let is_used = results.iter().any(|count| *count > 0);
        is_used.then(|| CallsReport { results, durations: self.durations.read() })
    }
}

/// A duration as a counter has it.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_ends_after_it() {
        let bounds = bounds();
        for (place, end) in bounds.iter().enumerate() {
            assert_eq!(bucket(end.saturating_sub(Duration::from_micros(1))), place);
            assert_eq!(bucket(*end), place + 1);
        }
        assert_eq!((bucket(Duration::ZERO), bucket(Duration::MAX)), (0, BOUNDED));
    }

    #[test]
    fn what_is_counted_can_be_read_and_added() {
        let durations = Durations::default();
        durations.add(Duration::from_micros(3));
        durations.add(Duration::from_mins(1));
        let mut report = durations.read();
        assert_eq!((report.count(), report.buckets[0], report.buckets[BOUNDED]), (2, 1, 1));
        report.add(&durations.read());
        assert_eq!((report.count(), report.total), (4, Duration::from_micros(120_000_006)));
    }

    #[test]
    fn calls_are_told_of_once_there_were_some() {
        let calls = Calls::<3>::default();
        assert_eq!(calls.read(), None);
        calls.add(1, Duration::from_millis(1));
        calls.add(9, Duration::from_millis(2));
        let report = calls.read().unwrap();
        assert_eq!((report.results, report.durations.count()), ([0, 1, 1], 2));
    }
}
