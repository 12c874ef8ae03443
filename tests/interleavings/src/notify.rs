//! What the documentation of `tokio::sync::Notify` promises, in terms that loom can follow.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use loom::sync::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Notify {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    notifications: usize,
    waiting: Vec<Waker>,
}

/// Done once there was a notification after it was made.
pub(crate) struct Notified<'a> {
    notify: &'a Notify,
    seen: usize,
}

impl Notify {
    pub(crate) fn notified(&self) -> Notified<'_> {
        Notified { notify: self, seen: self.state.lock().unwrap().notifications }
    }

    pub(crate) fn notify_waiters(&self) {
        let mut state = self.state.lock().unwrap();
        state.notifications += 1;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Notified<'_> {
    /// It receives notifications from its making on already.
    pub(crate) fn enable(self: Pin<&mut Self>) -> bool {
        self.notify.state.lock().unwrap().notifications != self.seen
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.notify.state.lock().unwrap();
        if state.notifications != self.seen {
            return Poll::Ready(());
        }
        state.waiting.push(context.waker().clone());
        Poll::Pending
    }
}
