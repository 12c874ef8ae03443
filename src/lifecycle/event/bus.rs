//! The one stream of typed events that logs, metrics, hooks and subscribers read.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use super::kinds::{Event, log};

/// An event with its place in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// Counts up from 1 without gaps.
    pub sequence: u64,
    /// When it was published.
    pub at: SystemTime,
    /// What happened.
    pub event: Event,
}

/// Events that were let go before a subscriber came to read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{count} events were let go before they were read")]
pub struct Missed {
    /// How many.
    pub count: u64,
}

/// Publishes events in one order to a bounded history, which subscribers read at their own pace.
///
/// The order of publication is the order in which things became true: a version is published READY
/// once it is routed, and DRAINING before it no longer is.
#[derive(Clone)]
pub struct EventBus {
    shared: Arc<Shared>,
}

struct Shared {
    ring: Mutex<Ring>,
    /// The sequence number of the last event.
    last: watch::Sender<u64>,
}

struct Ring {
    kept: VecDeque<Arc<EventRecord>>,
    last: u64,
    capacity: usize,
}

/// What a history still has after some event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The events, oldest first.
    pub events: Vec<Arc<EventRecord>>,
    /// How many had been let go.
    pub missed: u64,
    /// The sequence number of the last event published; 0 before the first.
    pub last: u64,
}

impl EventBus {
    /// Keeps the last `capacity` events; a subscriber may lag behind by as many.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let ring = Ring { kept: VecDeque::with_capacity(capacity), last: 0, capacity };
        let (last, _) = watch::channel(0);
        Self { shared: Arc::new(Shared { ring: Mutex::new(ring), last }) }
    }

    /// Publishes an event. Never waits for a subscriber.
    pub fn publish(&self, event: Event) {
        log(&event);
        let mut ring = self.ring();
        ring.last += 1;
        if ring.kept.len() == ring.capacity {
            ring.kept.pop_front();
        }
        let sequence = ring.last;
        ring.kept.push_back(Arc::new(EventRecord { sequence, at: SystemTime::now(), event }));
        self.shared.last.send_replace(sequence);
    }

    /// Reads the events from now on.
    pub fn subscribe(&self) -> EventStream {
        self.subscribe_after(self.last())
    }

    /// Reads the events after `sequence`, those first that are kept. A number that was never
    /// reached is taken for the last.
    pub fn subscribe_after(&self, sequence: u64) -> EventStream {
        let next = sequence.min(self.last()) + 1;
        EventStream { bus: self.clone(), last: self.shared.last.subscribe(), next }
    }

    /// What is kept after `sequence`.
    pub fn since(&self, sequence: u64) -> Replay {
        let ring = self.ring();
        let newer = |record: &&Arc<EventRecord>| record.sequence > sequence;
        let events = ring.kept.iter().filter(newer).cloned().collect();
        let missed = ring.first().saturating_sub(sequence.saturating_add(1));
        Replay { events, missed, last: ring.last }
    }

    /// The sequence number of the last event; 0 before the first.
    pub fn last(&self) -> u64 {
        self.ring().last
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus").field("last", &self.last()).finish_non_exhaustive()
    }
}

impl Ring {
    /// The sequence number of the oldest event that is kept, or of the first that will be.
    fn first(&self) -> u64 {
        self.kept.front().map_or(self.last + 1, |record| record.sequence)
    }

    fn get(&self, sequence: u64) -> Option<Arc<EventRecord>> {
        let index = usize::try_from(sequence.checked_sub(self.first())?).ok()?;
        self.kept.get(index).cloned()
    }
}

/// Reads every event once, in order, and tells what it has missed.
#[derive(Debug)]
pub struct EventStream {
    bus: EventBus,
    last: watch::Receiver<u64>,
    next: u64,
}

impl EventStream {
    /// Waits for the next event. Cancel safe: no event is lost by dropping the future.
    ///
    /// # Errors
    /// [`Missed`] when the reader was too slow; the call after it gives the oldest event that is
    /// kept.
    pub async fn recv(&mut self) -> Result<Arc<EventRecord>, Missed> {
        loop {
            // Marked as seen before the look, so that an event in between wakes the wait.
            self.last.borrow_and_update();
            if let Some(result) = self.try_recv() {
                return result;
            }
            // The stream's own bus keeps the sender alive.
            self.last.changed().await.expect("the bus outlives its streams");
        }
    }

    /// The next event if there is one already.
    pub fn try_recv(&mut self) -> Option<Result<Arc<EventRecord>, Missed>> {
        let ring = self.bus.ring();
        let first = ring.first();
        if first > self.next {
            let count = first - self.next;
            self.next = first;
            return Some(Err(Missed { count }));
        }
        let record = ring.get(self.next)?;
        self.next += 1;
        Some(Ok(record))
    }

    /// The number of the last event that was read, or missed; 0 before the first.
    pub fn seen(&self) -> u64 {
        self.next - 1
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn swapped(to: u64) -> Event {
        Event::ModelSwapped { model: "m".to_owned(), from: None, to: Some(to) }
    }

    fn publish(bus: &EventBus, numbers: std::ops::RangeInclusive<u64>) {
        numbers.for_each(|number| bus.publish(swapped(number)));
    }

    #[test]
    fn the_history_is_bounded_and_numbered_without_gaps() {
        let bus = EventBus::new(3);
        assert_eq!(bus.since(0), Replay { events: vec![], missed: 0, last: 0 });
        publish(&bus, 1..=5);
        let since = |sequence| {
            let Replay { events, missed, last } = bus.since(sequence);
            assert_eq!(last, 5);
            (events.iter().map(|record| record.sequence).collect::<Vec<_>>(), missed)
        };
        assert_eq!(since(0), (vec![3, 4, 5], 2));
        assert_eq!(since(2), (vec![3, 4, 5], 0));
        assert_eq!(since(4), (vec![5], 0));
        assert_eq!(since(5), (vec![], 0));
        assert_eq!(since(u64::MAX), (vec![], 0));
    }

    #[test]
    fn a_slow_subscriber_is_told_what_it_missed() {
        let bus = EventBus::new(3);
        let mut stream = bus.subscribe();
        publish(&bus, 1..=5);
        assert_eq!(stream.seen(), 0);
        assert_eq!(stream.try_recv(), Some(Err(Missed { count: 2 })));
        assert_eq!(stream.seen(), 2);
        let mut next = || stream.try_recv().map(|result| result.map(|record| record.sequence));
        assert_eq!(next(), Some(Ok(3)));
        publish(&bus, 6..=6);
        assert_eq!([next(), next(), next(), next()], [Some(Ok(4)), Some(Ok(5)), Some(Ok(6)), None]);
    }

    #[test]
    fn a_stream_can_be_taken_up_again() {
        let bus = EventBus::new(3);
        publish(&bus, 1..=2);
        let from = |sequence| {
            let mut stream = bus.subscribe_after(sequence);
            stream.try_recv().map(|result| result.map(|record| record.sequence))
        };
        assert_eq!([from(0), from(1), from(2), from(99)], [Some(Ok(1)), Some(Ok(2)), None, None]);
        assert_eq!(bus.subscribe().try_recv(), None);
    }

    #[test]
    fn a_waiting_subscriber_is_woken() {
        let bus = EventBus::new(3);
        let mut stream = bus.subscribe();
        let mut waiting = tokio_test_task(async { stream.recv().await.unwrap().sequence });
        assert_eq!(waiting(), None);
        publish(&bus, 1..=1);
        assert_eq!(waiting(), Some(1));
    }

    /// Polls a future each time it is called.
    fn tokio_test_task<F: Future>(future: F) -> impl FnMut() -> Option<F::Output> {
        let mut future = Box::pin(future);
        move || future.as_mut().now_or_never()
    }
}
