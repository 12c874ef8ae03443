//! The time between attempts.

use std::time::Duration;

/// How long to wait before a failed initialisation is tried again: twice as long each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// At most.
    pub most: Duration,
}

impl Default for Backoff {
    /// From 100 milliseconds to 30 seconds.
    fn default() -> Self {
        Self { first: Duration::from_millis(100), most: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The time after so many failures in a row, of which a share from 0 to 1 takes up to half off.
    pub(crate) fn delay(self, failures: u32, share: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.first.saturating_mul(1 << doublings).min(self.most);
        full.mul_f64(1.0 - share / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_chance_takes_half_off() {
        let second = Duration::from_secs(1);
        let backoff = Backoff { first: second, most: 5 * second };
        let delays = [0, 1, 2, 3, 4, 99].map(|failures| backoff.delay(failures, 0.0).as_secs());
        assert_eq!(delays, [1, 1, 2, 4, 5, 5]);
        assert_eq!(backoff.delay(2, 1.0), second);
    }
}
