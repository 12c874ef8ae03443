//! The place of one registered check: its record, and the one run that may be under way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::check::{CheckId, CheckResult, Probe};
use super::record::{Finished, Record};
use super::report::{CheckDetail, CheckReport, CheckSchedule};
use super::schedule::Jitter;
use super::status::{CheckStatus, Thresholds};
use crate::lifecycle::event::{Event, EventBus};

/// What a check is, once it has its place.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) id: CheckId,
    pub(super) critical: bool,
    pub(super) thresholds: Thresholds,
    /// `None` where the state is reported.
    pub(super) plan: Option<Plan>,
}

/// How a check runs.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) probe: Probe,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

/// What a check needs of its registry.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) events: EventBus,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Slot {
    terms: Terms,
    around: Surroundings,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    record: Record,
    run: Option<UnderWay>,
    removed: bool,
}

#[derive(Debug)]
struct UnderWay {
    started: Instant,
    /// Whether its timeout has passed, so that it hangs.
    overdue: bool,
    /// Cancelled once the run has a result or hangs.
    settled: CancellationToken,
}

/// What came of wanting a run.
pub(super) enum Begun {
    /// A run is under way; the token is cancelled once its result, or its timeout, is counted.
    Settles(CancellationToken),
    /// A run hangs, for so long; no other is started beside it.
    Hangs(Duration),
    /// There is nothing to run.
    Reported,
}

impl Slot {
    pub(super) fn new(terms: Terms, around: Surroundings, record: Record) -> Arc<Self> {
        let state = Mutex::new(State { record, run: None, removed: false });
        Arc::new(Self { terms, around, state })
    }

    /// Runs on schedule for ever. A run that takes longer than the interval is followed by a pause of
    /// the same length as the others.
    pub(super) async fn keep_running(self: Arc<Self>, interval: Duration, jitter: Jitter) {
        sleep(jitter.start(interval)).await;
        loop {
            let pause = jitter.pause(interval);
            let due = Instant::now() + pause;
            match self.begin() {
                Begun::Settles(settled) => settled.cancelled().await,
                Begun::Hangs(duration) => {
                    self.count(Finished { result: hangs(duration), duration });
                }
                Begun::Reported => return,
            }
            let now = Instant::now();
            sleep_until(if due > now { due } else { now + pause }).await;
        }
    }

    /// Starts a run, or joins the one that is under way.
    pub(super) fn begin(self: &Arc<Self>) -> Begun {
        if self.terms.plan.is_none() {
            return Begun::Reported;
        }
        let mut state = self.state();
        match &state.run {
            Some(run) if run.overdue => Begun::Hangs(run.started.elapsed()),
            Some(run) => Begun::Settles(run.settled.clone()),
            None => {
                let (started, settled) = (Instant::now(), CancellationToken::new());
                let run = UnderWay { started, overdue: false, settled: settled.clone() };
                state.run = Some(run);
                let attending = Arc::clone(self).attend(settled.clone().drop_guard());
                let stop = self.around.stop.clone();
                self.around.tasks.spawn(stop.run_until_cancelled_owned(attending));
                Begun::Settles(settled)
            }
        }
    }

    /// Sees one run through. After the timeout it still waits for the end, so that no other begins.
    async fn attend(self: Arc<Self>, settled: DropGuard) {
        let Some(plan) = &self.terms.plan else {
            return;
        };
        let mut running = plan.probe.start(&self.around.tasks);
        if let Ok(result) = timeout(plan.timeout, &mut running.result).await {
            self.land(Some(result));
            return;
        }
        self.exceed(plan.timeout);
        drop(settled);
        running.abort();
        // Too late to count.
        drop(running.result.await);
        self.land(None);
    }

    /// A run has come to its end, with the result that counts.
    fn land(&self, result: Option<CheckResult>) {
        let mut state = self.state();
        let Some(run) = state.run.take() else {
            return;
        };
        let duration = run.started.elapsed();
        if let Some(result) = result {
            self.count_in(&mut state, Finished { result, duration });
        }
    }

    /// A run has not come to its end in time.
    fn exceed(&self, limit: Duration) {
        let mut state = self.state();
        if let Some(run) = &mut state.run {
            run.overdue = true;
        }
        let result = Err(format!("it did not finish within {}", humantime::format_duration(limit)));
        self.count_in(&mut state, Finished { result, duration: limit });
    }

    /// Counts a result and, where a threshold is reached, changes the check's status.
    pub(super) fn count(&self, finished: Finished) {
        self.count_in(&mut self.state(), finished);
    }

    fn count_in(&self, state: &mut State, finished: Finished) {
        if state.removed {
            return;
        }
        let Some(change) = state.record.count(finished, self.terms.thresholds) else {
            return;
        };
        let CheckId { kind, name: check } = self.terms.id.clone();
        let (passing, detail) = (change.status == CheckStatus::Passing, change.detail);
        // Published under the lock, so that events come in the order of the changes.
        self.around.events.publish(Event::Health { check, kind, passing, detail });
    }

    /// Ends its schedule, and its say in anything.
    pub(super) fn remove(&self) {
        self.state().removed = true;
        self.around.stop.cancel();
    }

    pub(super) fn is_removed(&self) -> bool {
        self.state().removed
    }

    pub(super) fn id(&self) -> &CheckId {
        &self.terms.id
    }

    /// Cancelled when the check, or its registry, ends.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.around.stop
    }

    pub(super) fn report(&self) -> CheckReport {
        self.report_of(&self.state())
    }

    pub(super) fn detail(&self) -> CheckDetail {
        let state = self.state();
        let schedule = self.terms.plan.as_ref().map(|plan| CheckSchedule {
            interval: plan.interval,
            timeout: plan.timeout,
            failure_threshold: self.terms.thresholds.failures(),
            success_threshold: self.terms.thresholds.successes(),
        });
        CheckDetail { report: self.report_of(&state), schedule, history: state.record.history() }
    }

    fn report_of(&self, state: &State) -> CheckReport {
        let record = &state.record;
        CheckReport {
            name: self.terms.id.name.clone(),
            kind: self.terms.id.kind,
            critical: self.terms.critical,
            status: record.status(),
            since: record.since(),
            duration: record.duration(),
            last_error: record.last_error().map(str::to_owned),
            consecutive_failures: record.consecutive_failures(),
            running_for: state.run.as_ref().map(|run| run.started.elapsed()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of a check that is due while a run of it hangs.
fn hangs(duration: Duration) -> CheckResult {
    // Nobody wants to read nanoseconds.
    let seconds = Duration::from_secs(duration.as_secs());
    let so_long = humantime::format_duration(seconds);
    Err(format!("a run has not returned for {so_long}, and no other is started"))
}
