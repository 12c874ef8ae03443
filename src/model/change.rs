//! Loading and unloading: one change of a model at a time, published in one step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::error::{ChangeError, LoadError};
use super::handle::Serving;
use super::loader::{ModelSettings, SourceError};
use super::loading::{Loader, WorkThreads};
use super::names::{ModelName, Version, VersionId};
use super::record::VersionRecord;
use super::registry::{ModelEntry, Registry};
use super::report::{LoadReport, UnloadReport};
use super::serving_map::{Routes, ServingMap};
use super::state::VersionEvent;
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
}

/// A version that has answered its warm-up and waits to be routed.
pub(super) struct Warm {
    pub(super) record: Arc<VersionRecord>,
    pub(super) serving: Arc<Serving>,
}

/// What is to be loaded of a model.
struct Plan {
    versions: Vec<Version>,
    settings: ModelSettings,
}

impl Core {
    /// Loads what the model's version policy selects and retires what it does not. Versions whose
    /// files, instances and queue are unchanged are left as they are. All or nothing.
    pub(super) async fn load(
        self: &Arc<Self>,
        name: &ModelName,
    ) -> Result<LoadReport, ChangeError> {
        let known = self.registry.get(name.as_str());
        let entry = match known {
            Some(entry) => entry,
            None => self.discover(name).await?,
        };
        let _permit = self.change_permit(&entry).await?;
        let result = self.load_planned(&entry).await;
        if let Err(error) = &result {
            warn!(model = %name, cause = causes::of_error(error), "model could not be loaded");
        }
        entry.set_problem(result.as_ref().err().map(|error| causes::of_error(error)));
        result
    }

    /// Drains and unloads every version of a model, and forgets what failed before.
    pub(super) async fn unload(
        self: &Arc<Self>,
        name: &ModelName,
    ) -> Result<UnloadReport, ChangeError> {
        let not_loaded = || ChangeError::NotLoaded(name.clone());
        let unknown = || ChangeError::UnknownModel(name.clone());
        let entry = self.registry.get(name.as_str()).ok_or_else(unknown)?;
        let permit = self.change_permit(&entry).await?;
        let routes = self.serving.routes(name).ok_or_else(not_loaded)?;
        let versions = routes.versions.keys().copied().collect();
        let retired = self.publish(&entry, None, Vec::new());
        entry.forget_failures();
        // The model may change again while its requests are waited for.
        drop((permit, routes));
        let drained = self.retire_within(retired, self.drain_timeout()).await;
        Ok(UnloadReport { versions, drained })
    }

    /// Makes one version warm, in a new record.
    pub(super) async fn warm(
        self: &Arc<Self>,
        entry: &ModelEntry,
        version: Version,
        settings: &ModelSettings,
    ) -> Result<Warm, ChangeError> {
        let record = entry.begin(version, &self.events);
        let (loader, settings) = (Arc::clone(&self.loader), settings.clone());
        let loading = Arc::clone(&record);
        let load = move || loader.load(&loading, &settings);
        let result = self.loads.run(&format!("load {}", record.id), load).await;
        match result.and_then(|loaded| loaded) {
            Ok(serving) => Ok(Warm { record, serving }),
            Err(source) => {
                record.fail(causes::of_error(&source));
                Err(match source {
                    LoadError::ShuttingDown => ChangeError::ShuttingDown,
                    source => ChangeError::Load { id: record.id.clone(), source },
                })
            }
        }
    }

    /// Replaces the model's routes in one step and returns the records that are to be retired.
    ///
    /// The order keeps what is observed true: DRAINING is published before a version stops being
    /// routed, READY after it has become so.
    pub(super) fn publish(
        &self,
        entry: &ModelEntry,
        routes: Option<Routes>,
        fresh: Vec<Warm>,
    ) -> Vec<Arc<VersionRecord>> {
        let from = self.serving.routes(&entry.name).map(|routes| routes.current.number());
        let to = routes.as_ref().map(|routes| routes.current.number());
        let retired = leaving(entry, routes.as_ref());
        for record in &retired {
            record.advance(VersionEvent::Retire);
        }
        self.serving.replace(&entry.name, routes);
        for warm in fresh {
            warm.record.advance(VersionEvent::Warmed(warm.serving));
        }
        if from != to {
            self.events.publish(Event::ModelSwapped { model: entry.name.to_string(), from, to });
        }
        self.report_readiness();
        retired
    }

    pub(super) fn drain_timeout(&self) -> Duration {
        self.terms.load().drain_timeout
    }

    /// Tells the readiness check whether every required model has a version that serves.
    pub(super) fn report_readiness(&self) {
        let readiness = self.readiness.lock().unwrap_or_else(PoisonError::into_inner);
        readiness.report(self.required_are_served());
    }

    /// The permit to change a model, once earlier changes are done.
    async fn change_permit<'a>(
        &self,
        entry: &'a ModelEntry,
    ) -> Result<SemaphorePermit<'a>, ChangeError> {
        let permit = entry.change.acquire().await.map_err(|_| ChangeError::ShuttingDown)?;
        if self.closing.is_cancelled() { Err(ChangeError::ShuttingDown) } else { Ok(permit) }
    }

    /// The settings of a model that has the version, as they are in the repository now.
    pub(super) async fn settings_for(
        self: &Arc<Self>,
        id: VersionId,
    ) -> Result<ModelSettings, ChangeError> {
        let model = id.model.clone();
        self.ask(&model, move |loader, name| {
            if loader.source.model(name)?.versions.contains(&id.version) {
                return loader.source.settings(name);
            }
            Err(SourceError::UnknownVersion(id))
        })
        .await
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

    async fn discover(self: &Arc<Self>, name: &ModelName) -> Result<Arc<ModelEntry>, ChangeError> {
        self.ask(name, |loader, name| match loader.source.model(name) {
            Err(unknown @ SourceError::UnknownModel(_)) => Err(unknown),
            // Whatever else is wrong is found again by the load, and kept as the entry's problem.
            _ => Ok(()),
        })
        .await?;
        Ok(self.registry.entry(name))
    }

    async fn load_planned(
        self: &Arc<Self>,
        entry: &Arc<ModelEntry>,
    ) -> Result<LoadReport, ChangeError> {
        let started = Instant::now();
        let plan = self.plan(&entry.name).await?;
        let current =
            *plan.versions.last().ok_or_else(|| ChangeError::NoVersions(entry.name.clone()))?;
        let kept = self.unchanged(entry, &plan).await;
        let missing = plan.versions.iter().filter(|version| !kept.contains_key(version));
        let loads = missing.map(|version| self.warm(entry, *version, &plan.settings));
        let fresh = self.all_or_nothing(join_all(loads).await).await?;
        let loaded = fresh.iter().map(|warm| warm.record.id.version).collect();
        let mut versions = kept;
        versions
            .extend(fresh.iter().map(|warm| (warm.record.id.version, Arc::clone(&warm.serving))));
        let retired = self.publish(entry, Some(Routes { current, versions }), fresh);
        self.retire_all(retired);
        Ok(LoadReport { current, loaded, took: started.elapsed() })
    }

    /// All the results; or the first failure, or that the server is shutting down. Then what had
    /// been warmed is given up.
    pub(super) async fn all_or_nothing(
        &self,
        results: Vec<Result<Warm, ChangeError>>,
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
            None => return Ok(warm),
        };
        self.abandon(warm, reason).await;
        Err(refusal)
    }

    async fn plan(self: &Arc<Self>, name: &ModelName) -> Result<Plan, ChangeError> {
        self.ask(name, |loader, name| {
            let settings = loader.source.settings(name)?;
            let available = loader.source.model(name)?;
            Ok(Plan { versions: settings.version_policy.select(&available.versions), settings })
        })
        .await
    }

    /// Those of the plan's versions that serve as its settings say, from files that are what was
    /// loaded.
    async fn unchanged(&self, entry: &ModelEntry, plan: &Plan) -> BTreeMap<Version, Arc<Serving>> {
        let Some(routes) = self.serving.routes(&entry.name) else {
            return BTreeMap::new();
        };
        let mut unchanged = BTreeMap::new();
        let serving = plan.versions.iter().filter_map(|version| routes.versions.get(version));
        for serving in serving.filter(|serving| self.loader.is_set_up(serving, &plan.settings)) {
            let (loader, id) = (Arc::clone(&self.loader), serving.id.clone());
            // Reading all its files takes about as long as loading it, so it takes a place there.
            let digest =
                self.loads.run(&format!("digest {id}"), move || digest(&loader, &id)).await;
            if matches!(digest, Ok(Ok(digest)) if digest == serving.digest) {
                unchanged.insert(serving.id.version, Arc::clone(serving));
            }
        }
        unchanged
    }

    /// Asks the source, on a thread for scans.
    async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
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

fn digest(loader: &Loader, id: &VersionId) -> Result<String, SourceError> {
    loader.source.digest(&loader.source.fetch(id)?)
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
