//! One request on its way through a pool, and the run that answers it.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::backend::{Instance, RunError};
use super::control::RunControl;
use super::request::{InputError, PreparedRequest};
use super::tensor::Tensor;
use crate::causes;

/// Where the time of one request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// When it was admitted.
    pub admitted: Option<Instant>,
    /// From admission until an instance took it.
    pub queue: Duration,
    /// With the instance: until it was given the outputs.
    pub compute: Duration,
    /// Of that, until the engine had the inputs; zero where it does not tell.
    pub input: Duration,
    /// Of that, from the moment when all was computed; zero where it does not tell.
    pub output: Duration,
    /// Of the time in the queue, from the moment when a thread had taken it until the run that it might share
    /// with others began; `None` where it shares none.
    pub gathering: Option<Duration>,
    /// Requests that its run has answered, this one included.
    pub requests: u32,
    /// Entries of the batch of that run.
    pub entries: u32,
}

/// On which terms a request is run.
#[derive(Debug, Clone, Copy)]
pub struct RunTerms {
    /// Until when somebody wants the answer.
    pub deadline: Instant,
    /// How much sooner its turn comes than that of others that wait: those of 1 are first. Those without
    /// come behind all that have one.
    pub priority: Option<NonZeroU32>,
}

impl From<Instant> for RunTerms {
    fn from(deadline: Instant) -> Self {
        Self { deadline, priority: None }
    }
}

/// A finished run.
#[derive(Debug, Clone)]
pub struct Completion {
    /// One tensor per output asked for, in that order.
    pub outputs: Vec<Tensor>,
    /// Where the time went.
    pub timings: Timings,
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// The request does not fit the model.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The queue is full: try again later, or elsewhere.
    #[error("the model is overloaded: {capacity} requests are waiting")]
    Overloaded {
        /// The queue's capacity.
        capacity: usize,
    },
    /// The deadline passed while the request waited or ran.
    #[error("the deadline passed before an answer was ready")]
    DeadlineExceeded,
    /// The instances have stopped. Callers that hold an in-flight guard do not see this.
    #[error("the model's instances have stopped")]
    Stopped,
    /// The run itself failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A step of an ensemble gave no answer.
    #[error("{step}: {error}")]
    Step {
        /// The step: its number and the version of its model.
        step: String,
        /// Why it gave none.
        error: Box<InferError>,
    },
}

impl InferError {
    /// What went wrong, in whichever step of an ensemble.
    pub fn root(&self) -> &Self {
        match self {
            Self::Step { error, .. } => error.root(),
            other => other,
        }
    }
}

/// A request, and until when somebody wants the answer.
pub(super) struct Task {
    pub(super) request: PreparedRequest,
    pub(super) control: Arc<RunControl>,
    pub(super) terms: RunTerms,
    pub(super) admitted: Instant,
    /// Of its inputs, in bytes.
    pub(super) size: u64,
}

impl Task {
    /// Admits a request.
    pub(super) fn new(request: PreparedRequest, terms: RunTerms) -> Self {
        let size = request.size();
        Self { request, control: Arc::default(), terms, admitted: Instant::now(), size }
    }

    /// The same request as if it had never been run.
    pub(super) fn again(self) -> Self {
        Self { control: Arc::default(), ..self }
    }

    /// Its place among others: the lowest comes first.
    pub(super) fn rank(&self) -> u32 {
        self.terms.priority.map_or(u32::MAX, NonZeroU32::get)
    }

    /// Why it is not worth a run any more.
    pub(super) fn dead(&self, now: Instant) -> Option<InferError> {
        if self.control.is_cancelled() {
            return Some(RunError::Cancelled.into());
        }
        (now >= self.terms.deadline).then_some(InferError::DeadlineExceeded)
    }

    /// The answer, where somebody still wants it now: one that comes late is none, as with a thread.
    pub(super) fn in_time(
        &self,
        answer: Result<Completion, InferError>,
        now: Instant,
    ) -> Result<Completion, InferError> {
        if self.terms.deadline <= now { Err(InferError::DeadlineExceeded) } else { answer }
    }

    /// Blocks until `instance` has answered.
    pub(super) fn run(&self, instance: &mut dyn Instance) -> Result<Completion, InferError> {
        let started = Instant::now();
        if let Some(dead) = self.dead(started) {
            return Err(dead);
        }
        let outputs = compute(instance, &self.request, &self.control)?;
        let timings = self.timings(&self.control, started, Instant::now());
        Ok(Completion { outputs, timings })
    }

    /// Of a run under `control`.
    pub(super) fn timings(
        &self,
        control: &RunControl,
        started: Instant,
        ended: Instant,
    ) -> Timings {
        let (computing, computed) = control.steps();
        let since = |begin: Instant, end: Instant| end.saturating_duration_since(begin);
        Timings {
            admitted: Some(self.admitted),
            queue: started - self.admitted,
            compute: ended - started,
            input: computing.map(|at| since(started, at)).unwrap_or_default(),
            output: computed.map(|at| since(at, ended)).unwrap_or_default(),
            ..Timings::default()
        }
    }
}

impl Timings {
    /// The same of a run of so many requests, with so many entries, which were gathered from `gathered` on.
    pub(super) fn shared(
        self,
        (requests, entries): (usize, usize),
        gathered: Option<Instant>,
    ) -> Self {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let gathering = gathered.zip(self.admitted).map(|(gathered, admitted)| {
            // It may have come while others were waited for.
            self.queue.saturating_sub(gathered.saturating_duration_since(admitted))
        });
        Self { gathering, requests: number(requests), entries: number(entries), ..self }
    }
}

/// Blocks until `instance` has answered, whatever it does.
pub(super) fn compute(
    instance: &mut dyn Instance,
    request: &PreparedRequest,
    control: &RunControl,
) -> Result<Vec<Tensor>, RunError> {
    let run = AssertUnwindSafe(|| instance.run(request, control));
    let outputs = catch_unwind(run)
        .unwrap_or_else(|panic| Err(RunError::Panicked(causes::of_panic(panic.as_ref()))))?;
    let (given, wanted) = (outputs.len(), request.outputs().len());
    if given == wanted {
        Ok(outputs)
    } else {
        Err(RunError::Engine(format!("it gave {given} outputs, {wanted} were asked for")))
    }
}
