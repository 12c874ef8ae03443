//! The check of the log.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::error;

use super::Lines;
use crate::lifecycle::{Check, CheckKind};

/// What the line that tells of lost ones is under, so that it is written whatever the level.
pub(crate) const TARGET: &str = "onward::log";

/// A readiness check `log`, not critical, that fails while lines of the log are lost. It writes how many were: so it
/// finds out when they are not any more, and who reads the log that some are missing.
pub(crate) fn check(lines: &Lines) -> Check {
    let (lines, told) = (lines.clone(), AtomicU64::new(0));
    let probe = move || {
        tell(&lines, &told);
        let trouble = lines.trouble().map_or(Ok(()), Err);
        std::future::ready(trouble)
    };
    Check::new("log", CheckKind::Readiness, probe).not_critical()
}

/// Writes how many lines are lost by now, where that was not written yet.
fn tell(lines: &Lines, told: &AtomicU64) {
    let lost = lines.report().lost();
    if lost == told.load(Ordering::Relaxed) {
        return;
    }
    error!(target: TARGET, lines = lost, "lines of the log were lost since the server has begun");
    if lines.report().lost() == lost {
        told.store(lost, Ordering::Relaxed);
    }
}
