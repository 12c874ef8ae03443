//! Changes as things that can be watched: begun, told step by step, cancelled, and ended.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::ChangeError;
use super::loading::Places;
use super::names::{ModelName, Version};
use super::report::{LoadReport, SwapReport, TrafficReport, UnloadReport, VerifyReport};
use crate::causes;
use crate::lifecycle::{Event, EventBus};

/// How many operations that have ended are remembered, of those that somebody has asked for and of the
/// server's own each.
const REMEMBERED: usize = 256;

/// How many keys of callers are remembered.
const REMEMBERED_KEYS: usize = 1024;

/// Who wants a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// An operator, who decides by it what the model is to be.
    Caller,
    /// The same, who has declared what it is to be.
    Declaration,
    /// Who tries that again.
    Reconciler,
    /// Who loads what there is, or is declared, at the start.
    Start,
    /// Who follows the repository.
    Follower,
    /// A request that needs the model.
    Demand,
    /// Who makes room.
    Eviction,
    /// An ensemble that needs the model as a step.
    Step,
    /// One that the server loads by itself.
    StepAside,
    /// One that a request needs.
    StepOnDemand,
}

impl By {
    /// Whether it decides what the model is to be.
    pub(super) fn decides(self) -> bool {
        matches!(self, Self::Caller | Self::Declaration | Self::Reconciler)
    }

    /// Whether it is an attempt at what is declared of the model, or at what it is to be anyway.
    pub(super) fn is_attempt(self) -> bool {
        self != Self::Caller && !self.is_for_ensembles()
    }

    /// Whether an ensemble wants it, and nobody else.
    pub(super) fn is_for_ensembles(self) -> bool {
        matches!(self, Self::Step | Self::StepAside | Self::StepOnDemand)
    }

    /// Who wants the steps of an ensemble that this wants.
    pub(super) fn of_steps(self) -> Self {
        match self {
            Self::Demand | Self::StepOnDemand => Self::StepOnDemand,
            Self::Follower | Self::Reconciler | Self::StepAside => Self::StepAside,
            _ => Self::Step,
        }
    }

    /// Whether nobody has said that what there is is complete, so that it has to look so.
    pub(super) fn is_wary(self) -> bool {
        matches!(
            self,
            Self::Demand | Self::Follower | Self::Reconciler | Self::StepAside | Self::StepOnDemand
        )
    }

    /// Which places its loads may take.
    pub(super) fn place(self) -> Places {
        if matches!(self, Self::Demand | Self::StepOnDemand) { Places::Kept } else { Places::Usual }
    }

    /// Whether somebody knows of the operation, who may ask for its end.
    fn is_asked_for(self) -> bool {
        matches!(self, Self::Caller | Self::Declaration)
    }
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is a method of ModelLifecycleManager")]
pub enum OperationKind {
    Load,
    Unload,
    Swap,
    Rollback,
    Verify,
    Traffic,
    Apply,
    Evict,
}

impl OperationKind {
    /// The kind's name, such as `swap`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Unload => "unload",
            Self::Swap => "swap",
            Self::Rollback => "rollback",
            Self::Verify => "verify",
            Self::Traffic => "traffic",
            Self::Apply => "apply",
            Self::Evict => "evict",
        }
    }
}

/// What an operation has done.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is documented on its report")]
pub enum Done {
    Load(LoadReport),
    Unload(UnloadReport),
    Swap(SwapReport),
    Verify(VerifyReport),
    Traffic(TrafficReport),
}

/// How an operation ended. A failure has changed nothing that served.
pub type Ended = Result<Done, Arc<ChangeError>>;

/// A change of one model that was begun.
pub struct Operation {
    id: String,
    kind: OperationKind,
    by: By,
    model: ModelName,
    started: SystemTime,
    events: EventBus,
    cancelled: CancellationToken,
    /// The generation that the model must have for the change to be made.
    expected: Option<u64>,
    origin: Option<String>,
    progress: Mutex<Progress>,
    ended: watch::Sender<bool>,
}

#[derive(Default)]
struct Progress {
    steps: Vec<Step>,
    /// Whether the change can no longer be taken back.
    committed: bool,
    /// Why what it has decided is not kept for another life.
    unsaved: Option<String>,
    end: Option<(SystemTime, Ended)>,
}

/// One thing that an operation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What: the state that a version entered, or words of the operation's own.
    pub what: String,
    /// The version it was done with, where it was one.
    pub version: Option<Version>,
    /// When it began.
    pub at: SystemTime,
}

/// An operation as it is at one moment.
#[derive(Debug, Clone)]
pub struct OperationReport {
    /// Its id, which no other operation of any life of the server has.
    pub id: String,
    /// What it does.
    pub kind: OperationKind,
    /// The model.
    pub model: ModelName,
    /// By what the caller finds what it has asked for, as in [`Conditions`].
    pub origin: Option<String>,
    /// When it was begun.
    pub started: SystemTime,
    /// What it did so far, in order.
    pub steps: Vec<Step>,
    /// Whether it can still be cancelled.
    pub cancellable: bool,
    /// Why what it has decided does not outlive the process, though it should.
    pub unsaved: Option<String>,
    /// When and how it ended; `None` while it goes on.
    pub end: Option<(SystemTime, Ended)>,
}

/// Why an operation was not cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CancelError {
    /// It has ended.
    #[error("the operation has ended")]
    Ended,
    /// Its change is made; what goes on is the end of what was before.
    #[error("the operation's change is made, it cannot be cancelled any more")]
    Committed,
}

/// What a caller asks of an operation, whatever it does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The generation that the model must have.
    pub generation: Option<u64>,
    /// What makes a second request of the caller the same as the first.
    pub key: Option<IdempotencyKey>,
    /// By what the caller finds what it has asked for: a text of its own, which is kept as it is.
    pub origin: Option<String>,
}

/// A caller's own name for what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Who that is, where callers are told apart: names of others mean nothing.
    pub caller: String,
    /// The name.
    pub key: String,
    /// What is asked for, as text.
    pub request: String,
}

/// Every operation that goes on, and the last that ended.
pub(super) struct Operations {
    events: EventBus,
    /// A part of every id, so that ids of an earlier life mean nothing now.
    life: u128,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    begun: u64,
    operations: VecDeque<Arc<Operation>>,
    keys: VecDeque<(IdempotencyKey, Arc<Operation>)>,
}

/// An operation for who asked: a new one that is to be run, or one that was begun before.
pub(super) enum Begun {
    New(Arc<Operation>),
    Known(Arc<Operation>),
}

impl Operations {
    pub(super) fn new(events: EventBus) -> Self {
        let life = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self { events, life, kept: Mutex::default() }
    }

    /// A new operation, unless the caller has begun it before.
    pub(super) fn begin(
        &self,
        (kind, by): (OperationKind, By),
        model: &ModelName,
        conditions: Conditions,
    ) -> Result<Begun, ChangeError> {
        let mut kept = self.kept();
        if let Some(key) = &conditions.key
            && let Some((known, operation)) = kept.find(key)
        {
            let same = known.request == key.request;
            let reused = || ChangeError::KeyReused(key.key.clone());
            return same.then(|| Begun::Known(Arc::clone(operation))).ok_or_else(reused);
        }
        kept.begun += 1;
        let operation = Arc::new(Operation {
            id: format!("{:x}-{}", self.life, kept.begun),
            kind,
            by,
            model: model.clone(),
            started: SystemTime::now(),
            events: self.events.clone(),
            cancelled: CancellationToken::new(),
            expected: conditions.generation,
            origin: conditions.origin,
            progress: Mutex::default(),
            ended: watch::Sender::new(false),
        });
        kept.remember(&operation, conditions.key);
        drop(kept);
        operation.tell("begun", String::new());
        Ok(Begun::New(operation))
    }

    /// An operation of the manager's own, which nobody has asked for.
    pub(super) fn aside(&self, model: &ModelName) -> Arc<Operation> {
        match self.begin((OperationKind::Evict, By::Eviction), model, Conditions::default()) {
            Ok(Begun::New(operation) | Begun::Known(operation)) => operation,
            Err(refusal) => unreachable!("without a key there is nothing to refuse: {refusal}"),
        }
    }

    /// Forgets the caller's own name for an operation that was refused for what was under way then: the
    /// same request may be made again.
    pub(super) fn forget_key(&self, operation: &Arc<Operation>) {
        self.kept().keys.retain(|(_, known)| !Arc::ptr_eq(known, operation));
    }

    /// A part of every id of this life.
    pub(super) fn life(&self) -> String {
        format!("{:x}", self.life)
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Operation>> {
        self.kept().operations.iter().find(|operation| operation.id == id).cloned()
    }

    /// Every operation, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Operation>> {
        self.kept().operations.iter().cloned().collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// What the caller has begun under that name.
    fn find(&self, key: &IdempotencyKey) -> Option<&(IdempotencyKey, Arc<Operation>)> {
        self.keys.iter().find(|(known, _)| (&known.caller, &known.key) == (&key.caller, &key.key))
    }

    fn remember(&mut self, operation: &Arc<Operation>, key: Option<IdempotencyKey>) {
        // What the server does by itself may be much, and costs nobody the end of what was asked for.
        let asked_for = operation.by.is_asked_for();
        let forgettable =
            |known: &Arc<Operation>| known.by.is_asked_for() == asked_for && known.is_over();
        let ended = self.operations.iter().filter(|known| forgettable(known)).count();
        if ended > REMEMBERED
            && let Some(oldest) = self.operations.iter().position(forgettable)
        {
            self.operations.remove(oldest);
        }
        self.operations.push_back(Arc::clone(operation));
        if let Some(key) = key {
            if self.keys.len() >= REMEMBERED_KEYS {
                self.keys.pop_front();
            }
            self.keys.push_back((key, Arc::clone(operation)));
        }
    }
}

impl Operation {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn by(&self) -> By {
        self.by
    }

    /// Waits for its end. Cancel safe; the operation goes on also if nobody waits.
    ///
    /// # Errors
    /// What it failed for.
    pub async fn done(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as this does.
        drop(ended.wait_for(|ended| *ended).await);
        self.progress().end.as_ref().expect("it has ended").1.clone()
    }

    /// Gives it up: what it has loaded is dropped, what served serves on.
    ///
    /// # Errors
    /// [`CancelError`].
    pub fn cancel(&self) -> Result<(), CancelError> {
        let progress = self.progress();
        if progress.end.is_some() {
            return Err(CancelError::Ended);
        }
        if progress.committed {
            return Err(CancelError::Committed);
        }
        self.cancelled.cancel();
        Ok(())
    }

    /// How it is now.
    pub fn report(&self) -> OperationReport {
        let progress = self.progress();
        OperationReport {
            id: self.id.clone(),
            kind: self.kind,
            model: self.model.clone(),
            origin: self.origin.clone(),
            started: self.started,
            steps: progress.steps.clone(),
            cancellable: progress.end.is_none() && !progress.committed,
            unsaved: progress.unsaved.clone(),
            end: progress.end.clone(),
        }
    }

    pub(super) fn step(&self, what: impl Into<String>, version: Option<Version>) {
        let step = Step { what: what.into(), version, at: SystemTime::now() };
        self.progress().steps.push(step);
    }

    /// [`Operation::step`], unless that was the last one.
    pub(super) fn step_once(&self, what: &str, version: Version) {
        let is_last = |step: &Step| step.what == what && step.version == Some(version);
        if !self.progress().steps.last().is_some_and(is_last) {
            self.step(what, Some(version));
        }
    }

    /// Notes that what it has decided is not kept.
    pub(super) fn note_unsaved(&self, cause: String) {
        self.progress().unsaved = Some(cause);
    }

    /// From now on the change is made, and cannot be cancelled.
    ///
    /// # Errors
    /// [`ChangeError::Cancelled`] when it was before.
    pub(super) fn commit(&self) -> Result<(), ChangeError> {
        let mut progress = self.progress();
        self.goes_on()?;
        progress.committed = true;
        Ok(())
    }

    /// # Errors
    /// [`ChangeError::Cancelled`] when it was cancelled.
    pub(super) fn goes_on(&self) -> Result<(), ChangeError> {
        if self.cancelled.is_cancelled() { Err(ChangeError::Cancelled) } else { Ok(()) }
    }

    /// Waits until it is cancelled. Cancel safe.
    pub(super) async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// # Errors
    /// [`ChangeError::Generation`] when the caller knows the model otherwise.
    pub(super) fn expects(&self, generation: u64) -> Result<(), ChangeError> {
        match self.expected {
            Some(expected) if expected != generation => {
                Err(ChangeError::Generation { model: self.model.clone(), expected, generation })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn end(&self, outcome: Ended) {
        let (state, detail) = match &outcome {
            Ok(_) => ("succeeded", String::new()),
            Err(error) if matches!(**error, ChangeError::Cancelled) => ("cancelled", String::new()),
            Err(error) => ("failed", causes::of_error(error.as_ref())),
        };
        self.progress().end = Some((SystemTime::now(), outcome));
        self.tell(state, detail);
        self.ended.send_replace(true);
    }

    pub(super) fn is_over(&self) -> bool {
        *self.ended.borrow()
    }

    fn tell(&self, state: &'static str, detail: String) {
        self.events.publish(Event::Operation {
            id: self.id.clone(),
            operation: self.kind.name(),
            model: self.model.to_string(),
            state,
            origin: self.origin.clone(),
            detail,
        });
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("id", &self.id).finish_non_exhaustive()
    }
}
