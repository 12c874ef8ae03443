//! A server in this process, without engine and models, whose checks are the test's own.

use std::net::{SocketAddr, TcpListener};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use onward::auth::Audit;
use onward::cloudevents::CloudEvents;
use onward::http::{
    self, ConfigurationPage, InFlight, Limits, MetricsPage, Parts, Protocols, Rest, Served,
};
use onward::inference::{Backend, BackendError, ModelFiles, OpenOptions, OpenedModel};
use onward::lifecycle::{
    Application, EventBus, HealthRegistry, LifecycleConfig, LogChange, LogControl, LogSettings,
    ResourceManager,
};
use onward::model::{ManagerOptions, ManagerParts, ModelLifecycleManager, Terms};
use onward::repository::LocalRepository;
use reqwest::Method;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::process::PATIENCE;
use super::repository::Repository;
use super::server::client;
use super::{Answer, contract};

/// Served by a runtime of its own, which has as many workers as the test says.
#[derive(Debug)]
pub(crate) struct InProcess {
    pub(crate) health: HealthRegistry,
    pub(crate) resources: Arc<ResourceManager>,
    runtime: Option<Runtime>,
    address: SocketAddr,
    client: reqwest::Client,
}

impl InProcess {
    /// Serves at once; the application is never started, and so never ready.
    pub(crate) fn serve(workers: usize) -> Self {
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(workers).enable_all().build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let _inside = runtime.enter();
        let application = Application::new(config(), EventBus::new(64));
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let answers = Arc::new(Rest::new(parts(&application)));
        let served = Served::new(answers, Protocols::Http1And2);
        runtime.spawn(http::serve(listener, served, CancellationToken::new()));
        let health = application.health().clone();
        let resources = Arc::clone(application.resources());
        Self { health, resources, runtime: Some(runtime), address, client: client() }
    }

    /// The runtime that serves.
    pub(crate) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until the end")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path).await
    }

    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.send(Method::POST, path).await
    }

    async fn send(&self, method: Method, path: &str) -> Answer {
        let url = format!("http://{}{path}", self.address);
        let request = self.client.request(method.clone(), url).timeout(PATIENCE);
        let response = request.send().await.expect("the server answers");
        let answer = Answer::of(response).await.expect("the answer is whole");
        contract::check(&method, path, &answer);
        answer
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        // A test may have stuck workers of it, for which nobody wants to wait.
        self.runtime.take().expect("it is there until the end").shutdown_background();
    }
}

fn config() -> LifecycleConfig {
    let hour = Duration::from_hours(1);
    LifecycleConfig {
        startup_timeout: hour,
        shutdown_timeout: hour,
        handler_timeout: hour,
        pre_stop_delay: hour,
        cleanup_interval: PATIENCE,
        idle_ttl: Duration::ZERO,
        health_interval: hour,
        health_timeout: hour,
        health_failure_threshold: NonZeroU32::MIN,
        health_success_threshold: NonZeroU32::MIN,
    }
}

fn parts(application: &Application) -> Parts {
    Parts {
        lifecycle: Arc::clone(application.lifecycle()),
        health: application.health().clone(),
        resources: Arc::clone(application.resources()),
        models: models(application),
        metrics: MetricsPage { content_type: "text/plain", render: Box::new(String::new) },
        limits: Arc::new(ArcSwap::from_pointee(Limits {
            max_body_size: 1 << 20,
            request_timeout: PATIENCE,
            heavy_work: NonZeroUsize::MIN,
        })),
        configuration: ConfigurationPage(Box::new(|| serde_json::json!({ "settings": [] }))),
        events: application.events().clone(),
        cloud_events: CloudEvents::new("in-process"),
        hooks: Arc::clone(application.hooks()),
        log: Arc::new(NoLog),
        traces: Arc::default(),
        guard: None,
        audit: Arc::new(Audit::new(application.events().clone())),
        in_flight: InFlight::default(),
        counts: Arc::default(),
        closing: CancellationToken::new(),
    }
}

fn models(application: &Application) -> ModelLifecycleManager {
    let parts = ManagerParts {
        source: Arc::new(LocalRepository::open(Repository::empty().path()).unwrap()),
        backend: Arc::new(NoEngine),
        observer: Arc::new(()),
        events: application.events().clone(),
        health: application.health().clone(),
        desired: None,
    };
    let options = ManagerOptions {
        load_threads: NonZeroUsize::MIN,
        load_timeout: PATIENCE,
        instances: NonZeroUsize::MIN,
        queue_capacity: NonZeroUsize::MIN,
        max_batch_size: NonZeroUsize::MIN,
        response_cache: 0,
        intra_op_threads: NonZeroUsize::MIN,
        terms: Terms {
            drain_timeout: PATIENCE,
            required: Vec::new(),
            keep_previous: Duration::ZERO,
            idle_ttl: Duration::ZERO,
            memory_budget: 0,
            reconcile_interval: Duration::from_hours(1),
            load_attempts: NonZeroUsize::MIN,
            load_backoff: Duration::from_secs(1),
        },
    };
    ModelLifecycleManager::new(parts, options)
}

#[derive(Debug)]
struct NoLog;

impl LogControl for NoLog {
    fn settings(&self) -> LogSettings {
        LogSettings { info: false, warning: false, error: false, verbose: 0 }
    }

    fn change(&self, _: LogChange) -> Result<(), String> {
        Err("there is no log".to_owned())
    }
}

struct NoEngine;

impl Backend for NoEngine {
    fn platform(&self) -> &'static str {
        "none"
    }

    fn open(&self, _: &ModelFiles, _: OpenOptions) -> Result<Box<dyn OpenedModel>, BackendError> {
        Err(BackendError::Rejected("there is no engine".to_owned()))
    }
}
