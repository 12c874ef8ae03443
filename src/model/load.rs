//! Load: what a model's version policy selects, and what operators chose, in one step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::warn;

use super::change::{Core, Lineup, Next, Warm, Wish};
use super::error::ChangeError;
use super::handle::Serving;
use super::history::Cause;
use super::intent::Intent;
use super::loader::{ModelSettings, SourceError};
use super::loading::{Demands, Loader};
use super::names::{ModelName, Version, VersionId};
use super::operation::Operation;
use super::registry::{ModelEntry, Served};
use super::report::LoadReport;
use crate::causes;

/// How long a load for requests waits before it looks again at what somebody is writing.
const SOON: Duration = Duration::from_millis(500);

/// How a load is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// Whether the new current version may take or give something else than the one before.
    pub allow_incompatible: bool,
    /// Whether golden samples are not asked.
    pub skip_verification: bool,
}

/// Which of a model's versions a load takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Choose<'a> {
    /// What the policy selects of all that there are: whoever asks for it says that they are complete.
    Any,
    /// What it selects of those that nobody is writing.
    Settled,
    /// Those that served last.
    Last(&'a Served),
}

/// What is to be loaded of a model.
struct Plan {
    versions: Vec<Version>,
    current: Version,
    settings: ModelSettings,
    there: Available,
}

/// The versions in the repository, lowest first.
#[derive(Default)]
struct Available {
    all: Vec<Version>,
    /// Those that somebody is writing.
    unsettled: Vec<Version>,
}

impl Available {
    fn is_written(&self, version: Version) -> bool {
        self.unsettled.contains(&version)
    }
}

impl Core {
    /// Loads what the model's version policy selects and retires what it does not. Versions whose
    /// files, instances and queue are unchanged are left as they are. All or nothing.
    pub(super) async fn load(
        self: &Arc<Self>,
        name: &ModelName,
        (options, choose): (LoadOptions, Choose<'_>),
        operation: &Arc<Operation>,
    ) -> Result<LoadReport, ChangeError> {
        let known = self.registry.get(name.as_str());
        let entry = match known {
            Some(entry) => entry,
            None => self.discover(name).await?,
        };
        let _permit = self.permit(&entry, operation).await?;
        let result = self.load_planned((&entry, None), (options, choose), operation).await;
        self.noted(&entry, result)
    }

    /// The result of a load that was asked for, once it is told and kept as the model's problem.
    pub(super) fn noted(
        &self,
        entry: &ModelEntry,
        result: Result<LoadReport, ChangeError>,
    ) -> Result<LoadReport, ChangeError> {
        if result.as_ref().is_err_and(ChangeError::is_no_room)
            && self.serving.routes(&entry.name).is_none()
        {
            // There may be room when somebody needs it.
            entry.load_on_demand(true);
        }
        told(entry, result)
    }

    /// Loads a model that requests wait for. One that was evicted comes back as it was, unless the
    /// repository is followed and has changed since. Where that cannot be loaded, what its policy selects
    /// is; and the other way round: that a newer version is bad, or half there, takes nothing away.
    pub(super) async fn load_for_requests(
        self: &Arc<Self>,
        name: &ModelName,
        operation: &Arc<Operation>,
    ) -> Result<LoadReport, ChangeError> {
        let entry = self.known(name)?;
        loop {
            let permit = self.permit(&entry, operation).await?;
            match self.load_once_for_requests(&entry, operation).await {
                // Somebody is writing it, and the requests have time.
                Err(ChangeError::Unsettled { version, .. }) if entry.is_waited_for() => {
                    drop(permit);
                    operation.step_once("UNSETTLED", version);
                    self.wait(SOON, operation).await?;
                }
                result => return result,
            }
        }
    }

    async fn load_once_for_requests(
        self: &Arc<Self>,
        entry: &Arc<ModelEntry>,
        operation: &Arc<Operation>,
    ) -> Result<LoadReport, ChangeError> {
        let load = async |choose| {
            let how = (LoadOptions::default(), choose);
            self.load_planned((entry, None), how, operation).await
        };
        let Some(served) = entry.served_last() else {
            return told(entry, load(Choose::Settled).await);
        };
        let (first, second) = if served.is_outdated {
            (Choose::Settled, Choose::Last(&served))
        } else {
            (Choose::Last(&served), Choose::Settled)
        };
        let failure = match load(first).await {
            Err(failure) if failure.is_of_the_version() => failure,
            result => return told(entry, result),
        };
        let instead = load(second).await;
        if !served.is_outdated {
            return told(entry, instead);
        }
        match (told(entry, Err(failure)), instead) {
            // It is told as the model's problem.
            (_, Ok(report)) => Ok(report),
            (failed, Err(_)) => failed,
        }
    }

    pub(super) async fn discover(
        self: &Arc<Self>,
        name: &ModelName,
    ) -> Result<Arc<ModelEntry>, ChangeError> {
        self.ask(name, |loader, name| match loader.source.model(name) {
            Err(unknown @ SourceError::UnknownModel(_)) => Err(unknown),
            // Whatever else is wrong is found again by the load, and kept as the entry's problem.
            _ => Ok(()),
        })
        .await?;
        Ok(self.registry.entry(name))
    }

    /// Loads what the policy selects and operators have decided; or what they are about to, which counts
    /// as decided once it serves.
    pub(super) async fn load_planned(
        self: &Arc<Self>,
        (entry, deciding): (&Arc<ModelEntry>, Option<Intent>),
        (options, choose): (LoadOptions, Choose<'_>),
        operation: &Arc<Operation>,
    ) -> Result<LoadReport, ChangeError> {
        let started = Instant::now();
        let plan = self.plan(entry, deciding.as_ref(), choose).await?;
        let kept = self.unchanged(entry, &plan).await;
        let missing = plan.versions.iter().filter(|version| !kept.contains_key(version));
        let loads = missing.map(|version| {
            let wish = Wish { entry, version: *version, operation };
            let demands = self.demands(entry, *version == plan.current, options);
            self.warm(wish, &plan.settings, demands)
        });
        let fresh = self.all_or_nothing(join_all(loads).await, operation).await?;
        let fresh = self.committed(fresh, operation).await?;
        let loaded = fresh.iter().map(|warm| warm.record.id.version).collect();
        let mut versions = kept;
        versions
            .extend(fresh.iter().map(|warm| (warm.record.id.version, Arc::clone(&warm.serving))));
        let current = plan.current;
        entry.park(None);
        entry.want(true);
        entry.set_terms(&plan.settings);
        let next = Next::lineup(Lineup { current, versions }, Cause::Load).with(fresh);
        let next = match deciding {
            Some(intent) => next.decided(intent),
            None => next,
        };
        self.retire_all(self.publish(entry, next));
        Ok(LoadReport { current, loaded, took: started.elapsed() })
    }

    /// What is warm, once it is too late to cancel.
    pub(super) async fn committed(
        &self,
        fresh: Vec<Warm>,
        operation: &Operation,
    ) -> Result<Vec<Warm>, ChangeError> {
        if let Err(refusal) = operation.commit() {
            self.abandon(fresh, "it was cancelled").await;
            return Err(refusal);
        }
        Ok(fresh)
    }

    /// What a version has to be besides sound: like the one that it takes the place of.
    fn demands(&self, entry: &ModelEntry, current: bool, options: LoadOptions) -> Demands {
        let replaced = self.serving.routes(&entry.name).filter(|_| current);
        let replaced = replaced.filter(|_| !options.allow_incompatible);
        let unverified = options.skip_verification;
        let like = replaced.map(|routes| Demands::like(&routes.versions[&routes.current]));
        Demands { unverified, ..like.unwrap_or_default() }
    }

    async fn plan(
        &self,
        entry: &ModelEntry,
        deciding: Option<&Intent>,
        choose: Choose<'_>,
    ) -> Result<Plan, ChangeError> {
        let loaded = self.serving.routes(&entry.name);
        // What is loaded needs no files.
        let is_loaded = |version: &Version| {
            loaded.as_ref().is_some_and(|routes| routes.versions.contains_key(version))
        };
        let (mut settings, there) = self.look(&entry.name, choose).await?;
        let intent = deciding.cloned().unwrap_or_else(|| {
            let (intent, warnings) = entry.intent().without(&there.all, is_loaded);
            settings.warnings.extend(warnings);
            intent
        });
        for warning in &settings.warnings {
            warn!(model = %entry.name, warning, "a setting is not honoured");
        }
        let can_be_loaded = |version: &Version| is_loaded(version) || !there.is_written(*version);
        let ready: Vec<_> = there.all.iter().copied().filter(can_be_loaded).collect();
        let unsettled = |version| ChangeError::Unsettled { model: entry.name.clone(), version };
        let selected = settings.version_policy.select(&ready);
        let chosen = match choose {
            Choose::Last(served) => Some((served.versions.clone(), served.current)),
            Choose::Any | Choose::Settled => intent.apply(&selected),
        };
        let (mut versions, current) = chosen.ok_or_else(|| match there.unsettled.last() {
            Some(version) => unsettled(*version),
            None => ChangeError::NoVersions(entry.name.clone()),
        })?;
        // What they name is served, and a load that cannot do so fails: requests would.
        versions.extend(intent.named());
        versions.sort_unstable();
        versions.dedup();
        if let Some(version) = versions.iter().find(|version| !can_be_loaded(version)) {
            return Err(unsettled(*version));
        }
        entry.select(selected);
        entry.newest(ready.last().copied().map_or(current, |newest| newest.max(current)));
        Ok(Plan { versions, current, settings, there })
    }

    /// A model's settings, and which of its versions there are.
    async fn look(
        &self,
        name: &ModelName,
        choose: Choose<'_>,
    ) -> Result<(ModelSettings, Available), ChangeError> {
        let any = matches!(choose, Choose::Any);
        self.ask(name, move |loader, name| {
            let settings = loader.source.settings(name)?;
            let all = loader.source.model(name)?.versions;
            if any {
                return Ok((settings, Available { all, ..Available::default() }));
            }
            let glance = loader.source.glance(name)?;
            let unsettled = if glance.settled { glance.unsettled } else { all.clone() };
            Ok((settings, Available { all, unsettled }))
        })
        .await
    }

    /// Those of the plan's versions that serve as its settings say, from files that are what was
    /// loaded; and those whose files somebody is writing, until they are written.
    async fn unchanged(&self, entry: &ModelEntry, plan: &Plan) -> BTreeMap<Version, Arc<Serving>> {
        let Some(routes) = self.serving.routes(&entry.name) else {
            return BTreeMap::new();
        };
        let mut unchanged = BTreeMap::new();
        let serving = plan.versions.iter().filter_map(|version| routes.versions.get(version));
        for serving in serving {
            if plan.there.is_written(serving.id.version) {
                unchanged.insert(serving.id.version, Arc::clone(serving));
                continue;
            }
            if !self.loader.is_set_up(serving, &plan.settings) {
                continue;
            }
            let (loader, id) = (Arc::clone(&self.loader), serving.id.clone());
            // Reading all its files takes about as long as loading it, so it takes a place there.
            let digest =
                self.loads.run(&format!("digest {id}"), move || digest(&loader, &id)).await;
            let is_unchanged = match digest {
                Ok(Ok(digest)) => digest == serving.digest,
                // It is not loaded anew from nothing.
                Ok(Err(SourceError::UnknownVersion(_))) => true,
                _ => false,
            };
            if is_unchanged {
                unchanged.insert(serving.id.version, Arc::clone(serving));
            }
        }
        unchanged
    }
}

/// A load's result, once it is told and kept as the model's problem.
fn told(
    entry: &ModelEntry,
    result: Result<LoadReport, ChangeError>,
) -> Result<LoadReport, ChangeError> {
    let cause = result.as_ref().err().map(|error| causes::of_error(error));
    // That somebody is writing it is no fault, and passes.
    if let (Some(cause), false) = (&cause, matches!(result, Err(ChangeError::Unsettled { .. }))) {
        warn!(model = %entry.name, cause, "model could not be loaded");
    }
    entry.set_problem(cause);
    result
}

fn digest(loader: &Loader, id: &VersionId) -> Result<String, SourceError> {
    loader.source.digest(&loader.source.fetch(id)?)
}
