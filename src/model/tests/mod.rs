//! The model core over fakes that fail, panic and block where a test tells them to.

mod coming_back;
mod ensembles;
mod failing;
mod fakes;
mod following;
mod going_back;
mod interleavings;
mod loading;
mod lookup;
mod operations;
mod readiness;
mod requests;
mod retiring;
mod routing;
mod shutting_down;
mod swapping;
mod warming;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::fakes::{Door, FakeBackend, FakeObserver, Observed, World, soon};
use super::{
    Answer, ChangeError, Keep, LoadReport, LookupError, ManagerOptions, ManagerParts,
    ModelLifecycleManager, ModelName, ModelReport, Outcome, StateKind, Strategy, SwapOptions,
    SwapReport, Terms, UnloadReport, Version, VersionHandle, VersionPolicy, VersionRef,
    VersionReport,
};
use crate::inference::{InferError, InferenceRequest, NamedTensor, Tensor};
use crate::lifecycle::{CheckKind, Event, EventBus, HealthRegistry};

fn name(name: &str) -> ModelName {
    ModelName::new(name).unwrap()
}

fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn many(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

/// Long enough for everything that is meant to happen.
fn later() -> Instant {
    Instant::now() + Duration::from_hours(1)
}

/// Too short for everything that waits for a test.
const BRIEF: Duration = Duration::from_millis(20);

fn request(number: u64) -> InferenceRequest {
    let tensor = Tensor::from_vec(vec![1], vec![number]).unwrap();
    InferenceRequest { inputs: vec![NamedTensor { name: "x".to_owned(), tensor }], outputs: vec![] }
}

/// The number of the version that computed an answer.
fn answered_by(answer: &Answer) -> u64 {
    answer.outputs[0].1.as_slice::<u64>().unwrap()[0]
}

/// A manager over fakes.
struct Fixture {
    world: Arc<World>,
    observed: Arc<Observed>,
    events: EventBus,
    health: HealthRegistry,
    manager: ModelLifecycleManager,
}

impl Fixture {
    /// Two load threads, one instance and two places in the queue per version.
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ManagerOptions)) -> Self {
        let (world, events) = (Arc::default(), EventBus::new(4096));
        let observed = Arc::<Observed>::default();
        let second = Duration::from_secs(1);
        let health = HealthRegistry::new(second, second, events.clone());
        let mut options = ManagerOptions {
            response_cache: 1 << 20,
            load_threads: many(2),
            load_timeout: Duration::from_hours(1),
            instances: many(1),
            queue_capacity: many(2),
            max_batch_size: NonZeroUsize::MIN,
            intra_op_threads: many(1),
            terms: Terms {
                drain_timeout: Duration::from_hours(1),
                required: Vec::new(),
                keep_previous: Duration::ZERO,
                idle_ttl: Duration::ZERO,
                memory_budget: 0,
                reconcile_interval: Duration::from_hours(1),
                load_attempts: NonZeroUsize::MIN,
                load_backoff: BRIEF,
            },
        };
        change(&mut options);
        let parts = ManagerParts {
            source: Arc::<World>::clone(&world),
            backend: Arc::new(FakeBackend(Arc::clone(&world))),
            observer: Arc::new(FakeObserver(Arc::clone(&observed))),
            events: events.clone(),
            health: health.clone(),
            desired: None,
        };
        let manager = ModelLifecycleManager::new(parts, options);
        Self { world, observed, events, health, manager }
    }

    /// One that serves version 1 of model `a`.
    async fn serving_a() -> Self {
        let fixture = Self::new();
        fixture.world.put("a", 1, "one");
        fixture.load("a").await.unwrap();
        fixture
    }

    async fn load(&self, model: &str) -> Result<LoadReport, Arc<ChangeError>> {
        soon(self.manager.load(&name(model))).await
    }

    async fn unload(&self, model: &str) -> Result<UnloadReport, Arc<ChangeError>> {
        soon(self.manager.unload(&name(model))).await
    }

    async fn swap(&self, model: &str, to: u64) -> Result<SwapReport, Arc<ChangeError>> {
        self.swap_with(model, swap_to(to)).await
    }

    async fn swap_with(
        &self,
        model: &str,
        options: SwapOptions,
    ) -> Result<SwapReport, Arc<ChangeError>> {
        soon(self.manager.swap(&name(model), options)).await
    }

    /// Begins a load that the test goes on beside.
    fn begin_load(&self, model: &str) -> JoinHandle<Result<LoadReport, Arc<ChangeError>>> {
        let (manager, model) = (self.manager.clone(), name(model));
        tokio::spawn(async move { manager.load(&model).await })
    }

    fn begin_unload(&self, model: &str) -> JoinHandle<Result<UnloadReport, Arc<ChangeError>>> {
        let (manager, model) = (self.manager.clone(), name(model));
        tokio::spawn(async move { manager.unload(&model).await })
    }

    fn begin_swap(
        &self,
        model: &str,
        options: SwapOptions,
    ) -> JoinHandle<Result<SwapReport, Arc<ChangeError>>> {
        let (manager, model) = (self.manager.clone(), name(model));
        tokio::spawn(async move { manager.swap(&model, options).await })
    }

    /// Begins a request that stays inside the model's current version until `door` is opened.
    async fn begin_stuck(&self, model: &str, door: &Door) -> JoinHandle<Result<u64, InferError>> {
        let stuck = begin_request(self.acquire(model), 1);
        door.has_waiting(1).await;
        stuck
    }

    fn acquire(&self, model: &str) -> VersionHandle {
        self.manager.acquire(model, None).unwrap()
    }

    fn refusal(&self, model: &str, number: Option<u64>) -> LookupError {
        self.manager.acquire(model, number.map(version)).unwrap_err()
    }

    /// The version that answers a request without one.
    async fn answers(&self, model: &str) -> u64 {
        soon(ask(&self.acquire(model), 1)).await.unwrap()
    }

    /// The version that answers a request for `number`.
    async fn answers_for(&self, model: &str, number: u64) -> u64 {
        let handle = self.manager.acquire(model, Some(version(number))).unwrap();
        soon(ask(&handle, 1)).await.unwrap()
    }

    fn report(&self, model: &str) -> ModelReport {
        self.manager.report(model).unwrap()
    }

    /// The only report of a version.
    #[track_caller]
    fn version(&self, model: &str, number: u64) -> VersionReport {
        let versions = self.report(model).versions;
        let mut found = versions.into_iter().filter(|report| report.version == version(number));
        let report = found.next().unwrap();
        assert!(found.next().is_none(), "{model}/{number} is there twice");
        report
    }

    /// Every version of a model with its state.
    fn states(&self, model: &str) -> Vec<(u64, StateKind)> {
        let versions = self.report(model).versions;
        versions.iter().map(|report| (report.version.number(), report.state)).collect()
    }

    /// Waits until the versions of a model are in these states.
    #[track_caller]
    fn reaches(&self, model: &str, states: &[(u64, StateKind)]) -> impl Future<Output = ()> {
        let mut events = self.events.subscribe();
        soon(async move {
            while self.states(model) != states {
                events.recv().await.unwrap();
            }
        })
    }

    /// Waits until a version has begun its life; no event tells that.
    async fn begins(&self, model: &str, number: u64) {
        let begun = || {
            let versions = self.manager.report(model).map(|report| report.versions);
            versions.iter().flatten().any(|report| report.version == version(number))
        };
        soon(async {
            while !begun() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// What the events told of a model, such as `1 NEW>FETCHING` and `current 1>2`.
    fn story(&self, model: &str) -> Vec<String> {
        let number = |version: Option<u64>| version.map_or("-".to_owned(), |v| v.to_string());
        let tell = |event: &Event| match event {
            Event::ModelVersion { model: of, version, from, to, .. } if of == model => {
                Some(format!("{version} {from}>{to}"))
            }
            Event::ModelSwapped { model: of, from, to } if of == model => {
                Some(format!("current {}>{}", number(*from), number(*to)))
            }
            _ => None,
        };
        self.events.since(0).events.iter().filter_map(|record| tell(&record.event)).collect()
    }

    fn is_ready(&self) -> bool {
        self.health.verdict(CheckKind::Readiness).passing
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.observed.outcomes()
    }

    fn observed_versions(&self) -> usize {
        self.observed.versions.load(Ordering::SeqCst)
    }
}

fn swap_to(to: u64) -> SwapOptions {
    SwapOptions {
        to: VersionRef::Number(version(to)),
        strategy: Strategy::Availability,
        bake: None,
        drain_timeout: None,
        keep_previous: None,
        allow_incompatible: false,
        skip_verification: false,
    }
}

async fn ask(handle: &VersionHandle, number: u64) -> Result<u64, InferError> {
    handle.infer(request(number), later()).await.map(|answer| answered_by(&answer))
}

fn begin_request(handle: VersionHandle, number: u64) -> JoinHandle<Result<u64, InferError>> {
    tokio::spawn(async move { ask(&handle, number).await })
}

/// The error and all its causes, as a client's log would show them.
fn causes(error: &ChangeError) -> String {
    crate::causes::of_error(error)
}
