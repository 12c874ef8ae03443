//! The model core's front: look a version up, change a model, ask how things are.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::change::{Core, Terms};
use super::desired::{DesiredState, DesiredStore, Keeper, PlannedChange};
use super::ensemble::Waits;
use super::error::{ChangeError, LookupError};
use super::eviction::EvictionReport;
use super::handle::VersionHandle;
use super::intent::Intent;
use super::lease::{LeaseReport, NoLease};
use super::ledger::Ledger;
use super::load::{Choose, LoadOptions};
use super::loader::ModelSource;
use super::loading::{Loader, WorkThreads};
use super::memory::MemoryMeter;
use super::names::{ModelName, Version, VersionRef};
use super::observer::ModelObserver;
use super::operation::{Begun, By, Conditions, Done, Ended, Operation, OperationKind, Operations};
use super::overriding::Overrides;
use super::registry::{ModelEntry, Registry};
use super::report::{self, IndexEntry, LoadReport, ModelReport, SwapReport, UnloadReport};
use super::response_cache::{ResponseCache, ResponseCacheReport};
use super::routing::RoutingChange;
use super::serving_map::{ServingMap, Wanted};
use super::state::StateKind;
use super::swap::{RollbackOptions, SwapOptions};
use super::unrouted::{UnroutedCounts, UnroutedReport};
use crate::causes;
use crate::inference::{Backend, RunWatch, Spawner};
use crate::lifecycle::{CheckKind, Deadline, EventBus, HealthRegistry};

/// How often it is looked for what a request wants before the request is refused. Whoever is refused
/// after the first look meets a change in the very moment that it is made.
const LOOKS: usize = 100;

/// Threads for scans, which are short.
const SCAN_THREADS: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");

/// What holds for every model that does not say otherwise.
#[derive(Debug, Clone)]
pub struct ManagerOptions {
    /// Loads that run at once.
    pub load_threads: NonZeroUsize,
    /// How long one load may take; then it has failed.
    pub load_timeout: Duration,
    /// Instances per version.
    pub instances: NonZeroUsize,
    /// Requests that may wait per version.
    pub queue_capacity: NonZeroUsize,
    /// The most entries that a batch is made of.
    pub max_batch_size: NonZeroUsize,
    /// The bytes of answers that may be kept for requests that come again.
    pub response_cache: u64,
    /// Threads that one run may use inside the engine.
    pub intra_op_threads: NonZeroUsize,
    /// What may change later.
    pub terms: Terms,
}

/// What the manager is made of.
pub struct ManagerParts {
    /// Where models come from.
    pub source: Arc<dyn ModelSource>,
    /// What runs them.
    pub backend: Arc<dyn Backend>,
    /// Who measures them.
    pub observer: Arc<dyn ModelObserver>,
    /// Where changes are told.
    pub events: EventBus,
    /// Where the readiness check `required_models` is registered, and those that are not critical:
    /// `reconciled`, and `desired_state` where that is kept.
    pub health: HealthRegistry,
    /// Where what operators decide is kept, if it is to outlive the process.
    pub desired: Option<Arc<dyn DesiredStore>>,
}

impl fmt::Debug for ManagerParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerParts").finish_non_exhaustive()
    }
}

/// A change of one model.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Loads what the model's version policy selects.
    Load(LoadOptions),
    /// The same, with what the load brings in the place of what the source has.
    LoadWith(Overrides),
    /// Loads what an ensemble needs of the model, where it does not serve that: what is to be served of it,
    /// or one version beside that. It goes again with the last ensemble that has it.
    LoadStep(Option<Version>),
    /// Unloads the model; or one version of it, which nothing needs.
    Unload(Option<Version>),
    /// Lets another version answer.
    Swap(SwapOptions),
    /// Lets the version answer that did before.
    Rollback(RollbackOptions),
    /// Changes aliases or weights.
    Route(RoutingChange),
    /// Makes the model what is declared of it.
    Apply(Intent),
    /// Asks a version, the current one where none is named, for its golden samples.
    Verify(Option<VersionRef>),
}

impl Change {
    fn kind(&self) -> OperationKind {
        match self {
            Self::Load(_) | Self::LoadWith(_) | Self::LoadStep(_) => OperationKind::Load,
            Self::Unload(_) => OperationKind::Unload,
            Self::Swap(_) => OperationKind::Swap,
            Self::Rollback(_) => OperationKind::Rollback,
            Self::Route(_) => OperationKind::Traffic,
            Self::Apply(_) => OperationKind::Apply,
            Self::Verify(_) => OperationKind::Verify,
        }
    }

    async fn make(
        self,
        core: &Arc<Core>,
        model: &ModelName,
        (operation, by): (&Arc<Operation>, By),
    ) -> Result<Done, ChangeError> {
        match self {
            Self::Load(options) => match by {
                By::Demand => core.load_for_requests(model, operation).await,
                By::Follower | By::Reconciler => {
                    core.load(model, (options, Choose::Settled), operation).await
                }
                // What an earlier load has brought holds until here.
                By::Caller => core.load_over(model, (options, None), operation).await,
                _ => core.load(model, (options, Choose::Any), operation).await,
            }
            .map(Done::Load),
            Self::LoadWith(overrides) => {
                let how = (LoadOptions::default(), Some(overrides));
                core.load_over(model, how, operation).await.map(Done::Load)
            }
            Self::LoadStep(version) => {
                core.load_step(model, version, operation).await.map(Done::Load)
            }
            Self::Unload(None) => core.unload(model, operation).await.map(Done::Unload),
            Self::Unload(Some(version)) => {
                core.unload_version(model, version, operation).await.map(Done::Unload)
            }
            Self::Swap(options) => core.swap(model, options, operation).await.map(Done::Swap),
            Self::Rollback(options) => {
                core.roll_back(model, options, operation).await.map(Done::Swap)
            }
            Self::Route(change) => core.route(model, change, operation).await.map(Done::Traffic),
            Self::Verify(version) => {
                core.verify(model, version.as_ref(), operation).await.map(Done::Verify)
            }
            Self::Apply(intent) => core.apply(model, intent, operation).await.map(Done::Load),
        }
    }
}

/// Loads, swaps and unloads models, and hands out versions to requests. Clones share everything.
///
/// A change runs to its end even if the caller's future is dropped: a client that goes away leaves
/// no half-done swap behind.
#[derive(Clone)]
pub struct ModelLifecycleManager {
    pub(super) core: Arc<Core>,
}

impl ModelLifecycleManager {
    /// A manager without models. Must be called inside a tokio runtime.
    pub fn new(parts: ManagerParts, options: ManagerOptions) -> Self {
        let spawner = Spawner::start();
        let loader = Loader {
            source: parts.source,
            backend: parts.backend,
            observer: parts.observer,
            ledger: Ledger::default(),
            meter: MemoryMeter::default(),
            watch: Arc::new(RunWatch::start(&spawner)),
            runtime: Handle::current(),
            spawner,
            intra_op_threads: options.intra_op_threads,
            instances: options.instances,
            queue_capacity: options.queue_capacity,
            max_batch_size: options.max_batch_size,
            responses: Arc::new(ResponseCache::new(options.response_cache)),
        };
        let initially = Err("no model was loaded yet".to_owned());
        let readiness = parts.health.reporter("required_models", CheckKind::Readiness, initially);
        let keeper = Keeper::new(parts.desired, &parts.health);
        let convergence =
            parts.health.reporter_not_critical("reconciled", CheckKind::Readiness, Ok(()));
        let closing = CancellationToken::new();
        let core = Core {
            loader: Arc::new(loader),
            loads: WorkThreads::new(options.load_threads, options.load_timeout, closing.clone())
                .giving_way(),
            scans: WorkThreads::new(SCAN_THREADS, options.load_timeout, closing.clone()),
            unloads: WorkThreads::unbounded(),
            registry: Registry::default(),
            serving: ServingMap::default(),
            operations: Operations::new(parts.events.clone()),
            keeper,
            events: parts.events,
            readiness: Mutex::new(readiness),
            convergence: Mutex::new(convergence),
            terms: ArcSwap::from_pointee(options.terms),
            making_room: Semaphore::new(1),
            waits: Waits::default(),
            unrouted: UnroutedCounts::default(),
            tasks: TaskTracker::new(),
            refusing: CancellationToken::new(),
            closing,
        };
        core.report_readiness();
        Self { core: Arc::new(core) }
    }

    /// Sets what holds from now on. A required model that is not loaded makes the application
    /// unready until somebody loads it; waits that have begun keep their time.
    pub fn reconfigure(&self, terms: Terms) {
        self.core.terms.store(Arc::new(terms));
        self.core.report_readiness();
    }

    /// The version that is to answer a request.
    ///
    /// # Errors
    /// [`LookupError`], which tells an unknown model from one that does not serve at the moment.
    pub fn acquire<'a>(
        &self,
        model: &str,
        wanted: impl Into<Wanted<'a>>,
    ) -> Result<VersionHandle, LookupError> {
        let wanted = wanted.into();
        let enter = || self.core.serving.enter(model, wanted);
        enter().map_or_else(|| self.explain(model, wanted, enter), Ok)
    }

    /// Begins a change of a model, which runs to its end whether somebody waits for it or not. What
    /// the same caller has begun before is not begun again.
    ///
    /// # Errors
    /// [`ChangeError::ShuttingDown`] and [`ChangeError::KeyReused`]; everything else is how the
    /// operation ends.
    pub fn begin(
        &self,
        model: &ModelName,
        change: Change,
        conditions: Conditions,
    ) -> Result<Arc<Operation>, ChangeError> {
        if self.core.refusing.is_cancelled() {
            return Err(ChangeError::ShuttingDown);
        }
        self.begin_by((change, By::Caller), model, conditions)
    }

    /// Begins a change that no caller has asked for.
    ///
    /// # Errors
    /// [`ChangeError::ShuttingDown`]; for a load, only once requests are not waited for any more.
    pub(super) fn begin_aside(
        &self,
        model: &ModelName,
        change: Change,
        by: By,
    ) -> Result<Arc<Operation>, ChangeError> {
        let is_load = matches!(change, Change::Load(_) | Change::LoadStep(_)) && !by.decides();
        let core = &self.core;
        let stop = if is_load { &core.closing } else { &core.refusing };
        if stop.is_cancelled() {
            return Err(ChangeError::ShuttingDown);
        }
        self.begin_by((change, by), model, Conditions::default())
    }

    /// Begins a load that decides nothing.
    ///
    /// # Errors
    /// As [`ModelLifecycleManager::begin_aside`].
    pub(super) fn begin_load(
        &self,
        model: &ModelName,
        by: By,
    ) -> Result<Arc<Operation>, ChangeError> {
        self.begin_aside(model, Change::Load(LoadOptions::default()), by)
    }

    fn begin_by(
        &self,
        (change, by): (Change, By),
        model: &ModelName,
        conditions: Conditions,
    ) -> Result<Arc<Operation>, ChangeError> {
        match self.core.operations.begin((change.kind(), by), model, conditions)? {
            Begun::Known(operation) => Ok(operation),
            Begun::New(operation) => Ok(self.run_aside(model, (change, by), operation)),
        }
    }

    /// Makes the change, whether somebody waits for it or not.
    fn run_aside(
        &self,
        model: &ModelName,
        (change, by): (Change, By),
        operation: Arc<Operation>,
    ) -> Arc<Operation> {
        let (core, model, begun) = (Arc::clone(&self.core), model.clone(), Arc::clone(&operation));
        let declarations = by.decides().then(|| core.declarations(&model));
        let proves_nothing = matches!(change, Change::Verify(_));
        self.core.tasks.spawn(async move {
            let work = AssertUnwindSafe(change.make(&core, &model, (&begun, by)));
            let bug = |panic: Box<dyn Any + Send>| {
                Err(ChangeError::Panicked(causes::of_panic(panic.as_ref())))
            };
            let outcome = work.catch_unwind().await.unwrap_or_else(bug);
            if !proves_nothing {
                core.note_end(&model, (declarations, by), outcome.as_ref().map(drop));
            }
            if by == By::Declaration {
                core.registry.forget_the_past();
            }
            if matches!(outcome, Err(ChangeError::Busy { .. } | ChangeError::ShuttingDown)) {
                core.operations.forget_key(&begun);
            }
            // What the caller is told of has to be there after a crash.
            if let Err(cause) = core.keep_model(&model).await {
                begun.note_unsaved(cause);
            }
            begun.end(outcome.map_err(Arc::new));
        });
        operation
    }

    /// Takes over what was declared in an earlier life; before anything is loaded. `problems` are what
    /// was wrong with what was kept; they are told until it is saved again.
    pub fn restore(&self, state: DesiredState, problems: &[String]) {
        self.core.restore(state, problems);
    }

    /// What is declared now.
    pub fn desired(&self) -> DesiredState {
        self.core.desired()
    }

    /// Notes what is declared, for good where that is kept, and begins what leads to it: one operation
    /// for each model that is not so. A model that is not declared is unloaded. What fails stays declared,
    /// and is tried again by who [reconciles](ModelLifecycleManager::start_reconciling); another change of
    /// the model takes its place.
    ///
    /// Not cancel safe: it may be noted, and not begun until it is reconciled.
    ///
    /// # Errors
    /// As [`ModelLifecycleManager::begin`].
    pub async fn declare(
        &self,
        wanted: &DesiredState,
    ) -> Result<Vec<(PlannedChange, Arc<Operation>)>, ChangeError> {
        if self.core.refusing.is_cancelled() {
            return Err(ChangeError::ShuttingDown);
        }
        let plans = self.core.desired().changes_to(wanted);
        let changes = self.core.note_declared(wanted, plans);
        // Each operation saves it again, and tells where that fails.
        self.core.keep().await.ok();
        let begun = changes.into_iter().map(|(plan, change)| {
            let operation = self.begin_aside(&plan.model, change, By::Declaration)?;
            Ok((plan, operation))
        });
        begun.collect()
    }

    /// Begins to evict on an interval what nobody has used for too long, and what is over the budget.
    pub fn start_clean_up(&self, interval: Duration) {
        self.core.tasks.spawn(Arc::clone(&self.core).clean_up(interval));
    }

    /// Who would be evicted, to free so many bytes beyond what the budget asks for, and who not, and
    /// why.
    pub fn eviction(&self, more: u64) -> EvictionReport {
        self.core.eviction(more)
    }

    /// Evicts them.
    pub async fn evict(&self, more: u64) -> EvictionReport {
        let report = self.core.eviction(more);
        for verdict in report.verdicts.iter().filter(|verdict| verdict.evicted.is_some()) {
            self.core.evict_aside(verdict).await;
        }
        report
    }

    /// A lease of a model: as long as it holds, which is a year at most, the model is neither unloaded nor
    /// evicted.
    ///
    /// # Errors
    /// [`ChangeError::UnknownModel`], [`ChangeError::NotLoaded`] and [`ChangeError::TooManyLeases`].
    pub fn lease(
        &self,
        model: &ModelName,
        holder: &str,
        ttl: Duration,
    ) -> Result<LeaseReport, ChangeError> {
        let entry = self.core.known(model)?;
        self.core.routes_of(model)?;
        let life = self.core.operations.life();
        let granted = entry.leases(|leases| leases.grant(holder, ttl, &life));
        granted.map_err(|refusal| match refusal {
            NoLease::TooMany => ChangeError::TooManyLeases(model.clone()),
            NoLease::Sealed => ChangeError::NotLoaded(model.clone()),
        })
    }

    /// Lets a lease last for so long from now on.
    ///
    /// # Errors
    /// [`ChangeError::UnknownModel`] and [`ChangeError::UnknownLease`].
    pub fn renew_lease(
        &self,
        model: &ModelName,
        id: &str,
        ttl: Duration,
    ) -> Result<LeaseReport, ChangeError> {
        let renewed = self.core.known(model)?.leases(|leases| leases.renew(id, ttl));
        renewed.ok_or_else(|| ChangeError::UnknownLease(id.to_owned()))
    }

    /// Ends a lease.
    ///
    /// # Errors
    /// [`ChangeError::UnknownModel`] and [`ChangeError::UnknownLease`].
    pub fn end_lease(&self, model: &ModelName, id: &str) -> Result<(), ChangeError> {
        let ended = self.core.known(model)?.leases(|leases| leases.end(id));
        if ended { Ok(()) } else { Err(ChangeError::UnknownLease(id.to_owned())) }
    }

    /// Every operation that goes on, and the last that ended; the oldest first.
    pub fn operations(&self) -> Vec<Arc<Operation>> {
        self.core.operations.all()
    }

    /// One of them.
    pub fn operation(&self, id: &str) -> Option<Arc<Operation>> {
        self.core.operations.get(id)
    }

    /// Loads what the model's version policy selects. What is loaded stays as it is where its files,
    /// instances and queue are unchanged; what is not selected is retired. All or nothing: after a
    /// failure everything is as before. Waits for an earlier change of the same model.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn load(&self, name: &ModelName) -> Result<LoadReport, Arc<ChangeError>> {
        match self.run(name, Change::Load(LoadOptions::default())).await? {
            Done::Load(report) => Ok(report),
            other => unreachable!("a load ended as {other:?}"),
        }
    }

    /// The same with what the load brings, which holds until another load. Where it fails, what was
    /// brought before holds.
    ///
    /// # Errors
    /// As [`ModelLifecycleManager::load`].
    pub async fn load_with(
        &self,
        name: &ModelName,
        overrides: Overrides,
    ) -> Result<LoadReport, Arc<ChangeError>> {
        match self.run(name, Change::LoadWith(overrides)).await? {
            Done::Load(report) => Ok(report),
            other => unreachable!("a load ended as {other:?}"),
        }
    }

    /// Stops routing requests to a model and waits until it is unloaded.
    ///
    /// # Errors
    /// [`ChangeError::UnknownModel`], [`ChangeError::NotLoaded`] and [`ChangeError::ShuttingDown`].
    pub async fn unload(&self, name: &ModelName) -> Result<UnloadReport, Arc<ChangeError>> {
        match self.run(name, Change::Unload(None)).await? {
            Done::Unload(report) => Ok(report),
            other => unreachable!("an unload ended as {other:?}"),
        }
    }

    /// Lets another version answer the requests that name none. When this returns, no new request is
    /// answered by the old one unless it asks for it and it was kept.
    ///
    /// # Errors
    /// [`ChangeError`]; the old version serves as before.
    pub async fn swap(
        &self,
        name: &ModelName,
        options: SwapOptions,
    ) -> Result<SwapReport, Arc<ChangeError>> {
        match self.run(name, Change::Swap(options)).await? {
            Done::Swap(report) => Ok(report),
            other => unreachable!("a swap ended as {other:?}"),
        }
    }

    async fn run(&self, name: &ModelName, change: Change) -> Ended {
        self.begin(name, change, Conditions::default()).map_err(Arc::new)?.done().await
    }

    /// Loads every model in the repository, each on its own: one that fails hurts no other.
    ///
    /// # Errors
    /// [`ChangeError::Repository`] when the repository cannot be read, and the failure of a required
    /// model; the failures of others are in their reports.
    pub async fn load_all(&self) -> Result<(), Arc<ChangeError>> {
        let names: Vec<ModelName> = self.available().await.map_err(Arc::new)?;
        self.load_these(names).await
    }

    /// Loads what is declared and what is required, and nothing else.
    ///
    /// # Errors
    /// The failure of a required model.
    pub async fn load_declared(&self) -> Result<(), Arc<ChangeError>> {
        let declared = self.core.desired().models.into_iter();
        self.load_these(
            declared.filter(|(_, model)| model.is_wanted()).map(|(name, _)| name).collect(),
        )
        .await
    }

    async fn load_these(&self, mut names: Vec<ModelName>) -> Result<(), Arc<ChangeError>> {
        let terms = self.core.terms.load_full();
        let absent = terms.required.iter().filter(|name| !names.contains(name));
        let absent: Vec<ModelName> = absent.cloned().collect();
        names.extend(absent);
        // What somebody has unloaded stays so.
        let unwanted = |name: &ModelName| {
            let known = self.core.registry.get(name.as_str());
            known.is_some_and(|entry| entry.is_unwanted())
        };
        names.retain(|name| !unwanted(name));
        for name in &names {
            self.core.registry.entry(name).expect_loaded();
        }
        // What is lazy waits for its first request, unless the application is not ready without it.
        let lazy = names.iter().filter(|name| !terms.required.contains(name));
        let lazy = join_all(lazy.map(async |name| (name.clone(), self.is_lazy(name).await))).await;
        for (name, _) in lazy.into_iter().filter(|(_, lazy)| *lazy) {
            self.core.registry.entry(&name).load_on_demand(true);
            names.retain(|other| *other != name);
        }
        let load = async |name| self.begin_load(name, By::Start).map_err(Arc::new)?.done().await;
        let loads = names.iter().map(async |name| (name, load(name).await));
        let results = join_all(loads).await;
        let required = |name: &ModelName| terms.required.contains(name);
        let mut needed = results.into_iter().filter(|(name, _)| required(name));
        needed.try_for_each(|(_, result)| result.map(drop))
    }

    /// Every model in the repository or loaded from it, with the state of its versions.
    ///
    /// # Errors
    /// [`ChangeError::Repository`] when the repository cannot be read.
    pub async fn index(&self) -> Result<Vec<IndexEntry>, ChangeError> {
        let unloaded =
            |model: ModelName| vec![IndexEntry { model, version: None, reason: String::new() }];
        let mut index: BTreeMap<ModelName, Vec<IndexEntry>> = self
            .available()
            .await?
            .into_iter()
            .map(|name| (name.clone(), unloaded(name)))
            .collect();
        for entry in self.core.registry.entries() {
            index.insert(entry.name.clone(), report::index(&entry));
        }
        Ok(index.into_values().flatten().collect())
    }

    /// The answers that are kept at the moment, of all models that ask for it.
    pub fn response_cache(&self) -> ResponseCacheReport {
        self.core.loader.responses.report()
    }

    /// Requests for models that are not known.
    pub fn unrouted(&self) -> UnroutedReport {
        self.core.unrouted.read()
    }

    /// What models take of the memory that they may have, in bytes, and how much that is; `None` for no bound.
    pub fn memory(&self) -> (u64, Option<u64>) {
        let budget = self.core.terms.load().memory_budget;
        (self.core.loader.ledger.used(), (budget > 0).then_some(budget))
    }

    /// Every model that was loaded, or failed to be.
    pub fn reports(&self) -> Vec<ModelReport> {
        self.core.registry.entries().iter().map(|entry| self.report_of(entry)).collect()
    }

    /// One of them; `None` for a model that was never loaded.
    pub fn report(&self, name: &str) -> Option<ModelReport> {
        self.core.registry.get(name).map(|entry| self.report_of(&entry))
    }

    /// Refuses further changes from now on. Those under way go on, requests may wait for them; and so
    /// are models loaded that requests need.
    pub fn refuse_changes(&self) {
        self.core.refusing.cancel();
    }

    /// Refuses further changes and gives up those under way, then drains and unloads everything, every model on its own. A load
    /// that is under way is not waited for; what it makes is dropped.
    ///
    /// Returns the requests that were still inside at the deadline, by version; empty when every
    /// request was answered.
    pub async fn shutdown(&self, deadline: Deadline) -> Vec<(String, u64)> {
        self.refuse_changes();
        self.core.closing.cancel();
        let entries = self.core.registry.entries();
        let closing = entries.iter().map(|entry| deadline.bound(self.core.close(entry)));
        join_all(closing).await;
        self.core.tasks.close();
        match deadline.bound(self.core.tasks.wait()).await {
            Some(()) => Vec::new(),
            None => self.in_flight(),
        }
    }

    /// The requests that are inside a version now, by version.
    pub fn in_flight(&self) -> Vec<(String, u64)> {
        let of_model = |model: ModelReport| {
            let name = model.name;
            let busy = model.versions.into_iter().filter_map(move |version| {
                let inside = version.serving.filter(|serving| serving.in_flight > 0)?.in_flight;
                Some((format!("{name}/{}", version.version), inside))
            });
            busy.collect::<Vec<_>>()
        };
        self.reports().into_iter().flat_map(of_model).collect()
    }

    pub(super) async fn available(&self) -> Result<Vec<ModelName>, ChangeError> {
        let loader = Arc::clone(&self.core.loader);
        let list = move || loader.source.list();
        match self.core.scans.run("scan", list).await {
            Ok(Ok(models)) => Ok(models.into_iter().map(|model| model.name).collect()),
            Ok(Err(source)) => Err(ChangeError::Repository(source.into())),
            Err(source) => Err(ChangeError::Repository(source)),
        }
    }

    pub(super) async fn is_lazy(&self, name: &ModelName) -> bool {
        let settings = self.core.ask(name, |loader, name| loader.source.settings(name)).await;
        // What cannot be read is told by the load.
        settings.is_ok_and(|settings| settings.lazy)
    }

    fn report_of(&self, entry: &ModelEntry) -> ModelReport {
        let routes = self.core.serving.routes(&entry.name);
        let required = self.core.terms.load().required.contains(&entry.name);
        report::model(entry, routes.as_deref(), required)
    }

    /// Why nothing can be entered; or what can be, if that has changed in the meantime.
    fn explain(
        &self,
        model: &str,
        wanted: Wanted<'_>,
        enter: impl Fn() -> Option<VersionHandle>,
    ) -> Result<VersionHandle, LookupError> {
        ModelName::new(model)?;
        let unknown = || LookupError::UnknownModel(model.to_owned());
        let entry = self.core.registry.get(model).ok_or_else(unknown)?;
        let mut refusal = None;
        for _ in 0..LOOKS {
            // Read first: who is READY by now can be entered, unless it was retired since.
            let (seen, state) = why_not(&entry, wanted)?;
            if let Some(handle) = enter() {
                return Ok(handle);
            }
            if state != StateKind::Ready {
                return Err(seen);
            }
            refusal = Some(seen);
        }
        Err(refusal.expect("it was looked at least once"))
    }
}

/// Why what a request wants does not serve, as far as one look tells, and its state.
fn why_not(
    entry: &ModelEntry,
    wanted: Wanted<'_>,
) -> Result<(LookupError, StateKind), LookupError> {
    let (model, version) = (entry.name.to_string(), asked_for(entry, wanted)?);
    let record = match version {
        Some(version) => entry.record(version),
        None => entry.records().last().cloned(),
    };
    match (record, version) {
        (Some(record), _) => {
            let report::VersionReport { state, mut reason, .. } = report::version(&record);
            if state == StateKind::Unloaded && version.is_none() {
                // Why it has not come back.
                reason = entry.problem().unwrap_or(reason);
            }
            Ok((LookupError::NotServing { model, version, state, reason }, state))
        }
        (None, Some(version)) => Err(LookupError::UnknownVersion { model, version }),
        (None, None) => Err(never_loaded(entry)),
    }
}

/// The version that a request names.
fn asked_for(entry: &ModelEntry, wanted: Wanted<'_>) -> Result<Option<Version>, LookupError> {
    match wanted {
        Wanted::Any { .. } => Ok(None),
        Wanted::Version(version) => Ok(Some(version)),
        Wanted::Alias(alias) => match entry.intent().aliases.get(alias) {
            Some(version) => Ok(Some(*version)),
            None => Err(LookupError::UnknownAlias {
                model: entry.name.to_string(),
                alias: alias.clone(),
            }),
        },
    }
}

fn never_loaded(entry: &ModelEntry) -> LookupError {
    LookupError::NotServing {
        model: entry.name.to_string(),
        version: None,
        state: StateKind::Unloaded,
        reason: entry.problem().unwrap_or_default(),
    }
}

impl fmt::Debug for ModelLifecycleManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelLifecycleManager").field("serving", &self.core.serving).finish()
    }
}
