//! A bounded queue between async callers and what serves them one at a time.

use std::collections::VecDeque;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What to do with an item that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pick {
    Take,
    Leave,
    /// Leave this one and all behind it.
    Stop,
}

/// Why an item was not taken; it is given back by being dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// As many items as the capacity are waiting.
    Full,
    /// The queue was closed.
    Closed,
}

/// What became of an item that was taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pushed<T> {
    /// What had to make room for it.
    pub(super) displaced: Option<T>,
    /// Whether there is to be one more consumer. It counts already.
    pub(super) wants_consumer: bool,
}

/// By rank, the lowest first, and then first in, first out, for a fixed number of servers: an item leaves
/// together with a server that is idle. Many producers that never block, many consumers that do.
///
/// Consumers come when they are wanted, as many as there are servers at most, and go when there was nothing to do
/// for a while.
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
    items: VecDeque<(u32, T)>,
    idle: Vec<S>,
    /// Servers that are in use.
    claimed: usize,
    /// Consumers that there are, or that are about to be.
    consumers: usize,
    /// Those of them that wait for an item.
    waiting: usize,
    /// Consumers that wait for more items than they have. What comes is for them.
    collecting: usize,
    /// Counts the items that came.
    pushed: u64,
    closed: bool,
}

impl<T, S> BoundedQueue<T, S> {
    pub(super) fn new(capacity: usize, servers: Vec<S>) -> Self {
        let items = VecDeque::new();
        let state = State {
            items,
            idle: servers,
            claimed: 0,
            consumers: 0,
            waiting: 0,
            collecting: 0,
            pushed: 0,
            closed: false,
        };
        Self { capacity, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Adds an item, or refuses it at once. In a full queue, items that are `dead` make room, or else the
    /// last of those whose rank is higher, which is given back.
    pub(super) fn push(
        &self,
        (rank, item): (u32, T),
        dead: impl Fn(&T) -> bool,
    ) -> Result<Pushed<T>, Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        let room = self.capacity.saturating_add(state.idle.len());
        let full = state.items.len() >= room;
        let buried = if full { state.bury(dead) } else { VecDeque::new() };
        let mut displaced = None;
        if state.items.len() >= room {
            displaced = Some(state.last_above(rank).ok_or(Refused::Full)?);
        }
        let wants_consumer = self.insert(state, (rank, item));
        // Only now: dropping an item may take long.
        drop(buried);
        Ok(Pushed { displaced, wants_consumer })
    }

    /// Adds an item that was taken before, and had been served by now but for others: among the first, whether
    /// the queue is full or not.
    pub(super) fn push_again(&self, item: T) -> Result<Pushed<T>, Refused> {
        let state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        let wants_consumer = self.insert(state, (0, item));
        Ok(Pushed { displaced: None, wants_consumer })
    }

    /// Whether that wants one more consumer.
    fn insert(&self, mut state: MutexGuard<'_, State<T, S>>, (rank, item): (u32, T)) -> bool {
        state.insert(rank, item);
        let (served, collected) = (!state.idle.is_empty(), state.collecting > 0);
        let servers = state.idle.len() + state.claimed;
        let wants_consumer = state.items.len() > state.waiting && state.consumers < servers;
        state.consumers += usize::from(wants_consumer);
        drop(state);
        match (collected, served) {
            (true, _) => self.changed.notify_all(),
            (false, true) => self.changed.notify_one(),
            // The server that comes back tells.
            (false, false) => {}
        }
        wants_consumer
    }

    /// A consumer that was wanted cannot come. All that waits, where there is no other.
    pub(super) fn lost_consumer(&self) -> Vec<T> {
        let mut state = self.lock();
        state.consumers -= 1;
        let abandoned = state.consumers == 0;
        let items = if abandoned { mem::take(&mut state.items) } else { VecDeque::new() };
        let emptied = state.closed && state.items.is_empty();
        drop(state);
        if emptied {
            self.changed.notify_all();
        }
        items.into_iter().map(|(_, item)| item).collect()
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

    /// Waits for an item and a server. `None` once the queue is closed and empty, or has been empty for as long
    /// as `patience`: then this consumer is none any more.
    pub(super) fn next(&self, patience: Duration) -> Option<(T, Claim<'_, T, S>)> {
        let nothing = |state: &mut State<T, S>| {
            if state.items.is_empty() {
                !state.closed
            } else {
                state.idle.is_empty() || (state.collecting > 0 && !state.closed)
            }
        };
        let mut state = self.lock();
        state.waiting += 1;
        let mut state = loop {
            let waited = self.changed.wait_timeout_while(state, patience, nothing);
            let timeout;
            (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            // What is there and waits for a server must not be left alone.
            if !timeout.timed_out() || state.items.is_empty() {
                break state;
            }
        };
        state.waiting -= 1;
        let Some((_, item)) = state.items.pop_front() else {
            state.consumers = state.consumers.saturating_sub(1);
            return None;
        };
        let server = state.claim();
        if state.closed && state.items.is_empty() {
            self.changed.notify_all();
        }
        Some((item, Claim { queue: self, server }))
    }

    /// Takes those of the items that wait which `pick` wants, asking in their order.
    pub(super) fn take(&self, pick: impl FnMut(&T) -> Pick) -> Vec<T> {
        let mut state = self.lock();
        let taken = state.take(pick);
        let emptied = state.closed && state.items.is_empty();
        drop(state);
        if emptied {
            self.changed.notify_all();
        }
        taken
    }

    /// Waits for items that come, and takes those that `pick` wants. None is given to others meanwhile. Ends
    /// early where others wait already, as these must not be held up. `None` where nothing came.
    pub(super) fn wait_for_more(
        &self,
        until: Instant,
        pick: impl FnMut(&T) -> Pick,
    ) -> Option<Vec<T>> {
        let mut state = self.lock();
        if !state.items.is_empty() {
            return None;
        }
        let before = state.pushed;
        state.collecting += 1;
        let nothing = |state: &mut State<T, S>| state.pushed == before && !state.closed;
        let patience = until.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(state, patience, nothing);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.collecting -= 1;
        let taken = (state.pushed > before).then(|| state.take(pick));
        drop(state);
        // What is left is for others.
        self.changed.notify_all();
        taken
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

    /// Puts an item behind all of its rank.
    fn insert(&mut self, rank: u32, item: T) {
        self.pushed += 1;
        let place = self.items.partition_point(|(other, _)| *other <= rank);
        self.items.insert(place, (rank, item));
    }

    /// The last item, if its rank is above this.
    fn last_above(&mut self, rank: u32) -> Option<T> {
        self.items.pop_back_if(|(other, _)| *other > rank).map(|(_, item)| item)
    }

    fn take(&mut self, mut pick: impl FnMut(&T) -> Pick) -> Vec<T> {
        let (mut taken, mut place) = (Vec::new(), 0);
        while let Some((_, item)) = self.items.get(place) {
            match pick(item) {
                Pick::Take => taken.extend(self.items.remove(place).map(|(_, item)| item)),
                Pick::Leave => place += 1,
                Pick::Stop => break,
            }
        }
        taken
    }

    /// Takes the dead out.
    fn bury(&mut self, dead: impl Fn(&T) -> bool) -> VecDeque<(u32, T)> {
        if !self.items.iter().any(|(_, item)| dead(item)) {
            return VecDeque::new();
        }
        let items = mem::take(&mut self.items).into_iter();
        let (buried, alive) = items.partition(|(_, item)| dead(item));
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
    /// Makes these the first that wait, as they were, and the server idle.
    pub(super) fn give_back<I>(self, items: I)
    where
        I: IntoIterator<Item = T, IntoIter: DoubleEndedIterator>,
    {
        let mut state = self.queue.lock();
        for item in items.into_iter().rev() {
            // They had come before all others, whatever their rank.
            state.items.push_front((0, item));
        }
        drop(state);
        // One is told by the server that comes back.
        self.queue.changed.notify_all();
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

    const LONG: Duration = Duration::from_mins(1);

    fn queue(capacity: usize, servers: &str) -> Queue {
        BoundedQueue::new(capacity, servers.chars().collect())
    }

    fn add(queue: &Queue, item: u8) -> Result<(), Refused> {
        queue.push((1, item), |_| false).map(drop)
    }

    fn next(queue: &Queue) -> Option<(u8, char)> {
        queue.next(LONG).map(|(item, server)| (item, *server))
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
        let (first, server) = queue.next(LONG).unwrap();
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
        let (first, server) = queue.next(LONG).unwrap();
        server.give_back([first]);
        assert_eq!((queue.len(), next(&queue).map(|(item, _)| item)), (1, Some(1)));
        assert!(queue.claim().is_some());
    }

    #[test]
    fn the_dead_make_room_once_the_queue_is_full() {
        let queue = queue(3, "a");
        assert!([1, 2, 3, 4].iter().all(|item| add(&queue, *item).is_ok()));
        let pushed = queue.push((1, 5), |item| *item % 2 == 0);
        assert_eq!(pushed.map(|pushed| pushed.displaced), Ok(None));
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
    fn what_was_taken_before_is_among_the_first_of_a_full_queue() {
        let queue = queue(1, "a");
        let claim = queue.claim().unwrap();
        assert_eq!(add(&queue, 1), Ok(()));
        assert_eq!(add(&queue, 2), Err(Refused::Full));
        assert!(queue.push_again(3).is_ok());
        drop(claim);
        let order: Vec<_> = (0..2).map(|_| next(&queue).unwrap().0).collect();
        assert_eq!(order, [3, 1]);
        queue.close();
        assert_eq!(queue.push_again(4), Err(Refused::Closed));
    }

    #[test]
    fn a_lower_rank_goes_first_and_takes_the_place_of_a_higher() {
        let queue = queue(3, "a");
        let claim = queue.claim().unwrap();
        let push = |rank, item| {
            let pushed = queue.push((rank, item), |_| false);
            pushed.map(|pushed| pushed.displaced)
        };
        for (rank, item) in [(2, 1), (3, 2), (2, 3)] {
            assert_eq!(push(rank, item), Ok(None));
        }
        assert_eq!(push(3, 4), Err(Refused::Full), "it has come later");
        assert_eq!(push(1, 5), Ok(Some(2)));
        drop(claim);
        let order: Vec<_> = (0..3).map(|_| next(&queue).unwrap().0).collect();
        assert_eq!(order, [5, 1, 3]);
    }

    #[test]
    fn who_takes_more_leaves_what_does_not_fit() {
        let queue = queue(9, "a");
        let claim = queue.claim().unwrap();
        (1..=6).for_each(|item| add(&queue, item).unwrap());
        let taken = queue.take(|item| match item {
            5 => Pick::Stop,
            odd if odd % 2 == 1 => Pick::Take,
            _ => Pick::Leave,
        });
        assert_eq!(taken, [1, 3]);
        claim.give_back(taken);
        let order: Vec<_> = (0..6).map(|_| next(&queue).unwrap().0).collect();
        assert_eq!(order, [1, 3, 2, 4, 5, 6]);
    }

    #[test]
    fn who_waits_for_more_gets_what_comes() {
        let queue = queue(9, "ab");
        let soon = || Instant::now() + Duration::from_millis(1);
        let late = || Instant::now() + Duration::from_mins(1);
        let wait = |until| queue.wait_for_more(until, |_| Pick::Take);
        assert_eq!(wait(soon()), None, "nothing came");
        assert_eq!(add(&queue, 1), Ok(()));
        assert_eq!(wait(late()), None, "another waits already");
        assert_eq!(next(&queue), Some((1, 'b')));
        std::thread::scope(|scope| {
            let collector = scope.spawn(|| wait(late()));
            while queue.lock().collecting == 0 {
                std::thread::yield_now();
            }
            let other = scope.spawn(|| next(&queue));
            assert_eq!(add(&queue, 2), Ok(()));
            assert_eq!(collector.join().unwrap(), Some(vec![2]), "whoever else waits");
            queue.close();
            assert_eq!(other.join().unwrap(), None);
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

    #[test]
    fn consumers_are_wanted_for_what_waits_and_go_when_nothing_does() {
        let queue = queue(9, "ab");
        let push = |item| queue.push((1, item), |_| false).map(|pushed| pushed.wants_consumer);
        assert_eq!([push(1), push(2), push(3)], [Ok(true), Ok(true), Ok(false)]);
        for item in 1..=3 {
            assert_eq!(queue.next(LONG).map(|(item, _)| item), Some(item));
        }
        assert!(queue.next(Duration::ZERO).is_none());
        assert_eq!([push(4), push(5)], [Ok(true), Ok(false)]);
        // One does not come: the other will do. Without that, nobody would.
        assert!(queue.lost_consumer().is_empty());
        assert_eq!(queue.lost_consumer(), [4, 5]);
        assert_eq!(push(6), Ok(true));
    }
}
