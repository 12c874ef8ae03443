//! What a check is.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

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
pub(super) type Key = (CheckKind, String);

pub(super) type Probe =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = CheckResult> + Send>> + Send + Sync>;

/// A check that runs on a schedule.
#[must_use = "a check does nothing until it is registered"]
pub struct Check {
    pub(super) name: String,
    pub(super) kind: CheckKind,
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) failure_threshold: u32,
    pub(super) success_threshold: u32,
    pub(super) critical: bool,
    pub(super) probe: Probe,
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

    pub(super) fn key(&self) -> Key {
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
