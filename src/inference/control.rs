//! What a caller and an engine tell each other of a run: that it is cancelled, and how far it has come.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::time::Instant;

/// Stops one run that is under way.
pub trait Terminate: Send + Sync {
    /// Called at most once for each [`RunControl`] that is armed with it.
    fn terminate(&self);
}

impl<F: Fn() + Send + Sync> Terminate for F {
    fn terminate(&self) {
        self();
    }
}

/// What stops it.
pub type Terminator = Arc<dyn Terminate>;

/// The caller's hold on one run: cancelled when its deadline has passed or its client has gone.
///
/// A backend that can interrupt a run gives a [`Terminator`] with [`RunControl::arm`]; it is called
/// once, whichever of arming and cancelling comes first.
#[derive(Default)]
pub struct RunControl {
    state: Mutex<State>,
    computing: OnceLock<Instant>,
    computed: OnceLock<Instant>,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Armed(Terminator),
    Cancelled,
}

impl RunControl {
    /// Cancels the run: it is skipped if it has not begun, and interrupted if it can be.
    pub fn cancel(&self) {
        let previous = mem::replace(&mut *self.lock(), State::Cancelled);
        if let State::Armed(terminator) = previous {
            terminator.terminate();
        }
    }

    /// Whether [`RunControl::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.lock(), State::Cancelled)
    }

    /// Lets a cancellation interrupt the run until the returned guard is dropped. If the run is
    /// cancelled already, the `terminator` is called at once.
    #[must_use = "the run cannot be interrupted after the guard is dropped"]
    pub fn arm(&self, terminator: Terminator) -> Armed<'_> {
        let mut state = self.lock();
        if matches!(*state, State::Cancelled) {
            drop(state);
            terminator.terminate();
        } else {
            *state = State::Armed(terminator);
        }
        Armed(self)
    }

    /// Told by an engine that has its inputs, and begins to compute. It need not tell.
    pub fn computing(&self) {
        self.computing.get_or_init(Instant::now);
    }

    /// Told by an engine that has computed, and goes on to read the outputs. It need not tell.
    pub fn computed(&self) {
        self.computed.get_or_init(Instant::now);
    }

    /// When it was computing, and when it had computed, where the engine has told.
    pub(super) fn steps(&self) -> (Option<Instant>, Option<Instant>) {
        (self.computing.get().copied(), self.computed.get().copied())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RunControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunControl").field("cancelled", &self.is_cancelled()).finish()
    }
}

/// Disarms its [`RunControl`] when dropped.
#[derive(Debug)]
pub struct Armed<'a>(&'a RunControl);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if matches!(*state, State::Armed(_)) {
            *state = State::Idle;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn counter() -> (Arc<AtomicUsize>, Terminator) {
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        let count = move || {
            seen.fetch_add(1, Ordering::SeqCst);
        };
        (calls, Arc::new(count))
    }

    #[test]
    fn cancelling_terminates_an_armed_run_once() {
        let control = RunControl::default();
        let (calls, terminate) = counter();
        let armed = control.arm(terminate);
        control.cancel();
        control.cancel();
        drop(armed);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(control.is_cancelled());
    }

    #[test]
    fn arming_a_cancelled_run_terminates_it_at_once() {
        let control = RunControl::default();
        control.cancel();
        let (calls, terminate) = counter();
        let _armed = control.arm(terminate);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_finished_run_is_not_terminated() {
        let control = RunControl::default();
        let (calls, terminate) = counter();
        drop(control.arm(terminate));
        control.cancel();
        assert_eq!(calls.load(Ordering::SeqCst), 0);
    }
}
