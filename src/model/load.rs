//! Load: what a model's version policy selects, and what operators chose, in one step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::{info, warn};

use super::change::{Core, Lineup, Next, Warm, Wish};
use super::desired::Callers;
use super::error::ChangeError;
use super::handle::Serving;
use super::history::Cause;
use super::intent::Intent;
use super::loader::{ModelSettings, SourceError};
use super::loading::{Demands, Loader, Places};
use super::names::{ModelName, Version, VersionId};
use super::operation::{By, Operation};
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
    /// What it selects of those that nobody is writing, if there are any.
    Declared,
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
        let entry = self.entry(name).await?;
        let _permit = self.permit(&entry, operation).await?;
        let result = self.load_what_can_be(&entry, (options, choose), operation).await;
        self.comes_on_demand(&entry, &result);
        result
    }

    /// A model for which there was no room is loaded when somebody needs it: there may be by then.
    pub(super) fn comes_on_demand(
        &self,
        entry: &ModelEntry,
        result: &Result<LoadReport, ChangeError>,
    ) {
        if result.as_ref().is_err_and(ChangeError::is_no_room)
            && self.serving.routes(&entry.name).is_none()
        {
            entry.load_on_demand(true);
        }
    }

    /// Loads what the policy selects; where that fails and nothing serves, and nobody waits for just that,
    /// what it selects without the versions that have failed, and the failure is kept as the model's
    /// problem.
    pub(super) async fn load_what_can_be(
        self: &Arc<Self>,
        entry: &Arc<ModelEntry>,
        (options, choose): (LoadOptions, Choose<'_>),
        operation: &Arc<Operation>,
    ) -> Result<LoadReport, ChangeError> {
        let mut failed = Vec::new();
        let mut first = None;
        loop {
            let how = (options, choose, &failed[..]);
            let failure = match self.load_planned((entry, None), how, operation).await {
                Err(failure) => failure,
                Ok(report) => {
                    entry.note_makeshift(first.as_ref().is_some_and(ChangeError::may_pass));
                    return match first {
                        None => told(entry, Ok(report)),
                        // It is told as the model's problem.
                        Some(failure) => told(entry, Err(failure)).or(Ok(report)),
                    };
                }
            };
            let version = match &failure {
                ChangeError::Load { id, .. } if failure.is_of_the_version() => Some(id.version),
                _ => None,
            };
            let can_go_on =
                operation.by() != By::Caller && self.serving.routes(&entry.name).is_none();
            match version.filter(|version| can_go_on && !failed.contains(version)) {
                Some(version) => failed.push(version),
                None => return told(entry, Err(first.unwrap_or(failure))),
            }
            first = first.or(Some(failure));
        }
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

    /// [`Core::load_for_requests`], whoever writes it.
    pub(super) async fn load_once_for_requests(
        self: &Arc<Self>,
        entry: &Arc<ModelEntry>,
        operation: &Arc<Operation>,
    ) -> Result<LoadReport, ChangeError> {
        let load = async |choose| {
            let how = (LoadOptions::default(), choose, &[][..]);
            self.load_planned((entry, None), how, operation).await
        };
        let Some(served) = entry.served_last() else {
            let how = (LoadOptions::default(), Choose::Settled);
            return self.load_what_can_be(entry, how, operation).await;
        };
        let (first, second) = if served.is_outdated {
            (Choose::Settled, Choose::Last(&served))
        } else {
            (Choose::Last(&served), Choose::Settled)
        };
        let failure = match load(first).await {
            // What has served is waited for, if that is what is being written.
            Err(failure @ ChangeError::Unsettled { .. }) if !served.is_outdated => {
                return told(entry, Err(failure));
            }
            Err(failure) if failure.is_of_the_version() => failure,
            result => return told(entry, result),
        };
        let instead = load(second).await;
        if !served.is_outdated || matches!(instead, Err(ChangeError::Unsettled { .. })) {
            return told(entry, instead);
        }
        // It is told as the model's problem, also where the other could be loaded.
        told(entry, Err(failure)).or_else(|failure| instead.map_err(|_| failure))
    }

    /// The entry of a model that is known or, by the source, exists.
    pub(super) async fn entry(
        self: &Arc<Self>,
        name: &ModelName,
    ) -> Result<Arc<ModelEntry>, ChangeError> {
        if let Some(entry) = self.registry.get(name.as_str()) {
            return Ok(entry);
        }
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
        (options, choose, failed): (LoadOptions, Choose<'_>, &[Version]),
        operation: &Arc<Operation>,
    ) -> Result<LoadReport, ChangeError> {
        let started = Instant::now();
        let plan = self.plan((entry, deciding.as_ref()), choose, failed).await?;
        let kept = self.unchanged(entry, &plan).await;
        let missing = plan.versions.iter().filter(|version| !kept.contains_key(version));
        let loads = missing.map(|version| {
            let wish = Wish { entry, version: *version, operation };
            let demands = self.demands((entry, &plan.there), *version == plan.current, options);
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
        if !operation.by().is_for_ensembles() {
            entry.want(true);
            entry.note_brought(false);
        }
        let is_there = |version: &Version| plan.there.all.contains(version);
        entry.note_irreplaceable(!plan.versions.iter().all(is_there));
        entry.note_gone(false);
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
        self: &Arc<Self>,
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
    fn demands(
        &self,
        (entry, there): (&ModelEntry, &Available),
        current: bool,
        options: LoadOptions,
    ) -> Demands {
        let unverified = options.skip_verification;
        if !current || options.allow_incompatible {
            return Demands { unverified, ..Demands::default() };
        }
        let demands = if let Some(routes) = self.serving.routes(&entry.name) {
            Demands::like(&routes.versions[&routes.current])
        } else {
            // They do not know that it has gone for a while. Where that version is no more, another is
            // better than none.
            let callers = entry.callers().filter(|it| there.all.contains(&it.version));
            let like = callers.map(|Callers { version, signature }| (version, signature));
            Demands { like, ..Demands::default() }
        };
        Demands { unverified, ..demands }
    }

    async fn plan(
        &self,
        (entry, deciding): (&ModelEntry, Option<&Intent>),
        choose: Choose<'_>,
        failed: &[Version],
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
            warn!(model = %entry.name, warning, "the model has a warning");
        }
        let can_be_loaded = |version: &Version| is_loaded(version) || !there.is_written(*version);
        let is_ready = |version: &Version| can_be_loaded(version) && !failed.contains(version);
        let mut ready: Vec<_> = there.all.iter().copied().filter(is_ready).collect();
        if matches!(choose, Choose::Declared) && ready.is_empty() {
            ready.clone_from(&there.all);
        }
        let unsettled = |version| ChangeError::Unsettled { model: entry.name.clone(), version };
        let selected = settings.version_policy.select(&ready);
        let chosen = match choose {
            Choose::Last(served) => {
                Some((served.versions.keys().copied().collect(), served.current))
            }
            _ => intent.apply(&selected),
        };
        let (mut versions, current) = chosen.ok_or_else(|| match there.unsettled.last() {
            Some(version) => unsettled(*version),
            None => ChangeError::NoVersions(entry.name.clone()),
        })?;
        // What they name is served, and a load that cannot do so fails: requests would.
        versions.extend(intent.named());
        versions.sort_unstable();
        versions.dedup();
        let is_strict = !matches!(choose, Choose::Declared);
        if let Some(version) = versions.iter().find(|version| is_strict && !can_be_loaded(version))
        {
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
        let before = match choose {
            Choose::Last(served) => Some(served.settings.clone()),
            _ => None,
        };
        let looked = self.ask(name, move |loader, name| {
            let settings = loader.source.settings(name);
            // What has served does so again, whatever has become of what is said of it.
            let settings = settings.or_else(|problem| match before {
                Some(mut before) => {
                    before.warnings = vec![causes::of_error(&problem)];
                    Ok(before)
                }
                None => Err(problem),
            })?;
            let all = loader.source.model(name)?.versions;
            if any {
                return Ok((settings, Available { all, unsettled: Vec::new() }));
            }
            let glance = loader.source.glance(name)?;
            let unsettled = if glance.settled { glance.unsettled } else { all.clone() };
            Ok((settings, Available { all, unsettled }))
        });
        let (settings, mut there) = looked.await?;
        if let Choose::Last(served) = choose {
            self.settle_by_digest(name, served, &mut there).await;
        }
        Ok((settings, there))
    }

    /// # Errors
    /// [`ChangeError::Unsettled`] where somebody is writing the version.
    pub(super) async fn is_settled(
        &self,
        name: &ModelName,
        version: Version,
    ) -> Result<(), ChangeError> {
        let (_, there) = self.look(name, Choose::Settled).await?;
        let unsettled = || ChangeError::Unsettled { model: name.clone(), version };
        if there.is_written(version) { Err(unsettled()) } else { Ok(()) }
    }

    /// What has served and has the files that it had is complete, though somebody has touched them.
    async fn settle_by_digest(&self, name: &ModelName, served: &Served, there: &mut Available) {
        for (version, expected) in &served.versions {
            if !there.is_written(*version) {
                continue;
            }
            let (loader, id) =
                (Arc::clone(&self.loader), VersionId { model: name.clone(), version: *version });
            let what = format!("digest {id}");
            let run = self.loads.run_at(Places::Kept, &what, move || digest(&loader, &id));
            if run.await.is_ok_and(|found| found.is_ok_and(|found| found == *expected)) {
                there.unsettled.retain(|other| other != version);
            }
        }
    }

    /// Whether a version would be made of the same steps again, if of any.
    fn has_its_steps(&self, serving: &Serving) -> bool {
        let ensemble = serving.runner.ensemble();
        ensemble.is_none_or(|ensemble| self.is_pinned_anew(ensemble, &serving.id))
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
                Ok(Ok(digest)) => digest == serving.files_digest() && self.has_its_steps(serving),
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
pub(super) fn told(
    entry: &ModelEntry,
    result: Result<LoadReport, ChangeError>,
) -> Result<LoadReport, ChangeError> {
    let cause = result.as_ref().err().map(|error| causes::of_error(error));
    // That somebody is writing it is no fault, and passes.
    if let (Some(cause), false) = (&cause, matches!(result, Err(ChangeError::Unsettled { .. }))) {
        // A version that fails was warned of.
        if matches!(result, Err(ChangeError::Load { .. })) {
            info!(model = %entry.name, cause, "model could not be loaded");
        } else {
            warn!(model = %entry.name, cause, "model could not be loaded");
        }
    }
    entry.set_problem(cause);
    result
}

fn digest(loader: &Loader, id: &VersionId) -> Result<String, SourceError> {
    loader.source.digest(&loader.source.fetch(id)?)
}
