//! What a check is.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::status::{CheckStatus, Thresholds};

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
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Liveness, Self::Readiness, Self::Startup];

    /// The kind's name, such as `readiness`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
            Self::Startup => "startup",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one run of a check found: nothing wrong, or what is wrong.
pub type CheckResult = Result<(), String>;

/// What tells checks apart: a name may be there once for each kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CheckId {
    pub(super) kind: CheckKind,
    pub(super) name: String,
}

pub(super) type AsyncProbe =
    dyn Fn() -> Pin<Box<dyn Future<Output = CheckResult> + Send>> + Send + Sync;
pub(super) type BlockingProbe = dyn Fn() -> CheckResult + Send + Sync;

/// What a run of a check calls.
#[derive(Clone)]
pub(super) enum Probe {
    Async(Arc<AsyncProbe>),
    Blocking(Arc<BlockingProbe>),
}

/// A check that runs on a schedule.
///
/// Without further words it is critical, changes its status with every result, begins as
/// [`CheckStatus::Unknown`], and has the registry's interval and timeout.
///
/// ```
/// use std::time::Duration;
///
/// use onward::lifecycle::{Check, CheckKind, CheckStatus};
///
/// let database = Check::new("database", CheckKind::Readiness, || async {
///     Err("connection refused".to_owned())
/// });
/// let database = database.interval(Duration::from_secs(10)).thresholds(3, 1);
///
/// let scratch = Check::blocking("scratch", CheckKind::Readiness, || {
///     std::fs::write("/tmp/scratch", b"").map_err(|error| error.to_string())
/// });
/// let scratch = scratch.not_critical().initially(CheckStatus::Passing);
/// ```
#[must_use = "a check does nothing until it is registered"]
pub struct Check {
    pub(super) id: CheckId,
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) thresholds: Option<Thresholds>,
    pub(super) critical: bool,
    pub(super) initially: CheckStatus,
    pub(super) probe: Probe,
}

impl Check {
    /// A check that awaits. It must not block its thread; what does belongs into
    /// [`Check::blocking`]. A run that takes longer than the timeout is dropped.
    pub fn new<F, R>(name: impl Into<String>, kind: CheckKind, probe: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = CheckResult> + Send + 'static,
    {
        Self::of(
            CheckId { kind, name: name.into() },
            Probe::Async(Arc::new(move || Box::pin(probe()))),
        )
    }

    /// A check that may block. Each run has a thread of its own. A run that takes longer than the
    /// timeout counts as failed and cannot be ended: until it returns, the check is not run again,
    /// and counts as failed whenever it would have been.
    pub fn blocking(
        name: impl Into<String>,
        kind: CheckKind,
        probe: impl Fn() -> CheckResult + Send + Sync + 'static,
    ) -> Self {
        Self::of(CheckId { kind, name: name.into() }, Probe::Blocking(Arc::new(probe)))
    }

    fn of(id: CheckId, probe: Probe) -> Self {
        Self {
            id,
            interval: None,
            timeout: None,
            thresholds: None,
            critical: true,
            initially: CheckStatus::Unknown,
            probe,
        }
    }

    /// The time from the start of a run to the start of the next, of which the registry's
    /// [`Jitter`](super::Jitter) may take some off; at least a millisecond. After a run that takes
    /// longer, the time from its end to the start of the next.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// How long one run may take before it counts as a failure.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Failures in a row before the check fails, and successes in a row before it passes; at least
    /// one each.
    pub fn thresholds(mut self, failures: u32, successes: u32) -> Self {
        self.thresholds = Some(Thresholds::new(failures, successes));
        self
    }

    /// Reports the check without letting it fail its probe.
    pub fn not_critical(mut self) -> Self {
        self.critical = false;
        self
    }

    /// What the check is until a threshold is reached. While it is [`CheckStatus::Unknown`] a critical
    /// check fails the readiness and the start-up probe, but not the liveness probe.
    pub fn initially(mut self, status: CheckStatus) -> Self {
        self.initially = status;
        self
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Async(_) => "Async",
            Self::Blocking(_) => "Blocking",
        })
    }
}
