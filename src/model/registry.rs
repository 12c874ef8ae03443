//! Every model the control plane knows, with the records of its versions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::names::{ModelName, Version, VersionId};
use super::record::VersionRecord;
use super::state::StateKind;
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
    pub(super) fn begin(&self, version: Version, events: &EventBus) -> Arc<VersionRecord> {
        let id = VersionId { model: self.name.clone(), version };
        let record = VersionRecord::new(id, events.clone());
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

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
