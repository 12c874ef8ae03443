//! What the application says of itself for as long as it stands: its health.

use std::sync::Arc;

use tokio::sync::watch;

use crate::causes;
use crate::lifecycle::{
    AppState, Check, CheckKind, CheckResult, HealthRegistry, HealthReporter, LifecycleManager,
};
use crate::model::ModelSource;

/// The name of the checks that tell the application's state.
const APPLICATION: &str = "application";

/// Reports the application's state to the probes.
pub(super) struct StateReporter {
    state: watch::Receiver<AppState>,
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
            liveness: reporter(CheckKind::Liveness, liveness(now)),
            readiness: reporter(CheckKind::Readiness, readiness(now)),
            startup: reporter(CheckKind::Startup, readiness(now)),
        }
    }

    /// Reports until the application is gone. Cancel safe.
    pub(super) async fn run(mut self) {
        while self.state.changed().await.is_ok() {
            let now = *self.state.borrow_and_update();
            self.liveness.report(liveness(now));
            // What has started stays started, and nothing is ready that has not started.
            if now == AppState::Running {
                self.startup.report(Ok(()));
            }
            self.readiness.report(readiness(now));
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

fn readiness(state: AppState) -> CheckResult {
    if state == AppState::Running { Ok(()) } else { Err(format!("the application is {state}")) }
}

/// Whether the repository can be read. What is loaded is served without it, so it is not critical.
pub(super) fn repository_check(source: Arc<dyn ModelSource>) -> Check {
    let probe = move || source.list().map(drop).map_err(|error| causes::of_error(&error));
    Check::blocking("repository", CheckKind::Readiness, probe).not_critical()
}
