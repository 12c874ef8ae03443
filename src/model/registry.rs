//! Every model the control plane knows, with the records of its versions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::history::{Cause, History, Tenure};
use super::intent::Intent;
use super::names::{ModelName, Version, VersionId};
use super::operation::Operation;
use super::record::VersionRecord;
use super::state::StateKind;
use super::trial::TrialRules;
use crate::lifecycle::EventBus;

/// The models by name. Its locks are held for moments only, never across a load or a drain.
#[derive(Debug, Default)]
pub(super) struct Registry {
    models: Mutex<BTreeMap<ModelName, Arc<ModelEntry>>>,
}

/// One model: its records, and the permit that one change at a time holds.
#[derive(Debug)]
pub(super) struct ModelEntry {
    pub(super) name: ModelName,
    pub(super) change: Semaphore,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    records: Vec<Arc<VersionRecord>>,
    problem: Option<String>,
    intent: Intent,
    history: History,
    /// Counts the changes.
    generation: u64,
    /// The highest version that was seen in the repository.
    newest: Option<Version>,
    parked: Option<Parked>,
    /// What the model's policy selected at the last load.
    selected: Vec<Version>,
    trial: Option<TrialRules>,
    /// Whether the model is to be loaded.
    wanted: bool,
    /// Whether it was unloaded on purpose.
    unwanted: bool,
    /// Whether a change goes on that may take hours.
    busy: bool,
}

/// The version before the current one, which is kept loaded for the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) version: Version,
    /// Until when; `None` for as long as nobody says otherwise.
    pub(super) until: Option<Instant>,
}

/// As long as it is there, nobody waits for the permit to change the model.
#[must_use]
pub(super) struct Busy<'a>(&'a ModelEntry);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.known().busy = false;
    }
}

/// How many lives that are over are remembered of a model.
const REMEMBERED: usize = 16;

impl Known {
    fn forget_oldest_ended(&mut self) {
        let ended = self.records.iter().filter(|record| record.snapshot().over()).count();
        let mut too_many = ended.saturating_sub(REMEMBERED);
        self.records.retain(|record| {
            let forget = too_many > 0 && record.snapshot().over();
            too_many -= usize::from(forget);
            !forget
        });
    }
}

impl Registry {
    /// The entry of a model that was loaded before, or failed to.
    pub(super) fn get(&self, name: &str) -> Option<Arc<ModelEntry>> {
        self.models().get(name).cloned()
    }

    /// The entry of a model that exists; made if there is none yet.
    pub(super) fn entry(&self, name: &ModelName) -> Arc<ModelEntry> {
        let new = || {
            let (change, known) = (Semaphore::new(1), Mutex::default());
            Arc::new(ModelEntry { name: name.clone(), change, known })
        };
        Arc::clone(self.models().entry(name.clone()).or_insert_with(new))
    }

    /// Every entry, by name.
    pub(super) fn entries(&self) -> Vec<Arc<ModelEntry>> {
        self.models().values().cloned().collect()
    }

    fn models(&self) -> MutexGuard<'_, BTreeMap<ModelName, Arc<ModelEntry>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ModelEntry {
    /// Begins a new life of a version; what is over of the same version is forgotten.
    pub(super) fn begin(
        &self,
        version: Version,
        events: &EventBus,
        operation: &Arc<Operation>,
    ) -> Arc<VersionRecord> {
        let id = VersionId { model: self.name.clone(), version };
        let record = VersionRecord::new(id, events.clone(), Arc::clone(operation));
        let mut known = self.known();
        known.records.retain(|old| old.id.version != version || !old.snapshot().over());
        known.forget_oldest_ended();
        known.records.push(Arc::clone(&record));
        record
    }

    /// Forgets a life that is about to end, if its version has a newer one.
    pub(super) fn forget_superseded(&self, ending: &Arc<VersionRecord>) {
        let mut known = self.known();
        let same = |record: &Arc<VersionRecord>| Arc::ptr_eq(record, ending);
        let mut newer = known.records.iter().rev().take_while(|record| !same(record));
        if newer.any(|record| record.id == ending.id) {
            known.records.retain(|record| !same(record));
        }
    }

    /// Forgets the lives that failed and the model's problem.
    pub(super) fn forget_failures(&self) {
        let mut known = self.known();
        known.records.retain(|record| record.kind() != StateKind::Failed);
        known.problem = None;
    }

    /// The records, oldest first.
    pub(super) fn records(&self) -> Vec<Arc<VersionRecord>> {
        self.known().records.clone()
    }

    /// The record that says most of a version: the one that serves, else the newest.
    pub(super) fn record(&self, version: Version) -> Option<Arc<VersionRecord>> {
        let of_version = |record: &&Arc<VersionRecord>| record.id.version == version;
        let records = self.records();
        let ready = records.iter().filter(of_version).find(|record| record.ready().is_some());
        ready.or_else(|| records.iter().rfind(of_version)).cloned()
    }

    /// Why the model as a whole could not be loaded the last time; `None` if it could.
    pub(super) fn problem(&self) -> Option<String> {
        self.known().problem.clone()
    }

    pub(super) fn set_problem(&self, problem: Option<String>) {
        self.known().problem = problem;
    }

    /// What operators have decided.
    pub(super) fn intent(&self) -> Intent {
        self.known().intent.clone()
    }

    /// Changes what operators have decided. Only who holds the permit to change the model may.
    pub(super) fn decide<T>(&self, change: impl FnOnce(&mut Intent) -> T) -> T {
        let mut known = self.known();
        let result = change(&mut known.intent);
        known.generation += 1;
        result
    }

    /// Whether the model is to be loaded: it was, and nobody has unloaded it.
    pub(super) fn is_wanted(&self) -> bool {
        self.known().wanted
    }

    /// Whether somebody has unloaded the model.
    pub(super) fn is_unwanted(&self) -> bool {
        self.known().unwanted
    }

    /// Notes whether the model is to be loaded.
    pub(super) fn want(&self, wanted: bool) {
        let mut known = self.known();
        (known.wanted, known.unwanted) = (wanted, !wanted);
    }

    /// Whether operators have decided anything of the model.
    pub(super) fn was_decided_about(&self) -> bool {
        let known = self.known();
        known.unwanted || known.intent != Intent::default()
    }

    /// Takes over what was decided in an earlier life.
    pub(super) fn restore(&self, wanted: bool, intent: Intent) {
        self.known().intent = intent;
        self.want(wanted);
    }

    /// How often the model was changed.
    pub(super) fn generation(&self) -> u64 {
        self.known().generation
    }

    /// Notes that another version is current, or none.
    pub(super) fn note_current(&self, current: Option<(Version, &str)>, cause: Cause) {
        let mut known = self.known();
        known.history.note(current, cause);
        known.generation += 1;
    }

    pub(super) fn tenures(&self) -> Vec<Tenure> {
        self.known().history.tenures()
    }

    /// The last tenure of a version that is not `current`.
    pub(super) fn tenure_before(&self, current: Version) -> Option<Tenure> {
        self.known().history.before(current).cloned()
    }

    /// The highest version that is known of, once `version` is too.
    pub(super) fn newest(&self, version: Version) -> Version {
        let mut known = self.known();
        let newest = known.newest.map_or(version, |newest| newest.max(version));
        known.newest = Some(newest);
        newest
    }

    /// Notes what the model's policy selects.
    pub(super) fn select(&self, versions: Vec<Version>) {
        self.known().selected = versions;
    }

    /// Whether the model's policy wants several versions, and this is one of them.
    pub(super) fn is_selected_among_others(&self, version: Version) -> bool {
        let known = self.known();
        known.selected.len() > 1 && known.selected.contains(&version)
    }

    /// How requests are routed while a version is on trial.
    pub(super) fn trial(&self) -> Option<TrialRules> {
        self.known().trial.clone()
    }

    pub(super) fn set_trial(&self, trial: Option<TrialRules>) {
        self.known().trial = trial;
    }

    /// Whether a change goes on for which nobody should wait.
    pub(super) fn is_busy(&self) -> bool {
        self.known().busy
    }

    /// Says so until the guard is dropped.
    pub(super) fn busy(&self) -> Busy<'_> {
        self.known().busy = true;
        Busy(self)
    }

    pub(super) fn parked(&self) -> Option<Parked> {
        self.known().parked
    }

    pub(super) fn park(&self, parked: Option<Parked>) {
        self.known().parked = parked;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
