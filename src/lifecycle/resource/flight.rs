//! One piece of work at a time: who begins it, and who waits for it to land.

use std::pin::pin;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(loom))]
use tokio::sync::Notify;

#[cfg(loom)]
use super::notify::Notify;

/// Lets one in and has others wait.
///
/// Invariant: between a [`Flight::begin`] that returned `true` and its [`Flight::land`], every other
/// returns `false`; and whoever waits in [`Flight::landed`] is woken by the landing.
#[derive(Debug, Default)]
pub(super) struct Flight {
    busy: AtomicBool,
    landings: Notify,
}

impl Flight {
    /// Whether the caller is the one to do the work; each `true` needs one [`Flight::land`].
    #[must_use]
    pub(super) fn begin(&self) -> bool {
        // Whoever comes too late writes nothing, so that a landing is never written over.
        self.busy.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The work is done; what was written before is seen by those who waited.
    pub(super) fn land(&self) {
        self.busy.store(false, Ordering::Release);
        self.landings.notify_waiters();
    }

    /// Waits until nothing is under way. Cancel safe.
    pub(super) async fn landed(&self) {
        loop {
            let mut landing = pin!(self.landings.notified());
            // Registered before the look, so that a landing in between wakes it.
            landing.as_mut().enable();
            if !self.busy.load(Ordering::Acquire) {
                return;
            }
            landing.await;
        }
    }
}
