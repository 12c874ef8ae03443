//! Registered health checks and the verdicts that probes read.
//!
//! A check runs on its own schedule or is reported by the code that knows; a probe only reads the
//! last result, so a slow check delays nobody.

mod check;
mod registry;
mod report;
mod reporter;
mod run;

pub use check::{Check, CheckKind, CheckResult};
pub use registry::HealthRegistry;
pub use report::{CheckReport, Verdict};
pub use reporter::HealthReporter;

#[cfg(test)]
mod tests;
