//! A bounded queue between async callers and what serves them one at a time.

use std::collections::VecDeque;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Why an item was not taken; it is given back by being dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// As many items as the capacity are waiting.
    Full,
    /// The queue was closed.
    Closed,
}

/// First in, first out, for a fixed number of servers: an item leaves together with a server that is
/// idle. Many producers that never block, many consumers that do.
///
/// Only what waits counts against the capacity: an item that an idle server is about to get has a place
/// beside it.
pub(super) struct BoundedQueue<T, S> {
    capacity: usize,
    state: Mutex<State<T, S>>,
    /// Told of each change after which a consumer may go on.
    changed: Condvar,
}

struct State<T, S> {
    items: VecDeque<T>,
    idle: Vec<S>,
    /// Servers that are in use.
    claimed: usize,
    closed: bool,
}

impl<T, S> BoundedQueue<T, S> {
    pub(super) fn new(capacity: usize, servers: Vec<S>) -> Self {
        let state = State { items: VecDeque::new(), idle: servers, claimed: 0, closed: false };
        Self { capacity, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Adds an item, or refuses it at once. In a full queue, items that are `dead` make room.
    pub(super) fn push(&self, item: T, dead: impl Fn(&T) -> bool) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        let room = self.capacity.saturating_add(state.idle.len());
        let full = state.items.len() >= room;
        let buried = if full { state.bury(dead) } else { VecDeque::new() };
        if state.items.len() >= room {
            return Err(Refused::Full);
        }
        state.items.push_back(item);
        // Otherwise the server that comes back tells.
        let served = !state.idle.is_empty();
        drop(state);
        if served {
            self.changed.notify_one();
        }
        // Only now: dropping an item may take long.
        drop(buried);
        Ok(())
    }

    /// A server for an item that never was in the queue; `None` where one would have to be waited for, or
    /// items came before.
    pub(super) fn claim(&self) -> Option<Claim<'_, T, S>> {
        let mut state = self.lock();
        if state.closed || !state.items.is_empty() {
            return None;
        }
        state.claim().map(|server| Claim { queue: self, server: Some(server) })
    }

    /// Waits for an item and a server; `None` once the queue is closed and empty.
    pub(super) fn next(&self) -> Option<(T, Claim<'_, T, S>)> {
        let nothing = |state: &mut State<T, S>| {
            if state.items.is_empty() { !state.closed } else { state.idle.is_empty() }
        };
        let state = self.changed.wait_while(self.lock(), nothing);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let item = state.items.pop_front()?;
        let server = state.claim();
        if state.closed && state.items.is_empty() {
            self.changed.notify_all();
        }
        Some((item, Claim { queue: self, server }))
    }

    /// Refuses new items; those that wait are still handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits until no server is in use, and takes them all out of a queue that is closed and empty.
    pub(super) fn servers(&self) -> Vec<S> {
        let in_use = |state: &mut State<T, S>| state.claimed > 0 || !state.items.is_empty();
        let state = self.changed.wait_while(self.lock(), in_use);
        mem::take(&mut state.unwrap_or_else(PoisonError::into_inner).idle)
    }

    /// How many items wait.
    pub(super) fn len(&self) -> usize {
        self.lock().items.len()
    }

    fn lock(&self) -> MutexGuard<'_, State<T, S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, S> State<T, S> {
    fn claim(&mut self) -> Option<S> {
        let server = self.idle.pop()?;
        self.claimed += 1;
        Some(server)
    }

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

/// A server in use. It is idle again when this is dropped.
pub(super) struct Claim<'a, T, S> {
    queue: &'a BoundedQueue<T, S>,
    /// There until it is dropped.
    server: Option<S>,
}

impl<T, S> Claim<'_, T, S> {
    /// Makes the item the first that waits, as it was, and the server idle.
    pub(super) fn give_back(self, item: T) {
        self.queue.lock().items.push_front(item);
    }
}

impl<T, S> Deref for Claim<'_, T, S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.server.as_ref().expect("it is there until the claim is dropped")
    }
}

impl<T, S> DerefMut for Claim<'_, T, S> {
    fn deref_mut(&mut self) -> &mut S {
        self.server.as_mut().expect("it is there until the claim is dropped")
    }
}

impl<T, S> Drop for Claim<'_, T, S> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.claimed -= 1;
        state.idle.extend(self.server.take());
        let (wanted, closed) = (!state.items.is_empty(), state.closed);
        drop(state);
        match (closed, wanted) {
            // Somebody may wait for all of them.
            (true, _) => self.queue.changed.notify_all(),
            (false, true) => self.queue.changed.notify_one(),
            (false, false) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Queue = BoundedQueue<u8, char>;

    fn queue(capacity: usize, servers: &str) -> Queue {
        BoundedQueue::new(capacity, servers.chars().collect())
    }

    fn add(queue: &Queue, item: u8) -> Result<(), Refused> {
        queue.push(item, |_| false)
    }

    fn next(queue: &Queue) -> Option<(u8, char)> {
        queue.next().map(|(item, server)| (item, *server))
    }

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_hands_out_the_rest() {
        let queue = queue(2, "a");
        let claim = queue.claim().unwrap();
        assert_eq!(add(&queue, 1), Ok(()));
        assert_eq!(add(&queue, 2), Ok(()));
        assert_eq!(add(&queue, 3), Err(Refused::Full));
        queue.close();
        assert_eq!(add(&queue, 4), Err(Refused::Closed));
        drop(claim);
        let given = (next(&queue), next(&queue), next(&queue));
        assert_eq!(given, (Some((1, 'a')), Some((2, 'a')), None));
        assert!(queue.claim().is_none(), "it is closed");
        assert_eq!((queue.servers(), queue.servers()), (vec!['a'], vec![]));
    }

    #[test]
    fn what_an_idle_server_will_get_does_not_wait() {
        let queue = queue(1, "a");
        assert_eq!(add(&queue, 1), Ok(()));
        assert_eq!(add(&queue, 2), Ok(()));
        assert_eq!(add(&queue, 3), Err(Refused::Full));
        let (first, server) = queue.next().unwrap();
        assert_eq!(first, 1);
        assert_eq!(add(&queue, 3), Err(Refused::Full), "the server works, 2 waits");
        drop(server);
        assert_eq!(add(&queue, 3), Ok(()));
    }

    #[test]
    fn a_claim_jumps_no_queue() {
        let queue = queue(2, "ab");
        let (one, other) = (queue.claim().unwrap(), queue.claim().unwrap());
        assert!(queue.claim().is_none(), "there are two servers");
        assert_eq!(add(&queue, 1), Ok(()));
        drop((one, other));
        assert!(queue.claim().is_none(), "an item waits");
        let (first, server) = queue.next().unwrap();
        server.give_back(first);
        assert_eq!((queue.len(), next(&queue).map(|(item, _)| item)), (1, Some(1)));
        assert!(queue.claim().is_some());
    }

    #[test]
    fn the_dead_make_room_once_the_queue_is_full() {
        let queue = queue(3, "a");
        assert!([1, 2, 3, 4].iter().all(|item| add(&queue, *item).is_ok()));
        assert_eq!(queue.push(5, |item| *item % 2 == 0), Ok(()));
        assert_eq!((queue.len(), next(&queue)), (3, Some((1, 'a'))));
    }

    #[test]
    fn an_item_that_waits_for_a_server_gets_the_one_that_comes_back() {
        let queue = queue(1, "a");
        let claim = queue.claim().unwrap();
        std::thread::scope(|scope| {
            let consumer = scope.spawn(|| next(&queue));
            assert_eq!(add(&queue, 1), Ok(()));
            drop(claim);
            assert_eq!(consumer.join().unwrap(), Some((1, 'a')));
        });
    }

    #[test]
    fn closing_wakes_every_waiting_consumer() {
        let queue = queue(1, "abcd");
        let claim = queue.claim().unwrap();
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..4).map(|_| scope.spawn(|| next(&queue))).collect();
            let servers = scope.spawn(|| queue.servers().len());
            queue.close();
            for consumer in waiting {
                assert_eq!(consumer.join().unwrap(), None);
            }
            drop(claim);
            assert_eq!(servers.join().unwrap(), 4);
        });
    }
}
