//! What is known of a check, and the answer to a probe.

use std::time::{Duration, SystemTime};

use super::check::{CheckKind, CheckResult};

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
    pub(super) consecutive_successes: u32,
}

/// The answer to one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether every critical check passes.
    pub passing: bool,
    /// The checks of the probe's kind, by name.
    pub checks: Vec<CheckReport>,
}

impl CheckReport {
    /// Counts one result; returns whether the check passes now, and what is wrong otherwise.
    pub(super) fn count(
        &mut self,
        result: CheckResult,
        failures: u32,
        successes: u32,
    ) -> (bool, String) {
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
