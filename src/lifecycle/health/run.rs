//! One run of a check.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::timeout;

use super::check::{CheckResult, Probe};
use crate::causes;

/// Runs a probe so that one that panics or never finishes is that check's failure only.
pub(super) async fn run_once(probe: &Probe, limit: Duration) -> CheckResult {
    let guarded = AssertUnwindSafe(async { probe().await }).catch_unwind();
    match timeout(limit, guarded).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(format!("it panicked: {}", causes::of_panic(panic.as_ref()))),
        Err(_) => Err(format!("it did not finish within {}", humantime::format_duration(limit))),
    }
}
