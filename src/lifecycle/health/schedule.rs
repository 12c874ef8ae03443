//! When a check runs.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The most by which a first run is put off.
const LONGEST_START: Duration = Duration::from_secs(1);

/// The part of an interval that chance decides.
const PLAY: u32 = 10;

/// The shortest interval: a schedule without pauses would leave no time for anything else.
const SHORTEST: Duration = Duration::from_millis(1);

/// What keeps the schedules of checks apart, so that many checks do not run at the same instant.
///
/// A check's first run comes up to a tenth of its interval after it was registered, but at most a
/// second. Each further run comes up to a tenth of the interval early, never late.
#[derive(Clone)]
pub struct Jitter(Arc<dyn Fn() -> f64 + Send + Sync>);

impl Jitter {
    /// Another share each time.
    pub fn random() -> Self {
        // The standard library seeds it at random.
        let (state, calls) = (RandomState::new(), AtomicU64::new(0));
        Self::from_fn(move || unit(state.hash_one(calls.fetch_add(1, Ordering::Relaxed))))
    }

    /// Shares between 0 and 1 from a function: of the time by which a run may be moved.
    ///
    /// ```
    /// use onward::lifecycle::Jitter;
    ///
    /// // The same schedule in every run of a test.
    /// let jitter = Jitter::from_fn(|| 0.5);
    /// ```
    pub fn from_fn(share: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(share))
    }

    /// Runs at once, and exactly at the interval.
    pub fn none() -> Self {
        Self::from_fn(|| 0.0)
    }

    /// The time before the first run.
    pub(super) fn start(&self, interval: Duration) -> Duration {
        (interval / PLAY).min(LONGEST_START).mul_f64(self.share())
    }

    /// The time from the start of a run to the start of the next.
    pub(super) fn pause(&self, interval: Duration) -> Duration {
        interval.saturating_sub((interval / PLAY).mul_f64(self.share())).max(SHORTEST)
    }

    /// A share from 0 to 1.
    pub(in crate::lifecycle) fn share(&self) -> f64 {
        let share = (self.0)();
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }
}

/// A number from 0 to 1 out of the upper bits, as many as it can hold exactly.
#[expect(clippy::cast_precision_loss, reason = "both have 53 bits at most")]
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

impl fmt::Debug for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jitter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_early_never_late() {
        let (second, day) = (Duration::from_secs(1), Duration::from_hours(24));
        for (share, start, pause) in [
            (0.0, Duration::ZERO, second),
            (0.5, Duration::from_millis(50), Duration::from_millis(950)),
            (1.0, Duration::from_millis(100), Duration::from_millis(900)),
            (7.0, Duration::from_millis(100), Duration::from_millis(900)),
            (-1.0, Duration::ZERO, second),
            (f64::NAN, Duration::ZERO, second),
        ] {
            let jitter = Jitter::from_fn(move || share);
            assert_eq!((jitter.start(second), jitter.pause(second)), (start, pause), "{share}");
        }
        assert_eq!(Jitter::from_fn(|| 1.0).start(day), second);
        assert_eq!(Jitter::none().pause(Duration::ZERO), SHORTEST);
    }

    #[test]
    fn chance_gives_shares_that_differ() {
        let jitter = Jitter::random();
        let mut shares: Vec<f64> = (0..1000).map(|_| jitter.share()).collect();
        shares.sort_by(f64::total_cmp);
        shares.dedup();
        assert_eq!(shares.len(), 1000);
        assert!(shares[0] >= 0.0 && shares[999] < 1.0);
        assert!(shares[100] < 0.25 && shares[900] > 0.75, "they are not spread: {shares:?}");
    }
}
