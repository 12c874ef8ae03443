//! Putting the parts together.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::App;
use super::begun;
use super::cpu::CpuPlan;
use super::interfaces::{InterfaceCounts, Sources};
use super::listeners::{Around, Listeners};
use super::managed::{self, ManagedBackend, ManagedRepository, Place, PlaceError};
use super::reload::{self, Configuration, Reloading};
use super::{secure, traces};
use crate::auth::{Following, Guard, Options, SourceError, TokenOptions};
use crate::cloudevents::CloudEvents;
use crate::config::{
    AuthConfig, Config, HealthConfig, LoadMode, ModelsConfig, WebhooksConfig, Words,
};
use crate::grpc;
use crate::http::{ConfigurationPage, MetricsPage, Parts};
use crate::lifecycle::checks::{RuntimeWatch, disk_space, memory_pressure};
use crate::lifecycle::{Application, EventBus, Handler, HealthRegistry, Hooks};
use crate::metrics::{self, Metrics};
use crate::model::{ChangeError, ManagerOptions, ManagerParts, ModelLifecycleManager};
use crate::onnx::OnnxRuntime;
use crate::repository::OverlayRepository;
use crate::state_file::{StateError, StateFolder};
use crate::telemetry::{OtlpError, export};
use crate::tls::{Tls, TlsError};
use crate::trail::Trails;
use crate::webhooks::{self, Secret};

/// Why the server cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// The key that signs webhooks cannot be had.
    #[error(transparent)]
    Secret(#[from] webhooks::SecretError),
    /// A file with credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] SourceError),
    /// The repository's address is none.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// What operators have decided cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no TLS by the files of the configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Spans cannot be sent.
    #[error(transparent)]
    Spans(#[from] OtlpError),
    /// Webhooks cannot be sent.
    #[error(transparent)]
    Webhooks(#[from] webhooks::ClientError),
    /// The system has no thread left.
    #[error("the runtime cannot be watched")]
    Watch(#[source] io::Error),
}

impl AssemblyError {
    /// Whether the files of the configuration are to be put right.
    pub const fn is_of_configuration(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::Credentials(_) | Self::Spans(_))
    }
}

impl App {
    /// A server that has not started: nothing is listened on, no model is loaded. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// [`AssemblyError`].
    pub fn assemble(
        configuration: Configuration,
        runtime: OnnxRuntime,
    ) -> Result<Self, AssemblyError> {
        let (configuration, instance) = (Arc::new(configuration), instance());
        let config = &configuration.config();
        let tls = secure::open(&config.server)?;
        let events = EventBus::new(config.events.history.get());
        let application = Application::new(config.lifecycle, events.clone());
        let metrics = Arc::new(Metrics::new(config.metrics.triton_names));
        let (counts, engine_version) =
            (InterfaceCounts::new(application.events()), runtime.version());
        let resources = application.resources();
        resources.register(managed::metrics(&metrics, &events));
        if let Some(tls) = &tls {
            resources.register(secure::following(tls, &events));
        }
        let engine = resources.register(managed::engine(runtime, &config.onnxruntime));
        let place = Place::new(&config.models, configuration.store_options())?;
        let repository = resources.register(managed::repository(&place));
        let repository = OverlayRepository::new(ManagedRepository::new(repository));
        let clear_loads = repository.clear();
        let manager = ManagerParts {
            source: Arc::new(repository),
            backend: Arc::new(ManagedBackend::new(engine)),
            observer: Arc::new(Arc::clone(&metrics)),
            events,
            health: application.health().clone(),
            desired: None,
        };
        let models = managed_models(manager, config)?;
        let watch = register_checks(application.health(), &configuration, &place)?;
        let (recorder, exporter) = export(&config.telemetry, &instance)?;
        let trails = Trails::new(recorder, reload::trail_terms(config));
        let guard = guard(&config.auth, application.events())?;
        let following = guard.as_ref().map(Following::start);
        let sources = Sources::of(&counts, trails.recorder(), configuration.logs());
        let observed = observed(&application, models.clone(), (sources, engine_version));
        let page = move || metrics.render(&observed);
        let around = (&configuration, &application, instance.as_str());
        let parts = parts(around, models.clone(), &counts, page);
        let parts = Parts { guard, ..parts };
        register_webhooks(&config.webhooks, &parts.cloud_events, application.hooks())?;
        let reloading = reloading(&parts, tls.clone(), trails.clone());
        application.on_reload(move || reloading.reload(&configuration));
        let grpc = grpc_parts(&parts, &counts);
        let around = Around { counts: &counts, tls: tls.as_ref(), trails: &trails };
        let listeners = Listeners::new(&config.server, (parts, grpc), around);
        register(&application, (&models, &config.models), &listeners);
        clean_up(&application, clear_loads);
        traces::register(&application, &models, (trails.recorder(), exporter));
        models.start_clean_up(config.lifecycle.cleanup_interval);
        models.start_reconciling();
        Ok(Self { application, listeners, _watch: watch, _following: following })
    }
}

/// Has the files cleaned up that loads have brought: they outlive the process otherwise.
fn clean_up(application: &Application, clear_loads: impl FnOnce() + Send + 'static) {
    application.on_drain("files of loads", move |_| async move {
        spawn_blocking(clear_loads).await.map_err(|error| error.to_string())
    });
}

/// The manager of the models, with what operators have decided in an earlier life.
fn managed_models(
    parts: ManagerParts,
    config: &Config,
) -> Result<ModelLifecycleManager, StateError> {
    let options = manager_options(config);
    let Some(folder) = &config.models.state else {
        return Ok(ModelLifecycleManager::new(parts, options));
    };
    let (store, found) = StateFolder::open(folder)?;
    let parts = ManagerParts { desired: Some(Arc::new(store)), ..parts };
    let models = ModelLifecycleManager::new(parts, options);
    models.restore(found.state, &found.problems);
    Ok(models)
}

/// Who is let in, where callers are asked for a credential.
fn guard(config: &AuthConfig, events: &EventBus) -> Result<Option<Arc<Guard>>, SourceError> {
    if !config.is_on() {
        return Ok(None);
    }
    let text = |given: &Option<Words>| given.as_ref().map(|words| words.as_str().to_owned());
    let tokens = config.jwks_file.clone().map(|jwks_file| TokenOptions {
        jwks_file,
        issuer: text(&config.jwt_issuer).expect("the configuration was checked"),
        audience: text(&config.jwt_audience).expect("the configuration was checked"),
        roles_claim: config.jwt_roles_claim.as_str().to_owned(),
        models_claim: config.jwt_models_claim.as_str().to_owned(),
    });
    let anonymous = config.anonymous_roles.iter().copied().collect();
    let options = Options { keys_file: config.keys_file.clone(), tokens, anonymous };
    Guard::open(options, events.clone()).map(|guard| Some(Arc::new(guard)))
}

/// What there is to do, each list in its order.
fn register(
    application: &Application,
    (models, config): (&ModelLifecycleManager, &ModelsConfig),
    listeners: &Listeners,
) {
    listeners.register(application);
    let (loading, mode, interval) = (models.clone(), config.mode, config.poll_interval);
    let http = Arc::clone(&listeners.http);
    let load = move || async move {
        match mode {
            LoadMode::None => loading.load_all().await,
            LoadMode::Explicit => loading.load_declared().await,
            LoadMode::Poll => loading.follow(interval).await,
            LoadMode::Watch => loading.watch(interval).await,
        }?;
        begun::tell(&loading.reports(), mode, http.address());
        Ok::<_, Arc<ChangeError>>(())
    };
    application.lifecycle().register(Handler::new("load models").on_start(load));
    let closing = models.clone();
    application.on_stopping(move || closing.refuse_changes());
    // Only once no request can come any more.
    let unloading = models.clone();
    application.on_drain("models", move |deadline| async move {
        match unloading.shutdown(deadline).await.as_slice() {
            [] => Ok(()),
            stragglers => Err(format!("requests are still inside: {stragglers:?}")),
        }
    });
}

fn register_webhooks(
    config: &WebhooksConfig,
    events: &CloudEvents,
    hooks: &Hooks,
) -> Result<(), AssemblyError> {
    let options = webhooks::Options {
        kinds: config.kinds.given().cloned().unwrap_or_default(),
        secret: config.secret_file.as_deref().map(Secret::read).transpose()?,
        timeout: config.timeout,
        attempts: u32::try_from(config.attempts.get()).unwrap_or(u32::MAX),
    };
    for url in &config.urls {
        hooks.register(webhooks::hook(url.as_str(), events, &options)?);
    }
    Ok(())
}

/// The checks that are always there.
fn register_checks(
    health: &HealthRegistry,
    configuration: &Configuration,
    place: &Place,
) -> Result<RuntimeWatch, AssemblyError> {
    let HealthConfig { max_stall, min_free_disk, max_memory } = configuration.config().health;
    health.register(configuration.logs().check());
    health.register(disk_space(place.folder(), min_free_disk.get()));
    if let Some(check) = memory_pressure(max_memory.get()) {
        health.register(check);
    }
    RuntimeWatch::start(health, Handle::current(), max_stall).map_err(AssemblyError::Watch)
}

pub(super) fn manager_options(config: &Config) -> ManagerOptions {
    let CpuPlan { instances, intra_op_threads } = CpuPlan::of(config);
    ManagerOptions {
        load_threads: config.models.load_threads,
        load_timeout: config.models.load_timeout,
        instances,
        queue_capacity: config.inference.queue_capacity,
        max_batch_size: config.inference.max_batch_size,
        response_cache: config.inference.response_cache_size.get(),
        intra_op_threads,
        terms: reload::terms(config),
    }
}

/// What is read when `/metrics` is.
fn observed(
    application: &Application,
    models: ModelLifecycleManager,
    (sources, engine_version): (Sources, String),
) -> metrics::Observed {
    metrics::Observed {
        lifecycle: Arc::clone(application.lifecycle()),
        health: application.health().clone(),
        resources: Arc::clone(application.resources()),
        models,
        interfaces: Box::new(move || sources.read()),
        engine_version,
        started: SystemTime::now() - application.lifecycle().process_uptime(),
    }
}

fn parts(
    (configuration, application, instance): (&Arc<Configuration>, &Application, &str),
    models: ModelLifecycleManager,
    counts: &InterfaceCounts,
    metrics: impl Fn() -> String + Send + Sync + 'static,
) -> Parts {
    let shown = Arc::clone(configuration);
    Parts {
        lifecycle: Arc::clone(application.lifecycle()),
        health: application.health().clone(),
        resources: Arc::clone(application.resources()),
        models,
        metrics: MetricsPage { content_type: metrics::CONTENT_TYPE, render: Box::new(metrics) },
        limits: Arc::new(ArcSwap::from_pointee(reload::limits(&configuration.config()))),
        configuration: ConfigurationPage(Box::new(move || shown.snapshot().json())),
        events: application.events().clone(),
        cloud_events: CloudEvents::new(instance),
        hooks: Arc::clone(application.hooks()),
        log: Arc::new(configuration.logs().clone()),
        traces: Arc::default(),
        guard: None,
        audit: Arc::clone(&counts.audit),
        in_flight: counts.in_flight.clone(),
        counts: Arc::clone(&counts.http),
        closing: CancellationToken::new(),
    }
}

/// What takes new values of what serves, and is around it.
fn reloading(parts: &Parts, tls: Option<Arc<Tls>>, trails: Trails) -> Reloading {
    Reloading {
        limits: Arc::clone(&parts.limits),
        lifecycle: Arc::clone(&parts.lifecycle),
        models: parts.models.clone(),
        events: parts.events.clone(),
        tls,
        guard: parts.guard.clone(),
        trails,
    }
}

/// What gRPC is served with: the same as REST.
fn grpc_parts(rest: &Parts, counts: &InterfaceCounts) -> grpc::Parts {
    let limits = Arc::clone(&rest.limits);
    grpc::Parts {
        models: rest.models.clone(),
        health: rest.health.clone(),
        events: rest.events.clone(),
        log: Arc::clone(&rest.log),
        traces: Arc::clone(&rest.traces),
        guard: rest.guard.clone(),
        audit: Arc::clone(&rest.audit),
        limits: Box::new(move || {
            let limits = **limits.load();
            grpc::Limits {
                max_message_size: limits.max_body_size,
                request_timeout: limits.request_timeout,
            }
        }),
        counts: Arc::clone(&counts.grpc),
        closing: rest.closing.clone(),
    }
}

/// A name for this life of the server that no other has. The standard library seeds a hasher's state
/// at random.
fn instance() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}
