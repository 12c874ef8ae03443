//! Counts the requests that are inside a version, and closes behind the last.

use std::pin::pin;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use tokio::sync::Notify;

#[cfg(loom)]
use super::notify::Notify;

/// Set once no further request may enter.
const CLOSED: u64 = 1 << 63;

/// An in-flight counter that can be closed.
///
/// Invariant: once [`Gate::close`] has returned, [`Gate::enter`] never succeeds again, and
/// [`Gate::drained`] returns only after every entry was left.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// The number of entries, and [`CLOSED`].
    state: AtomicU64,
    empty: Notify,
}

impl Gate {
    /// Counts a request in; `false` when the gate is closed. Each `true` needs one [`Gate::leave`].
    #[must_use]
    pub(super) fn enter(&self) -> bool {
        let admit = |state: u64| (state & CLOSED == 0).then_some(state + 1);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, admit).is_ok()
    }

    /// Counts a request out.
    pub(super) fn leave(&self) {
        let before = self.state.fetch_sub(1, Ordering::AcqRel);
        if before == CLOSED | 1 {
            self.empty.notify_waiters();
        }
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Waits until a closed gate is empty. Cancel safe.
    pub(super) async fn drained(&self) {
        loop {
            let mut emptied = pin!(self.empty.notified());
            // Registered before the check, so that a last request leaving in between wakes it.
            emptied.as_mut().enable();
            if self.state.load(Ordering::Acquire) == CLOSED {
                return;
            }
            emptied.await;
        }
    }

    /// How many requests are inside.
    pub(super) fn entries(&self) -> u64 {
        self.state.load(Ordering::Acquire) & !CLOSED
    }
}

/// Enters what is current, which may be replaced at any time.
///
/// Who replaces it makes the new one visible before closing the old one's gate, so that a refusal means
/// that `current` was stale, and the next one is another. `None` when there is none, or no longer.
pub(super) fn enter_current<T, H>(
    current: impl Fn() -> Option<T>,
    enter: impl Fn(T) -> Option<H>,
) -> Option<H> {
    loop {
        if let Some(entered) = enter(current()?) {
            return Some(entered);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_closed_gate_admits_nobody_and_drains_with_the_last() {
        let gate = Arc::new(Gate::default());
        assert!(gate.enter());
        assert!(gate.enter());
        gate.close();
        assert!(!gate.enter());
        assert_eq!(gate.entries(), 2);
        let waiting = Arc::clone(&gate);
        let drained = tokio::spawn(async move { waiting.drained().await });
        gate.leave();
        tokio::task::yield_now().await;
        assert!(!drained.is_finished());
        gate.leave();
        drained.await.unwrap();
    }

    #[tokio::test]
    async fn an_empty_gate_is_drained_once_closed() {
        let gate = Gate::default();
        gate.close();
        gate.drained().await;
    }
}
