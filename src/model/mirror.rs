//! A shadow: a version that gets copies of requests, whose answers are compared and thrown away.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handle::{Answer, Serving};
use super::names::Version;
use super::traffic::WHOLE;
use crate::inference::{InferenceRequest, PreparedRequest, Tensor, Tolerance, compare};

/// Copies that are under way at once; what comes beyond is not copied.
const AT_ONCE: usize = 2;

/// How long a copy may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A shadow in use.
///
/// It cannot fail a request: a copy is made after the answer is there. It takes what the machine has
/// left over, in that nothing is copied while requests wait for the version that answers.
pub(super) struct Mirror {
    to: Arc<Serving>,
    share: u32,
    tolerance: Tolerance,
    turn: AtomicU64,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    stopped: CancellationToken,
    tally: Mutex<MirrorTally>,
}

/// What became of copies so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MirrorTally {
    /// Requests whose turn it was to be copied.
    pub due: u64,
    /// Those that were not, because too many copies were under way or requests waited.
    pub skipped: u64,
    /// Copies that the shadow did not answer.
    pub failed: u64,
    /// Answers that were compared.
    pub compared: u64,
    /// Those that say the same.
    pub agreed: u64,
    /// The largest distance between two numbers, over all outputs; `None` while there was none to
    /// measure.
    pub max_abs_diff: Option<f64>,
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").field("to", &self.to).finish_non_exhaustive()
    }
}

impl Mirror {
    pub(super) fn new(to: &Arc<Serving>, share: u32, tasks: &TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            to: Arc::clone(to),
            share,
            // Whoever looks for differences within it reads `max_abs_diff`.
            tolerance: Tolerance { absolute: 1e-3, relative: 0.05 },
            turn: AtomicU64::new(0),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            tasks: tasks.clone(),
            stopped: CancellationToken::new(),
            tally: Mutex::default(),
        })
    }

    /// Gives up the copies that are under way: nobody wants to know any more, and the version that gets
    /// them may be about to go.
    pub(super) fn stop(&self) {
        self.stopped.cancel();
    }

    pub(super) fn version(&self) -> Version {
        self.to.id.version
    }

    pub(super) fn share(&self) -> u32 {
        self.share
    }

    /// Whether it copies what the same version as `serving` gets.
    pub(super) fn is_to(&self, serving: &Arc<Serving>) -> bool {
        Arc::ptr_eq(&self.to, serving)
    }

    pub(super) fn tally(&self) -> MirrorTally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the request, if it is its turn and there is room.
    pub(super) fn copy(
        self: &Arc<Self>,
        request: &InferenceRequest,
        primary: &Serving,
    ) -> Option<MirroredRequest> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // The turns that are due are spread evenly.
        let due = |turn: u64| turn.wrapping_mul(u64::from(self.share)) / u64::from(WHOLE);
        if primary.id.version == self.version() || due(turn) == due(turn.wrapping_add(1)) {
            return None;
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        let place = place.filter(|_| primary.runner.queue_depth() == 0);
        self.count(|tally| {
            tally.due += 1;
            tally.skipped += u64::from(place.is_none());
        });
        Some(MirroredRequest { mirror: Arc::clone(self), request: request.clone(), place: place? })
    }

    fn count(&self, change: impl FnOnce(&mut MirrorTally)) {
        change(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn compare(&self, expected: &[(usize, Tensor)], actual: &[Tensor]) {
        let pairs = || expected.iter().map(|(_, tensor)| tensor).zip(actual);
        let agree = |(one, other): (&Tensor, &Tensor)| compare::agree(one, other, self.tolerance);
        let agreed = expected.len() == actual.len() && pairs().all(agree);
        let apart = pairs().filter_map(|(one, other)| compare::max_abs_diff(one, other));
        let apart = apart.reduce(f64::max);
        self.count(|tally| {
            tally.compared += 1;
            tally.agreed += u64::from(agreed);
            tally.max_abs_diff = tally.max_abs_diff.into_iter().chain(apart).reduce(f64::max);
        });
    }
}

/// A copy that waits for the answer that it is compared with.
pub(super) struct MirroredRequest {
    mirror: Arc<Mirror>,
    request: InferenceRequest,
    place: OwnedSemaphorePermit,
}

impl MirroredRequest {
    /// Lets the shadow answer too, in the background.
    pub(super) fn send(self, answer: &Answer) {
        let expected = answer.outputs.clone();
        let tasks = self.mirror.tasks.clone();
        tasks.spawn(async move {
            let Self { mirror, request, place } = self;
            let answer = answered(&mirror.to, request);
            match mirror.stopped.run_until_cancelled(answer).await {
                Some(Some(actual)) => mirror.compare(&expected, &actual),
                Some(None) => mirror.count(|tally| tally.failed += 1),
                None => {}
            }
            drop(place);
        });
    }
}

/// What the shadow answers. It is not counted among the version's requests.
async fn answered(to: &Arc<Serving>, request: InferenceRequest) -> Option<Vec<Tensor>> {
    let _inside = to.gate_guard()?;
    let request = PreparedRequest::new(&to.signature, request).ok()?;
    let completion = to.runner.run_aside(request, (Instant::now() + PATIENCE).into()).await.ok()?;
    Some(completion.outputs)
}
