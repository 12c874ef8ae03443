//! Putting the parts together.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::App;
use super::listener::{ListenError, Listener};
use super::standing::{self, StateReporter};
use crate::cloudevents::CloudEvents;
use crate::config::{Config, WebhooksConfig};
use crate::http::{self, InFlight, Limits, MetricsPage, Parts};
use crate::lifecycle::{
    Deadline, EventBus, Handler, HealthRegistry, Hooks, LifecycleManager, Resource, ResourceManager,
};
use crate::metrics::{self, Metrics, Observed};
use crate::model::{
    ChangeError, ManagerOptions, ManagerParts, ModelLifecycleManager, ModelSource, SourceError,
};
use crate::onnx::{OnnxBackend, OnnxRuntime};
use crate::repository::LocalRepository;
use crate::webhooks::{self, Secret};

/// Why the server cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// There is no repository where the configuration says.
    #[error("the model repository, models.repository, cannot be opened")]
    Repository(#[source] SourceError),
    /// The key that signs webhooks cannot be had.
    #[error(transparent)]
    Secret(#[from] webhooks::SecretError),
    /// Webhooks cannot be sent.
    #[error(transparent)]
    Webhooks(#[from] webhooks::ClientError),
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
        let (events, metrics) =
            (EventBus::new(config.events.history.get()), Arc::new(Metrics::new()));
        let core = core(config, &events, |health| ManagerParts {
            source: Arc::clone(&source),
            backend: Arc::new(OnnxBackend::new(runtime)),
            observer: Arc::new(Arc::clone(&metrics)),
            events: events.clone(),
            health,
        });
        core.health.register(standing::repository_check(source));
        let (background, stop_background) = (TaskTracker::new(), CancellationToken::new());
        let states = StateReporter::new(&core.lifecycle, &core.health).run();
        background.spawn(stop_background.clone().run_until_cancelled_owned(states));
        let (counters, stream) = (Arc::clone(&metrics), events.subscribe());
        let counting = async move { counters.count_events(stream).await };
        background.spawn(stop_background.clone().run_until_cancelled_owned(counting));
        let hooks = Arc::new(Hooks::new(events.clone()));
        let parts = parts(config, &core, metrics, (events, Arc::clone(&hooks)));
        register_webhooks(&config.webhooks, &parts.cloud_events, &hooks)?;
        let (in_flight, closing) = (parts.in_flight.clone(), parts.closing.clone());
        let listener = Listener::new(&config.server, http::router(parts), in_flight, closing);
        let listener = Arc::new(listener);
        register(&core, &listener, config);
        Ok(Self { core, hooks, listener, background, stop_background })
    }
}

/// The core's managers.
fn core(
    config: &Config,
    events: &EventBus,
    models: impl FnOnce(HealthRegistry) -> ManagerParts,
) -> Observed {
    let times = config.lifecycle;
    let health = HealthRegistry::new(times.health_interval, times.health_timeout, events.clone());
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

fn register_webhooks(
    config: &WebhooksConfig,
    events: &CloudEvents,
    hooks: &Hooks,
) -> Result<(), AssemblyError> {
    let options = webhooks::Options {
        kinds: config.kinds.clone().unwrap_or_default(),
        secret: config.secret_file.as_deref().map(Secret::read).transpose()?,
        timeout: config.timeout,
        attempts: u32::try_from(config.attempts.get()).unwrap_or(u32::MAX),
    };
    for url in &config.urls {
        hooks.register(webhooks::hook(url.as_str(), events, &options)?);
    }
    Ok(())
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

fn parts(
    config: &Config,
    core: &Observed,
    metrics: Arc<Metrics>,
    (events, hooks): (EventBus, Arc<Hooks>),
) -> Parts {
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
        events,
        cloud_events: CloudEvents::new(&instance()),
        hooks,
        in_flight: InFlight::default(),
        closing: CancellationToken::new(),
    }
}

/// A name for this life of the server that no other has. The standard library seeds a hasher's state
/// at random.
fn instance() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// The cores this process may use; one where the system does not tell.
fn cores() -> NonZeroUsize {
    available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
