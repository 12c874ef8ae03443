//! Every model the control plane knows, with the records of its versions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::desired::{Callers, Desire, DesiredModel};
use super::error::ChangeError;
use super::history::{Cause, History, Tenure};
use super::intent::Intent;
use super::lease::Leases;
use super::loader::ModelSettings;
use super::names::{ModelName, Version, VersionId};
use super::operation::{By, Operation};
use super::reconcile::Outstanding;
use super::record::VersionRecord;
use super::state::StateKind;
use super::trial::{OnTrial, TrialRules};
use super::unrouted::UnroutedCounts;
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
    /// Places for requests that wait until the model serves.
    pub(super) waiting: Semaphore,
    /// Requests that none of its versions has got.
    pub(super) unrouted: UnroutedCounts,
    /// How many changes are about to let it serve, so that a request may wait for it.
    coming: Arc<watch::Sender<usize>>,
    /// How many are about to change it for a moment only.
    tidying: AtomicUsize,
    /// The change that may take hours, if one goes on.
    trial_of: watch::Sender<Option<OnTrial>>,
    known: Mutex<Known>,
}

/// A model that is on its way; it has arrived, or will not, when this is dropped.
#[must_use]
pub(super) struct Arrival(Arc<watch::Sender<usize>>);

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
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
    /// What waits for the end of the parking.
    unparking: Option<AbortHandle>,
    /// What the model's policy selected at the last load.
    selected: Vec<Version>,
    trial: Option<TrialRules>,
    settings: Terms,
    warnings: Vec<String>,
    leases: Leases,
    /// Whether a request loads the model.
    on_demand: bool,
    /// Until when no request loads it, because the last one could not.
    resting: Option<Instant>,
    /// Whether it did not fit into the memory then.
    lacks_room: bool,
    desire: Desire,
    outstanding: Outstanding,
    /// Whether it is known only because somebody has declared it.
    only_declared: bool,
    /// What has served before it went to make room; `None` where something serves.
    served: Option<Served>,
    /// What its callers know.
    callers: Option<Callers>,
    /// Whether a change has left it without a version that serves, which nobody wanted.
    stranded: bool,
    /// Whether what serves is there only because something else could not be loaded for now.
    is_makeshift: bool,
    /// Whether a version that it serves is not in the repository any more.
    irreplaceable: bool,
    /// Whether the model is not in the repository any more, and nobody has said what is to become of it.
    is_gone: bool,
    /// Whether it serves only because an ensemble has needed it.
    is_brought: bool,
    /// Whether it may serve versions only because an ensemble has needed them.
    has_beside: bool,
    /// Who makes the change that is under way.
    holder: Option<By>,
}

/// The versions that have served before a model went though it is wanted.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) current: Version,
    /// Each with the digest of its files.
    pub(super) versions: BTreeMap<Version, String>,
    /// The model's settings as they were then.
    pub(super) settings: ModelSettings,
    /// Whether who follows the repository has seen another one since.
    pub(super) is_outdated: bool,
}

/// How long a model stays, by its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Terms {
    pub(super) pin: bool,
    pub(super) idle_ttl: Option<Duration>,
}

/// The version before the current one, which is kept loaded for the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) version: Version,
    /// Until when; `None` for as long as nobody says otherwise.
    pub(super) until: Option<Instant>,
}

/// As long as it is there, nobody waits for the permit to change the model; who did is refused.
#[must_use]
pub(super) struct Busy<'a>(&'a ModelEntry);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.trial_of.send_replace(None);
    }
}

/// As long as it is there, the model may be changed for a moment.
#[must_use]
pub(super) struct Tidying<'a>(&'a ModelEntry);

impl Drop for Tidying<'_> {
    fn drop(&mut self) {
        self.0.tidying.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How many requests may wait for a model that does not serve yet.
const WAITING: usize = 512;

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
            Arc::new(ModelEntry {
                name: name.clone(),
                change: Semaphore::new(1),
                waiting: Semaphore::new(WAITING),
                unrouted: UnroutedCounts::default(),
                coming: Arc::new(watch::Sender::new(0)),
                tidying: AtomicUsize::new(0),
                trial_of: watch::Sender::new(None),
                known: Mutex::default(),
            })
        };
        Arc::clone(self.models().entry(name.clone()).or_insert_with(new))
    }

    /// The entry of a model that is declared, whether it exists or not.
    pub(super) fn declared(&self, name: &ModelName) -> Arc<ModelEntry> {
        let known = self.get(name.as_str());
        known.unwrap_or_else(|| {
            let entry = self.entry(name);
            entry.known().only_declared = true;
            entry
        })
    }

    /// Forgets the models that do not exist and that nobody wants any more.
    pub(super) fn forget_the_past(&self) {
        // Who holds the entry may be about to change it.
        self.models().retain(|_, entry| Arc::strong_count(entry) > 1 || !entry.is_of_the_past());
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
        self.known().desire == Desire::Loaded
    }

    /// Whether somebody has unloaded the model.
    pub(super) fn is_unwanted(&self) -> bool {
        self.known().desire == Desire::Unloaded
    }

    /// Notes whether the model is to be loaded.
    pub(super) fn want(&self, wanted: bool) {
        self.known().desire = if wanted { Desire::Loaded } else { Desire::Unloaded };
    }

    /// It is to be loaded, unless somebody has said that it is not.
    pub(super) fn expect_loaded(&self) {
        let mut known = self.known();
        if known.desire == Desire::Open {
            known.desire = Desire::Loaded;
        }
    }

    /// Nobody has said any more whether the model is to be loaded.
    pub(super) fn leave_open(&self) {
        self.known().desire = Desire::Open;
    }

    /// Whether the model does not exist, and nobody wants it any more.
    fn is_of_the_past(&self) -> bool {
        let known = self.known();
        let is_wanted = known.desire == Desire::Loaded || known.outstanding.declared().is_some();
        let was_seen = known.newest.is_some() || !known.records.is_empty() || known.on_demand;
        let never_was = known.only_declared && !was_seen;
        let is_over = |record: &Arc<VersionRecord>| record.snapshot().over();
        let was = known.is_gone
            && known.desire == Desire::Open
            && known.intent == Intent::default()
            && known.records.iter().all(is_over);
        !is_wanted && (never_was || was)
    }

    /// The model is not in the repository any more, or is again.
    pub(super) fn note_gone(&self, is_gone: bool) {
        self.known().is_gone = is_gone;
    }

    /// Whether the last load had to do with another version than it was to, for a reason that may pass.
    pub(super) fn is_makeshift(&self) -> bool {
        self.known().is_makeshift
    }

    pub(super) fn note_makeshift(&self, is_makeshift: bool) {
        self.known().is_makeshift = is_makeshift;
    }

    /// Whether it serves only because an ensemble has needed it.
    pub(super) fn is_brought(&self) -> bool {
        self.known().is_brought
    }

    pub(super) fn note_brought(&self, is_brought: bool) {
        self.known().is_brought = is_brought;
    }

    /// Whether it may serve versions only because an ensemble has needed them.
    pub(super) fn has_beside(&self) -> bool {
        self.known().has_beside
    }

    pub(super) fn note_beside(&self, has_beside: bool) {
        self.known().has_beside = has_beside;
    }

    /// Whether it is noted that what the model serves could not be loaded again.
    pub(super) fn is_irreplaceable(&self) -> bool {
        self.known().irreplaceable
    }

    pub(super) fn note_irreplaceable(&self, irreplaceable: bool) {
        self.known().irreplaceable = irreplaceable;
    }

    /// Notes who has the permit to change the model.
    pub(super) fn note_holder(&self, by: By) {
        self.known().holder = Some(by);
    }

    /// Whether the change that is under way is the server's own.
    pub(super) fn is_changed_by_the_server(&self) -> bool {
        self.known().holder.is_some_and(|by| by != By::Caller && by != By::Declaration)
    }

    /// Whether operators have decided anything of the model.
    pub(super) fn was_decided_about(&self) -> bool {
        let known = self.known();
        known.desire != Desire::Open
            || known.intent != Intent::default()
            || known.outstanding.declared().is_some()
    }

    /// Takes over what was decided in an earlier life.
    pub(super) fn restore(&self, model: DesiredModel) {
        let DesiredModel { desire, intent, pending, callers } = model;
        let mut known = self.known();
        known.only_declared = desire == Desire::Open;
        known.callers = callers;
        (known.intent, known.desire) = (intent, desire);
        drop(known);
        if let Some(pending) = pending {
            self.outstanding(|outstanding| outstanding.declare(*pending));
        }
    }

    /// Reads or changes what is declared of the model and is not so yet.
    pub(super) fn outstanding<T>(&self, change: impl FnOnce(&mut Outstanding) -> T) -> T {
        change(&mut self.known().outstanding)
    }

    /// What was decided of the model and what is yet to be made of it.
    pub(super) fn desired(&self) -> DesiredModel {
        let known = self.known();
        DesiredModel {
            desire: known.desire,
            intent: known.intent.clone(),
            pending: known.outstanding.declared().cloned().map(Box::new),
            callers: known.callers.clone(),
        }
    }

    /// How often the model was changed.
    pub(super) fn generation(&self) -> u64 {
        self.known().generation
    }

    /// Notes that another version is current, or none.
    pub(super) fn note_current(&self, current: Option<(Version, &str)>, cause: Cause) {
        let mut known = self.known();
        known.stranded = false;
        if current.is_some() {
            known.served = None;
        }
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

    /// How long the model stays, by its settings at the last load.
    pub(super) fn settings(&self) -> Terms {
        self.known().settings
    }

    pub(super) fn set_terms(&self, settings: &ModelSettings) {
        let ModelSettings { pin, idle_ttl, .. } = *settings;
        let mut known = self.known();
        known.settings = Terms { pin, idle_ttl };
        known.warnings.clone_from(&settings.warnings);
    }

    /// What the model's settings ask for and is not honoured.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.known().warnings.clone()
    }

    /// Reads or changes the leases.
    pub(super) fn leases<T>(&self, change: impl FnOnce(&mut Leases) -> T) -> T {
        change(&mut self.known().leases)
    }

    /// Nobody gets a lease any more, for the model is about to go.
    ///
    /// # Errors
    /// [`ChangeError::Leased`] where somebody holds one.
    pub(super) fn seal(&self) -> Result<(), ChangeError> {
        let sealed = self.leases(Leases::seal);
        sealed.map_err(|by| ChangeError::Leased { model: self.name.clone(), by })
    }

    /// Who holds a lease; `None` where nobody does.
    pub(super) fn leased(&self) -> Option<Vec<String>> {
        Some(self.leases(Leases::holders)).filter(|holders| !holders.is_empty())
    }

    /// Whether the next request loads the model.
    pub(super) fn is_on_demand(&self) -> bool {
        let known = self.known();
        known.on_demand && known.resting.is_none_or(|until| Instant::now() >= until)
    }

    /// Whether a request is to load the model, if not the next one.
    pub(super) fn waits_for_a_request(&self) -> bool {
        self.known().on_demand
    }

    pub(super) fn load_on_demand(&self, on_demand: bool) {
        let mut known = self.known();
        (known.on_demand, known.resting) = (on_demand, None);
    }

    /// Takes back that the next request loads the model, or that it is to be loaded; whether it was to
    /// come.
    pub(super) fn unload_what_is_to_come(&self) -> bool {
        let mut known = self.known();
        let declared = known.outstanding.declared().is_some_and(DesiredModel::is_wanted);
        let comes =
            std::mem::take(&mut known.on_demand) || known.desire == Desire::Loaded || declared;
        if comes {
            known.desire = Desire::Unloaded;
        }
        comes
    }

    /// Whether the next request loads the model, be it after a rest, and nobody else needs to.
    pub(super) fn may_wait_for_demand(&self) -> bool {
        let known = self.known();
        known.on_demand && !known.stranded
    }

    /// The model serves nothing from now on though it should; the next request loads it.
    pub(super) fn strand(&self) {
        let mut known = self.known();
        (known.stranded, known.on_demand, known.resting) = (true, true, None);
    }

    /// Notes what has served and is to come back; `None` for nothing.
    pub(super) fn note_served(&self, served: Option<Served>) {
        self.known().served = served;
    }

    /// What callers of the model know.
    pub(super) fn callers(&self) -> Option<Callers> {
        self.known().callers.clone()
    }

    pub(super) fn note_callers(&self, callers: Option<Callers>) {
        self.known().callers = callers;
    }

    /// What has served before the model went.
    pub(super) fn served_last(&self) -> Option<Served> {
        self.known().served.clone()
    }

    /// The repository is followed, and what has served is not what it has now.
    pub(super) fn outdate(&self) {
        if let Some(served) = &mut self.known().served {
            served.is_outdated = true;
        }
    }

    /// Whether requests wait until the model serves, or are about to have it.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.available_permits() < WAITING
    }

    /// Somebody is about to change the model for a moment only.
    pub(super) fn tidy(&self) -> Tidying<'_> {
        self.tidying.fetch_add(1, Ordering::SeqCst);
        Tidying(self)
    }

    pub(super) fn is_tidied(&self) -> bool {
        self.tidying.load(Ordering::SeqCst) > 0
    }

    /// Replaces what waits for the end of the parking.
    pub(super) fn unparked_by(&self, timer: Option<AbortHandle>) {
        if let Some(before) = std::mem::replace(&mut self.known().unparking, timer) {
            before.abort();
        }
    }

    /// No request loads the model before that.
    pub(super) fn rest(&self, until: Instant, lacks_room: bool) {
        let mut known = self.known();
        (known.resting, known.lacks_room) = (Some(until), lacks_room);
    }

    /// Whether no request loads it for now, because it did not fit into the memory.
    pub(super) fn lacks_room(&self) -> bool {
        let known = self.known();
        known.resting.is_some() && known.lacks_room
    }

    /// How many changes are about to let the model serve.
    pub(super) fn coming(&self) -> watch::Receiver<usize> {
        self.coming.subscribe()
    }

    /// One more is.
    pub(super) fn begin_coming(&self) -> Arrival {
        self.coming.send_modify(|count| *count += 1);
        Arrival(Arc::clone(&self.coming))
    }

    /// One is, where none was.
    pub(super) fn begin_coming_first(&self) -> Option<Arrival> {
        let first = self.coming.send_if_modified(|count| {
            let none = *count == 0;
            *count += usize::from(none);
            none
        });
        first.then(|| Arrival(Arc::clone(&self.coming)))
    }

    /// The change that goes on and for which nobody should wait.
    pub(super) fn trial_of(&self) -> Option<OnTrial> {
        self.trial_of.borrow().clone()
    }

    /// Waits until such a change goes on.
    pub(super) async fn is_on_trial(&self) {
        // The sender lives as long as this does.
        drop(self.trial_of.subscribe().wait_for(Option::is_some).await);
    }

    /// Says that such a change goes on, until the guard is dropped.
    pub(super) fn busy(&self, trial: OnTrial) -> Busy<'_> {
        self.trial_of.send_replace(Some(trial));
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
