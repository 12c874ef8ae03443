//! What is known of one attempt to serve one version.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::error::LoadError;
use super::handle::Serving;
use super::names::VersionId;
use super::operation::Operation;
use super::state::{StateKind, VersionEvent, VersionState};
use crate::inference::RunControl;
use crate::lifecycle::{Event, EventBus};

/// One life of a version, from NEW to UNLOADED or FAILED. Loading a version again begins another.
#[derive(Debug)]
pub(super) struct VersionRecord {
    pub(super) id: VersionId,
    events: EventBus,
    /// What loads it.
    operation: Arc<Operation>,
    warm_up: RunControl,
    life: Mutex<Life>,
}

/// A record's state at one moment.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) state: VersionState<Arc<Serving>>,
    pub(super) since: SystemTime,
    /// How long each state that was left had lasted, in order.
    pub(super) phases: Vec<(StateKind, Duration)>,
    entered: Instant,
}

impl VersionRecord {
    pub(super) fn new(id: VersionId, events: EventBus, operation: Arc<Operation>) -> Arc<Self> {
        let life = Life {
            state: VersionState::New,
            since: SystemTime::now(),
            phases: Vec::new(),
            entered: Instant::now(),
        };
        let (warm_up, life) = (RunControl::default(), Mutex::new(life));
        Arc::new(Self { id, events, operation, warm_up, life })
    }

    /// Moves to the next state and publishes the move.
    ///
    /// # Panics
    /// When the state does not admit the event. One change at a time owns a record and follows the
    /// drawing on [`VersionState`], so this would be a bug here.
    #[track_caller]
    pub(super) fn advance(&self, event: VersionEvent<Arc<Serving>>) {
        self.step(&mut self.life(), event);
    }

    /// [`VersionRecord::advance`] for the thread that loads the version.
    ///
    /// # Errors
    /// [`LoadError::ShuttingDown`] when the version was given up.
    pub(super) fn proceed(&self, event: VersionEvent<Arc<Serving>>) -> Result<(), LoadError> {
        let mut life = self.life();
        if life.over() {
            return Err(LoadError::ShuttingDown);
        }
        self.step(&mut life, event);
        Ok(())
    }

    /// Whether the version is still wanted.
    ///
    /// # Errors
    /// [`LoadError::ShuttingDown`] when it was given up.
    pub(super) fn goes_on(&self) -> Result<(), LoadError> {
        if self.life().over() { Err(LoadError::ShuttingDown) } else { Ok(()) }
    }

    /// Ends the life on its way to READY, also while a thread still works at it.
    pub(super) fn fail(&self, reason: String) {
        let mut life = self.life();
        if life.state.kind() == StateKind::New {
            self.step(&mut life, VersionEvent::Fetch);
        }
        self.step(&mut life, VersionEvent::Fail(reason));
        drop(life);
        self.warm_up.cancel();
    }

    /// Ends the warm-up when the version has failed.
    pub(super) fn warm_up_control(&self) -> &RunControl {
        &self.warm_up
    }

    #[track_caller]
    fn step(&self, life: &mut Life, event: VersionEvent<Arc<Serving>>) {
        let next = life.state.next(event).expect("changes follow the version's state machine");
        let (from, now) = (life.state.kind(), Instant::now());
        let lasted = now - life.entered;
        life.phases.push((from, lasted));
        life.state = next;
        life.entered = now;
        life.since = SystemTime::now();
        self.operation.step(life.state.kind().name(), Some(self.id.version));
        // Published under the lock, so that events come in the order of the transitions.
        self.publish(from, &life.state);
    }

    pub(super) fn kind(&self) -> StateKind {
        self.life().state.kind()
    }

    /// What serves, if the version is READY.
    pub(super) fn ready(&self) -> Option<Arc<Serving>> {
        match &self.life().state {
            VersionState::Ready(serving) => Some(Arc::clone(serving)),
            _ => None,
        }
    }

    pub(super) fn snapshot(&self) -> Life {
        self.life().clone()
    }

    fn publish(&self, from: StateKind, state: &VersionState<Arc<Serving>>) {
        let detail = match state {
            VersionState::Failed(reason) => reason.message.clone(),
            _ => String::new(),
        };
        self.events.publish(Event::ModelVersion {
            model: self.id.model.to_string(),
            version: self.id.version.number(),
            from: from.name(),
            to: state.kind().name(),
            detail,
        });
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    /// Whether nothing will ever come of this life.
    pub(super) fn over(&self) -> bool {
        matches!(self.state, VersionState::Failed(_) | VersionState::Unloaded)
    }
}
