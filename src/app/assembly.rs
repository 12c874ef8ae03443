//! Putting the parts together.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::App;
use super::listener::{ListenError, Listener};
use super::standing::{self, StateReporter};
use crate::config::{Config, HealthConfig};
use crate::http::{self, InFlight, Limits, MetricsPage, Parts};
use crate::lifecycle::checks::{self, RuntimeWatch};
use crate::lifecycle::{
    Deadline, EventBus, Handler, HealthRegistry, LifecycleManager, Resource, ResourceManager,
};
use crate::metrics::{self, Metrics, Observed};
use crate::model::{
    ChangeError, ManagerOptions, ManagerParts, ModelLifecycleManager, ModelSource, SourceError,
};
use crate::onnx::{OnnxBackend, OnnxRuntime};
use crate::repository::LocalRepository;

/// How many events are kept, and how far a subscriber may lag behind.
const EVENTS: usize = 4096;

/// Why the server cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// There is no repository where the configuration says.
    #[error("the model repository, models.repository, cannot be opened")]
    Repository(#[source] SourceError),
    /// The system has no thread left.
    #[error("the runtime cannot be watched")]
    Watch(#[source] io::Error),
}

impl App {
    /// A server that has not started: nothing is listened on, no model is loaded. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// [`AssemblyError`].
    pub fn assemble(config: &Config, runtime: OnnxRuntime) -> Result<Self, AssemblyError> {
        let repository = LocalRepository::open(&config.models.repository);
        let source: Arc<dyn ModelSource> = Arc::new(repository.map_err(AssemblyError::Repository)?);
        let (events, metrics) = (EventBus::new(EVENTS), Arc::new(Metrics::new()));
        let core = core(config, &events, |health| ManagerParts {
            source: Arc::clone(&source),
            backend: Arc::new(OnnxBackend::new(runtime)),
            observer: Arc::new(Arc::clone(&metrics)),
            events: events.clone(),
            health,
        });
        core.health.register(standing::repository_check(source));
        let watch = register_checks(&core.health, config).map_err(AssemblyError::Watch)?;
        let (background, stop_background) = (TaskTracker::new(), CancellationToken::new());
        let states = StateReporter::new(&core.lifecycle, &core.health).run();
        background.spawn(stop_background.clone().run_until_cancelled_owned(states));
        let (counters, stream) = (Arc::clone(&metrics), events.subscribe());
        let counting = async move { counters.count_events(stream).await };
        background.spawn(stop_background.clone().run_until_cancelled_owned(counting));
        let in_flight = InFlight::default();
        let router = http::router(parts(config, &core, metrics, in_flight.clone()));
        let listener = Arc::new(Listener::new(&config.server, router, in_flight));
        register(&core, &listener, config);
        let Observed { lifecycle, health, resources, models } = core;
        Ok(Self {
            lifecycle,
            health,
            resources,
            models,
            listener,
            background,
            stop_background,
            _watch: watch,
        })
    }
}

/// The core's managers.
fn core(
    config: &Config,
    events: &EventBus,
    models: impl FnOnce(HealthRegistry) -> ManagerParts,
) -> Observed {
    let times = config.lifecycle;
    let health = HealthRegistry::with(times.into(), events.clone());
    let parts = models(health.clone());
    Observed {
        lifecycle: Arc::new(LifecycleManager::new(times, events.clone())),
        health,
        resources: Arc::new(ResourceManager::new(events.clone())),
        models: ModelLifecycleManager::new(parts, manager_options(config)),
    }
}

/// Resources are set up in this order and cleaned in reverse; so are handlers started and stopped.
fn register(core: &Observed, listener: &Arc<Listener>, config: &Config) {
    let opening = Arc::clone(listener);
    core.resources.register(
        Resource::new("http")
            .init(move || async move { opening.open().await as Result<_, ListenError> }),
    );
    let (draining, within) = (core.models.clone(), config.lifecycle.shutdown_timeout);
    core.lifecycle.register(Handler::new("models").on_stop(move || async move {
        match draining.shutdown(Deadline::after(within)).await.as_slice() {
            [] => Ok(()),
            stragglers => Err(format!("requests are still inside: {stragglers:?}")),
        }
    }));
    // Its own handler, so that a start that is interrupted half-way is still cleaned up after.
    let loading = core.models.clone();
    core.lifecycle.register(
        Handler::new("load models")
            .on_start(move || async move { loading.load_all().await as Result<(), ChangeError> }),
    );
}

/// The checks that are always there.
fn register_checks(health: &HealthRegistry, config: &Config) -> io::Result<RuntimeWatch> {
    let HealthConfig { max_stall, min_free_disk, max_memory } = config.health;
    health.register(checks::disk_space(&config.models.repository, min_free_disk.get()));
    if let Some(check) = checks::memory_pressure(max_memory.get()) {
        health.register(check);
    }
    RuntimeWatch::start(health, Handle::current(), max_stall)
}

fn manager_options(config: &Config) -> ManagerOptions {
    ManagerOptions {
        load_threads: config.models.load_threads,
        instances: config.inference.instances.unwrap_or_else(cores),
        queue_capacity: config.inference.queue_capacity,
        intra_op_threads: config.onnxruntime.intra_op_threads,
        drain_timeout: config.models.drain_timeout,
        required: config.models.required.clone(),
    }
}

fn parts(config: &Config, core: &Observed, metrics: Arc<Metrics>, in_flight: InFlight) -> Parts {
    let observed = core.clone();
    Parts {
        lifecycle: Arc::clone(&core.lifecycle),
        health: core.health.clone(),
        resources: Arc::clone(&core.resources),
        models: core.models.clone(),
        metrics: MetricsPage {
            content_type: metrics::CONTENT_TYPE,
            render: Box::new(move || metrics.render(&observed)),
        },
        limits: Limits {
            max_body_size: config.server.max_body_size.bytes(),
            request_timeout: config.server.request_timeout,
            heavy_work: cores(),
        },
        in_flight,
    }
}

/// The cores this process may use; one where the system does not tell.
fn cores() -> NonZeroUsize {
    available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
