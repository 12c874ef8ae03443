//! Every check, and the verdicts on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::check::{Check, CheckId, CheckKind, CheckResult};
use super::record::Record;
use super::report::{CheckDetail, CheckReport, Verdict};
use super::reporter::HealthReporter;
use super::schedule::Jitter;
use super::slot::{Begun, Plan, Slot, Surroundings, Terms};
use super::status::{CheckStatus, Thresholds};
use crate::lifecycle::event::EventBus;
use crate::lifecycle::manager::LifecycleConfig;

/// What a check has as long as nothing has run.
const NOT_YET: &str = "it has not run yet";

/// How many changes of each check are kept, without further words.
const HISTORY: usize = 32;

/// What holds for every check that does not say otherwise.
#[derive(Debug, Clone)]
pub struct HealthOptions {
    /// From the start of a run to the start of the next.
    pub interval: Duration,
    /// How long one run may take.
    pub timeout: Duration,
    /// Failures in a row before a check fails; at least one.
    pub failure_threshold: u32,
    /// Successes in a row before a check passes; at least one.
    pub success_threshold: u32,
    /// How many changes of each check's status are kept; at least one.
    pub history: usize,
    /// What keeps the checks' schedules apart.
    pub jitter: Jitter,
}

impl HealthOptions {
    /// The first result decides, 32 changes are kept, schedules are kept apart by chance.
    pub fn new(interval: Duration, timeout: Duration) -> Self {
        Self {
            interval,
            timeout,
            failure_threshold: 1,
            success_threshold: 1,
            history: HISTORY,
            jitter: Jitter::random(),
        }
    }
}

impl From<LifecycleConfig> for HealthOptions {
    fn from(config: LifecycleConfig) -> Self {
        Self {
            failure_threshold: config.health_failure_threshold.get(),
            success_threshold: config.health_success_threshold.get(),
            ..Self::new(config.health_interval, config.health_timeout)
        }
    }
}

/// Why a check was not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckRunError {
    /// There is no such check, or there is none any more.
    #[error("there is no {kind} check '{name}'")]
    Unknown {
        /// The kind that was asked for.
        kind: CheckKind,
        /// The name that was asked for.
        name: String,
    },
    /// The registry was stopped.
    #[error("checks are not run any more")]
    Stopped,
}

/// Holds every check and its last result. Clones share everything.
///
/// ```
/// # use std::time::Duration;
/// use onward::lifecycle::{Check, CheckKind, CheckStatus, EventBus, HealthRegistry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let seconds = Duration::from_secs;
/// let health = HealthRegistry::new(seconds(5), seconds(2), EventBus::new(64));
/// health.register(Check::new("database", CheckKind::Readiness, || async { Ok(()) }));
/// health.register(Check::blocking("disk", CheckKind::Readiness, || Err("full".to_owned())));
///
/// // On demand, and else by themselves.
/// let detail = health.run(CheckKind::Readiness, "disk").await.unwrap();
/// assert_eq!(detail.report.status, CheckStatus::Failing);
/// assert_eq!(detail.report.last_error.as_deref(), Some("full"));
///
/// // A probe reads what is known, and waits for nothing.
/// assert!(!health.verdict(CheckKind::Readiness).passing);
/// assert!(health.verdict(CheckKind::Liveness).passing);
/// # health.stop().await;
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct HealthRegistry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: HealthOptions,
    events: EventBus,
    slots: Mutex<BTreeMap<CheckId, Arc<Slot>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl HealthRegistry {
    /// A registry without checks, with [`HealthOptions::new`]. A probe without checks passes.
    pub fn new(interval: Duration, timeout: Duration, events: EventBus) -> Self {
        Self::with(HealthOptions::new(interval, timeout), events)
    }

    /// A registry without checks.
    pub fn with(options: HealthOptions, events: EventBus) -> Self {
        let (slots, tasks, stop) = Default::default();
        Self { shared: Arc::new(Shared { options, events, slots, tasks, stop }) }
    }

    /// Adds a check and runs it from now on, first after what [`Jitter`] says. A check of the same
    /// kind and name is replaced, and a run of it that is under way counts for nothing. Must be called
    /// inside a tokio runtime.
    pub fn register(&self, check: Check) {
        let options = &self.shared.options;
        let standard = || Thresholds::new(options.failure_threshold, options.success_threshold);
        let interval = check.interval.unwrap_or(options.interval);
        let timeout = check.timeout.unwrap_or(options.timeout);
        let terms = Terms {
            id: check.id,
            critical: check.critical,
            thresholds: check.thresholds.unwrap_or_else(standard),
            plan: Some(Plan { probe: check.probe, interval, timeout }),
        };
        let detail = if check.initially == CheckStatus::Passing { "" } else { NOT_YET };
        let slot = self.insert(terms, check.initially, detail.to_owned());
        let stop = slot.stop().clone();
        let running = slot.keep_running(interval, options.jitter.clone());
        self.shared.tasks.spawn(stop.run_until_cancelled_owned(running));
    }

    /// Adds a critical check whose state is told by the returned reporter. A check of the same kind
    /// and name is replaced.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use onward::lifecycle::{CheckKind, EventBus, HealthRegistry};
    ///
    /// # let seconds = Duration::from_secs;
    /// # let health = HealthRegistry::new(seconds(5), seconds(2), EventBus::new(64));
    /// let cache = health.reporter("cache", CheckKind::Readiness, Err("it is empty".to_owned()));
    /// assert!(!health.verdict(CheckKind::Readiness).passing);
    /// cache.report(Ok(()));
    /// assert!(health.verdict(CheckKind::Readiness).passing);
    /// ```
    pub fn reporter(
        &self,
        name: impl Into<String>,
        kind: CheckKind,
        initially: CheckResult,
    ) -> HealthReporter {
        let id = CheckId { kind, name: name.into() };
        self.told(Terms { id, critical: true, thresholds: Thresholds::ONE, plan: None }, initially)
    }

    /// [`HealthRegistry::reporter`] for a check that is told of, and does not decide the probe.
    pub fn reporter_not_critical(
        &self,
        name: impl Into<String>,
        kind: CheckKind,
        initially: CheckResult,
    ) -> HealthReporter {
        let id = CheckId { kind, name: name.into() };
        self.told(Terms { id, critical: false, thresholds: Thresholds::ONE, plan: None }, initially)
    }

    fn told(&self, terms: Terms, initially: CheckResult) -> HealthReporter {
        let (status, detail) = match initially {
            Ok(()) => (CheckStatus::Passing, String::new()),
            Err(detail) => (CheckStatus::Failing, detail),
        };
        HealthReporter::new(self.clone(), self.insert(terms, status, detail))
    }

    /// Takes a check out; whether it was there. Its probe is decided without it from now on, it is not
    /// run again, and a run of it that is under way counts for nothing.
    pub fn deregister(&self, kind: CheckKind, name: &str) -> bool {
        let removed = self.slots().remove(&CheckId { kind, name: name.to_owned() });
        removed.inspect(|slot| slot.remove()).is_some()
    }

    /// Takes this very check out, unless another has its place already.
    pub(super) fn deregister_slot(&self, slot: &Arc<Slot>) {
        let mut slots = self.slots();
        if slots.get(slot.id()).is_some_and(|there| Arc::ptr_eq(there, slot)) {
            slots.remove(slot.id());
        }
        slot.remove();
    }

    /// The last results of one kind. Runs nothing and waits for nothing.
    pub fn verdict(&self, kind: CheckKind) -> Verdict {
        self.verdict_excluding(kind, &BTreeSet::new())
    }

    /// The last results of one kind, judged as if the checks of these names always passed.
    pub fn verdict_excluding(&self, kind: CheckKind, names: &BTreeSet<String>) -> Verdict {
        let checks: Vec<CheckReport> =
            self.checks().into_iter().filter(|report| report.kind == kind).collect();
        let is_excluded = |report: &&CheckReport| names.contains(&report.name);
        let passing = checks.iter().all(|report| is_excluded(&report) || report.lets_pass());
        let excluded: Vec<String> =
            checks.iter().filter(is_excluded).map(|report| report.name.clone()).collect();
        let unmatched = names.iter().filter(|name| !excluded.contains(name)).cloned().collect();
        Verdict { passing, checks, excluded, unmatched }
    }

    /// The last results of every check, by kind and name.
    pub fn checks(&self) -> Vec<CheckReport> {
        self.slots().values().map(|slot| slot.report()).collect()
    }

    /// Everything that is known of one check; `None` if there is no such check.
    pub fn check(&self, kind: CheckKind, name: &str) -> Option<CheckDetail> {
        self.slot(kind, name).map(|slot| slot.detail())
    }

    /// Runs a check now and waits for its result, but no longer than its timeout. The result counts
    /// as one of a run by schedule does. A run that is under way is joined; where it hangs, no other is
    /// started and nothing is waited for. A check whose state is reported is as it is.
    ///
    /// Cancel safe: a run that has begun goes on.
    ///
    /// # Errors
    /// [`CheckRunError`].
    pub async fn run(&self, kind: CheckKind, name: &str) -> Result<CheckDetail, CheckRunError> {
        let unknown = || CheckRunError::Unknown { kind, name: name.to_owned() };
        let slot = self.slot(kind, name).ok_or_else(unknown)?;
        if self.shared.stop.is_cancelled() {
            return Err(CheckRunError::Stopped);
        }
        if let Begun::Settles(settled) = slot.begin() {
            settled.cancelled().await;
        }
        match (self.shared.stop.is_cancelled(), slot.is_removed()) {
            (true, _) => Err(CheckRunError::Stopped),
            (false, true) => Err(unknown()),
            (false, false) => Ok(slot.detail()),
        }
    }

    /// Stops running checks; their last results stay readable, and reporters go on to report. Waits
    /// for the runs that await to be dropped, and for no run that blocks.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    #[cfg(test)]
    pub(super) fn events(&self) -> &EventBus {
        &self.shared.events
    }

    fn insert(&self, terms: Terms, status: CheckStatus, detail: String) -> Arc<Slot> {
        let Shared { options, events, tasks, stop, slots: _ } = self.shared.as_ref();
        let around =
            Surroundings { events: events.clone(), tasks: tasks.clone(), stop: stop.child_token() };
        let slot = Slot::new(terms, around, Record::new(status, detail, options.history));
        if let Some(replaced) = self.slots().insert(slot.id().clone(), Arc::clone(&slot)) {
            replaced.remove();
        }
        slot
    }

    fn slot(&self, kind: CheckKind, name: &str) -> Option<Arc<Slot>> {
        self.slots().get(&CheckId { kind, name: name.to_owned() }).cloned()
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<CheckId, Arc<Slot>>> {
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
