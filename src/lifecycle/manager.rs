//! The application's life: its state, its history and the handlers that run on the way.

use std::collections::VecDeque;
use std::mem;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use super::deadline::{Deadline, telling};
use super::event::{Event, EventBus};
use super::handler::{Action, Handler, HandlerFailure, perform};
use super::order::{self, Item, OrderError};
use super::state::{AppEvent, AppState, IllegalTransition};
use crate::causes;

/// How many transitions are kept. A life has at most nine.
const HISTORY: usize = 32;

/// The times that bound an application's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifecycleConfig {
    /// The whole of start-up.
    pub startup_timeout: Duration,
    /// The whole of shutdown, after the pre-stop delay.
    pub shutdown_timeout: Duration,
    /// One handler, where it does not say otherwise.
    pub handler_timeout: Duration,
    /// Between SIGTERM and the moment no new connection is taken.
    pub pre_stop_delay: Duration,
    /// Between two rounds of clean-up, in which models go that nobody uses.
    pub cleanup_interval: Duration,
    /// How long a model may be unused before it goes; zero for ever.
    pub idle_ttl: Duration,
    /// Between two runs of a health check.
    pub health_interval: Duration,
    /// One run of a health check.
    pub health_timeout: Duration,
    /// Failures in a row before a health check fails, where it does not say otherwise.
    pub health_failure_threshold: NonZeroU32,
    /// Successes in a row before a health check passes, where it does not say otherwise.
    pub health_success_threshold: NonZeroU32,
}

impl Default for LifecycleConfig {
    /// What the server has without a word from its operator.
    fn default() -> Self {
        Self {
            startup_timeout: Duration::from_mins(10),
            shutdown_timeout: Duration::from_secs(30),
            handler_timeout: Duration::from_mins(10),
            pre_stop_delay: Duration::from_secs(3),
            cleanup_interval: Duration::from_secs(30),
            idle_ttl: Duration::ZERO,
            health_interval: Duration::from_secs(5),
            health_timeout: Duration::from_secs(2),
            health_failure_threshold: NonZeroU32::MIN,
            health_success_threshold: NonZeroU32::MIN,
        }
    }
}

/// One move between states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: AppState,
    /// The state after.
    pub to: AppState,
    /// When it happened.
    pub at: SystemTime,
    /// How long the state before had lasted.
    pub after: Duration,
    /// Why it happened.
    pub reason: String,
}

/// A transition that the state machine refused.
pub type TransitionError = IllegalTransition;

/// Why the application could not start. What had started was stopped again, in reverse order.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The application is not in the state to start from.
    #[error("the application cannot start")]
    State(#[from] IllegalTransition),
    /// The handlers have no order.
    #[error("the start-up handlers have no order")]
    Order(#[from] OrderError),
    /// A start-up handler did not complete.
    #[error("start-up failed")]
    Handler(#[source] HandlerFailure),
}

/// The application is not RUNNING.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the application is {0}, not RUNNING")]
pub struct NotRunning(pub AppState);

/// What happened at shutdown.
#[derive(Debug, Default)]
pub struct ShutdownReport {
    /// The handlers that did not complete, in the order they were run. Every one was run.
    pub failures: Vec<HandlerFailure>,
}

/// Owns the application's state; the only code that assigns it.
#[derive(Debug)]
pub struct LifecycleManager {
    config: Mutex<LifecycleConfig>,
    events: EventBus,
    created: Instant,
    state: watch::Sender<AppState>,
    drained: watch::Sender<Option<String>>,
    shutdown: watch::Sender<Option<String>>,
    life: Mutex<Life>,
    handlers: Mutex<Handlers>,
}

#[derive(Debug)]
struct Life {
    state: AppState,
    since: Instant,
    running_since: Option<Instant>,
    history: VecDeque<Transition>,
}

#[derive(Debug, Default)]
struct Handlers {
    registered: Vec<Handler>,
    started: Vec<Started>,
}

/// A handler whose start-up part is done.
struct Started {
    name: String,
    timeout: Duration,
    stop: Option<Action>,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started").field("name", &self.name).finish_non_exhaustive()
    }
}

impl LifecycleManager {
    /// A manager in state UNINITIALIZED.
    pub fn new(config: LifecycleConfig, events: EventBus) -> Self {
        let created = Instant::now();
        let state = AppState::Uninitialized;
        let life = Life { state, since: created, running_since: None, history: VecDeque::new() };
        Self {
            config: Mutex::new(config),
            events,
            created,
            state: watch::Sender::new(state),
            drained: watch::Sender::new(None),
            shutdown: watch::Sender::new(None),
            life: Mutex::new(life),
            handlers: Mutex::default(),
        }
    }

    /// The times that hold now.
    pub fn config(&self) -> LifecycleConfig {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the times for what has not begun: a start or an end that is under way keeps its own, and
    /// so does the health registry.
    pub fn reconfigure(&self, config: LifecycleConfig) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// The state now.
    pub fn state(&self) -> AppState {
        self.life().state
    }

    /// Follows the state.
    pub fn subscribe(&self) -> watch::Receiver<AppState> {
        self.state.subscribe()
    }

    /// The last transitions, oldest first.
    pub fn history(&self) -> Vec<Transition> {
        self.life().history.iter().cloned().collect()
    }

    /// How long this manager has existed.
    pub fn process_uptime(&self) -> Duration {
        self.created.elapsed()
    }

    /// How long the application has been RUNNING; `None` before and after.
    pub fn running_uptime(&self) -> Option<Duration> {
        self.life().running_since.map(|since| since.elapsed())
    }

    /// Moves to the next state, tells the reason, and publishes the move.
    ///
    /// # Errors
    /// [`IllegalTransition`]; the state is as before.
    pub fn transition(
        &self,
        event: AppEvent,
        reason: impl Into<String>,
    ) -> Result<AppState, TransitionError> {
        let mut life = self.life();
        let from = life.state;
        let to = from.next(event)?;
        let (now, reason) = (Instant::now(), reason.into());
        if life.history.len() == HISTORY {
            life.history.pop_front();
        }
        let after = now - life.since;
        life.history.push_back(Transition {
            from,
            to,
            at: SystemTime::now(),
            after,
            reason: reason.clone(),
        });
        life.state = to;
        life.since = now;
        life.running_since = (to == AppState::Running).then_some(now);
        // Published under the lock, so that events come in the order of the transitions; and before
        // followers are woken, so that what they publish comes after.
        self.events.publish(Event::Application { from, to, reason });
        self.state.send_replace(to);
        Ok(to)
    }

    /// Lets the application be unready although it is RUNNING, for a reason: a load balancer sends
    /// its requests elsewhere, and those that come are served. A second call replaces the reason.
    ///
    /// # Errors
    /// [`NotRunning`].
    pub fn drain(&self, reason: impl Into<String>) -> Result<(), NotRunning> {
        match self.state() {
            AppState::Running => {
                self.drained.send_replace(Some(reason.into()));
                Ok(())
            }
            state => Err(NotRunning(state)),
        }
    }

    /// Ends what [`LifecycleManager::drain`] began.
    ///
    /// # Errors
    /// [`NotRunning`].
    pub fn resume(&self) -> Result<(), NotRunning> {
        match self.state() {
            AppState::Running => {
                self.drained.send_replace(None);
                Ok(())
            }
            state => Err(NotRunning(state)),
        }
    }

    /// Follows why the application was drained; `None` while it is not.
    pub fn drained(&self) -> watch::Receiver<Option<String>> {
        self.drained.subscribe()
    }

    /// Asks whoever runs the application to shut it down. The first reason counts.
    pub fn request_shutdown(&self, reason: impl Into<String>) {
        self.shutdown.send_if_modified(|asked| {
            let first = asked.is_none();
            asked.get_or_insert_with(|| reason.into());
            first
        });
    }

    /// Waits until a shutdown is asked for; the reason. Cancel safe.
    pub async fn shutdown_requested(&self) -> String {
        let mut shutdown = self.shutdown.subscribe();
        let asked = shutdown.wait_for(Option::is_some).await;
        // The manager has the sender, so there is a reason.
        asked.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }

    /// Adds a handler. Start-up parts run in the order of registration, but after the handlers that
    /// they depend on; shutdown parts run in reverse.
    pub fn register(&self, handler: Handler) {
        self.handlers().registered.push(handler);
    }

    /// READY -> STARTING -> RUNNING: runs the start-up handlers one after the other.
    ///
    /// When one fails, times out or panics, those that had started are stopped in reverse order and
    /// the state is ERROR. Not cancel safe: a dropped call leaves the state STARTING.
    ///
    /// # Errors
    /// [`StartupError`] with the cause.
    pub async fn start(&self) -> Result<(), StartupError> {
        self.start_by(Deadline::after(self.config().startup_timeout)).await
    }

    /// [`LifecycleManager::start`] with what is left of a deadline.
    pub(super) async fn start_by(&self, deadline: Deadline) -> Result<(), StartupError> {
        self.transition(AppEvent::Start, "start-up begins")?;
        if let Err(failure) = self.start_handlers(deadline).await {
            self.stop_handlers(Deadline::after(self.config().shutdown_timeout)).await;
            self.transition(AppEvent::Fail, causes::of_error(&failure))?;
            return Err(failure);
        }
        self.transition(AppEvent::Started, "start-up is complete")?;
        Ok(())
    }

    /// Runs every shutdown handler in reverse order, whatever the others do, within `deadline`.
    ///
    /// The state is the caller's to move: shutdown begins before the handlers run and ends after
    /// resources were cleaned.
    pub async fn stop_handlers(&self, deadline: Deadline) -> ShutdownReport {
        let mut report = ShutdownReport::default();
        while let Some(started) = self.pop_started() {
            let Some(stop) = started.stop else { continue };
            let own = deadline.at_most(started.timeout);
            let tell = || {
                let left = own.remaining();
                info!(handler = started.name, ?left, "a shutdown handler still runs");
            };
            if let Err(source) = telling(perform(stop, own), tell).await {
                report.failures.push(HandlerFailure { handler: started.name, source });
            }
        }
        report
    }

    async fn start_handlers(&self, deadline: Deadline) -> Result<(), StartupError> {
        for handler in self.take_in_order()? {
            let timeout = handler.timeout.unwrap_or(self.config().handler_timeout);
            if let Some(start) = handler.start {
                let result = perform(start, deadline.at_most(timeout)).await;
                let failure = |source| HandlerFailure { handler: handler.name.clone(), source };
                result.map_err(|source| StartupError::Handler(failure(source)))?;
            }
            let started = Started { name: handler.name, timeout, stop: handler.stop };
            self.handlers().started.push(started);
        }
        Ok(())
    }

    /// The registered handlers in the order in which they start.
    fn take_in_order(&self) -> Result<Vec<Handler>, OrderError> {
        let handlers = mem::take(&mut self.handlers().registered);
        let items = |handler: &Handler| (handler.name.clone(), handler.after.clone());
        let items: Vec<(String, Vec<String>)> = handlers.iter().map(items).collect();
        let items: Vec<Item<'_>> = items.iter().map(|(name, after)| Item { name, after }).collect();
        let order = order::of(&items)?;
        let mut handlers: Vec<Option<Handler>> = handlers.into_iter().map(Some).collect();
        Ok(order.into_iter().filter_map(|index| handlers[index].take()).collect())
    }

    fn pop_started(&self) -> Option<Started> {
        self.handlers().started.pop()
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handlers(&self) -> MutexGuard<'_, Handlers> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::handler::HandlerError;
    use super::*;

    fn manager() -> LifecycleManager {
        let second = Duration::from_secs(1);
        let config = LifecycleConfig {
            startup_timeout: 60 * second,
            shutdown_timeout: 30 * second,
            handler_timeout: 10 * second,
            pre_stop_delay: Duration::ZERO,
            cleanup_interval: Duration::from_secs(30),
            idle_ttl: Duration::ZERO,
            health_interval: second,
            health_timeout: second,
            health_failure_threshold: NonZeroU32::MIN,
            health_success_threshold: NonZeroU32::MIN,
        };
        let manager = LifecycleManager::new(config, EventBus::new(64));
        manager.transition(AppEvent::Initialize, "test").unwrap();
        manager.transition(AppEvent::Initialized, "test").unwrap();
        manager
    }

    type Log = Arc<Mutex<Vec<String>>>;

    fn logging(log: &Log, name: &str) -> Handler {
        let (started, stopped) = (Arc::clone(log), Arc::clone(log));
        let (start, stop) = (format!("start {name}"), format!("stop {name}"));
        Handler::new(name)
            .on_start(move || async move {
                started.lock().unwrap().push(start);
                Ok::<_, std::io::Error>(())
            })
            .on_stop(move || async move {
                stopped.lock().unwrap().push(stop);
                Ok::<_, std::io::Error>(())
            })
    }

    #[tokio::test(start_paused = true)]
    async fn handlers_start_in_order_and_stop_in_reverse() {
        let (manager, log) = (manager(), Log::default());
        manager.register(logging(&log, "a"));
        manager.register(logging(&log, "b"));
        manager.start().await.unwrap();
        assert_eq!(manager.state(), AppState::Running);
        manager.transition(AppEvent::Stop, "test").unwrap();
        let report = manager.stop_handlers(Deadline::after(Duration::from_secs(5))).await;
        assert!(report.failures.is_empty());
        assert_eq!(*log.lock().unwrap(), ["start a", "start b", "stop b", "stop a"]);
    }

    #[tokio::test]
    async fn handlers_start_after_what_they_depend_on() {
        let (manager, log) = (manager(), Log::default());
        manager.register(logging(&log, "server").after("database").after("cache"));
        manager.register(logging(&log, "cache"));
        manager.register(logging(&log, "database"));
        manager.start().await.unwrap();
        manager.stop_handlers(Deadline::after(Duration::from_secs(5))).await;
        let order: Vec<String> = [
            "start database",
            "start cache",
            "start server",
            "stop server",
            "stop cache",
            "stop database",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(*log.lock().unwrap(), order);
    }

    #[tokio::test]
    async fn handlers_without_an_order_start_nothing() {
        let (manager, log) = (manager(), Log::default());
        manager.register(logging(&log, "a").after("b"));
        manager.register(logging(&log, "b").after("a"));
        let error = manager.start().await.unwrap_err();
        assert!(causes::of_error(&error).contains("a -> b -> a"), "{error:?}");
        assert_eq!(manager.state(), AppState::Error);
        assert!(log.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn only_a_running_application_can_be_drained() {
        let manager = manager();
        assert_eq!(manager.drain("maintenance"), Err(NotRunning(AppState::Ready)));
        manager.start().await.unwrap();
        let drained = manager.drained();
        manager.drain("maintenance").unwrap();
        assert_eq!(drained.borrow().as_deref(), Some("maintenance"));
        manager.resume().unwrap();
        assert_eq!(*drained.borrow(), None);
        manager.transition(AppEvent::Stop, "test").unwrap();
        assert_eq!(manager.resume(), Err(NotRunning(AppState::Stopping)));
    }

    #[tokio::test]
    async fn the_first_reason_to_shut_down_counts() {
        let manager = manager();
        let (asked, ()) = tokio::join!(manager.shutdown_requested(), async {
            manager.request_shutdown("first");
            manager.request_shutdown("second");
        });
        assert_eq!(asked, "first");
        assert_eq!(manager.shutdown_requested().await, "first");
    }

    #[track_caller]
    fn check_rolled_back(manager: &LifecycleManager, log: &Log) {
        assert_eq!(manager.state(), AppState::Error);
        assert_eq!(*log.lock().unwrap(), ["start a", "start b", "stop b", "stop a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_fails_times_out_or_panics_rolls_back_what_had_started() {
        let failing =
            Handler::new("c").on_start(|| async { Err(std::io::Error::other("no database")) });
        let hanging = Handler::new("c")
            .on_start(|| async { std::future::pending::<Result<(), std::io::Error>>().await });
        let panicking =
            Handler::new("c").on_start_blocking(|| -> Result<(), std::io::Error> { panic!("oh") });
        for (handler, message) in
            [(failing, "no database"), (hanging, "within 10s"), (panicking, "it panicked: oh")]
        {
            let (manager, log) = (manager(), Log::default());
            manager.register(logging(&log, "a"));
            manager.register(logging(&log, "b"));
            manager.register(handler);
            manager.register(logging(&log, "never started"));
            let error = manager.start().await.unwrap_err();
            let StartupError::Handler(failure) = error else { panic!("{error}") };
            assert_eq!(failure.handler, "c");
            assert!(failure.source.to_string().contains(message), "{}", failure.source);
            check_rolled_back(&manager, &log);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_shutdown_handler_runs_whatever_the_others_do() {
        let (manager, log) = (manager(), Log::default());
        manager.register(logging(&log, "a"));
        manager.register(
            Handler::new("b").on_stop(|| async { Err(std::io::Error::other("disk full")) }),
        );
        manager.register(
            Handler::new("c").on_stop_blocking(|| -> Result<(), std::io::Error> { panic!("oh") }),
        );
        manager.start().await.unwrap();
        let report = manager.stop_handlers(Deadline::after(Duration::from_secs(5))).await;
        let failed: Vec<_> =
            report.failures.iter().map(|failure| failure.handler.as_str()).collect();
        assert_eq!(failed, ["c", "b"]);
        assert!(matches!(report.failures[1].source, HandlerError::Failed(_)));
        assert_eq!(*log.lock().unwrap(), ["start a", "stop a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn history_tells_how_long_each_state_lasted() {
        let manager = manager();
        tokio::time::advance(Duration::from_secs(3)).await;
        manager.transition(AppEvent::Start, "go").unwrap();
        let history = manager.history();
        let last = history.last().unwrap();
        assert_eq!((last.from, last.to), (AppState::Ready, AppState::Starting));
        assert_eq!((last.after, last.reason.as_str()), (Duration::from_secs(3), "go"));
        assert!(manager.transition(AppEvent::Initialize, "again").is_err());
        assert_eq!(manager.state(), AppState::Starting);
        assert_eq!(manager.running_uptime(), None);
    }
}
