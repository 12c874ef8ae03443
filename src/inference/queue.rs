//! A bounded queue between async callers and the threads that own instances.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Why an item was not taken; it is given back by being dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// As many items as the capacity are waiting.
    Full,
    /// The queue was closed.
    Closed,
}

/// First in, first out; many producers that never block, many consumers that do.
pub(super) struct BoundedQueue<T> {
    capacity: usize,
    state: Mutex<State<T>>,
    available: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> BoundedQueue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        let state = State { items: VecDeque::new(), closed: false };
        Self { capacity, state: Mutex::new(state), available: Condvar::new() }
    }

    /// Adds an item, or refuses it at once.
    pub(super) fn push(&self, item: T) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.items.len() >= self.capacity {
            return Err(Refused::Full);
        }
        state.items.push_back(item);
        drop(state);
        self.available.notify_one();
        Ok(())
    }

    /// Waits for an item; `None` once the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<T> {
        let idle = |state: &mut State<T>| state.items.is_empty() && !state.closed;
        let mut state =
            self.available.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        state.items.pop_front()
    }

    /// Refuses new items; those that wait are still handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.available.notify_all();
    }

    /// How many items wait.
    pub(super) fn len(&self) -> usize {
        self.lock().items.len()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_hands_out_the_rest() {
        let queue = BoundedQueue::new(2);
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.push(2), Ok(()));
        assert_eq!(queue.push(3), Err(Refused::Full));
        queue.close();
        assert_eq!(queue.push(4), Err(Refused::Closed));
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(1), Some(2), None));
    }

    #[test]
    fn closing_wakes_every_waiting_consumer() {
        let queue = BoundedQueue::<()>::new(1);
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..4).map(|_| scope.spawn(|| queue.pop())).collect();
            queue.close();
            for consumer in waiting {
                assert_eq!(consumer.join().unwrap(), None);
            }
        });
    }
}
