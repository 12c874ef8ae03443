use std::sync::atomic::{AtomicBool, Ordering};

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::lifecycle::EventBus;

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
