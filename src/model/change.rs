//! What every change of a model is made of: the permit, versions made warm, the flip.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::desired::Keeper;
use super::error::{ChangeError, LoadError};
use super::handle::Serving;
use super::history::Cause;
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
use crate::causes;
use crate::lifecycle::{CheckResult, Event, EventBus, HealthReporter};

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
    pub(super) terms: ArcSwap<Terms>,
    pub(super) tasks: TaskTracker,
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

/// A version that is to be made warm.
#[derive(Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) entry: &'a ModelEntry,
    pub(super) version: Version,
    pub(super) operation: &'a Arc<Operation>,
}

impl Core {
    /// Makes one version warm, in a new record.
    pub(super) async fn warm(
        self: &Arc<Self>,
        wish: Wish<'_>,
        settings: &ModelSettings,
        demands: Demands,
    ) -> Result<Warm, ChangeError> {
        wish.entry.set_terms(settings);
        let demands = Demands { budget: self.terms.load().memory_budget, ..demands };
        match self.warm_once(wish, settings, demands.clone()).await {
            Err(ChangeError::Load { source: LoadError::NoRoom(room), .. })
                if self.make_room(room, (&wish.entry.name, wish.operation)).await =>
            {
                self.warm_once(wish, settings, demands).await
            }
            result => result,
        }
    }

    async fn warm_once(
        &self,
        wish: Wish<'_>,
        settings: &ModelSettings,
        demands: Demands,
    ) -> Result<Warm, ChangeError> {
        let Wish { entry, version, operation } = wish;
        operation.goes_on()?;
        let record = entry.begin(version, &self.events, operation);
        let (loader, settings) = (Arc::clone(&self.loader), settings.clone());
        let loading = Arc::clone(&record);
        let load = move || loader.load(&loading, &settings, &demands);
        let name = format!("load {}", record.id);
        let result = tokio::select! {
            result = self.loads.run(&name, load) => result.and_then(|loaded| loaded),
            () = operation.cancelled() => Err(LoadError::Cancelled),
        };
        match result {
            Ok(serving) => Ok(Warm { record, serving }),
            Err(source) => {
                record.fail(causes::of_error(&source));
                Err(match source {
                    LoadError::ShuttingDown => ChangeError::ShuttingDown,
                    LoadError::Cancelled => ChangeError::Cancelled,
                    source => ChangeError::Load { id: record.id.clone(), source },
                })
            }
        }
    }

    /// All the results; or the first failure, or that the server is shutting down or the operation
    /// was cancelled. Then what had been warmed is given up.
    pub(super) async fn all_or_nothing(
        &self,
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
    /// routed, READY after it has become so.
    pub(super) fn publish(
        &self,
        entry: &ModelEntry,
        lineup: Option<Lineup>,
        (fresh, cause): (Vec<Warm>, Cause),
    ) -> Vec<Arc<VersionRecord>> {
        let from = self.serving.routes(&entry.name).map(|routes| routes.current.number());
        let routes = lineup.map(|lineup| self.routes(entry, lineup));
        let to = routes.as_ref().map(|routes| routes.current.number());
        let retired = leaving(entry, routes.as_ref());
        for record in &retired {
            record.advance(VersionEvent::Retire);
        }
        let current = routes.as_ref().map(|routes| Arc::clone(&routes.versions[&routes.current]));
        self.serving.replace(&entry.name, routes);
        for warm in fresh {
            warm.record.advance(VersionEvent::Warmed(warm.serving));
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
            intent.weights = Some(trial.weights);
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
        if entry.is_busy() {
            return Err(ChangeError::Busy(entry.name.clone()));
        }
        let permit = tokio::select! {
            permit = entry.change.acquire() => permit.map_err(|_| ChangeError::ShuttingDown)?,
            () = operation.cancelled() => return Err(ChangeError::Cancelled),
        };
        self.may_change(entry, operation)?;
        Ok(permit)
    }

    /// The permit to change a model, if nobody changes it.
    pub(super) fn permit_now<'a>(
        &self,
        entry: &'a ModelEntry,
        operation: &Operation,
    ) -> Result<SemaphorePermit<'a>, ChangeError> {
        let busy = |_| ChangeError::Busy(entry.name.clone());
        let permit = entry.change.try_acquire().map_err(busy)?;
        self.may_change(entry, operation)?;
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
