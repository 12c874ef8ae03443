//! Reconciling: what is declared and is not so is tried again and again, less and less often.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::change::Core;
use super::desired::{Desire, DesiredModel, DesiredState, PlannedChange};
use super::error::ChangeError;
use super::intent::Intent;
use super::load::LoadOptions;
use super::manager::{Change, ModelLifecycleManager};
use super::names::ModelName;
use super::operation::{By, Operation};
use super::registry::ModelEntry;
use crate::causes;
use crate::lifecycle::Backoff;

/// The longest time between two attempts, unless the interval is longer.
const LONGEST: Duration = Duration::from_mins(10);

/// What is declared of a model and is not so yet, and when it is tried again.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    declared: Option<DesiredModel>,
    /// Counts declarations, so that the end of a change does not settle what was declared after it had
    /// begun.
    declarations: u64,
    failures: u32,
    last_error: String,
    not_before: Option<Instant>,
}

/// A model that is not what is declared of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// The model.
    pub model: ModelName,
    /// Why the last attempt has failed; empty while there was none.
    pub reason: String,
    /// Attempts that have failed since it was declared.
    pub failures: u32,
    /// How long until the next one, at least; zero where one is due or under way.
    pub pause: Duration,
}

impl Outstanding {
    /// Notes what is to become of the model.
    pub(super) fn declare(&mut self, model: DesiredModel) {
        let declarations = self.declarations + 1;
        *self = Self { declared: Some(model), declarations, ..Self::default() };
    }

    /// It need not become anything else than it is.
    pub(super) fn withdraw(&mut self) {
        *self = Self { declarations: self.declarations + 1, ..Self::default() };
    }

    pub(super) fn declared(&self) -> Option<&DesiredModel> {
        self.declared.as_ref()
    }

    pub(super) fn declarations(&self) -> u64 {
        self.declarations
    }

    /// A change has succeeded that had begun after so many declarations, if whoever made it wanted what
    /// the model is now; `None` where nobody has decided anything by it.
    pub(super) fn settle(&mut self, declarations: Option<u64>) {
        let decided = declarations == Some(self.declarations);
        if decided || self.declared.is_none() {
            *self = Self { declarations: self.declarations, ..Self::default() };
        }
    }

    /// An attempt has failed; the next one is made after a time that doubles.
    pub(super) fn failed(&mut self, error: String, interval: Duration) {
        self.failures = self.failures.saturating_add(1);
        let backoff = Backoff { first: interval, most: LONGEST.max(interval) };
        self.not_before = Instant::now().checked_add(backoff.delay(self.failures, 0.0));
        self.last_error = error;
    }

    fn pause(&self) -> Duration {
        self.not_before
            .map_or(Duration::ZERO, |then| then.saturating_duration_since(Instant::now()))
    }
}

/// What is seen of a model.
#[derive(Debug, Clone, Default)]
struct Observed {
    /// What is declared and is not so yet.
    declared: Option<DesiredModel>,
    /// Whether it is to be loaded.
    wanted: bool,
    serves: bool,
    /// Whether the next request loads it.
    on_demand: bool,
}

/// What is to be done about it.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Load,
    Apply(Intent),
    Unload,
}

impl Observed {
    /// `None` where the model is what it should be.
    fn missing(&self) -> Option<Action> {
        match &self.declared {
            Some(model) if model.is_wanted() => Some(Action::Apply(model.intent.clone())),
            Some(_) => Some(Action::Unload),
            None => (self.wanted && !self.serves && !self.on_demand).then_some(Action::Load),
        }
    }
}

impl From<Action> for Change {
    fn from(action: Action) -> Self {
        match action {
            Action::Load => Self::Load(LoadOptions::default()),
            Action::Apply(intent) => Self::Apply(intent),
            Action::Unload => Self::Unload(None),
        }
    }
}

impl Core {
    fn missing(&self, entry: &ModelEntry) -> Option<Action> {
        let observed = Observed {
            declared: entry.outstanding(|outstanding| outstanding.declared().cloned()),
            wanted: entry.is_wanted(),
            serves: self.serving.routes(&entry.name).is_some(),
            on_demand: entry.may_wait_for_demand(),
        };
        observed.missing()
    }

    /// Notes what is to become of every model. What leads there, for each that is not so already.
    pub(super) fn note_declared(
        &self,
        wanted: &DesiredState,
        plans: Vec<PlannedChange>,
    ) -> Vec<(PlannedChange, Change)> {
        for entry in self.registry.entries() {
            entry.outstanding(Outstanding::withdraw);
        }
        let change = |plan: PlannedChange| {
            let entry = self.registry.declared(&plan.model);
            let wanted = wanted.models.get(&plan.model).filter(|model| model.is_wanted());
            let (declared, change) = if let Some(model) = wanted {
                (model.clone(), Change::Apply(model.intent.clone()))
            } else {
                let (desire, intent) = (Desire::Unloaded, entry.intent());
                let model = DesiredModel { desire, intent, ..DesiredModel::default() };
                (model, Change::Unload(None))
            };
            entry.outstanding(|outstanding| outstanding.declare(declared));
            (plan, change)
        };
        let changes = plans.into_iter().map(change).collect();
        self.registry.forget_the_past();
        changes
    }

    /// How often something was declared of a model.
    pub(super) fn declarations(&self, model: &ModelName) -> u64 {
        let entry = self.registry.get(model.as_str());
        entry.map_or(0, |entry| entry.outstanding(|outstanding| outstanding.declarations()))
    }

    /// Every model that is not what is declared of it.
    pub(super) fn unmet(&self) -> Vec<Unmet> {
        let entries = self.registry.entries().into_iter();
        let unmet = entries.filter(|entry| self.missing(entry).is_some());
        let told = unmet.map(|entry| {
            entry.outstanding(|outstanding| Unmet {
                model: entry.name.clone(),
                reason: outstanding.last_error.clone(),
                failures: outstanding.failures,
                pause: outstanding.pause(),
            })
        });
        told.collect()
    }

    /// Notes how a change of the model has ended, and that it had begun after so many declarations; `None`
    /// where it decided nothing.
    pub(super) fn note_end(
        &self,
        model: &ModelName,
        (declarations, by): (Option<u64>, By),
        result: Result<(), &ChangeError>,
    ) {
        let Some(entry) = self.registry.get(model.as_str()) else { return };
        let interval = self.terms.load().reconcile_interval;
        let concerns = entry.outstanding(|outstanding| {
            let had_failed = outstanding.failures > 0;
            match result {
                Ok(()) => outstanding.settle(declarations),
                // An operator's own failure says nothing about what is declared, nor does it put it off.
                Err(error) if by.is_attempt() && is_failure(error) => {
                    outstanding.failed(causes::of_error(error), interval);
                }
                Err(_) => {}
            }
            had_failed || outstanding.failures > 0
        });
        // Telling it means to look at every model.
        if concerns {
            self.report_convergence();
        }
    }

    /// Tells the check `reconciled` whether every model is what is declared of it.
    pub(super) fn report_convergence(&self) {
        let reporter = self.convergence.lock().unwrap_or_else(PoisonError::into_inner);
        let unmet = self.unmet().into_iter().filter(|unmet| unmet.failures > 0);
        let told: Vec<String> =
            unmet.map(|unmet| format!("{}: {}", unmet.model, unmet.reason)).collect();
        reporter.report(if told.is_empty() {
            Ok(())
        } else {
            Err(format!("not as declared: {}", told.join("; ")))
        });
    }
}

impl ModelLifecycleManager {
    /// Every model that is not what is declared of it, or should be loaded and is not.
    pub fn unmet(&self) -> Vec<Unmet> {
        self.core.unmet()
    }

    /// Begins to try again what failed of what is declared: at the interval that the terms say, and
    /// after each failure of a model half as often, every ten minutes at least. What could not be saved
    /// is saved again.
    pub fn start_reconciling(&self) {
        let manager = self.clone();
        self.core.tasks.spawn(async move {
            let core = &manager.core;
            let mut attempts = BTreeMap::new();
            while core.refusing.run_until_cancelled(core.reconcile_pause()).await.is_some() {
                manager.reconcile(&mut attempts);
                core.registry.forget_the_past();
                // A check tells where that fails.
                core.keep().await.ok();
            }
        });
    }

    /// One round: begins an attempt for each model that is due and has none under way. No model waits
    /// for another.
    fn reconcile(&self, attempts: &mut BTreeMap<ModelName, Arc<Operation>>) {
        attempts.retain(|_, attempt| !attempt.is_over());
        let entries = self.core.registry.entries().into_iter();
        let due = entries.filter(|entry| {
            let rests = entry.outstanding(|outstanding| !outstanding.pause().is_zero());
            // Whoever changes it may be about to do just that.
            let is_changed = entry.change.available_permits() == 0;
            !rests && !is_changed && !attempts.contains_key(&entry.name)
        });
        let changes = due.filter_map(|entry| Some((self.core.missing(&entry)?, entry)));
        for (action, entry) in changes.collect::<Vec<_>>() {
            // It is refused only while the server is shutting down.
            let begun = self.begin_aside(&entry.name, action.into(), By::Reconciler);
            if let Ok(attempt) = begun {
                attempt.step("RECONCILE", None);
                attempts.insert(entry.name.clone(), attempt);
            }
        }
    }
}

/// Whether an attempt has met something that stands against it, and not only another change.
fn is_failure(error: &ChangeError) -> bool {
    !matches!(
        error,
        ChangeError::Busy { .. }
            | ChangeError::NotLoaded(_)
            | ChangeError::ShuttingDown
            | ChangeError::Unsettled { .. }
    )
}

impl Core {
    async fn reconcile_pause(&self) {
        sleep(self.terms.load().reconcile_interval).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(loaded: bool) -> DesiredModel {
        let desire = if loaded { Desire::Loaded } else { Desire::Unloaded };
        DesiredModel { desire, ..DesiredModel::default() }
    }

    #[test]
    fn what_is_missing_is_done_and_nothing_else() {
        let seen = Observed { wanted: true, serves: true, ..Observed::default() };
        assert_eq!(seen.missing(), None);
        assert_eq!(Observed::default().missing(), None);
        let gone = Observed { serves: false, ..seen.clone() };
        assert_eq!(gone.missing(), Some(Action::Load));
        assert_eq!(Observed { on_demand: true, ..gone }.missing(), None, "it comes when needed");
        let to_be = |loaded| Observed { declared: Some(declared(loaded)), ..seen.clone() };
        assert_eq!(to_be(true).missing(), Some(Action::Apply(Intent::default())));
        assert_eq!(to_be(false).missing(), Some(Action::Unload));
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_become_rarer_and_never_cease() {
        let (mut outstanding, second) = (Outstanding::default(), Duration::from_secs(1));
        outstanding.declare(declared(true));
        assert_eq!(outstanding.pause(), Duration::ZERO);
        for expected in [1, 2, 4, 8] {
            outstanding.failed("x".to_owned(), second);
            assert_eq!(outstanding.pause(), Duration::from_secs(expected));
        }
        (0..100).for_each(|_| outstanding.failed("x".to_owned(), second));
        assert_eq!(outstanding.pause(), LONGEST);
        outstanding.failed("x".to_owned(), LONGEST * 2);
        assert_eq!(outstanding.pause(), LONGEST * 2);
        outstanding.declare(declared(false));
        assert_eq!((outstanding.pause(), outstanding.failures), (Duration::ZERO, 0));
    }

    #[test]
    fn a_change_settles_only_what_was_declared_before_it_began() {
        let mut outstanding = Outstanding::default();
        outstanding.declare(declared(true));
        let begun = Some(outstanding.declarations());
        outstanding.declare(declared(false));
        outstanding.settle(begun);
        outstanding.settle(None);
        assert_eq!(outstanding.declared(), Some(&declared(false)));
        outstanding.settle(Some(outstanding.declarations()));
        assert_eq!(outstanding.declared(), None);
    }
}
