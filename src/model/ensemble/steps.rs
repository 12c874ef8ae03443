//! How an ensemble gets the versions of its steps when it is loaded, and lets them go.

use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use tokio::time::Instant;

use super::super::change::{Core, Lineup, Next, Warm, Wish};
use super::super::error::{ChangeError, LoadError};
use super::super::handle::Serving;
use super::super::history::Cause;
use super::super::hold::Hold;
use super::super::load::{Choose, LoadOptions};
use super::super::loading::Demands;
use super::super::manager::{Change, ModelLifecycleManager};
use super::super::names::{ModelName, Version, VersionId, VersionRef};
use super::super::operation::Operation;
use super::super::registry::ModelEntry;
use super::super::report::LoadReport;
use super::super::serving_map::Routes;
use super::super::swap::{is_wanted, is_wanted_by_itself, named};
use super::plan::label;
use super::{Ensemble, EnsembleDefinition, Pinned, StepDefinition};

/// How often a step is loaded that goes again before the ensemble has it.
const ATTEMPTS: usize = 5;

/// Which of the steps of an ensemble that goes are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Along {
    /// Those that go with it.
    Goes,
    /// Those too that stay for themselves, and may be evicted then.
    MayGo,
}

/// A step that is to be had: for which ensemble, its number, and what it is.
#[derive(Clone, Copy)]
struct Needed<'a> {
    holder: &'a VersionId,
    number: usize,
    step: &'a StepDefinition,
}

impl Needed<'_> {
    fn wrong(&self, problem: impl Into<String>) -> LoadError {
        let step = label(self.number, &self.step.model);
        LoadError::Step { step, problem: problem.into(), source: None }
    }

    fn failed(&self, source: Arc<ChangeError>) -> LoadError {
        if matches!(*source, ChangeError::ShuttingDown) {
            return LoadError::ShuttingDown;
        }
        let step = label(self.number, &self.step.model);
        LoadError::Step { step, problem: String::new(), source: Some(source) }
    }
}

impl Core {
    /// The versions of an ensemble's steps, held for it; loaded where they are not.
    pub(in super::super) async fn pin(
        self: &Arc<Self>,
        holder: &VersionId,
        definition: &EnsembleDefinition,
        operation: &Operation,
    ) -> Result<Pinned, LoadError> {
        let steps = definition.steps.iter().enumerate();
        // Steps that want the same have the same, whatever becomes of their model meanwhile.
        let is_first = |(number, step): &(usize, &StepDefinition)| {
            definition.steps[..*number].iter().all(|other| !other.is_same(step))
        };
        let firsts: Vec<(usize, &StepDefinition)> = steps.filter(is_first).collect();
        let holds = firsts.iter().map(|(number, step)| {
            self.pin_step(Needed { holder, number: *number, step }, operation)
        });
        let holds = try_join_all(holds).await?;
        let own = definition.steps.iter().map(|step| {
            let place = firsts.iter().position(|(_, first)| first.is_same(step));
            holds[place.expect("the first of its kind is among them")].again()
        });
        Ok(Pinned(own.collect()))
    }

    async fn pin_step(
        self: &Arc<Self>,
        needed: Needed<'_>,
        operation: &Operation,
    ) -> Result<Hold, LoadError> {
        let Needed { holder, step, .. } = needed;
        let circle = |models: Vec<ModelName>| {
            let models: Vec<String> = models.iter().map(ToString::to_string).collect();
            needed.wrong(format!("ensembles are steps of each other: {}", models.join(" -> ")))
        };
        let _waiting = self.waits.begin(&holder.model, &step.model).map_err(circle)?;
        let by = operation.by().of_steps();
        let manager = ModelLifecycleManager { core: Arc::clone(self) };
        for _ in 0..ATTEMPTS {
            let version = self.version_of(needed)?;
            if let Some(hold) = self.hold((holder, &step.model), version) {
                let ensemble = hold.serving().runner.ensemble();
                if ensemble.is_some_and(|ensemble| ensemble.goes_through(&holder.model)) {
                    return Err(circle(vec![
                        holder.model.clone(),
                        step.model.clone(),
                        holder.model.clone(),
                    ]));
                }
                return Ok(hold);
            }
            operation.step(format!("STEP {}", step.model), version);
            let load = manager.begin_aside(&step.model, Change::LoadStep(version), by);
            let load = load.map_err(|refusal| needed.failed(Arc::new(refusal)))?;
            load.done().await.map_err(|failure| needed.failed(failure))?;
        }
        Err(needed.wrong("it goes again and again before the ensemble has it"))
    }

    /// The version that a step names; `None` where it takes what its model serves.
    fn version_of(&self, needed: Needed<'_>) -> Result<Option<Version>, LoadError> {
        let Some(version) = &needed.step.version else { return Ok(None) };
        if let Some(entry) = self.registry.get(needed.step.model.as_str()) {
            let version = named(&entry, version);
            return version.map(Some).map_err(|error| needed.failed(Arc::new(error)));
        }
        match version {
            VersionRef::Number(version) => Ok(Some(*version)),
            VersionRef::Alias(alias) => {
                Err(needed
                    .wrong(format!("its model was not loaded yet, and has no alias '{alias}'")))
            }
        }
    }

    /// What a model serves, held; `None` where it does not.
    fn hold(
        &self,
        (holder, model): (&VersionId, &ModelName),
        version: Option<Version>,
    ) -> Option<Hold> {
        Hold::of(&self.served(model, version)?, holder)
    }

    /// What a model serves: of this version, or as its current one.
    fn served(&self, model: &ModelName, version: Option<Version>) -> Option<Arc<Serving>> {
        let routes = self.serving.routes(model)?;
        routes.versions.get(&version.unwrap_or(routes.current)).cloned()
    }

    /// Whether an ensemble would get the versions again that it has.
    pub(in super::super) fn is_pinned_anew(&self, ensemble: &Ensemble, holder: &VersionId) -> bool {
        let steps = ensemble.definition.steps.iter().enumerate().zip(ensemble.steps());
        steps.into_iter().all(|((number, step), hold)| {
            let version = self.version_of(Needed { holder, number, step });
            let serving = version.ok().and_then(|version| self.served(&step.model, version));
            serving.is_some_and(|serving| Arc::ptr_eq(&serving, hold.serving()))
        })
    }

    /// Loads what an ensemble needs of a model: what it is to serve, where it serves nothing; and one version
    /// beside what it serves, where one is named.
    pub(in super::super) async fn load_step(
        self: &Arc<Self>,
        name: &ModelName,
        version: Option<Version>,
        operation: &Arc<Operation>,
    ) -> Result<LoadReport, ChangeError> {
        let entry = self.entry(name).await?;
        let _permit = self.permit(&entry, operation).await?;
        let result = self.load_what_lacks((&entry, version), operation).await;
        // Where the ensemble was given up meanwhile.
        let (core, models) = (Arc::clone(self), vec![name.clone()]);
        self.tasks.spawn(async move { core.let_steps_go(models).await });
        result
    }

    async fn load_what_lacks(
        self: &Arc<Self>,
        (entry, version): (&Arc<ModelEntry>, Option<Version>),
        operation: &Arc<Operation>,
    ) -> Result<LoadReport, ChangeError> {
        let started = Instant::now();
        let mut loaded = Vec::new();
        if self.serving.routes(&entry.name).is_none() {
            // Also where a version is named: what the model serves does not depend on who came first.
            loaded = self.load_what_it_serves(entry, operation).await?.loaded;
        }
        let routes = self.routes_of(&entry.name)?;
        if let Some(version) = version.filter(|version| !routes.versions.contains_key(version)) {
            self.load_beside(entry, version, operation).await?;
            loaded.push(version);
        }
        Ok(LoadReport { current: routes.current, loaded, took: started.elapsed() })
    }

    /// Loads a model for ensembles: as it was where it has gone to make room, as requests would have it.
    async fn load_what_it_serves(
        self: &Arc<Self>,
        entry: &Arc<ModelEntry>,
        operation: &Arc<Operation>,
    ) -> Result<LoadReport, ChangeError> {
        let result = if entry.served_last().is_some() {
            self.load_once_for_requests(entry, operation).await
        } else {
            let is_wary = operation.by().is_wary();
            let choose = if is_wary { Choose::Settled } else { Choose::Declared };
            self.load_what_can_be(entry, (LoadOptions::default(), choose), operation).await
        };
        self.comes_on_demand(entry, &result);
        // Who is wanted stays when the ensemble goes.
        if result.is_ok() && !entry.is_wanted() {
            entry.note_brought(true);
        }
        result
    }

    /// Loads a version beside what its model serves.
    async fn load_beside(
        self: &Arc<Self>,
        entry: &Arc<ModelEntry>,
        version: Version,
        operation: &Arc<Operation>,
    ) -> Result<(), ChangeError> {
        if operation.by().is_wary() {
            self.is_settled(&entry.name, version).await?;
        }
        let settings = self.settings_for(entry, version).await?;
        let wish = Wish { entry, version, operation };
        let warm = self.warm(wish, &settings, Demands::default()).await;
        let warm = self.all_or_nothing(vec![warm], operation).await?;
        let fresh = self.committed(warm, operation).await?;
        let mut lineup = Lineup::of(&*self.routes_of(&entry.name)?);
        let made = |Warm { serving, .. }: &Warm| (version, Arc::clone(serving));
        lineup.versions.extend(fresh.iter().map(made));
        self.retire_all(self.publish(entry, Next::lineup(lineup, Cause::Load).with(fresh)));
        entry.note_beside(true);
        Ok(())
    }

    /// Unloads what was loaded only for ensembles, once none has it any more, and changes of it are done.
    pub(in super::super) async fn let_steps_go(self: &Arc<Self>, models: Vec<ModelName>) {
        // None behind another, whose model may be changed for long.
        join_all(models.iter().map(|model| self.let_step_go(model))).await;
    }

    async fn let_step_go(self: &Arc<Self>, model: &ModelName) {
        let Some(entry) = self.registry.get(model.as_str()) else { return };
        if self.has_left_over(&entry) {
            let _tidying = entry.tidy();
            // The semaphore is never closed.
            let _permit = entry.change.acquire().await;
            self.let_left_over_go(&entry);
        }
    }

    /// Lets go what ensembles have left behind that were given up half-way, of models that nobody changes.
    pub(in super::super) fn let_all_steps_go(self: &Arc<Self>) {
        let entries = self.registry.entries().into_iter();
        for entry in entries.filter(|entry| entry.is_brought() || entry.has_beside()) {
            let _tidying = entry.tidy();
            if let Ok(_permit) = entry.change.try_acquire() {
                self.let_left_over_go(&entry);
            }
        }
    }

    /// Only who has the permit to change the model may.
    fn let_left_over_go(self: &Arc<Self>, entry: &ModelEntry) {
        if self.closing.is_cancelled() {
            return;
        }
        if self.goes_with_ensembles(entry) {
            entry.park(None);
            entry.note_brought(false);
            self.retire_all(self.publish(entry, Next::nothing()));
        } else if self.has_left_over(entry) {
            self.retire_all(self.tidy(entry));
            let routes = self.serving.routes(&entry.name);
            let mut serving = routes.iter().flat_map(|routes| routes.versions.values());
            entry.note_beside(serving.any(|serving| serving.holds.is_held()));
        }
    }

    /// Whether a model serves what only an ensemble has needed that has it no more.
    fn has_left_over(&self, entry: &ModelEntry) -> bool {
        let Some(routes) = self.serving.routes(&entry.name) else { return false };
        let mut others = routes.versions.keys().filter(|version| **version != routes.current);
        !self.waits.has(&entry.name)
            && (self.goes_with_ensembles(entry)
                || others.any(|version| !is_wanted(entry, *version)))
    }

    /// Whether the whole model is there only for ensembles, and none has it any more.
    fn goes_with_ensembles(&self, entry: &ModelEntry) -> bool {
        let Some(routes) = self.serving.routes(&entry.name) else { return false };
        let is_held = routes.versions.values().any(|serving| serving.holds.is_held());
        // Nobody gets a lease of it from then on.
        entry.is_brought() && !is_held && !self.is_needed(entry)
    }

    /// Whether a model stays whichever ensembles have it.
    fn is_needed(&self, entry: &ModelEntry) -> bool {
        entry.settings().pin
            || !entry.intent().pinned.is_empty()
            || self.terms.load().required.contains(&entry.name)
            || self.waits.has(&entry.name)
            || entry.leased().is_some()
    }

    /// What a model serves, with the steps that go along if it goes: those that nothing else has, and theirs.
    pub(in super::super) fn with_steps(&self, routes: &Routes, along: Along) -> Vec<Arc<Serving>> {
        let mut going: Vec<Arc<Serving>> = routes.versions.values().cloned().collect();
        loop {
            let next = self.next_along(&going, along);
            if next.is_empty() {
                return going;
            }
            going.extend(next);
        }
    }

    fn next_along(&self, going: &[Arc<Serving>], along: Along) -> Vec<Arc<Serving>> {
        let is_going = |holder: &VersionId| going.iter().any(|serving| serving.id == *holder);
        let is_free = |step: &Serving| step.holds.by().iter().all(is_going);
        let is_new = |step: &Arc<Serving>| !going.iter().any(|other| Arc::ptr_eq(other, step));
        let ensembles = going.iter().filter_map(|serving| serving.runner.ensemble());
        let steps = ensembles.flat_map(Ensemble::steps).map(Hold::serving);
        let free = steps.filter(|step| is_new(step) && is_free(step));
        let mut along = free.map(|step| self.goes_along((step, along), &is_free));
        let next = along.find(|next| !next.is_empty()).unwrap_or_default();
        next.into_iter().filter(is_new).collect()
    }

    /// The versions of a step's model that go along; none where the step stays.
    fn goes_along(
        &self,
        (step, along): (&Arc<Serving>, Along),
        is_free: &dyn Fn(&Serving) -> bool,
    ) -> Vec<Arc<Serving>> {
        let VersionId { model, version } = &step.id;
        let entry = self.registry.get(model.as_str());
        let Some((entry, routes)) = entry.zip(self.serving.routes(model)) else {
            return vec![Arc::clone(step)];
        };
        let is_served = routes.versions.get(version).is_some_and(|own| Arc::ptr_eq(own, step));
        let is_left_over = *version != routes.current && !is_wanted_by_itself(&entry, *version);
        let is_needed = self.is_needed(&entry);
        let mut own = routes.versions.values();
        if entry.is_brought() && !is_needed && is_served && own.all(|own| is_free(own)) {
            return routes.versions.values().cloned().collect();
        }
        let may_go = along == Along::MayGo && !is_needed && !entry.is_irreplaceable();
        if !is_served || is_left_over || may_go { vec![Arc::clone(step)] } else { Vec::new() }
    }
}
