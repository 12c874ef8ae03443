//! How long requests took, in counts by duration: cheap to add to from many threads, exact to within
//! a sixteenth.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::tally;

/// Every power of two of microseconds is divided into so many buckets.
const PARTS: u64 = 16;

/// Up to 2^32 microseconds, which is over an hour; what takes longer counts as that.
const BUCKETS: usize = 16 * 30;

/// Durations as they come. The counts take 4 KB, which a version that is never asked does without.
#[derive(Debug, Default)]
pub(super) struct Latencies(OnceLock<Box<[AtomicU64]>>);

/// Durations that came until some moment, or between two.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LatencyCounts(Vec<u64>);

impl Latencies {
    pub(super) fn add(&self, duration: Duration) {
        let none = || (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        self.0.get_or_init(none)[bucket(duration)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> LatencyCounts {
        let counts = self.0.get().into_iter().flatten();
        LatencyCounts(counts.map(|count| count.load(Ordering::Relaxed)).collect())
    }
}

impl LatencyCounts {
    /// What came after `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let before = earlier.0.iter().copied().chain(std::iter::repeat(0));
        Self(self.0.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect())
    }

    pub(super) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The duration that this share of all does not exceed, from 0 to 1, rounded up to a bucket's
    /// end; `None` when there are none.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a rank lies between 0 and the total, and nobody counts to 2^52"
    )]
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = ((self.total() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let place = self.0.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(end(place))
    }

    /// The same by coarser buckets, each of which is made of some of these.
    pub(super) fn buckets(&self) -> [u64; tally::BUCKETS] {
        let mut coarse = [0; tally::BUCKETS];
        for (place, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            coarse[tally::bucket(begin(place))] += count;
        }
        coarse
    }

    /// How many took longer than that, by the buckets that begin there or later.
    pub(super) fn above(&self, duration: Duration) -> u64 {
        self.0.iter().skip(bucket(duration) + 1).sum()
    }
}

/// Below 16 microseconds each has a bucket of its own; from there on, the four bits after the first
/// say which.
fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    if micros < PARTS {
        return usize::try_from(micros).expect("it is below 16");
    }
    let power = micros.ilog2();
    let part = (micros >> (power - 4)) - PARTS;
    let place = u64::from(power - 3) * PARTS + part;
    usize::try_from(place).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The first duration of a bucket.
fn begin(place: usize) -> Duration {
    place.checked_sub(1).map_or(Duration::ZERO, end)
}

/// The first duration that is beyond a bucket.
fn end(place: usize) -> Duration {
    let place = place as u64 + 1;
    if place <= PARTS {
        return Duration::from_micros(place);
    }
    let (power, part) = (place / PARTS + 3, place % PARTS);
    Duration::from_micros((PARTS + part) << (power - 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn every_duration_is_in_the_bucket_that_ends_after_it() {
        for exact in (0..5_000).chain([1 << 20, (1 << 31) - 1, 123_456_789]) {
            let place = bucket(micros(exact));
            assert!(end(place) > micros(exact), "{exact}");
            assert!(place == 0 || end(place - 1) <= micros(exact), "{exact}");
            assert!(end(place) <= micros(exact + exact / 16 + 1), "{exact}");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn coarser_buckets_are_made_of_whole_ones() {
        let ends: Vec<Duration> = (0..BUCKETS).map(end).collect();
        assert!(tally::bounds().iter().all(|bound| ends.contains(bound)));
        let latencies = Latencies::default();
        for exact in [0, 15, 16, 31, 40_000, 1 << 31] {
            latencies.add(micros(exact));
        }
        let mut expected = [0; tally::BUCKETS];
        for exact in [0, 15, 16, 31, 40_000, 1 << 31] {
            expected[tally::bucket(micros(exact))] += 1;
        }
        assert_eq!(latencies.counts().buckets(), expected);
    }

    #[test]
    fn quantiles_and_what_is_above() {
        let latencies = Latencies::default();
        assert_eq!(latencies.counts().quantile(0.5), None);
        assert!(latencies.0.get().is_none(), "who is never asked has no counts");
        for exact in 1..=100 {
            latencies.add(micros(exact * 100));
        }
        let counts = latencies.counts();
        let near = |share: f64, exact: u64| {
            let found = counts.quantile(share).unwrap();
            assert!(found > micros(exact) && found <= micros(exact + exact / 16 + 1), "{found:?}");
        };
        near(0.5, 5_000);
        near(0.99, 9_900);
        near(0.0, 100);
        assert_eq!(counts.above(micros(10_000)), 0);
        assert!(counts.above(micros(9_000)).abs_diff(10) <= 5);
        latencies.add(micros(7));
        let fresh = latencies.counts().since(&counts);
        assert_eq!((fresh.total(), fresh.quantile(0.99)), (1, Some(micros(8))));
    }
}
