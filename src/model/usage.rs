//! What a version has done so far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Counters that requests bump without a lock.
#[derive(Debug)]
pub(super) struct Usage {
    epoch: Instant,
    epoch_at: SystemTime,
    requests: AtomicU64,
    failures: AtomicU64,
    /// Microseconds after `epoch`, plus one; zero for never.
    last_access: AtomicU64,
}

/// A version's use, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageReport {
    /// Requests that came to an end, failures included.
    pub requests: u64,
    /// Requests that got no answer.
    pub failures: u64,
    /// When the last one came to an end.
    pub last_access: Option<SystemTime>,
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            epoch_at: SystemTime::now(),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last_access: AtomicU64::new(0),
        }
    }
}

impl Usage {
    pub(super) fn count(&self, failed: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let now = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.last_access.store(now + 1, Ordering::Relaxed);
    }

    pub(super) fn report(&self) -> UsageReport {
        let last = self.last_access.load(Ordering::Relaxed).checked_sub(1);
        UsageReport {
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            last_access: last.map(|micros| self.epoch_at + Duration::from_micros(micros)),
        }
    }
}
