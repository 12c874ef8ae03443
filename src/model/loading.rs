//! The load pipeline: fetch, verify, open, warm up. It runs on threads of its own.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use tokio::sync::{Semaphore, oneshot};

use super::error::LoadError;
use super::gate::Gate;
use super::handle::Serving;
use super::loader::{ModelSettings, ModelSource, WarmUp};
use super::observer::ModelObserver;
use super::record::VersionRecord;
use super::state::VersionEvent;
use super::usage::Usage;
use crate::causes;
use crate::inference::{
    Backend, Dim, InferenceRequest, Instance, InstancePool, NamedTensor, OpenOptions, PoolOptions,
    PreparedRequest, RunControl, Signature, Tensor, TensorSpec,
};

/// Runs blocking work of the control plane, so that no load shares a thread with a request.
#[derive(Debug)]
pub(super) struct LoadThreads {
    permits: Semaphore,
}

impl LoadThreads {
    /// At most `count` pieces of work run at once.
    pub(super) fn new(count: NonZeroUsize) -> Self {
        Self { permits: Semaphore::new(count.get()) }
    }

    /// Runs `work` on a new thread called `name`. Dropping the future does not stop the work.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LoadError> {
        let _permit = self.permits.acquire().await.map_err(|_| LoadError::ShuttingDown)?;
        let (reply, result) = oneshot::channel();
        let guarded = move || {
            let outcome = catch_unwind(AssertUnwindSafe(work))
                .map_err(|panic| LoadError::Panicked(causes::of_panic(panic.as_ref())));
            // Nobody waits any more when the future was dropped.
            drop(reply.send(outcome));
        };
        thread::Builder::new().name(name.to_owned()).spawn(guarded).map_err(LoadError::Threads)?;
        result.await.unwrap_or_else(|_| Err(LoadError::Panicked("no result".to_owned())))
    }
}

/// What every load needs.
pub(super) struct Loader {
    pub(super) source: Arc<dyn ModelSource>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) observer: Arc<dyn ModelObserver>,
    pub(super) intra_op_threads: NonZeroUsize,
    pub(super) instances: NonZeroUsize,
    pub(super) queue_capacity: NonZeroUsize,
}

impl Loader {
    /// Takes `record` from NEW to WARMING, with its warm-up answered. Blocks.
    ///
    /// # Errors
    /// [`LoadError`]; the record is left where it failed.
    pub(super) fn load(
        &self,
        record: &VersionRecord,
        settings: &ModelSettings,
    ) -> Result<Arc<Serving>, LoadError> {
        record.advance(VersionEvent::Fetch);
        let files = self.source.fetch(&record.id)?;
        record.advance(VersionEvent::Fetched);
        let digest = self.source.digest(&files)?;
        record.advance(VersionEvent::Verified);
        let options = OpenOptions { intra_op_threads: self.intra_op_threads };
        let mut model = self.backend.open(&files, options)?;
        let signature = model.signature().clone();
        let count = settings.instances.unwrap_or(self.instances).get();
        let mut instances =
            (0..count).map(|_| model.instantiate()).collect::<Result<Vec<_>, _>>()?;
        record.advance(VersionEvent::Loaded);
        if settings.warm_up == WarmUp::Generated {
            warm_up(&signature, &mut instances)?;
        }
        let pool = PoolOptions {
            name: record.id.to_string(),
            queue_capacity: settings.queue_capacity.unwrap_or(self.queue_capacity),
        };
        let pool = InstancePool::start(&pool, instances).map_err(LoadError::Threads)?;
        Ok(Arc::new(Serving {
            id: record.id.clone(),
            digest,
            platform: self.backend.platform(),
            signature,
            pool,
            gate: Gate::default(),
            usage: Usage::default(),
            observer: self.observer.version(&record.id),
        }))
    }
}

/// Sizes tried for dynamic dimensions: a graph may need more than one of something, such as a
/// convolution wider than its input.
const WARM_UP_SIZES: [usize; 5] = [1, 2, 8, 64, 224];

/// Lets every instance answer one generated request, of the smallest size that the model answers.
fn warm_up(signature: &Signature, instances: &mut [Box<dyn Instance>]) -> Result<(), LoadError> {
    let mut first_failure = None;
    for size in WARM_UP_SIZES {
        let request = generated(signature, size)?;
        match instances.iter_mut().try_for_each(|instance| answer(instance.as_mut(), &request)) {
            Ok(()) => return Ok(()),
            Err(failure) => first_failure.get_or_insert(failure),
        };
        if !signature.inputs.iter().any(is_dynamic) {
            break;
        }
    }
    first_failure.map_or(Ok(()), |failure| {
        let advice = "set 'warm_up: off' in model.yaml if no generated input fits the model";
        Err(LoadError::WarmUp(format!("{failure}; {advice}")))
    })
}

fn answer(instance: &mut dyn Instance, request: &PreparedRequest) -> Result<(), String> {
    instance
        .run(request, &RunControl::default())
        .map(drop)
        .map_err(|error| causes::of_error(&error))
}

fn is_dynamic(spec: &TensorSpec) -> bool {
    let dynamic = |dim: &Dim| matches!(dim, Dim::Dynamic(_));
    spec.shape.as_ref().is_none_or(|dims| dims.iter().any(dynamic))
}

fn generated(signature: &Signature, size: usize) -> Result<PreparedRequest, LoadError> {
    let required = signature.inputs.iter().filter(|spec| !spec.optional);
    let inputs = required
        .map(|spec| {
            let shape = spec.shape.as_deref().unwrap_or_default().iter().map(|dim| match dim {
                Dim::Fixed(fixed) => *fixed,
                Dim::Dynamic(_) => size,
            });
            let tensor = Tensor::zeros(spec.datatype, shape.collect())
                .map_err(|error| LoadError::WarmUp(error.to_string()))?;
            Ok(NamedTensor { name: spec.name.clone(), tensor })
        })
        .collect::<Result<Vec<_>, LoadError>>()?;
    let request = InferenceRequest { inputs, outputs: Vec::new() };
    PreparedRequest::new(signature, request).map_err(|error| LoadError::WarmUp(error.to_string()))
}
