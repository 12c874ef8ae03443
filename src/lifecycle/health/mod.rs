//! Registered health checks and the verdicts that probes read.
//!
//! A check runs on its own schedule or is reported by the code that knows; a probe only reads the
//! last result, so a slow check delays nobody. Runs are kept apart: an async check has a task of its
//! own, a blocking one a thread of its own, and no check is ever run twice at once. A run that hangs
//! counts as a failure each time the check is due again, until it returns.

mod check;
mod record;
mod registry;
mod report;
mod reporter;
mod run;
mod schedule;
mod slot;
mod status;

pub use check::{Check, CheckKind, CheckResult};
pub use registry::{CheckRunError, HealthOptions, HealthRegistry};
pub use report::{CheckChange, CheckDetail, CheckReport, CheckSchedule, Verdict};
pub use reporter::HealthReporter;
pub use schedule::Jitter;
pub use status::CheckStatus;

#[cfg(test)]
mod tests;
