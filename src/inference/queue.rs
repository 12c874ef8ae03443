//! A bounded queue between async callers and the threads that own instances.

use std::collections::VecDeque;
use std::mem;
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
///
/// Only what waits counts against the capacity: an item that an idle consumer is about to take has a
/// place beside it.
pub(super) struct BoundedQueue<T> {
    capacity: usize,
    state: Mutex<State<T>>,
    available: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    /// Consumers that work on no item.
    idle: usize,
    closed: bool,
}

impl<T> BoundedQueue<T> {
    pub(super) fn new(capacity: usize, consumers: usize) -> Self {
        let state = State { items: VecDeque::new(), idle: consumers, closed: false };
        Self { capacity, state: Mutex::new(state), available: Condvar::new() }
    }

    /// Adds an item, or refuses it at once. In a full queue, items that are `dead` make room.
    pub(super) fn push(&self, item: T, dead: impl Fn(&T) -> bool) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        let room = self.capacity.saturating_add(state.idle);
        let full = state.items.len() >= room;
        let buried = if full { state.bury(dead) } else { VecDeque::new() };
        if state.items.len() >= room {
            return Err(Refused::Full);
        }
        state.items.push_back(item);
        drop(state);
        self.available.notify_one();
        // Only now: dropping an item may take long.
        drop(buried);
        Ok(())
    }

    /// Waits for an item; `None` once the queue is closed and empty. Each item needs one
    /// [`BoundedQueue::done`].
    pub(super) fn pop(&self) -> Option<T> {
        let idle = |state: &mut State<T>| state.items.is_empty() && !state.closed;
        let mut state =
            self.available.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let item = state.items.pop_front()?;
        state.idle -= 1;
        Some(item)
    }

    /// A consumer has done with an item.
    pub(super) fn done(&self) {
        self.lock().idle += 1;
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

impl<T> State<T> {
    /// Takes the dead out.
    fn bury(&mut self, dead: impl Fn(&T) -> bool) -> VecDeque<T> {
        if !self.items.iter().any(&dead) {
            return VecDeque::new();
        }
        let (buried, alive) = mem::take(&mut self.items).into_iter().partition(dead);
        self.items = alive;
        buried
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(queue: &BoundedQueue<u8>, item: u8) -> Result<(), Refused> {
        queue.push(item, |_| false)
    }

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_hands_out_the_rest() {
        let queue = BoundedQueue::new(2, 0);
        assert_eq!(add(&queue, 1), Ok(()));
        assert_eq!(add(&queue, 2), Ok(()));
        assert_eq!(add(&queue, 3), Err(Refused::Full));
        queue.close();
        assert_eq!(add(&queue, 4), Err(Refused::Closed));
        queue.lock().idle = 2;
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(1), Some(2), None));
    }

    #[test]
    fn what_an_idle_consumer_will_take_does_not_wait() {
        let queue = BoundedQueue::new(1, 1);
        assert_eq!(add(&queue, 1), Ok(()));
        assert_eq!(add(&queue, 2), Ok(()));
        assert_eq!(add(&queue, 3), Err(Refused::Full));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(add(&queue, 3), Err(Refused::Full), "the consumer works, 2 waits");
        queue.done();
        assert_eq!(add(&queue, 3), Ok(()));
    }

    #[test]
    fn the_dead_make_room_once_the_queue_is_full() {
        let queue = BoundedQueue::new(3, 1);
        assert!([1, 2, 3, 4].iter().all(|item| add(&queue, *item).is_ok()));
        assert_eq!(queue.push(5, |item| *item % 2 == 0), Ok(()));
        assert_eq!((queue.len(), queue.pop()), (3, Some(1)));
    }

    #[test]
    fn closing_wakes_every_waiting_consumer() {
        let queue = BoundedQueue::<()>::new(1, 4);
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..4).map(|_| scope.spawn(|| queue.pop())).collect();
            queue.close();
            for consumer in waiting {
                assert_eq!(consumer.join().unwrap(), None);
            }
        });
    }
}
