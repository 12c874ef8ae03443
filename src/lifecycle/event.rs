//! The one stream of typed events that logs, metrics and subscribers read.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::broadcast;
use tracing::{info, warn};

use super::health::CheckKind;
use super::resource::ResourceState;
use super::state::AppState;

/// Something that happened. Published after the state it tells of can be observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The application moved to another state.
    Application {
        /// The state before.
        from: AppState,
        /// The state after.
        to: AppState,
        /// Why.
        reason: String,
    },
    /// A health check's status changed.
    Health {
        /// The check's name.
        check: String,
        /// Which probe it belongs to.
        kind: CheckKind,
        /// Whether it passes now.
        passing: bool,
        /// Why it fails; empty while it passes.
        detail: String,
    },
    /// A resource moved to another state.
    Resource {
        /// The resource's name.
        resource: String,
        /// The state after.
        state: ResourceState,
        /// Why it failed; empty otherwise.
        detail: String,
    },
    /// A model version moved to another state.
    ModelVersion {
        /// The model's name.
        model: String,
        /// The version's number.
        version: u64,
        /// The name of the state before.
        from: &'static str,
        /// The name of the state after.
        to: &'static str,
        /// Why it failed; empty otherwise.
        detail: String,
    },
    /// Requests without a version are answered by another version of a model from now on.
    ModelSwapped {
        /// The model's name.
        model: String,
        /// The version before; `None` when the model had none.
        from: Option<u64>,
        /// The version after; `None` when the model was unloaded.
        to: Option<u64>,
    },
}

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

/// Publishes events in one order to a bounded history, to subscribers and to the log.
#[derive(Clone)]
pub struct EventBus {
    shared: Arc<Shared>,
}

struct Shared {
    stream: Mutex<Stream>,
    subscribers: broadcast::Sender<Arc<EventRecord>>,
}

struct Stream {
    next: u64,
    kept: VecDeque<Arc<EventRecord>>,
    capacity: usize,
}

impl EventBus {
    /// Keeps the last `capacity` events, and lets a subscriber lag behind by as many.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let stream = Stream { next: 1, kept: VecDeque::with_capacity(capacity), capacity };
        let (subscribers, _) = broadcast::channel(capacity);
        Self { shared: Arc::new(Shared { stream: Mutex::new(stream), subscribers }) }
    }

    /// Publishes an event. Never blocks on a subscriber.
    pub fn publish(&self, event: Event) {
        log(&event);
        let mut stream = self.stream();
        let record = Arc::new(EventRecord { sequence: stream.next, at: SystemTime::now(), event });
        stream.next += 1;
        if stream.kept.len() == stream.capacity {
            stream.kept.pop_front();
        }
        stream.kept.push_back(Arc::clone(&record));
        // Sent under the lock, so that every subscriber sees the order of the sequence numbers.
        // Without a subscriber there is nobody to tell.
        drop(self.shared.subscribers.send(record));
    }

    /// Receives the events from now on. A receiver that lags too far is told how many it missed.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<EventRecord>> {
        self.shared.subscribers.subscribe()
    }

    /// The kept events after `sequence`, oldest first.
    pub fn since(&self, sequence: u64) -> Vec<Arc<EventRecord>> {
        let newer = |record: &&Arc<EventRecord>| record.sequence > sequence;
        self.stream().kept.iter().filter(newer).cloned().collect()
    }

    fn stream(&self) -> MutexGuard<'_, Stream> {
        self.shared.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus").field("next", &self.stream().next).finish_non_exhaustive()
    }
}

/// The only place where what an event tells is logged.
fn log(event: &Event) {
    match event {
        Event::Application { from, to, reason } => {
            info!(%from, %to, reason, "application state changed");
        }
        Event::Health { check, kind, passing: true, .. } => {
            info!(check, %kind, "health check passes");
        }
        Event::Health { check, kind, passing: false, detail } => {
            warn!(check, %kind, detail, "health check fails");
        }
        Event::Resource { resource, state: ResourceState::Failed, detail } => {
            warn!(resource, detail, "resource failed");
        }
        Event::Resource { resource, state, .. } => info!(resource, %state, "resource changed"),
        Event::ModelVersion { model, version, from, to, detail } if detail.is_empty() => {
            info!(model, version, from, to, "model version changed");
        }
        Event::ModelVersion { model, version, from, detail, .. } => {
            warn!(model, version, from, detail, "model version failed");
        }
        Event::ModelSwapped { model, from, to } => {
            info!(model, from, to, "current version changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swapped(to: u64) -> Event {
        Event::ModelSwapped { model: "m".to_owned(), from: None, to: Some(to) }
    }

    #[tokio::test]
    async fn the_history_is_bounded_and_numbered_without_gaps() {
        let bus = EventBus::new(3);
        let mut subscriber = bus.subscribe();
        (1..=5).for_each(|to| bus.publish(swapped(to)));
        let kept: Vec<u64> = bus.since(0).iter().map(|record| record.sequence).collect();
        assert_eq!(kept, [3, 4, 5]);
        assert_eq!(bus.since(4).len(), 1);
        assert!(
            matches!(subscriber.recv().await, Err(broadcast::error::RecvError::Lagged(n)) if n > 0)
        );
    }
}
