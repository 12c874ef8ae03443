//! What is told of a check, and the answer to a probe.

use std::time::{Duration, SystemTime};

use super::check::CheckKind;
use super::status::CheckStatus;

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
    pub status: CheckStatus,
    /// Since when.
    pub since: SystemTime,
    /// How long the last run took.
    pub duration: Duration,
    /// What the last failure was; `None` if it never failed.
    pub last_error: Option<String>,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// How long a run has been under way; `None` between two runs.
    pub running_for: Option<Duration>,
}

impl CheckReport {
    /// Whether the probe of its kind passes as far as this check goes. Where nothing is known yet,
    /// a restart would not help, but nothing is ready either.
    pub fn lets_pass(&self) -> bool {
        match self.status {
            CheckStatus::Passing => true,
            CheckStatus::Failing => !self.critical,
            CheckStatus::Unknown => !self.critical || self.kind == CheckKind::Liveness,
        }
    }
}

/// One change of a check's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckChange {
    /// When it happened.
    pub at: SystemTime,
    /// The status from then on.
    pub status: CheckStatus,
    /// What was wrong; empty where nothing was.
    pub detail: String,
}

/// When a check runs, and what its results count for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckSchedule {
    /// From the start of a run to the start of the next, at most.
    pub interval: Duration,
    /// How long one run may take.
    pub timeout: Duration,
    /// Failures in a row before the check fails.
    pub failure_threshold: u32,
    /// Successes in a row before the check passes.
    pub success_threshold: u32,
}

/// Everything that is known of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckDetail {
    /// Its last known state.
    pub report: CheckReport,
    /// Its schedule; `None` where its state is reported rather than found by a run.
    pub schedule: Option<CheckSchedule>,
    /// The last changes of its status, oldest first.
    pub history: Vec<CheckChange>,
}

/// The answer to one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether every check that counts lets the probe pass: those that are critical and not excluded.
    pub passing: bool,
    /// The checks of the probe's kind, by name, those that are excluded among them.
    pub checks: Vec<CheckReport>,
    /// The names of the checks that do not count.
    pub excluded: Vec<String>,
    /// Names that were to be excluded and that no check has.
    pub unmatched: Vec<String>,
}
