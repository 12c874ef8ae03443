//! One point in time that several steps share, so that their waits never add up.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

/// Between two lines on what is waited for.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The moment by which a sequence of steps must be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(Instant);

impl Deadline {
    /// `timeout` from now. A timeout too long to represent ends in about a hundred years.
    pub fn after(timeout: Duration) -> Self {
        let now = Instant::now();
        let far = || now + Duration::from_hours(100 * 365 * 24);
        Self(now.checked_add(timeout).unwrap_or_else(far))
    }

    /// The moment itself.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The earlier of this deadline and `timeout` from now.
    #[must_use]
    pub fn at_most(self, timeout: Duration) -> Self {
        Self(self.0.min(Self::after(timeout).0))
    }

    /// Waits for `future`; `None` when the deadline comes first, and then `future` is dropped.
    pub async fn bound<F: Future>(self, future: F) -> Option<F::Output> {
        timeout_at(self.0, future).await.ok()
    }
}

/// Waits for `future`, and calls `tell` every few seconds until it is done.
pub async fn telling<F: Future>(future: F, tell: impl Fn()) -> F::Output {
    let mut future = pin!(future);
    loop {
        match timeout(TELL_EVERY, future.as_mut()).await {
            Ok(result) => return result,
            Err(_) => tell(),
        }
    }
}
