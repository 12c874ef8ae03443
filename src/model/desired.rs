//! What is to be served, as operators have declared it, and how it outlives the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tracing::{error, warn};

use super::change::Core;
use super::error::ChangeError;
use super::intent::{Choice, Intent};
use super::load::{Choose, LoadOptions};
use super::names::{ModelName, Version};
use super::operation::{By, Operation};
use super::registry::ModelEntry;
use super::report::LoadReport;
use crate::causes;
use crate::inference::Signature;
use crate::lifecycle::{CheckKind, HealthRegistry, HealthReporter};

/// Everything that is declared: the models that somebody has ever decided something about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DesiredState {
    /// The models by name.
    pub models: BTreeMap<ModelName, DesiredModel>,
}

/// Whether a model is to be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Desire {
    /// Nobody has said.
    #[default]
    Open,
    /// It was loaded, and nobody has unloaded it since.
    Loaded,
    /// It was unloaded on purpose.
    Unloaded,
}

/// What is declared of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredModel {
    /// Whether it is to be loaded.
    pub desire: Desire,
    /// What was decided about its versions.
    pub intent: Intent,
    /// What it is to become instead, and could not yet be made.
    pub pending: Option<Box<DesiredModel>>,
    /// What its callers know; `None` where it never served, or was unloaded on purpose. Whoever declares
    /// leaves it out.
    pub callers: Option<Callers>,
}

/// What the callers of a model know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callers {
    /// The version that was current last.
    pub version: Version,
    /// What it takes and gives.
    pub signature: Signature,
}

impl Default for DesiredModel {
    fn default() -> Self {
        Self { desire: Desire::Loaded, intent: Intent::default(), pending: None, callers: None }
    }
}

impl DesiredModel {
    /// Whether it is to be loaded.
    pub fn is_wanted(&self) -> bool {
        self.desire == Desire::Loaded
    }

    /// What it is to become, or is.
    pub fn target(&self) -> &Self {
        self.pending.as_deref().unwrap_or(self)
    }
}

/// A step from one state to another, for who wants to know before it is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedChange {
    /// The model.
    pub model: ModelName,
    /// What would change, in words.
    pub actions: Vec<String>,
}

/// Where the desired state is kept. Calls may block and come from threads made for it.
pub trait DesiredStore: Send + Sync + 'static {
    /// Replaces what is kept. When this has returned, it outlives the process and the machine's
    /// power.
    ///
    /// # Errors
    /// Why it could not be; then what was kept before still is.
    fn save(&self, state: &DesiredState) -> std::io::Result<()>;
}

/// What is kept, and where.
pub(super) struct Keeper(Option<Kept>);

struct Kept {
    store: Arc<dyn DesiredStore>,
    /// One save at a time.
    saving: Semaphore,
    saved: Mutex<DesiredState>,
    health: Mutex<HealthReporter>,
}

impl Keeper {
    pub(super) fn new(store: Option<Arc<dyn DesiredStore>>, health: &HealthRegistry) -> Self {
        let kept = |store| {
            let health =
                health.reporter_not_critical("desired_state", CheckKind::Readiness, Ok(()));
            Kept {
                store,
                saving: Semaphore::new(1),
                saved: Mutex::default(),
                health: Mutex::new(health),
            }
        };
        Self(store.map(kept))
    }
}

impl Kept {
    fn is_saved(&self, state: &DesiredState) -> bool {
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) == *state
    }

    fn has_saved(&self, name: &ModelName, model: Option<&DesiredModel>) -> bool {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        saved.models.get(name) == model
    }

    fn note(&self, state: DesiredState) {
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn report(&self, result: Result<(), String>) {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).report(result);
    }
}

impl DesiredState {
    /// What it would take to come from here to `wanted`, model by model, whatever is pending. A model
    /// that `wanted` does not have is to be unloaded.
    pub fn changes_to(&self, wanted: &Self) -> Vec<PlannedChange> {
        let names = self.models.keys().chain(wanted.models.keys());
        let mut names: Vec<&ModelName> = names.collect();
        names.sort_unstable();
        names.dedup();
        let absent = DesiredModel { desire: Desire::Unloaded, ..DesiredModel::default() };
        let changes = names.into_iter().map(|name| {
            let now = self.models.get(name).unwrap_or(&absent);
            let then = wanted.models.get(name).unwrap_or(&absent);
            PlannedChange { model: name.clone(), actions: actions(now, then) }
        });
        changes.filter(|change| !change.actions.is_empty()).collect()
    }
}

/// What changes of one model, in words.
fn actions(now: &DesiredModel, then: &DesiredModel) -> Vec<String> {
    let mut actions = Vec::new();
    match (now.is_wanted(), then.is_wanted()) {
        (false, true) => actions.push("load".to_owned()),
        (true, false) => actions.push("unload".to_owned()),
        _ => {}
    }
    if !then.is_wanted() {
        return actions;
    }
    let chosen = |model: &DesiredModel| match model.intent.chosen {
        Some(choice) => format!("version {}", choice.version),
        None => "what the version policy selects".to_owned(),
    };
    if chosen(now) != chosen(then) {
        actions.push(format!("current: {} -> {}", chosen(now), chosen(then)));
    }
    let aliases = now.intent.aliases.keys().chain(then.intent.aliases.keys());
    let aliases: std::collections::BTreeSet<_> = aliases.collect();
    for alias in aliases {
        let of = |model: &DesiredModel| text(model.intent.aliases.get(alias));
        if of(now) != of(then) {
            actions.push(format!("alias {alias}: {} -> {}", of(now), of(then)));
        }
    }
    if now.intent.weights != then.intent.weights {
        actions.push("weights".to_owned());
    }
    if now.intent.shadow != then.intent.shadow {
        actions.push("shadow".to_owned());
    }
    if now.intent.pinned != then.intent.pinned {
        actions.push("pins".to_owned());
    }
    actions
}

fn text(version: Option<&Version>) -> String {
    version.map_or("none".to_owned(), ToString::to_string)
}

impl Core {
    /// What is declared now: what operators have decided, and what is loaded.
    pub(super) fn desired(&self) -> DesiredState {
        let of = |entry: Arc<ModelEntry>| (entry.name.clone(), entry.desired());
        let entries = self.registry.entries().into_iter();
        // Of a model that was never loaded, nothing is declared.
        let declared = entries.filter(|entry| entry.was_decided_about());
        DesiredState { models: declared.map(of).collect() }
    }

    /// [`Core::keep`], if it has changed for one model.
    pub(super) async fn keep_model(&self, name: &ModelName) -> Result<(), String> {
        let Keeper(Some(keeper)) = &self.keeper else { return Ok(()) };
        let entry = self.registry.get(name.as_str());
        let declared = entry.filter(|entry| entry.was_decided_about()).map(|entry| entry.desired());
        if keeper.has_saved(name, declared.as_ref()) {
            return Ok(());
        }
        self.keep().await
    }

    /// Saves what is declared, if it has changed. A failure is told and changes nothing else: what
    /// was decided holds, but only as long as the process lives.
    ///
    /// # Errors
    /// Why it could not be saved.
    pub(super) async fn keep(&self) -> Result<(), String> {
        let Keeper(Some(keeper)) = &self.keeper else { return Ok(()) };
        let _saving = keeper.saving.acquire().await;
        let state = self.desired();
        if keeper.is_saved(&state) {
            return Ok(());
        }
        let (store, to_save) = (Arc::clone(&keeper.store), state.clone());
        let save = move || store.save(&to_save);
        let result = match self.unloads.run("save desired state", save).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => Err(causes::of_error(&refusal)),
            Err(failure) => Err(causes::of_error(&failure)),
        };
        match &result {
            Ok(()) => keeper.note(state),
            Err(cause) => error!(cause, "the desired state could not be saved"),
        }
        let told = result.clone().map_err(|cause| format!("it could not be saved: {cause}"));
        keeper.report(told);
        result
    }

    /// Takes over what was declared in an earlier life, before anything is loaded.
    pub(super) fn restore(&self, state: DesiredState, problems: &[String]) {
        for (name, model) in &state.models {
            let entry = self.registry.entry(name);
            entry.restore(model.clone());
            if model.pending.is_some() {
                // Not at once: it may be what has ended the process before.
                let (told, interval) =
                    ("not tried since the start", self.terms.load().reconcile_interval);
                entry.outstanding(|outstanding| outstanding.failed(told.to_owned(), interval));
            }
        }
        let Keeper(Some(keeper)) = &self.keeper else { return };
        keeper.note(state);
        for problem in problems {
            warn!(problem, "the desired state was damaged, the last good one is used");
        }
        if !problems.is_empty() {
            keeper.report(Err(problems.join("; ")));
            // What was found is not what is on disk any more.
            keeper.note(DesiredState::default());
        }
    }

    /// Makes one model what is declared of it, all or nothing.
    pub(super) async fn apply(
        self: &Arc<Self>,
        name: &ModelName,
        wanted: Intent,
        operation: &Arc<Operation>,
    ) -> Result<LoadReport, ChangeError> {
        let entry = self.entry(name).await?;
        let _permit = self.permit(&entry, operation).await?;
        let available =
            self.ask(name, |loader, name| Ok(loader.source.model(name)?.versions)).await?;
        let newest = available.last().copied();
        let chosen = wanted.chosen.map(|choice| {
            let newest = newest.map_or(choice.version, |newest| newest.max(choice.version));
            Choice { version: choice.version, newest }
        });
        let deciding = Some(Intent { chosen, ..wanted });
        let choose = match operation.by() {
            By::Reconciler => Choose::Settled,
            By::Declaration => Choose::Declared,
            _ => Choose::Any,
        };
        let how = (LoadOptions::default(), choose, &[][..]);
        let result = self.load_planned((&entry, deciding), how, operation).await;
        entry.set_problem(result.as_ref().err().map(|error| causes::of_error(error)));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(models: &[(&str, bool, Option<u64>)]) -> DesiredState {
        let model = |(name, loaded, chosen): &(&str, bool, Option<u64>)| {
            let version = chosen.map(|number| Version::new(number).unwrap());
            let chosen = version.map(|version| Choice { version, newest: version });
            let intent = Intent { chosen, ..Intent::default() };
            let desire = if *loaded { Desire::Loaded } else { Desire::Unloaded };
            let model = DesiredModel { desire, intent, ..DesiredModel::default() };
            (ModelName::new(name).unwrap(), model)
        };
        DesiredState { models: models.iter().map(model).collect() }
    }

    #[test]
    fn changes_are_told_model_by_model() {
        let now = state(&[("a", true, None), ("b", true, Some(1)), ("c", false, None)]);
        let mut then = state(&[("b", true, Some(2)), ("c", true, None), ("d", true, None)]);
        let b = then.models.get_mut("b").unwrap();
        b.intent.aliases.insert("stable".parse().unwrap(), Version::new(1).unwrap());
        let told: Vec<_> = now
            .changes_to(&then)
            .into_iter()
            .map(|change| (change.model.to_string(), change.actions.join("; ")))
            .collect();
        let expected = [
            ("a", "unload"),
            ("b", "current: version 1 -> version 2; alias stable: none -> 1"),
            ("c", "load"),
            ("d", "load"),
        ];
        assert_eq!(told, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
        assert!(now.changes_to(&now).is_empty());
    }
}
