//! The place of one registered resource: its state, and the one step of its life that may be under way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::flight::Flight;
use super::kind::Resource;
use super::owned::{self, Cleaning, CleaningCount};
use super::report::{ResourceError, ResourceReport};
use super::state::{ResourceEvent, ResourceState};
use super::work::Probe;
use crate::causes;
use crate::lifecycle::deadline::Deadline;
use crate::lifecycle::event::{Event, EventBus};
use crate::lifecycle::handler::{HandlerError, attempt};
use crate::lifecycle::health::{Check, CheckKind, CheckResult, Jitter};

/// How long a resource that is needed in between may take, where it does not say itself.
pub(super) const ON_DEMAND: Duration = Duration::from_mins(1);

/// What all resources have around them.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) events: EventBus,
    pub(super) jitter: Jitter,
    /// Every step runs on a task of its own, so that nobody who goes away breaks it off.
    pub(super) tasks: TaskTracker,
}

/// How to set up.
#[derive(Clone, Copy)]
pub(super) struct How {
    pub(super) deadline: Deadline,
    /// Also before the time of the back-off has passed.
    pub(super) at_once: bool,
}

impl How {
    /// As for somebody who needs it in between.
    pub(super) fn on_demand() -> Self {
        Self { deadline: Deadline::after(ON_DEMAND), at_once: false }
    }
}

pub(super) struct Slot<T> {
    resource: Resource<T>,
    around: Surroundings,
    /// How what is set up too late is cleaned up.
    cleaning: Arc<Cleaning<T>>,
    flight: Flight,
    state: Mutex<Life<T>>,
}

struct Life<T> {
    state: ResourceState,
    since: SystemTime,
    live: Option<Live<T>>,
    /// Why it is FAILED.
    failure: Option<Arc<HandlerError>>,
    /// Why it is DEGRADED.
    degraded: Option<String>,
    failures: u32,
    retry_at: Option<Instant>,
    initializations: u64,
    uses: u64,
    last_use: Option<SystemTime>,
    /// The manager has ended: nothing is set up any more.
    closed: bool,
}

/// What was set up, and those who have it.
struct Live<T> {
    value: Arc<T>,
    users: TaskTracker,
}

/// A slot whose type does not matter.
pub(super) trait AnySlot: Send + Sync {
    fn name(&self) -> &str;
    fn after(&self) -> &[String];
    fn is_lazy(&self) -> bool;
    fn is_lasting(&self) -> bool;
    fn is_live(&self) -> bool;
    fn report(&self) -> ResourceReport;
    /// Why it cannot be had in its state.
    fn unavailable(&self) -> ResourceError;
    /// Sets it up, or waits for whoever does.
    fn set_up(self: Arc<Self>, how: How) -> BoxFuture<'static, Result<(), ResourceError>>;
    /// Cleans it up, if it is set up.
    fn clean(self: Arc<Self>, deadline: Deadline) -> BoxFuture<'static, Result<(), ResourceError>>;
    /// Lets nobody set it up any more.
    fn close(&self);
    /// What its lives have left behind, and is cleaned up beside everything else.
    fn left(&self) -> &TaskTracker;
}

impl<T: Send + Sync + 'static> AnySlot for Slot<T> {
    fn name(&self) -> &str {
        &self.resource.name
    }

    fn after(&self) -> &[String] {
        &self.resource.after
    }

    fn is_lazy(&self) -> bool {
        self.resource.lazy
    }

    fn is_lasting(&self) -> bool {
        self.resource.lasting
    }

    fn is_live(&self) -> bool {
        self.state().state.is_live()
    }

    fn report(&self) -> ResourceReport {
        let state = self.state();
        let failure = state.failure.as_ref().map(|failure| causes::of_error(failure.as_ref()));
        ResourceReport {
            name: self.resource.name.clone(),
            state: state.state,
            since: state.since,
            error: failure.or_else(|| state.degraded.clone()),
            lazy: self.resource.lazy,
            lasting: self.resource.lasting,
            after: self.resource.after.clone(),
            uses: state.uses,
            in_use: state.live.as_ref().map_or(0, |live| live.users.len()),
            last_use: state.last_use,
            initializations: state.initializations,
            consecutive_failures: state.failures,
            retry_in: state.retry_in(),
        }
    }

    fn unavailable(&self) -> ResourceError {
        let (resource, state) = (self.resource.name.clone(), self.state().state);
        ResourceError::Unavailable { resource, state }
    }

    fn set_up(self: Arc<Self>, how: How) -> BoxFuture<'static, Result<(), ResourceError>> {
        async move {
            loop {
                if let Some(result) = self.without_work(how) {
                    return result;
                }
                if self.flight.begin() {
                    let flying = Landing(Arc::clone(&self));
                    self.around.tasks.spawn(async move { flying.0.initialize(how).await });
                }
                self.flight.landed().await;
                if let Some(result) = self.initialized() {
                    return result;
                }
                // Somebody has cleaned it, before or after.
                if how.deadline.remaining().is_zero() {
                    return Err(self.unavailable());
                }
                yield_now().await;
            }
        }
        .boxed()
    }

    fn clean(self: Arc<Self>, deadline: Deadline) -> BoxFuture<'static, Result<(), ResourceError>> {
        async move {
            let (late, allowed) = (Arc::clone(&self), deadline.remaining());
            let begun = async {
                while !self.flight.begin() {
                    self.flight.landed().await;
                }
                Landing(Arc::clone(&self))
            };
            let Some(flying) = deadline.bound(begun).await else {
                return Err(late.failed(HandlerError::TimedOut(allowed)));
            };
            let work = self.around.tasks.spawn(async move { flying.0.clean_up(deadline).await });
            work.await.unwrap_or_else(|panic| {
                let panic = HandlerError::Panicked(causes::of_panic(panic.into_panic().as_ref()));
                Err(late.failed(panic))
            })
        }
        .boxed()
    }

    fn close(&self) {
        self.state().closed = true;
    }

    fn left(&self) -> &TaskTracker {
        &self.resource.left
    }
}

/// Ends a step, however it ends.
struct Landing<T>(Arc<Slot<T>>);

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        self.0.flight.land();
    }
}

impl<T: Send + Sync + 'static> Slot<T> {
    pub(super) fn new(resource: Resource<T>, around: Surroundings) -> Self {
        let state = Life {
            state: ResourceState::Uninitialized,
            since: SystemTime::now(),
            live: None,
            failure: None,
            degraded: None,
            failures: 0,
            retry_at: None,
            initializations: 0,
            uses: 0,
            last_use: None,
            closed: false,
        };
        let cleaning = Arc::new(Cleaning {
            name: resource.name.clone(),
            clean: resource.clean.clone(),
            timeout: resource.timeout.unwrap_or(ON_DEMAND),
            alive: resource.left.clone(),
            count: CleaningCount::default(),
        });
        Self { resource, around, cleaning, flight: Flight::default(), state: Mutex::new(state) }
    }

    /// Counts a user in; `None` while there is nothing to use.
    pub(super) fn enter(&self) -> Option<(Arc<T>, TaskTrackerToken)> {
        let mut state = self.state();
        if !state.state.is_live() {
            return None;
        }
        let live = state.live.as_ref()?;
        let entered = (Arc::clone(&live.value), live.users.token());
        state.uses += 1;
        state.last_use = Some(SystemTime::now());
        Some(entered)
    }

    /// Its health check, which degrades it, as a readiness check of its name.
    pub(super) fn health_check(self: &Arc<Self>) -> Option<Check> {
        // The registry outlives the resource.
        let slot = Arc::downgrade(self);
        let (name, kind) = (self.name(), CheckKind::Readiness);
        let check = match self.resource.probe.clone()? {
            Probe::Async(probe) => Check::new(name, kind, move || {
                let (slot, probe) = (Weak::clone(&slot), Arc::clone(&probe));
                async move {
                    let Some(slot) = slot.upgrade() else { return Ok(()) };
                    match slot.value() {
                        Some(value) => slot.judge(probe(value).await),
                        None => slot.check_without_value(),
                    }
                }
            }),
            Probe::Blocking(probe) => Check::blocking(name, kind, move || {
                let Some(slot) = slot.upgrade() else { return Ok(()) };
                match slot.value() {
                    Some(value) => slot.judge(probe(&value)),
                    None => slot.check_without_value(),
                }
            }),
        };
        Some(if self.resource.critical { check } else { check.not_critical() })
    }

    fn value(&self) -> Option<Arc<T>> {
        self.state().live.as_ref().map(|live| Arc::clone(&live.value))
    }

    /// What was not needed yet, or no more, is sound.
    fn check_without_value(&self) -> CheckResult {
        match &self.state().failure {
            Some(failure) => Err(causes::of_error(failure.as_ref())),
            None => Ok(()),
        }
    }

    /// What its check found, which changes its state.
    fn judge(&self, result: CheckResult) -> CheckResult {
        let mut state = self.state();
        state.degraded = result.clone().err();
        match (state.state, &result) {
            (ResourceState::Ready, Err(_)) => self.enter_state(&mut state, ResourceEvent::Degrade),
            (ResourceState::Degraded, Ok(())) => {
                self.enter_state(&mut state, ResourceEvent::Recover);
            }
            _ => {}
        }
        result
    }

    /// What setting up comes to where there is nothing to do.
    fn without_work(&self, how: How) -> Option<Result<(), ResourceError>> {
        let state = self.state();
        if state.state.is_live() {
            return Some(Ok(()));
        }
        let name = || self.resource.name.clone();
        if state.closed {
            return Some(Err(ResourceError::Unavailable { resource: name(), state: state.state }));
        }
        match (state.retry_in(), &state.failure) {
            (Some(retry_in), Some(failure)) if !how.at_once => {
                let source = Arc::clone(failure);
                Some(Err(ResourceError::BackingOff { resource: name(), retry_in, source }))
            }
            _ => None,
        }
    }

    /// What setting it up has come to; `None` where the last step was another.
    fn initialized(&self) -> Option<Result<(), ResourceError>> {
        let state = self.state();
        if state.state.is_live() {
            return Some(Ok(()));
        }
        // Only what failed to be set up has a time to try again.
        let failure = state.retry_at.and(state.failure.as_ref())?;
        let (resource, source) = (self.resource.name.clone(), Arc::clone(failure));
        Some(Err(ResourceError::Failed { resource, source }))
    }

    /// Sets it up, in as many attempts as there may be. Only within a flight.
    async fn initialize(&self, how: How) {
        // Another may have landed between the look and the begin.
        if self.without_work(how).is_some() {
            return;
        }
        self.enter_state(&mut self.state(), ResourceEvent::Initialize);
        for left in (0..self.resource.attempts).rev() {
            match self.resource.init.attempt(&self.cleaning, self.within(how.deadline)).await {
                Ok(owned) => return self.begin_life(owned.keep(), how.deadline).await,
                Err(failure) => {
                    let pause = self.count_failure();
                    let again = left > 0 && pause < how.deadline.remaining();
                    if !again || self.state().closed {
                        self.fail(failure, Some(pause));
                        return;
                    }
                    tracing::warn!(
                        resource = self.resource.name,
                        cause = causes::of_error(&failure),
                        ?pause,
                        "a resource could not be set up and is tried again"
                    );
                    sleep(pause).await;
                }
            }
        }
    }

    async fn begin_life(&self, value: Arc<T>, deadline: Deadline) {
        let closed = {
            let mut state = self.state();
            state.live = Some(Live { value, users: TaskTracker::new() });
            state.failure = None;
            state.degraded = None;
            state.failures = 0;
            state.retry_at = None;
            state.initializations += 1;
            self.enter_state(&mut state, ResourceEvent::Initialized);
            state.closed
        };
        // Whoever ended the manager could not wait for it.
        if closed {
            self.clean_up(deadline).await.err();
        }
    }

    /// Cleans it up once nobody has it any more, or half of the time is over. Only within a flight.
    async fn clean_up(&self, deadline: Deadline) -> Result<(), ResourceError> {
        let Some(Live { value, users }) = self.end_life() else {
            return Ok(());
        };
        let deadline = self.within(deadline);
        users.close();
        if deadline.at_most(deadline.remaining() / 2).bound(users.wait()).await.is_none() {
            tracing::warn!(
                resource = self.resource.name,
                in_use = users.len(),
                "cleaned while used"
            );
        }
        let Some(clean) = &self.resource.clean else {
            self.enter_state(&mut self.state(), ResourceEvent::Cleaned);
            return Ok(());
        };
        match attempt(owned::call(clean, value), deadline).await {
            Ok(()) => {
                self.enter_state(&mut self.state(), ResourceEvent::Cleaned);
                Ok(())
            }
            Err(failure) => {
                let (resource, source) = (self.resource.name.clone(), self.fail(failure, None));
                Err(ResourceError::Failed { resource, source })
            }
        }
    }

    /// Takes what is to be cleaned: the one moment that decides who cleans it.
    fn end_life(&self) -> Option<Live<T>> {
        let mut state = self.state();
        let live = state.live.take()?;
        state.degraded = None;
        self.enter_state(&mut state, ResourceEvent::Clean);
        Some(live)
    }

    fn within(&self, deadline: Deadline) -> Deadline {
        self.resource.timeout.map_or(deadline, |timeout| deadline.at_most(timeout))
    }

    /// How long not to try again.
    fn count_failure(&self) -> Duration {
        let mut state = self.state();
        state.failures += 1;
        self.resource.backoff.delay(state.failures, self.around.jitter.share())
    }

    fn fail(&self, failure: HandlerError, pause: Option<Duration>) -> Arc<HandlerError> {
        let (mut state, failure) = (self.state(), Arc::new(failure));
        state.failure = Some(Arc::clone(&failure));
        state.retry_at = pause.map(|pause| Deadline::after(pause).instant());
        self.enter_state(&mut state, ResourceEvent::Fail);
        failure
    }

    fn failed(&self, failure: HandlerError) -> ResourceError {
        ResourceError::Failed { resource: self.resource.name.clone(), source: Arc::new(failure) }
    }

    /// The only code that assigns the state.
    fn enter_state(&self, state: &mut Life<T>, event: ResourceEvent) {
        let next = state.state.next(event);
        state.state = next.expect("a flight takes the steps in the order of the state machine");
        state.since = SystemTime::now();
        let failure = state.failure.as_ref().map(|failure| causes::of_error(failure.as_ref()));
        let detail = match state.state {
            ResourceState::Failed => failure.unwrap_or_default(),
            ResourceState::Degraded => state.degraded.clone().unwrap_or_default(),
            _ => String::new(),
        };
        let (resource, state) = (self.resource.name.clone(), state.state);
        // Published under the lock, so that events come in the order of the changes.
        self.around.events.publish(Event::Resource { resource, state, detail });
    }

    fn state(&self) -> MutexGuard<'_, Life<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Life<T> {
    fn retry_in(&self) -> Option<Duration> {
        let left = self.retry_at?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}
