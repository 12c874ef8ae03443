//! Load: what a model's version policy selects, and what operators chose, in one step.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::warn;

use super::change::{Core, Lineup, Next, Warm, Wish};
use super::error::{ChangeError, LoadError};
use super::handle::Serving;
use super::history::Cause;
use super::intent::Intent;
use super::loader::{ModelSettings, SourceError};
use super::loading::{Demands, Loader};
use super::names::{ModelName, Version, VersionId};
use super::operation::Operation;
use super::registry::ModelEntry;
use super::report::LoadReport;
use crate::causes;

/// How a load is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// Whether the new current version may take or give something else than the one before.
    pub allow_incompatible: bool,
    /// Whether golden samples are not asked.
    pub skip_verification: bool,
}

/// What is to be loaded of a model.
struct Plan {
    versions: Vec<Version>,
    current: Version,
    settings: ModelSettings,
}

impl Core {
    /// Loads what the model's version policy selects and retires what it does not. Versions whose
    /// files, instances and queue are unchanged are left as they are. All or nothing.
    pub(super) async fn load(
        self: &Arc<Self>,
        name: &ModelName,
        options: LoadOptions,
        operation: &Arc<Operation>,
    ) -> Result<LoadReport, ChangeError> {
        let known = self.registry.get(name.as_str());
        let entry = match known {
            Some(entry) => entry,
            None => self.discover(name).await?,
        };
        let _permit = self.permit(&entry, operation).await?;
        let result = self.load_planned((&entry, None), options, operation).await;
        if let Err(error) = &result {
            warn!(model = %name, cause = causes::of_error(error), "model could not be loaded");
        }
        entry.set_problem(result.as_ref().err().map(|error| causes::of_error(error)));
        let no_room = |error: &ChangeError| {
            matches!(error, ChangeError::Load { source: LoadError::NoRoom(_), .. })
        };
        if result.as_ref().is_err_and(no_room) && self.serving.routes(name).is_none() {
            // There may be room when somebody needs it.
            entry.load_on_demand(true);
        }
        result
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
        options: LoadOptions,
        operation: &Arc<Operation>,
    ) -> Result<LoadReport, ChangeError> {
        let started = Instant::now();
        let plan = self.plan(entry, deciding.as_ref()).await?;
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
    ) -> Result<Plan, ChangeError> {
        let (mut settings, available) = self
            .ask(&entry.name, |loader, name| {
                let settings = loader.source.settings(name)?;
                Ok((settings, loader.source.model(name)?.versions))
            })
            .await?;
        let intent = deciding.cloned().unwrap_or_else(|| {
            let loaded = self.serving.routes(&entry.name);
            // What is loaded needs no files.
            let is_loaded = |version: &Version| {
                loaded.as_ref().is_some_and(|routes| routes.versions.contains_key(version))
            };
            let (intent, warnings) = entry.intent().without(&available, is_loaded);
            settings.warnings.extend(warnings);
            intent
        });
        for warning in &settings.warnings {
            warn!(model = %entry.name, warning, "a setting is not honoured");
        }
        let selected = settings.version_policy.select(&available);
        let nothing = || ChangeError::NoVersions(entry.name.clone());
        let (mut versions, current) = intent.apply(&selected).ok_or_else(nothing)?;
        // What they name is served, and a load that cannot do so fails: requests would.
        versions.extend(intent.named());
        versions.sort_unstable();
        versions.dedup();
        entry.select(selected);
        entry.newest(available.last().copied().map_or(current, |newest| newest.max(current)));
        Ok(Plan { versions, current, settings })
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

fn digest(loader: &Loader, id: &VersionId) -> Result<String, SourceError> {
    loader.source.digest(&loader.source.fetch(id)?)
}
