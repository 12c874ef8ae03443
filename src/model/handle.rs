//! A ready version, and the guard under which a request uses it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::gate::Gate;
use super::names::VersionId;
use super::observer::{Outcome, VersionObserver};
use super::usage::Usage;
use crate::inference::{
    InferError, InferenceRequest, InstancePool, PreparedRequest, Signature, Tensor, Timings,
};

/// Everything a request needs of a version that has been loaded.
pub(super) struct Serving {
    pub(super) id: VersionId,
    pub(super) digest: String,
    pub(super) platform: &'static str,
    pub(super) signature: Signature,
    pub(super) pool: InstancePool,
    pub(super) gate: Gate,
    pub(super) usage: Usage,
    pub(super) observer: Box<dyn VersionObserver>,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A version in use. While it exists, the version is not unloaded.
#[derive(Debug)]
#[must_use = "the version may be unloaded once the handle is dropped"]
pub struct VersionHandle {
    serving: Arc<Serving>,
}

/// What a model answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The outputs asked for, each with its position in the signature's outputs.
    pub outputs: Vec<(usize, Tensor)>,
    /// Where the time went.
    pub timings: Timings,
}

impl VersionHandle {
    /// Enters the version; `None` when it takes no new request any more.
    pub(super) fn enter(serving: &Arc<Serving>) -> Option<Self> {
        serving.gate.enter().then(|| Self { serving: Arc::clone(serving) })
    }

    /// Which version this is.
    pub fn id(&self) -> &VersionId {
        &self.serving.id
    }

    /// SHA-256 over the version's files, in lower-case hexadecimal.
    pub fn digest(&self) -> &str {
        &self.serving.digest
    }

    /// The protocol's platform name, such as `onnxruntime_onnx`.
    pub fn platform(&self) -> &'static str {
        self.serving.platform
    }

    /// What the model takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.serving.signature
    }

    /// Checks the request and runs it.
    ///
    /// Cancel safe: dropping the future cancels the run and counts it as cancelled.
    ///
    /// # Errors
    /// [`InferError`].
    pub async fn infer(
        &self,
        request: InferenceRequest,
        deadline: Instant,
    ) -> Result<Answer, InferError> {
        let ending = Ending::begin(&self.serving);
        let result = self.answer(request, deadline).await;
        ending.end(&result);
        result
    }

    async fn answer(
        &self,
        request: InferenceRequest,
        deadline: Instant,
    ) -> Result<Answer, InferError> {
        let request = PreparedRequest::new(&self.serving.signature, request)?;
        let wanted = request.outputs().to_vec();
        let completion = self.serving.pool.run(request, deadline).await?;
        let outputs = wanted.into_iter().zip(completion.outputs).collect();
        Ok(Answer { outputs, timings: completion.timings })
    }
}

impl Drop for VersionHandle {
    fn drop(&mut self) {
        self.serving.gate.leave();
    }
}

/// Counts a request exactly once, however it ends.
struct Ending<'a> {
    serving: &'a Serving,
    started: Instant,
    outcome: Outcome,
    timings: Option<Timings>,
}

impl<'a> Ending<'a> {
    fn begin(serving: &'a Serving) -> Self {
        let started = Instant::now();
        Self { serving, started, outcome: Outcome::Cancelled, timings: None }
    }

    fn end(mut self, result: &Result<Answer, InferError>) {
        match result {
            Ok(answer) => {
                self.outcome = Outcome::Success;
                self.timings = Some(answer.timings);
            }
            Err(error) => self.outcome = Outcome::from(error),
        }
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let total: Duration = self.started.elapsed();
        self.serving.usage.count(self.outcome != Outcome::Success);
        self.serving.observer.request(self.outcome, total, self.timings);
    }
}
