//! What the application says of itself for as long as it stands: its health.

use tokio::sync::watch;

use super::health::{CheckKind, CheckResult, HealthRegistry, HealthReporter};
use super::manager::LifecycleManager;
use super::state::AppState;

/// The name of the checks that tell the application's state.
const APPLICATION: &str = "application";

/// Reports the application's state to the probes.
pub(super) struct StateReporter {
    state: watch::Receiver<AppState>,
    drained: watch::Receiver<Option<String>>,
    liveness: HealthReporter,
    readiness: HealthReporter,
    startup: HealthReporter,
}

impl StateReporter {
    pub(super) fn new(lifecycle: &LifecycleManager, health: &HealthRegistry) -> Self {
        let state = lifecycle.subscribe();
        let now = *state.borrow();
        let reporter = |kind, result| health.reporter(APPLICATION, kind, result);
        Self {
            state,
            drained: lifecycle.drained(),
            liveness: reporter(CheckKind::Liveness, liveness(now)),
            readiness: reporter(CheckKind::Readiness, readiness(now, None)),
            startup: reporter(CheckKind::Startup, readiness(now, None)),
        }
    }

    /// Reports until the application is gone. Cancel safe.
    pub(super) async fn run(mut self) {
        loop {
            let changed = tokio::select! {
                changed = self.state.changed() => changed,
                changed = self.drained.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            let now = *self.state.borrow_and_update();
            self.liveness.report(liveness(now));
            // What has started stays started, and nothing is ready that has not started.
            if now == AppState::Running {
                self.startup.report(Ok(()));
            }
            self.readiness.report(readiness(now, self.drained.borrow_and_update().as_deref()));
        }
    }
}

fn liveness(state: AppState) -> CheckResult {
    if state == AppState::Error {
        Err("the application is in state ERROR".to_owned())
    } else {
        Ok(())
    }
}

fn readiness(state: AppState, drained: Option<&str>) -> CheckResult {
    match (state, drained) {
        (AppState::Running, None) => Ok(()),
        (AppState::Running, Some(reason)) => Err(format!("the application is drained: {reason}")),
        (other, _) => Err(format!("the application is {other}")),
    }
}
