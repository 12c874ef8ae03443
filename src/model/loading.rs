//! The load pipeline: fetch, verify, open, warm up. It runs on threads of its own.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::batching;
use super::compatibility;
use super::ensemble::{self, Ensemble, EnsembleDefinition, OpenedEnsemble, Pinned};
use super::error::LoadError;
use super::gate::Gate;
use super::golden;
use super::handle::Serving;
use super::hold::Holds;
use super::ledger::{Ledger, Reservation};
use super::loader::{ModelSettings, ModelSource};
use super::memory::MemoryMeter;
use super::names::{Version, VersionId};
use super::observer::ModelObserver;
use super::record::VersionRecord;
use super::response_cache::ResponseCache;
use super::runner::Runner;
use super::state::VersionEvent;
use super::traced::Traced;
use super::usage::Usage;
use super::warm_up::warm_up;
use crate::causes;
use crate::inference::{
    Backend, BatchOptions, Instance, InstancePool, ModelFiles, OpenOptions, OpenedModel,
    PoolOptions, RunWatch, Signature, Spawner, give_way,
};

/// Runs blocking work of the control plane, so that no load shares a thread with a request.
#[derive(Debug)]
pub(super) struct WorkThreads {
    permits: Arc<Semaphore>,
    /// A place that is kept for what requests wait for.
    kept: Arc<Semaphore>,
    limit: Duration,
    stop: CancellationToken,
    gives_way: bool,
}

/// Which places work may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Places {
    Usual,
    /// Also the one that is kept for what requests wait for, so that loads which nobody waits for hold
    /// none up.
    Kept,
}

/// A place among the work that runs at once. Given back by whoever is first: the work at its end, or
/// who waits for it when that was too long, so that what hangs does not keep the place.
type Place = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

impl WorkThreads {
    /// At most `count` pieces of work run at once, each for `limit` at most. From the moment `stop`
    /// is cancelled nobody waits for any of them.
    pub(super) fn new(count: NonZeroUsize, limit: Duration, stop: CancellationToken) -> Self {
        let count = count.get().min(Semaphore::MAX_PERMITS);
        let (permits, kept) = (Arc::new(Semaphore::new(count)), Arc::new(Semaphore::new(1)));
        Self { permits, kept, limit, stop, gives_way: false }
    }

    /// The work gives way to requests where there are fewer cores than would be busy.
    pub(super) fn giving_way(self) -> Self {
        Self { gives_way: true, ..self }
    }

    /// As much work as there is runs at once, and is always waited for.
    pub(super) fn unbounded() -> Self {
        let permits = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let (kept, stop) = (Arc::clone(&permits), CancellationToken::new());
        Self { permits, kept, limit: Duration::MAX, stop, gives_way: false }
    }

    /// Runs `work` on a new thread called `name`. Neither dropping the future nor stopping ends the
    /// work; its result is dropped then.
    ///
    /// # Errors
    /// [`LoadError::ShuttingDown`], [`LoadError::TimedOut`], [`LoadError::Panicked`] and
    /// [`LoadError::Threads`].
    pub(super) async fn run<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LoadError> {
        self.run_at(Places::Usual, name, work).await
    }

    /// [`WorkThreads::run`] at one of these places.
    ///
    /// # Errors
    /// As [`WorkThreads::run`].
    pub(super) async fn run_at<T: Send + 'static>(
        &self,
        places: Places,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LoadError> {
        let result = self.stop.run_until_cancelled(self.start(places, name, work)).await;
        result.unwrap_or(Err(LoadError::ShuttingDown))
    }

    async fn start<T: Send + 'static>(
        &self,
        places: Places,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LoadError> {
        let permit = tokio::select! {
            biased;
            permit = Arc::clone(&self.permits).acquire_owned() => permit,
            permit = Arc::clone(&self.kept).acquire_owned(), if places == Places::Kept => permit,
        };
        let permit = permit.expect("the semaphore is never closed");
        let (reply, result) = oneshot::channel();
        let place: Place = Arc::new(Mutex::new(Some(permit)));
        let (held, gives_way) = (Arc::clone(&place), self.gives_way);
        let guarded = move || {
            if gives_way {
                give_way();
            }
            let outcome = catch_unwind(AssertUnwindSafe(work))
                .map_err(|panic| LoadError::Panicked(causes::of_panic(panic.as_ref())));
            // The work holds the permit, for it goes on when the future was dropped.
            give_back(&held);
            // Then nobody waits any more.
            drop(reply.send(outcome));
        };
        thread::Builder::new().name(name.to_owned()).spawn(guarded).map_err(LoadError::Threads)?;
        let Ok(result) = timeout(self.limit, result).await else {
            give_back(&place);
            return Err(LoadError::TimedOut(self.limit));
        };
        result.unwrap_or_else(|_| Err(LoadError::Panicked("no result".to_owned())))
    }
}

fn give_back(place: &Place) {
    drop(place.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// What a version has to be besides sound.
#[derive(Debug, Clone, Default)]
pub(super) struct Demands {
    /// Callers of this version, which has this signature, must be able to call the new one as they
    /// do.
    pub(super) like: Option<(Version, Signature)>,
    /// Its golden samples are not asked.
    pub(super) unverified: bool,
    /// What all versions may take together, in bytes; zero for no bound.
    pub(super) budget: u64,
    /// What was kept of the memory for it.
    pub(super) within: Option<Arc<Reservation>>,
}

/// A version's files, as they are to be loaded.
pub(super) struct Fetched {
    files: ModelFiles,
    digest: String,
    /// What is to answer in the place of instances, where that is steps.
    ensemble: Option<Arc<Ensemble>>,
    /// What the version is estimated to take of the memory, in bytes.
    pub(super) bytes: u64,
}

impl Fetched {
    /// They are those of an ensemble that has these steps.
    pub(super) fn become_ensemble(
        &mut self,
        steps: Pinned,
        settings: (&EnsembleDefinition, &ModelSettings),
    ) -> Result<(), LoadError> {
        self.ensemble = Some(Arc::new(steps.planned(&self.digest, settings)?));
        Ok(())
    }
}

impl Demands {
    /// A version that can take the place of this one.
    pub(super) fn like(old: &Serving) -> Self {
        let like = Some((old.id.version, old.signature.clone()));
        Self { like, ..Self::default() }
    }
}

/// A version that has answered its warm-up.
struct Made {
    instances: Vec<Box<dyn Instance>>,
    signature: Signature,
    digest: String,
    /// Or why there is none.
    batching: Result<BatchOptions, String>,
}

/// What every load needs.
pub(super) struct Loader {
    pub(super) source: Arc<dyn ModelSource>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) observer: Arc<dyn ModelObserver>,
    pub(super) ledger: Ledger,
    pub(super) meter: MemoryMeter,
    pub(super) spawner: Spawner,
    pub(super) watch: Arc<RunWatch>,
    /// Runs what of a load is no work of this thread.
    pub(super) runtime: Handle,
    pub(super) intra_op_threads: NonZeroUsize,
    pub(super) instances: NonZeroUsize,
    pub(super) queue_capacity: NonZeroUsize,
    pub(super) max_batch_size: NonZeroUsize,
    pub(super) responses: Arc<ResponseCache>,
}

impl Loader {
    /// Takes `record` from NEW to VERIFYING. Blocks. Stops at the next step when the record was given up
    /// in the meantime.
    ///
    /// # Errors
    /// [`LoadError`]; the record is left where it failed.
    pub(super) fn fetch(
        &self,
        record: &VersionRecord,
        settings: &ModelSettings,
    ) -> Result<Fetched, LoadError> {
        record.proceed(VersionEvent::Fetch)?;
        let files = self.source.fetch(&record.id)?;
        record.proceed(VersionEvent::Fetched)?;
        let digest = self.source.digest(&files)?;
        let size = self.source.size(&files)?;
        let files = files.of_size(size);
        let copies = if settings.ensemble.is_some() {
            // Its steps take the memory.
            0
        } else {
            let (options, count) = (self.options(settings), self.instances(settings));
            self.backend.copies(&files, &options, count).get() as u64
        };
        let bytes = size.saturating_mul(copies);
        Ok(Fetched { files, digest, ensemble: None, bytes })
    }

    /// Takes `record` from VERIFYING to WARMING, with its warm-up answered. Blocks. Stops at the next
    /// step when the record was given up in the meantime.
    ///
    /// # Errors
    /// [`LoadError`]; the record is left where it failed, and what was made until then is released.
    pub(super) fn load(
        &self,
        record: &VersionRecord,
        (fetched, reservation): (Fetched, Reservation),
        (settings, demands): (&ModelSettings, &Demands),
    ) -> Result<Arc<Serving>, LoadError> {
        let steps = fetched.ensemble.clone();
        let (made, memory) = self.meter.measure(|| self.make(record, fetched, (settings, demands)));
        let made = made.inspect_err(|_| self.backend.released())?;
        let (digest, signature) = (made.digest.clone(), made.signature.clone());
        let (runner, platform) = match steps {
            Some(steps) => (Runner::Steps(steps), ensemble::PLATFORM),
            None => (self.runner(&record.id, made, settings), self.backend.platform()),
        };
        let usage = Usage::new(runner.runs());
        Ok(Arc::new(Serving {
            id: record.id.clone(),
            traced: Traced::new(&record.id, &digest),
            responses: settings
                .response_cache
                .then(|| self.responses.of_version(&digest, &settings.execution_providers)),
            digest,
            platform,
            signature,
            settings: settings.clone(),
            runner,
            reservation,
            memory,
            gate: Gate::default(),
            holds: Holds::default(),
            _observed: self.observer.version(&record.id, usage.reader()),
            usage,
        }))
    }

    /// The instances, with what runs them.
    fn runner(&self, id: &VersionId, made: Made, settings: &ModelSettings) -> Runner {
        let options = PoolOptions {
            name: id.to_string(),
            queue_capacity: self.queue_capacity(settings),
            batched: settings.is_batched(&made.signature),
            batching: made.batching,
        };
        let around = (&self.spawner, &self.watch);
        Runner::Instances(InstancePool::new(&options, made.instances, around))
    }

    /// Whether a version that serves has the instances and the queue that `settings` ask for.
    pub(super) fn is_set_up(&self, serving: &Serving, settings: &ModelSettings) -> bool {
        let is_sized = serving.runner.pool().is_none_or(|pool| {
            pool.instances() == self.instances(settings).get()
                && pool.queue_capacity() == self.queue_capacity(settings).get()
        });
        is_sized
            && serving.settings.ensemble == settings.ensemble
            && serving.settings.max_batch_size == settings.max_batch_size
            && serving.settings.batching == settings.batching
            && serving.settings.default_priority == settings.default_priority
            && serving.settings.response_cache == settings.response_cache
            && serving.settings.labels == settings.labels
            && serving.settings.execution_providers == settings.execution_providers
    }

    fn options(&self, settings: &ModelSettings) -> OpenOptions {
        let execution_providers = settings.execution_providers.clone();
        OpenOptions { intra_op_threads: self.intra_op_threads, execution_providers }
    }

    fn instances(&self, settings: &ModelSettings) -> NonZeroUsize {
        settings.instances.unwrap_or(self.instances)
    }

    fn queue_capacity(&self, settings: &ModelSettings) -> NonZeroUsize {
        settings.queue_capacity.unwrap_or(self.queue_capacity)
    }

    fn open(
        &self,
        files: &ModelFiles,
        (ensemble, settings): (Option<&Arc<Ensemble>>, &ModelSettings),
    ) -> Result<Box<dyn OpenedModel>, LoadError> {
        let Some(ensemble) = ensemble else {
            return Ok(self.backend.open(files, self.options(settings))?);
        };
        let (ensemble, runtime) = (Arc::clone(ensemble), self.runtime.clone());
        Ok(Box::new(OpenedEnsemble { ensemble, runtime }))
    }

    fn make(
        &self,
        record: &VersionRecord,
        Fetched { files, digest, ensemble, .. }: Fetched,
        (settings, demands): (&ModelSettings, &Demands),
    ) -> Result<Made, LoadError> {
        record.proceed(VersionEvent::Verified)?;
        let mut model = self.open(&files, (ensemble.as_ref(), settings))?;
        let signature = model.signature().clone();
        settings
            .declared
            .iter()
            .try_for_each(|declared| declared.check(&signature).map_err(LoadError::Declared))?;
        if let Some((with, old)) = &demands.like {
            let differences = compatibility::differences(old, &signature);
            if !differences.is_empty() {
                return Err(LoadError::Incompatible { with: *with, differences });
            }
        }
        let mut instances = Vec::new();
        let count = if ensemble.is_some() { 1 } else { self.instances(settings).get() };
        for _ in 0..count {
            record.goes_on()?;
            instances.push(model.instantiate()?);
        }
        // The engine may have read the files more than once.
        if self.source.digest(&files)? != digest {
            return Err(LoadError::Changed);
        }
        record.proceed(VersionEvent::Loaded)?;
        let control = record.warm_up_control();
        let plain = warm_up(&signature, &mut instances, (settings, control))?;
        if !demands.unverified {
            let samples = self.source.samples(&record.id)?;
            golden::verify(&signature, &mut instances, (&samples, control))?;
        }
        if let Some(ensemble) = ensemble {
            let (digest, batching) = (ensemble.digest(), Err(String::new()));
            return Ok(Made { instances: Vec::new(), signature, digest, batching });
        }
        let first = instances.first_mut().expect("there is at least one");
        let asked = (settings, self.max_batch_size);
        let batching = batching::agree(&signature, first.as_mut(), asked, (plain, control))?;
        Ok(Made { instances, signature, digest, batching })
    }
}
