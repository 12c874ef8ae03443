//! The check of the log.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::error;

use super::{Lines, Loss};
use crate::lifecycle::{Check, CheckKind};

/// What the line that tells of lost ones is under.
pub(crate) const TARGET: &str = "onward::log";

/// A readiness check `log`, not critical, that fails where lines of the log were lost since it ran last. Then it
/// writes a note of how many there are: so who reads the log knows that some are missing, and where the note is
/// lost too, the check fails on.
pub(crate) fn check(lines: &Lines) -> Check {
    let (lines, seen) = (lines.clone(), AtomicU64::new(0));
    let probe = move || std::future::ready(look(&lines, &seen));
    Check::new("log", CheckKind::Readiness, probe).not_critical()
}

fn look(lines: &Lines, seen: &AtomicU64) -> Result<(), String> {
    let Loss { lines, notes, reason } = lines.0.state().loss.clone();
    let lost = lines.lost();
    let missing = lost.saturating_add(notes);
    if seen.swap(missing, Ordering::Relaxed) == missing {
        return Ok(());
    }
    error!(target: TARGET, lines = lost, "lines of the log were lost since the server has begun");
    Err(format!("{lost} lines of the log are lost by now: {reason}"))
}
