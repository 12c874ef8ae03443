//! Every check with its last result.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::check::{Check, CheckKind, CheckResult, Key};
use super::report::{CheckReport, Verdict};
use super::reporter::HealthReporter;
use super::run::run_once;
use crate::lifecycle::event::{Event, EventBus};

/// Holds every check and its last result.
#[derive(Debug, Clone)]
pub struct HealthRegistry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    interval: Duration,
    timeout: Duration,
    events: EventBus,
    checks: Mutex<BTreeMap<Key, CheckReport>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl HealthRegistry {
    /// A registry without checks. A probe without checks passes.
    pub fn new(interval: Duration, timeout: Duration, events: EventBus) -> Self {
        let (checks, tasks, stop) = Default::default();
        Self { shared: Arc::new(Shared { interval, timeout, events, checks, tasks, stop }) }
    }

    /// Adds a check and runs it from now on, first at once. It fails until it has passed. A check of
    /// the same kind and name is replaced. Must be called inside a tokio runtime.
    pub fn register(&self, check: Check) {
        self.insert(check.key(), check.critical, Err("it has not run yet".to_owned()));
        let (shared, stop) = (Arc::clone(&self.shared), self.shared.stop.clone());
        let run = async move { shared.run(&check).await };
        self.shared.tasks.spawn(stop.run_until_cancelled_owned(run));
    }

    /// Adds a critical check whose state is told by the returned reporter.
    pub fn reporter(
        &self,
        name: impl Into<String>,
        kind: CheckKind,
        initially: CheckResult,
    ) -> HealthReporter {
        let key = (kind, name.into());
        self.insert(key.clone(), true, initially);
        HealthReporter::new(Arc::clone(&self.shared), key)
    }

    /// The last results of one kind. Runs nothing and waits for nothing.
    pub fn verdict(&self, kind: CheckKind) -> Verdict {
        let checks: Vec<CheckReport> =
            self.checks().into_iter().filter(|report| report.kind == kind).collect();
        let passing = checks.iter().all(|report| report.passing || !report.critical);
        Verdict { passing, checks }
    }

    /// The last results of every check.
    pub fn checks(&self) -> Vec<CheckReport> {
        self.shared.checks().values().cloned().collect()
    }

    /// Stops running checks; their last results stay readable.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn insert(&self, key: Key, critical: bool, initially: CheckResult) {
        let report = CheckReport {
            name: key.1.clone(),
            kind: key.0,
            critical,
            passing: initially.is_ok(),
            since: SystemTime::now(),
            duration: Duration::ZERO,
            last_error: initially.err(),
            consecutive_failures: 0,
            consecutive_successes: 0,
        };
        self.shared.checks().insert(key, report);
    }
}

/// One run that has come to its end.
pub(super) struct Run {
    pub(super) result: CheckResult,
    pub(super) duration: Duration,
}

impl Shared {
    async fn run(&self, check: &Check) {
        let key = check.key();
        let mut ticks = interval(check.interval.unwrap_or(self.interval));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let started = Instant::now();
            let result = run_once(&check.probe, check.timeout.unwrap_or(self.timeout)).await;
            let run = Run { result, duration: started.elapsed() };
            self.record(&key, run, (check.failure_threshold, check.success_threshold));
        }
    }

    /// Counts a result and, where a threshold is reached, changes the check's state.
    pub(super) fn record(
        &self,
        key: &Key,
        Run { result, duration }: Run,
        (failures, successes): (u32, u32),
    ) {
        let mut checks = self.checks();
        let Some(report) = checks.get_mut(key) else {
            return;
        };
        report.duration = duration;
        let (passing, detail) = report.count(result, failures, successes);
        if passing == report.passing {
            return;
        }
        report.passing = passing;
        report.since = SystemTime::now();
        let (kind, check) = key.clone();
        // Published under the lock, so that events come in the order of the changes.
        self.events.publish(Event::Health { check, kind, passing, detail });
    }

    fn checks(&self) -> MutexGuard<'_, BTreeMap<Key, CheckReport>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
