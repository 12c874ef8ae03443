//! Registered health checks and the verdicts that probes read.
//!
//! A check runs on its own schedule or is reported by the code that knows; a probe only reads the
//! last result, so a slow check delays nobody.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::event::{Event, EventBus};
use crate::causes;

/// Which probe a check belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CheckKind {
    /// Fails only where a restart would help.
    Liveness,
    /// Fails while requests should go elsewhere.
    Readiness,
    /// Fails until start-up is complete.
    Startup,
}

impl CheckKind {
    /// The kind's name, such as `readiness`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
            Self::Startup => "startup",
        }
    }
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one run of a check found: nothing wrong, or what is wrong.
pub type CheckResult = Result<(), String>;

/// What tells checks apart.
type Key = (CheckKind, String);

type Probe = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = CheckResult> + Send>> + Send + Sync>;

/// A check that runs on a schedule.
#[must_use = "a check does nothing until it is registered"]
pub struct Check {
    name: String,
    kind: CheckKind,
    interval: Option<Duration>,
    timeout: Option<Duration>,
    failure_threshold: u32,
    success_threshold: u32,
    critical: bool,
    probe: Probe,
}

impl Check {
    /// A critical check that fails after one failure and passes after one success.
    pub fn new<F, R>(name: impl Into<String>, kind: CheckKind, probe: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = CheckResult> + Send + 'static,
    {
        Self {
            name: name.into(),
            kind,
            interval: None,
            timeout: None,
            failure_threshold: 1,
            success_threshold: 1,
            critical: true,
            probe: Arc::new(move || Box::pin(probe())),
        }
    }

    /// How long to wait between two runs; the registry's default otherwise.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// How long one run may take before it counts as a failure; the registry's default otherwise.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Failures in a row before a passing check fails, and successes before a failing one passes;
    /// at least one each.
    pub fn thresholds(mut self, failures: u32, successes: u32) -> Self {
        self.failure_threshold = failures.max(1);
        self.success_threshold = successes.max(1);
        self
    }

    /// Reports the check without letting it fail its probe.
    pub fn not_critical(mut self) -> Self {
        self.critical = false;
        self
    }

    fn key(&self) -> Key {
        (self.kind, self.name.clone())
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// A check's last known state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// The check's name.
    pub name: String,
    /// Which probe it belongs to.
    pub kind: CheckKind,
    /// Whether it can fail its probe.
    pub critical: bool,
    /// Whether it passes.
    pub passing: bool,
    /// Since when.
    pub since: SystemTime,
    /// How long the last run took.
    pub duration: Duration,
    /// What the last failure was; `None` if it never failed.
    pub last_error: Option<String>,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    consecutive_successes: u32,
}

/// The answer to one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether every critical check passes.
    pub passing: bool,
    /// The checks of the probe's kind, by name.
    pub checks: Vec<CheckReport>,
}

/// Holds every check and its last result.
#[derive(Debug, Clone)]
pub struct HealthRegistry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
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
        HealthReporter { shared: Arc::clone(&self.shared), key }
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
struct Run {
    result: CheckResult,
    duration: Duration,
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
    fn record(&self, key: &Key, Run { result, duration }: Run, (failures, successes): (u32, u32)) {
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

impl CheckReport {
    /// Counts one result; returns whether the check passes now, and what is wrong otherwise.
    fn count(&mut self, result: CheckResult, failures: u32, successes: u32) -> (bool, String) {
        match result {
            Ok(()) => {
                self.consecutive_failures = 0;
                self.consecutive_successes = self.consecutive_successes.saturating_add(1);
                (self.passing || self.consecutive_successes >= successes, String::new())
            }
            Err(detail) => {
                self.consecutive_successes = 0;
                self.consecutive_failures = self.consecutive_failures.saturating_add(1);
                self.last_error = Some(detail.clone());
                (self.passing && self.consecutive_failures < failures, detail)
            }
        }
    }
}

/// Runs a probe so that one that panics or never finishes is that check's failure only.
async fn run_once(probe: &Probe, limit: Duration) -> CheckResult {
    let guarded = AssertUnwindSafe(async { probe().await }).catch_unwind();
    match timeout(limit, guarded).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(format!("it panicked: {}", causes::of_panic(panic.as_ref()))),
        Err(_) => Err(format!("it did not finish within {}", humantime::format_duration(limit))),
    }
}

/// Tells the state of one check, at the moment it changes.
#[derive(Debug)]
pub struct HealthReporter {
    shared: Arc<Shared>,
    key: Key,
}

impl HealthReporter {
    /// Reports what is the case now; takes effect for the next probe.
    pub fn report(&self, result: CheckResult) {
        self.shared.record(&self.key, Run { result, duration: Duration::ZERO }, (1, 1));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn registry() -> HealthRegistry {
        HealthRegistry::new(SECOND, SECOND, EventBus::new(16))
    }

    #[tokio::test]
    async fn a_reported_change_is_seen_at_once() {
        let registry = registry();
        let reporter = registry.reporter("state", CheckKind::Readiness, Err("starting".to_owned()));
        assert!(!registry.verdict(CheckKind::Readiness).passing);
        assert!(registry.verdict(CheckKind::Liveness).passing);
        reporter.report(Ok(()));
        assert!(registry.verdict(CheckKind::Readiness).passing);
        reporter.report(Err("stopping".to_owned()));
        let verdict = registry.verdict(CheckKind::Readiness);
        assert_eq!(verdict.checks[0].last_error.as_deref(), Some("stopping"));
        assert!(!verdict.passing);
    }

    #[tokio::test(start_paused = true)]
    async fn thresholds_count_runs_in_a_row() {
        let registry = registry();
        let healthy = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&healthy);
        let check = Check::new("db", CheckKind::Readiness, move || {
            let result = seen.load(Ordering::SeqCst);
            async move { if result { Ok(()) } else { Err("gone".to_owned()) } }
        });
        registry.register(check.thresholds(3, 2));
        let passing_after = async |runs: u32| {
            tokio::time::sleep(SECOND * runs).await;
            registry.verdict(CheckKind::Readiness).passing
        };
        tokio::time::sleep(SECOND / 2).await;
        assert!(!registry.verdict(CheckKind::Readiness).passing, "one success of two");
        assert!(passing_after(1).await);
        healthy.store(false, Ordering::SeqCst);
        assert!(passing_after(2).await, "two failures of three");
        assert!(!passing_after(1).await);
        healthy.store(true, Ordering::SeqCst);
        assert!(!passing_after(1).await);
        assert!(passing_after(1).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_or_panics_fails_alone() {
        let registry = registry();
        registry.register(Check::new("hangs", CheckKind::Liveness, std::future::pending));
        registry.register(Check::new("panics", CheckKind::Liveness, || async { panic!("oh") }));
        registry.register(Check::new("fine", CheckKind::Liveness, || async { Ok(()) }));
        let extra = Check::new("extra", CheckKind::Readiness, || async { Err("no".to_owned()) });
        registry.register(extra.not_critical());
        tokio::time::sleep(SECOND * 3).await;
        let verdict = registry.verdict(CheckKind::Liveness);
        let state: Vec<_> =
            verdict.checks.iter().map(|check| (check.name.as_str(), check.passing)).collect();
        assert_eq!(state, [("fine", true), ("hangs", false), ("panics", false)]);
        assert_eq!(verdict.checks[1].last_error.as_deref(), Some("it did not finish within 1s"));
        assert!(registry.verdict(CheckKind::Readiness).passing, "not critical");
        registry.stop().await;
    }
}
