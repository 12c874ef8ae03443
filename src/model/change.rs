//! What every change of a model is made of: the permit, versions made warm, the flip.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::desired::{Callers, Keeper};
use super::ensemble::Waits;
use super::error::{ChangeError, LoadError};
use super::handle::Serving;
use super::history::Cause;
use super::intent::Intent;
use super::lease::Leases;
use super::loader::{ModelSettings, SourceError};
use super::loading::{Demands, Loader, WorkThreads};
use super::mirror::Mirror;
use super::names::{ModelName, Version, VersionId};
use super::operation::{Operation, Operations};
use super::record::VersionRecord;
use super::registry::{ModelEntry, Registry};
use super::serving_map::{Routes, ServingMap};
use super::state::VersionEvent;
use super::traffic::Split;
use super::unrouted::UnroutedCounts;
use crate::causes;
use crate::lifecycle::{Backoff, CheckResult, Event, EventBus, HealthReporter};

/// How long a change waits for one that only tidies up.
const MOMENT: Duration = Duration::from_millis(100);

/// The longest wait between two attempts to load a version.
const MOST_BACKOFF: Duration = Duration::from_mins(1);

/// The state that changes work on.
pub(super) struct Core {
    pub(super) loader: Arc<Loader>,
    /// Runs loads.
    pub(super) loads: WorkThreads,
    /// Runs scans, so that they never wait for a slow load.
    pub(super) scans: WorkThreads,
    /// Runs unloads. Each may have to wait for a run that its engine cannot interrupt, so none waits
    /// for another's thread.
    pub(super) unloads: WorkThreads,
    pub(super) registry: Registry,
    pub(super) serving: ServingMap,
    pub(super) operations: Operations,
    pub(super) keeper: Keeper,
    pub(super) events: EventBus,
    /// Locked from finding out what is the case until it is told, so that nothing stale is.
    pub(super) readiness: Mutex<HealthReporter>,
    /// Likewise.
    pub(super) convergence: Mutex<HealthReporter>,
    pub(super) terms: ArcSwap<Terms>,
    /// Who makes room for a load; one at a time, so that no two make the same room.
    pub(super) making_room: Semaphore,
    /// Which ensembles that are being loaded wait for which models.
    pub(super) waits: Waits,
    /// Requests for models that are not known.
    pub(super) unrouted: UnroutedCounts,
    pub(super) tasks: TaskTracker,
    /// No change begins any more, but those that requests wait for.
    pub(super) refusing: CancellationToken,
    /// Nothing begins any more, and what is under way is given up.
    pub(super) closing: CancellationToken,
}

/// What may change while models are served.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The models without which the application is not ready.
    pub required: Vec<ModelName>,
    /// How long an unload or a swap waits for requests before it reports that they still run.
    pub drain_timeout: Duration,
    /// How long a swap keeps the version before loaded, for the way back; zero for not at all.
    pub keep_previous: Duration,
    /// How long a model may be unused before it is evicted; zero for ever.
    pub idle_ttl: Duration,
    /// The memory that models may take, in bytes, by estimate; zero for no bound.
    pub memory_budget: u64,
    /// Between two looks at what is declared and is not so yet.
    pub reconcile_interval: Duration,
    /// How often a load is tried that fails for a reason that may pass by itself.
    pub load_attempts: NonZeroUsize,
    /// The wait before the second attempt; it doubles.
    pub load_backoff: Duration,
}

/// A version that has answered its warm-up and waits to be routed.
pub(super) struct Warm {
    pub(super) record: Arc<VersionRecord>,
    pub(super) serving: Arc<Serving>,
}

/// The versions of a model that take requests, and the one for those that name none.
#[derive(Clone)]
pub(super) struct Lineup {
    pub(super) current: Version,
    pub(super) versions: BTreeMap<Version, Arc<Serving>>,
}

impl Lineup {
    pub(super) fn of(routes: &Routes) -> Self {
        Self { current: routes.current, versions: routes.versions.clone() }
    }
}

/// What a model is to serve from now on, and why.
pub(super) struct Next {
    /// `None` for nothing.
    lineup: Option<Lineup>,
    cause: Cause,
    fresh: Vec<Warm>,
    intent: Option<Intent>,
}

impl Next {
    pub(super) fn lineup(lineup: Lineup, cause: Cause) -> Self {
        Self { lineup: Some(lineup), cause, fresh: Vec::new(), intent: None }
    }

    pub(super) fn nothing() -> Self {
        Self { lineup: None, cause: Cause::Load, fresh: Vec::new(), intent: None }
    }

    /// Those of the lineup that were not routed before.
    pub(super) fn with(self, fresh: Vec<Warm>) -> Self {
        Self { fresh, ..self }
    }

    /// What operators have decided of the model by this.
    pub(super) fn decided(self, intent: Intent) -> Self {
        Self { intent: Some(intent), ..self }
    }
}

/// A version that is to be made warm.
#[derive(Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) entry: &'a ModelEntry,
    pub(super) version: Version,
    pub(super) operation: &'a Arc<Operation>,
}

impl Core {
    /// Makes one version warm, in a new record. What fails for a reason that may pass is tried again,
    /// each time in a new record.
    pub(super) async fn warm(
        self: &Arc<Self>,
        wish: Wish<'_>,
        settings: &ModelSettings,
        demands: Demands,
    ) -> Result<Warm, ChangeError> {
        wish.entry.set_terms(settings);
        let terms = self.terms.load_full();
        let demands = Demands { budget: terms.memory_budget, ..demands };
        let backoff = Backoff { first: terms.load_backoff, most: MOST_BACKOFF };
        let passing = |error: &ChangeError| matches!(error, ChangeError::Load { source, .. } if source.may_pass());
        for attempt in 1.. {
            let last = attempt >= u32::try_from(terms.load_attempts.get()).unwrap_or(u32::MAX);
            match self.warm_once(wish, settings, &demands).await {
                Err(error) if !last && passing(&error) => {
                    let pause = backoff.delay(attempt, 0.0);
                    wish.operation.step(format!("RETRY in {pause:?}"), Some(wish.version));
                    self.wait(pause, wish.operation).await?;
                }
                result => return result,
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Waits, unless the operation or the server ends.
    pub(super) async fn wait(
        &self,
        pause: Duration,
        operation: &Operation,
    ) -> Result<(), ChangeError> {
        tokio::select! {
            () = sleep(pause) => Ok(()),
            () = operation.cancelled() => Err(ChangeError::Cancelled),
            () = self.closing.cancelled() => Err(ChangeError::ShuttingDown),
        }
    }

    async fn warm_once(
        self: &Arc<Self>,
        wish: Wish<'_>,
        settings: &ModelSettings,
        demands: &Demands,
    ) -> Result<Warm, ChangeError> {
        let Wish { entry, version, operation } = wish;
        operation.goes_on()?;
        let record = entry.begin(version, &self.events, operation);
        let result = tokio::select! {
            result = self.load_record(&record, wish, (settings, demands)) => result,
            () = operation.cancelled() => Err(LoadError::Cancelled),
        };
        match result {
            Ok(serving) => Ok(Warm { record, serving }),
            Err(source) => {
                record.fail(causes::of_error(&source));
                self.let_go_aside(settings);
                Err(match source {
                    LoadError::ShuttingDown => ChangeError::ShuttingDown,
                    LoadError::Cancelled => ChangeError::Cancelled,
                    source => ChangeError::Load { id: record.id.clone(), source },
                })
            }
        }
    }

    /// The steps of a load, of which those that block have a thread; room is made between them.
    async fn load_record(
        self: &Arc<Self>,
        record: &Arc<VersionRecord>,
        wish: Wish<'_>,
        (settings, demands): (&ModelSettings, &Demands),
    ) -> Result<Arc<Serving>, LoadError> {
        let name = format!("load {}", record.id);
        let place = wish.operation.by().place();
        let (loader, its_own) = (Arc::clone(&self.loader), settings.clone());
        let fetching = Arc::clone(record);
        let fetch = move || loader.fetch(&fetching, &its_own);
        let mut fetched = self.loads.run_at(place, &name, fetch).await.flatten()?;
        if let Some(definition) = &settings.ensemble {
            // Their loads need places of their own: this one has none meanwhile.
            let pinned = self.pin(&record.id, definition, wish.operation).await?;
            info!(model = %record.id, steps = %pinned, "the ensemble has its steps");
            fetched.become_ensemble(pinned, (definition, settings))?;
        }
        let reservation = self.room_for(fetched.bytes, demands, wish).await?;
        let (loader, settings, demands) =
            (Arc::clone(&self.loader), settings.clone(), demands.clone());
        let loading = Arc::clone(record);
        let load = move || loader.load(&loading, (fetched, reservation), (&settings, &demands));
        let serving = self.loads.run_at(place, &name, load).await.flatten()?;
        // Else its first requests would be slower than those of a version that it is compared with.
        if let Some(routes) = self.serving.routes(&wish.entry.name) {
            serving.runner.expect_like(&routes.versions[&routes.current].runner);
        }
        Ok(serving)
    }

    /// All the results; or the first failure, or that the server is shutting down or the operation
    /// was cancelled. Then what had been warmed is given up.
    pub(super) async fn all_or_nothing(
        self: &Arc<Self>,
        results: Vec<Result<Warm, ChangeError>>,
        operation: &Operation,
    ) -> Result<Vec<Warm>, ChangeError> {
        let (mut warm, mut failures) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Ok(ready) => warm.push(ready),
                Err(failure) => failures.push(failure),
            }
        }
        let (reason, refusal) = match failures.into_iter().next() {
            Some(failure) => ("another version of the same load failed", failure),
            None if self.closing.is_cancelled() => {
                ("the server is shutting down", ChangeError::ShuttingDown)
            }
            None => match operation.goes_on() {
                Ok(()) => return Ok(warm),
                Err(refusal) => ("it was cancelled", refusal),
            },
        };
        self.abandon(warm, reason).await;
        Err(refusal)
    }

    /// Replaces what the model serves in one step and returns the records that are to be retired.
    ///
    /// The order keeps what is observed true: DRAINING is published before a version stops being
    /// routed, READY after it has become so. What was decided is known only with the routes that it leads
    /// to, so that nothing is asked for, or kept for another life, that could not be made.
    pub(super) fn publish(&self, entry: &ModelEntry, next: Next) -> Vec<Arc<VersionRecord>> {
        let Next { lineup, cause, fresh, intent } = next;
        if let Some(decided) = intent {
            entry.decide(|intent| *intent = decided);
            entry.note_brought(false);
        }
        let before = self.serving.routes(&entry.name);
        let from = before.as_ref().map(|routes| routes.current.number());
        let routes = lineup.map(|lineup| self.routes(entry, lineup));
        let to = routes.as_ref().map(|routes| routes.current.number());
        let retired = leaving(entry, routes.as_ref());
        if routes.is_some() {
            entry.leases(Leases::unseal);
        } else {
            entry.note_beside(false);
        }
        for record in &retired {
            record.advance(VersionEvent::Retire);
        }
        routes.iter().for_each(Routes::favour);
        let current = routes.as_ref().map(|routes| Arc::clone(&routes.versions[&routes.current]));
        let shadow = routes.as_ref().and_then(|routes| routes.mirror.clone());
        self.serving.replace(&entry.name, routes);
        if let Some(mirror) = before.as_ref().and_then(|routes| routes.mirror.as_ref())
            && !shadow.is_some_and(|shadow| Arc::ptr_eq(&shadow, mirror))
        {
            mirror.stop();
        }
        for warm in fresh {
            warm.record.advance(VersionEvent::Warmed(warm.serving));
        }
        if let Some(Serving { id, signature, .. }) = current.as_deref() {
            entry.note_callers(Some(Callers { version: id.version, signature: signature.clone() }));
        }
        let tenure = current.as_ref().map(|serving| (serving.id.version, serving.digest.as_str()));
        entry.note_current(tenure, cause);
        if from != to {
            self.events.publish(Event::ModelSwapped { model: entry.name.to_string(), from, to });
        }
        self.report_readiness();
        retired
    }

    /// The routes of a lineup, by what operators have decided of it. What was decided of a version
    /// that is not in it waits for it.
    fn routes(&self, entry: &ModelEntry, lineup: Lineup) -> Routes {
        let mut intent = entry.intent();
        if let Some(trial) = entry.trial() {
            intent.weights = trial.weights;
            intent.shadow = trial.shadow.or(intent.shadow);
        }
        let there = |version: &Version| lineup.versions.contains_key(version);
        let aliases = intent.aliases.into_iter().filter(|(_, version)| there(version)).collect();
        let weights =
            intent.weights.filter(|weights| weights.iter().all(|(version, _)| there(&version)));
        let now = self.serving.routes(&entry.name);
        let before = now.as_ref().and_then(|routes| routes.split.clone());
        let split = weights.map(|weights| match before {
            // Goes on counting where it was.
            Some(split) if *split.weights() == weights => split,
            _ => Arc::new(Split::new(weights)),
        });
        let copying = now.as_ref().and_then(|routes| routes.mirror.clone());
        let mirror = intent.shadow.and_then(|shadow| {
            let to = lineup.versions.get(&shadow.version)?;
            let same = |mirror: &Arc<Mirror>| mirror.is_to(to) && mirror.share() == shadow.share;
            // Goes on counting what it has compared.
            let kept = copying.filter(same);
            Some(kept.unwrap_or_else(|| Mirror::new(to, shadow.share, &self.tasks)))
        });
        let Lineup { current, versions } = lineup;
        Routes { current, versions, aliases, split, mirror }
    }

    /// Tells the readiness check whether every required model has a version that serves.
    pub(super) fn report_readiness(&self) {
        let readiness = self.readiness.lock().unwrap_or_else(PoisonError::into_inner);
        readiness.report(self.required_are_served());
    }

    /// The permit to change a model, once earlier changes are done.
    pub(super) async fn permit<'a>(
        &self,
        entry: &'a ModelEntry,
        operation: &Operation,
    ) -> Result<SemaphorePermit<'a>, ChangeError> {
        let permit = tokio::select! {
            biased;
            () = entry.is_on_trial() => return Err(busy(entry)),
            permit = entry.change.acquire() => permit.map_err(|_| ChangeError::ShuttingDown)?,
            () = operation.cancelled() => return Err(ChangeError::Cancelled),
        };
        self.permitted(entry, permit, operation)
    }

    /// The permit to change a model, if nobody changes it but the server by itself, or for a moment.
    pub(super) async fn permit_now<'a>(
        &self,
        entry: &'a ModelEntry,
        operation: &Operation,
    ) -> Result<SemaphorePermit<'a>, ChangeError> {
        if let Some(permit) = at_once(entry).await {
            return self.permitted(entry, permit, operation);
        }
        if entry.is_changed_by_the_server() {
            return self.permit(entry, operation).await;
        }
        Err(busy(entry))
    }

    /// The permit to change a model, if nobody changes it, or for a moment.
    pub(super) async fn permit_at_once<'a>(
        &self,
        entry: &'a ModelEntry,
        operation: &Operation,
    ) -> Result<SemaphorePermit<'a>, ChangeError> {
        let permit = at_once(entry).await.ok_or_else(|| busy(entry))?;
        self.permitted(entry, permit, operation)
    }

    fn permitted<'a>(
        &self,
        entry: &ModelEntry,
        permit: SemaphorePermit<'a>,
        operation: &Operation,
    ) -> Result<SemaphorePermit<'a>, ChangeError> {
        self.may_change(entry, operation)?;
        entry.note_holder(operation.by());
        Ok(permit)
    }

    fn may_change(&self, entry: &ModelEntry, operation: &Operation) -> Result<(), ChangeError> {
        if self.closing.is_cancelled() {
            return Err(ChangeError::ShuttingDown);
        }
        operation.expects(entry.generation())
    }

    /// The entry of a model that was loaded before, or failed to.
    pub(super) fn known(&self, name: &ModelName) -> Result<Arc<ModelEntry>, ChangeError> {
        let unknown = || ChangeError::UnknownModel(name.clone());
        self.registry.get(name.as_str()).ok_or_else(unknown)
    }

    /// What a model serves.
    pub(super) fn routes_of(&self, name: &ModelName) -> Result<Arc<Routes>, ChangeError> {
        self.serving.routes(name).ok_or_else(|| ChangeError::NotLoaded(name.clone()))
    }

    pub(super) fn drain_timeout(&self) -> Duration {
        self.terms.load().drain_timeout
    }

    /// The settings of a model that has the version, as they are in the repository now.
    pub(super) async fn settings_for(
        self: &Arc<Self>,
        entry: &ModelEntry,
        version: Version,
    ) -> Result<ModelSettings, ChangeError> {
        let id = VersionId { model: entry.name.clone(), version };
        let (settings, newest) = self
            .ask(&entry.name, move |loader, name| {
                let versions = loader.source.model(name)?.versions;
                if !versions.contains(&id.version) {
                    return Err(SourceError::UnknownVersion(id));
                }
                let newest = versions.last().copied().unwrap_or(id.version);
                Ok((loader.source.settings(name)?, newest))
            })
            .await?;
        entry.newest(newest);
        Ok(settings)
    }

    fn required_are_served(&self) -> CheckResult {
        let terms = self.terms.load();
        let missing: Vec<&str> = terms
            .required
            .iter()
            .filter(|name| self.serving.routes(name).is_none())
            .map(ModelName::as_str)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!("required models without a ready version: {}", missing.join(", ")))
    }

    /// Asks the source, on a thread for scans.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        name: &ModelName,
        question: impl FnOnce(&Loader, &ModelName) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, ChangeError> {
        let (loader, asked) = (Arc::clone(&self.loader), name.clone());
        let work = move || question(&loader, &asked);
        let answer = self.scans.run(&format!("scan {name}"), work).await;
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(ChangeError::Source { model: name.clone(), source }),
            Err(LoadError::ShuttingDown) => Err(ChangeError::ShuttingDown),
            Err(source) => Err(ChangeError::Scan { model: name.clone(), source }),
        }
    }
}

/// The permit to change a model, if nobody has it, or only to tidy up: who does may wait for it too.
async fn at_once(entry: &ModelEntry) -> Option<SemaphorePermit<'_>> {
    match entry.change.try_acquire() {
        Ok(permit) => Some(permit),
        Err(_) if entry.is_tidied() => timeout(MOMENT, entry.change.acquire()).await.ok()?.ok(),
        Err(_) => None,
    }
}

/// Another change of the model goes on.
fn busy(entry: &ModelEntry) -> ChangeError {
    let trial = entry.trial_of().map(|trial| trial.operation.id().to_owned());
    ChangeError::Busy { model: entry.name.clone(), trial }
}

/// The ready records whose versions `routes` no longer has.
fn leaving(entry: &ModelEntry, routes: Option<&Routes>) -> Vec<Arc<VersionRecord>> {
    let stays = |serving: &Arc<Serving>| {
        let successor = routes.and_then(|routes| routes.versions.get(&serving.id.version));
        successor.is_some_and(|successor| Arc::ptr_eq(successor, serving))
    };
    let leaves =
        |record: &Arc<VersionRecord>| record.ready().is_some_and(|serving| !stays(&serving));
    entry.records().into_iter().filter(leaves).collect()
}
