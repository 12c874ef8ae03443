//! A whole application: what it is made of, and the order in which it starts and stops.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::deadline::{Deadline, telling};
use super::event::{EventBus, Hooks};
use super::health::HealthRegistry;
use super::manager::{LifecycleConfig, LifecycleManager, StartupError};
use super::resource::{ResourceError, ResourceManager};
use super::signal::{Signal, SignalSource, StopSignal};
use super::standing::StateReporter;
use super::state::{AppEvent, AppState};
use crate::causes;

/// What a drain step has left undone, as text.
pub type Drained = Result<(), String>;

type DrainWork = Box<dyn FnOnce(Deadline) -> Pin<Box<dyn Future<Output = Drained> + Send>> + Send>;

/// How long the end waits for hooks: an endpoint that is away shall not hold it up.
const HOOKS_LAST: Duration = Duration::from_secs(5);

/// Brings managers, health, resources, events and hooks together, and runs them in order.
///
/// Start: resources in order, start-up handlers in order, RUNNING. Stop: STOPPING, at which the
/// readiness probe fails; what was registered by [`Application::on_stopping`]; the pre-stop delay, in
/// which requests are served on; then, within one deadline and whatever becomes of the others, the
/// drain steps in order, the shutdown handlers in reverse, the resources in reverse; STOPPED; and the
/// hooks see the last event.
///
/// Three checks called `application` tell its state to the probes.
#[derive(Clone)]
pub struct Application {
    parts: Arc<Parts>,
}

struct Parts {
    events: EventBus,
    lifecycle: Arc<LifecycleManager>,
    health: HealthRegistry,
    resources: Arc<ResourceManager>,
    hooks: Arc<Hooks>,
    stopping: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    drains: Mutex<Vec<(String, DrainWork)>>,
    /// How often a reload was asked for.
    reloads: watch::Sender<u64>,
    background: TaskTracker,
    stop_background: CancellationToken,
}

/// How an application came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to stop, and nothing was left undone.
    Clean,
    /// It was asked to stop, and a drain step was not done at the deadline.
    Forced,
    /// It could not start, or a part of it could not be cleaned up.
    Failed,
    /// It was asked a second time, and left everything as it was.
    Signalled(StopSignal),
}

/// Who asked for the end.
#[derive(Debug)]
enum Why {
    Signal(StopSignal),
    /// A call of [`LifecycleManager::request_shutdown`], with its reason.
    Request(String),
}

/// Why the application could not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("a resource could not be set up")]
    Resource(#[from] ResourceError),
    #[error(transparent)]
    Startup(#[from] StartupError),
}

impl Application {
    /// An application that has not started. Must be called inside a tokio runtime.
    pub fn new(config: LifecycleConfig, events: EventBus) -> Self {
        let lifecycle = Arc::new(LifecycleManager::new(config, events.clone()));
        let health = HealthRegistry::with(config.into(), events.clone());
        let states = StateReporter::new(&lifecycle, &health);
        let resources = Arc::new(ResourceManager::new(health.clone(), events.clone()));
        let parts = Parts {
            lifecycle,
            health,
            resources,
            hooks: Arc::new(Hooks::new(events.clone())),
            events,
            stopping: Mutex::default(),
            drains: Mutex::default(),
            reloads: watch::Sender::new(0),
            background: TaskTracker::new(),
            stop_background: CancellationToken::new(),
        };
        let application = Self { parts: Arc::new(parts) };
        application.spawn(states.run());
        application
    }

    /// The state machine and the handlers.
    pub fn lifecycle(&self) -> &Arc<LifecycleManager> {
        &self.parts.lifecycle
    }

    /// The checks.
    pub fn health(&self) -> &HealthRegistry {
        &self.parts.health
    }

    /// The resources.
    pub fn resources(&self) -> &Arc<ResourceManager> {
        &self.parts.resources
    }

    /// The events.
    pub fn events(&self) -> &EventBus {
        &self.parts.events
    }

    /// The hooks on the events.
    pub fn hooks(&self) -> &Arc<Hooks> {
        &self.parts.hooks
    }

    /// Runs `task` until the application has stopped; then it is dropped where it waits.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.parts.stop_background.clone();
        let task = async move {
            stop.run_until_cancelled_owned(task).await;
        };
        self.parts.background.spawn(task);
    }

    /// Calls `work`, which may block, each time a reload is asked for by [`Signal::Reload`], until the
    /// application stops. Never twice at once; what is asked for meanwhile is one call more.
    pub fn on_reload(&self, work: impl Fn() + Send + Sync + 'static) {
        let (mut asked, work) = (self.parts.reloads.subscribe(), Arc::new(work));
        self.spawn(async move {
            while asked.changed().await.is_ok() {
                let work = Arc::clone(&work);
                if let Err(panic) = spawn_blocking(move || work()).await {
                    error!(%panic, "a reload was not completed");
                }
            }
        });
    }

    /// Calls `work` at the moment in which the application begins to stop.
    pub fn on_stopping(&self, work: impl FnOnce() + Send + 'static) {
        lock(&self.parts.stopping).push(Box::new(work));
    }

    /// Adds a step that lets what is under way finish by the deadline. Steps are taken in the order
    /// of their registration, before any shutdown handler.
    pub fn on_drain<F, W>(&self, name: impl Into<String>, work: F)
    where
        F: FnOnce(Deadline) -> W + Send + 'static,
        W: Future<Output = Drained> + Send + 'static,
    {
        let work: DrainWork = Box::new(move |deadline| Box::pin(work(deadline)));
        lock(&self.parts.drains).push((name.into(), work));
    }

    /// Starts, serves until a signal comes or the end is requested, and stops. A second signal ends
    /// it at once.
    ///
    /// Not cancel safe: dropping the future leaves everything as it is.
    pub async fn run(&self, mut signals: SignalSource) -> Ending {
        let why = self.serve(&mut signals).await;
        tokio::select! {
            biased;
            ending = self.shut_down(why) => ending,
            again = next_stop(&mut signals) => {
                warn!(signal = ?again, "stopped by a second signal, nothing is waited for");
                Ending::Signalled(again)
            }
        }
    }

    /// Starts, and serves until somebody asks for the end; also during the start that is heard.
    async fn serve(&self, signals: &mut SignalSource) -> Result<Why, StartError> {
        tokio::select! {
            // The start comes first, so that there is something to stop.
            biased;
            started = self.start() => started?,
            why = self.asked(signals) => return Ok(why),
        }
        Ok(self.asked(signals).await)
    }

    async fn asked(&self, signals: &mut SignalSource) -> Why {
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop(signal) => return Why::Signal(signal),
                    Signal::Reload => self.parts.reloads.send_modify(|asked| *asked += 1),
                },
                reason = self.parts.lifecycle.shutdown_requested() => return Why::Request(reason),
            }
        }
    }

    async fn start(&self) -> Result<(), StartError> {
        let deadline = Deadline::after(self.parts.lifecycle.config().startup_timeout);
        self.transition(AppEvent::Initialize, "the configuration is sound");
        if let Err(failure) = self.parts.resources.init_all(deadline).await {
            self.transition(AppEvent::Fail, &causes::of_error(&failure));
            return Err(failure.into());
        }
        self.transition(AppEvent::Initialized, "every resource is set up");
        self.parts.lifecycle.start_by(deadline).await?;
        Ok(())
    }

    /// The order of the end. Each step is taken whatever the others do.
    async fn shut_down(&self, why: Result<Why, StartError>) -> Ending {
        let config = self.parts.lifecycle.config();
        let serving = self.parts.lifecycle.state() == AppState::Running;
        // From here on the readiness probe fails, and requests are still served.
        self.transition(AppEvent::Stop, &reason(&why));
        let at_once = std::mem::take(&mut *lock(&self.parts.stopping));
        for work in at_once {
            work();
        }
        // Somebody at a terminal does not want to wait.
        if serving && !matches!(why, Ok(Why::Signal(StopSignal::Interrupt))) {
            info!(delay = ?config.pre_stop_delay, "serving on until traffic has gone elsewhere");
            sleep(config.pre_stop_delay).await;
        }
        let deadline = Deadline::after(config.shutdown_timeout);
        let undone = self.drain(deadline).await;
        let cleaned = self.clean_up(deadline).await;
        let ending = match (why, undone.is_empty(), cleaned) {
            (Ok(_), true, true) => Ending::Clean,
            (Ok(_), false, _) => Ending::Forced,
            (Err(_), ..) | (Ok(_), true, false) => Ending::Failed,
        };
        self.transition(AppEvent::Stopped, &summary(ending, &undone));
        self.end_background(deadline).await;
        ending
    }

    /// Takes the drain steps; what they have left undone.
    async fn drain(&self, deadline: Deadline) -> Vec<String> {
        let steps = std::mem::take(&mut *lock(&self.parts.drains));
        let mut undone = Vec::new();
        for (step, work) in steps {
            let tell = || info!(step, left = ?deadline.remaining(), "still draining");
            let result = telling(deadline.bound(work(deadline)), tell).await;
            let result = result.unwrap_or_else(|| Err("it was not done in time".to_owned()));
            if let Err(left) = result {
                error!(step, left, "drained in part, the rest is cut off");
                undone.push(format!("{step}: {left}"));
            }
        }
        undone
    }

    /// Runs the shutdown handlers and the resources' cleaners; whether all of them did their work.
    async fn clean_up(&self, deadline: Deadline) -> bool {
        let handlers = self.parts.lifecycle.stop_handlers(deadline).await.failures;
        for failure in &handlers {
            error!(cause = causes::of_error(failure), "a shutdown handler did not complete");
        }
        let resources = self.parts.resources.clean_all(deadline).await;
        for failure in &resources {
            error!(cause = causes::of_error(failure), "a resource was not cleaned up");
        }
        handlers.is_empty() && resources.is_empty()
    }

    /// Ends what runs beside everything else, hooks last of all, so that they are told of the end.
    async fn end_background(&self, deadline: Deadline) {
        if !self.parts.hooks.finish(deadline.at_most(HOOKS_LAST)).await {
            warn!("hooks were ended at the deadline, with events that they have not seen");
        }
        self.parts.stop_background.cancel();
        self.parts.background.close();
        let ended = async {
            tokio::join!(self.parts.health.stop(), self.parts.background.wait());
        };
        deadline.bound(ended).await;
    }

    /// Moves the application on. The order of this file follows the state machine.
    #[track_caller]
    fn transition(&self, event: AppEvent, reason: &str) {
        self.parts
            .lifecycle
            .transition(event, reason)
            .expect("the order of start and end is that of the application's state machine");
    }
}

/// Waits for a signal that asks for the end. What stops is not configured anew.
async fn next_stop(signals: &mut SignalSource) -> StopSignal {
    loop {
        match signals.next().await {
            Signal::Stop(signal) => return signal,
            Signal::Reload => warn!("the application stops, its configuration is not read anew"),
        }
    }
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reason(why: &Result<Why, StartError>) -> String {
    match why {
        Ok(Why::Signal(StopSignal::Terminate)) => "SIGTERM".to_owned(),
        Ok(Why::Signal(StopSignal::Interrupt)) => "SIGINT".to_owned(),
        Ok(Why::Request(reason)) => reason.clone(),
        Err(failure) => {
            let cause = causes::of_error(failure);
            error!(cause, "the application could not start");
            cause
        }
    }
}

fn summary(ending: Ending, undone: &[String]) -> String {
    match (ending, undone) {
        (Ending::Clean, _) => "everything is done".to_owned(),
        (_, []) => "the end was not clean".to_owned(),
        (_, undone) => format!("cut off: {}", undone.join("; ")),
    }
}

impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application")
            .field("lifecycle", &self.parts.lifecycle)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
