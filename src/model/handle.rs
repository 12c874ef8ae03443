//! A ready version, and the guard under which a request uses it.

use std::fmt;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::ensemble::Ensemble;
use super::gate::Gate;
use super::hold::Holds;
use super::ledger::Reservation;
use super::loader::ModelSettings;
use super::memory::MemoryChange;
use super::mirror::Mirror;
use super::names::VersionId;
use super::observer::{Observed, Protocol};
use super::report::StepReport;
use super::response_cache::{CacheLookup, VersionCache, is_laborious};
use super::runner::{Manner, Runner};
use super::traced::Traced;
use super::usage::Usage;
use crate::inference::{
    Completion, InferError, InferenceRequest, Positions, PreparedRequest, RunTerms, Signature,
    Tensor, Timings,
};

/// Everything a request needs of a version that has been loaded.
pub(super) struct Serving {
    pub(super) id: VersionId,
    pub(super) digest: String,
    pub(super) traced: Traced,
    pub(super) platform: &'static str,
    pub(super) signature: Signature,
    /// As they were when it was loaded.
    pub(super) settings: ModelSettings,
    pub(super) runner: Runner,
    /// Its answers, where they are kept.
    pub(super) responses: Option<VersionCache>,
    /// What it takes of the memory that models may have.
    pub(super) reservation: Reservation,
    /// What loading it did to the resident memory, where that could be measured.
    pub(super) memory: Option<MemoryChange>,
    pub(super) gate: Gate,
    /// Ensembles that have it as a step.
    pub(super) holds: Holds,
    pub(super) usage: Arc<Usage>,
    pub(super) _observed: Observed,
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
    /// What gets copies of its requests.
    mirror: Option<Arc<Mirror>>,
    /// Whether its request has waited until the version came, as many others may have.
    waited: bool,
    /// What its request came over.
    protocol: Protocol,
}

/// A place inside a version that is no request's.
pub(super) struct GateGuard<'a>(&'a Gate);

impl Serving {
    /// The digest of its files: that of the version, but for an ensemble, whose steps are in its digest too.
    pub(super) fn files_digest(&self) -> &str {
        self.runner.ensemble().map_or(&self.digest, |ensemble| &ensemble.files)
    }

    /// Whether the first dimension of everything it takes and gives is that of a batch.
    fn is_batched(&self) -> bool {
        self.settings.is_batched(&self.signature)
    }

    /// Checks a request, runs it and counts it. Where `terms` name no priority, that of the settings holds.
    ///
    /// Cancel safe: dropping the future cancels the run and counts it as cancelled.
    ///
    /// # Errors
    /// [`InferError`].
    pub(super) async fn infer(
        &self,
        request: InferenceRequest,
        (terms, manner): (RunTerms, Manner),
        protocol: Protocol,
    ) -> Result<Answer, InferError> {
        let priority = terms.priority.or(self.settings.default_priority);
        let ending = Ending::begin(self, (protocol, self.batch(&request)));
        let result = self.answer(request, (RunTerms { priority, ..terms }, manner)).await;
        ending.end(&result);
        result
    }

    /// [`Serving::infer`] for a request that is not counted.
    ///
    /// # Errors
    /// As that.
    pub(super) async fn answer(
        &self,
        request: InferenceRequest,
        (terms, manner): (RunTerms, Manner),
    ) -> Result<Answer, InferError> {
        let request = PreparedRequest::new(&self.signature, request)?;
        let wanted = Positions::from_slice(request.outputs());
        let (completion, cache) = match &self.responses {
            Some(responses) if manner.may_be_kept() => {
                // On the heap, where it is out of the way of versions whose answers are not kept.
                Box::pin(self.looked_up(responses, request, (terms, manner))).await?
            }
            _ => (self.runner.run(request, (&self.signature, manner), terms).await?, None),
        };
        let outputs = wanted.into_iter().zip(completion.outputs).collect();
        Ok(Answer { outputs, timings: completion.timings, cache })
    }

    /// The answer that is kept, or else that of a run, which is kept from now on.
    async fn looked_up(
        &self,
        responses: &VersionCache,
        request: PreparedRequest,
        (terms, manner): (RunTerms, Manner),
    ) -> Result<(Completion, Option<CacheLookup>), InferError> {
        let admitted = Some(Instant::now());
        let mut key = None;
        // One that will be refused must not take long.
        if !(is_laborious(&request) && self.runner.is_full()) {
            let found = timeout_at(terms.deadline, responses.find(&request)).await;
            match found.map_err(|_| InferError::DeadlineExceeded)? {
                Ok(outputs) => {
                    let timings = Timings { admitted, ..Timings::default() };
                    return Ok((Completion { outputs, timings }, Some(CacheLookup::Hit)));
                }
                Err(its_own) => key = Some(its_own),
            }
        }
        let completion = self.runner.run(request, (&self.signature, manner), terms).await?;
        if let Some(key) = key {
            responses.keep(key, &completion.outputs);
        }
        Ok((completion, Some(CacheLookup::Miss)))
    }

    /// How many entries the batch of a request has; one where the model takes none.
    fn batch(&self, request: &InferenceRequest) -> u64 {
        let first = request.inputs.first().filter(|_| self.is_batched());
        let size = first.and_then(|input| input.tensor.shape().first());
        size.map_or(1, |size| u64::try_from(*size).unwrap_or(u64::MAX))
    }

    /// Keeps the version from being unloaded; `None` when it takes nothing new any more.
    pub(super) fn gate_guard(&self) -> Option<GateGuard<'_>> {
        self.gate.enter().then(|| GateGuard(&self.gate))
    }
}

impl Drop for GateGuard<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// What a model answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The outputs asked for, each with its position in the signature's outputs.
    pub outputs: Vec<(usize, Tensor)>,
    /// Where the time went.
    pub timings: Timings,
    /// Whether it was kept from before; `None` where answers are not kept.
    pub cache: Option<CacheLookup>,
}

impl VersionHandle {
    /// Enters the version; `None` when it takes no new request any more.
    pub(super) fn enter(serving: Arc<Serving>, mirror: Option<Arc<Mirror>>) -> Option<Self> {
        let mirror = mirror.filter(|mirror| !mirror.is_to(&serving));
        // Made only once inside: dropping it leaves.
        let protocol = Protocol::default();
        serving.gate.enter().then(|| Self { serving, mirror, waited: false, protocol })
    }

    /// The same for a request that has waited until the version came. As such requests come all at
    /// once, they wait for a place in the queue too.
    pub(super) fn after_waiting(self) -> Self {
        // Not by an update of the struct: the old one would leave the gate when it is dropped.
        let mut handle = self;
        handle.waited = true;
        handle
    }

    /// The same for a request that came over `protocol`, by which it is counted.
    pub(crate) fn over(self, protocol: Protocol) -> Self {
        let mut handle = self;
        handle.protocol = protocol;
        handle
    }

    /// Which version this is.
    pub fn id(&self) -> &VersionId {
        &self.serving.id
    }

    /// SHA-256 over the version's files, in lower-case hexadecimal; of an ensemble, over its definition and
    /// the digests of its steps too.
    pub fn digest(&self) -> &str {
        &self.serving.digest
    }

    /// The same with the version's name, for the heads of its answers.
    pub fn traced(&self) -> &Traced {
        &self.serving.traced
    }

    /// The protocol's platform name, such as `onnxruntime_onnx`; `ensemble` for an ensemble.
    pub fn platform(&self) -> &'static str {
        self.serving.platform
    }

    /// What the model takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.serving.signature
    }

    /// The model's settings as they were when the version was loaded.
    pub fn settings(&self) -> &ModelSettings {
        &self.serving.settings
    }

    /// What it is made of, where it is an ensemble.
    pub fn steps(&self) -> Vec<StepReport> {
        self.serving.runner.ensemble().map(Ensemble::report).unwrap_or_default()
    }

    /// How many instances of its own run its requests; none for an ensemble.
    pub fn instances(&self) -> usize {
        self.serving.runner.instances()
    }

    /// Whether the first dimension of everything it takes and gives is that of a batch: by its settings
    /// where they say so, or else because all of them are free.
    pub fn is_batched(&self) -> bool {
        self.serving.is_batched()
    }

    /// What the places of an output mean; empty where nobody has said.
    pub fn labels(&self, output: &str) -> &[String] {
        self.settings().labels.get(output).map(|labels| &*labels.texts).unwrap_or_default()
    }

    /// Checks the request and runs it. Where `terms` name no priority, that of the model's settings holds.
    ///
    /// Cancel safe: dropping the future cancels the run and counts it as cancelled.
    ///
    /// # Errors
    /// [`InferError`].
    pub async fn infer(
        &self,
        request: InferenceRequest,
        terms: impl Into<RunTerms>,
    ) -> Result<Answer, InferError> {
        let manner = if self.waited { Manner::Patient } else { Manner::Usual };
        self.infer_in(request, (terms.into(), manner)).await
    }

    /// [`VersionHandle::infer`] for one who wants to see the version run: it gets no answer that was kept.
    ///
    /// Cancel safe as that.
    ///
    /// # Errors
    /// As that.
    pub(super) async fn infer_anew(
        &self,
        request: InferenceRequest,
        terms: impl Into<RunTerms>,
    ) -> Result<Answer, InferError> {
        self.infer_in(request, (terms.into(), Manner::Anew)).await
    }

    async fn infer_in(
        &self,
        request: InferenceRequest,
        how: (RunTerms, Manner),
    ) -> Result<Answer, InferError> {
        let copy = self.mirror.as_ref().and_then(|mirror| mirror.copy(&request, &self.serving));
        let result = self.serving.infer(request, how, self.protocol).await;
        if let (Some(copy), Ok(answer)) = (copy, &result) {
            copy.send(answer);
        }
        result
    }

    /// Counts a request for this version that is refused before it is asked to answer it.
    pub fn refused(&self) {
        self.serving.usage.refused(self.protocol);
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
    protocol: Protocol,
    batch: u64,
    counted: bool,
}

impl<'a> Ending<'a> {
    fn begin(serving: &'a Serving, (protocol, batch): (Protocol, u64)) -> Self {
        Self { serving, started: Instant::now(), protocol, batch, counted: false }
    }

    fn end(mut self, result: &Result<Answer, InferError>) {
        self.counted = true;
        let took = (self.protocol, self.started.elapsed());
        match result {
            Ok(answer) => {
                // One that was kept has waited for nothing, and nothing was computed.
                let timings =
                    Some(answer.timings).filter(|_| answer.cache != Some(CacheLookup::Hit));
                self.serving.usage.answered(took, (timings, self.batch));
            }
            Err(error) => self.serving.usage.failed(took, Some(error)),
        }
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.serving.usage.failed((self.protocol, self.started.elapsed()), None);
        }
    }
}
