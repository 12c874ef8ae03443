//! The composition root: what the server is made of, and in which order it starts and stops.

mod assembly;
mod listener;
mod standing;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

pub use assembly::AssemblyError;
pub use listener::ListenError;

use crate::causes;
use crate::lifecycle::checks::RuntimeWatch;
use crate::lifecycle::{
    AppEvent, AppState, Deadline, HealthRegistry, LifecycleConfig, LifecycleManager, ResourceError,
    ResourceManager, Signal, SignalSource, StartupError,
};
use crate::model::ModelLifecycleManager;
use listener::Listener;

/// The whole server. Two of them fit in one process.
#[derive(Debug)]
pub struct App {
    lifecycle: Arc<LifecycleManager>,
    health: HealthRegistry,
    resources: Arc<ResourceManager>,
    models: ModelLifecycleManager,
    listener: Arc<Listener>,
    background: TaskTracker,
    stop_background: CancellationToken,
    _watch: RuntimeWatch,
}

/// How a run of the server came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to stop and has answered everything it had accepted.
    Clean,
    /// It was asked to stop and requests were still unanswered at the deadline.
    Forced,
    /// It could not start, or a part of it could not be cleaned up.
    Failed,
    /// It was asked a second time, and left everything as it was.
    Signalled(Signal),
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("a part of the server could not be set up")]
    Resource(#[from] ResourceError),
    #[error(transparent)]
    Startup(#[from] StartupError),
}

impl App {
    /// The address that is listened on, once it is.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.address()
    }

    /// Its health, to which checks may be added at any time.
    pub fn health(&self) -> &HealthRegistry {
        &self.health
    }

    /// Starts, serves until a signal comes, and stops.
    ///
    /// Not cancel safe: dropping the future leaves connections and models as they are.
    pub async fn run(self, mut signals: SignalSource) -> Ending {
        let why = self.serve(&mut signals).await;
        tokio::select! {
            ending = self.shut_down(why) => ending,
            again = signals.next() => {
                warn!(signal = ?again, "stopped by a second signal, nothing is waited for");
                Ending::Signalled(again)
            }
        }
    }

    /// Starts, and serves until a signal comes; also one that comes during the start is heard.
    async fn serve(&self, signals: &mut SignalSource) -> Result<Signal, StartError> {
        tokio::select! {
            started = self.start() => started?,
            signal = signals.next() => return Ok(signal),
        }
        Ok(signals.next().await)
    }

    async fn start(&self) -> Result<(), StartError> {
        let LifecycleConfig { startup_timeout, .. } = self.lifecycle.config();
        self.transition(AppEvent::Initialize, "the configuration is sound");
        if let Err(failure) = self.resources.init_all(Deadline::after(startup_timeout)).await {
            self.transition(AppEvent::Fail, &causes::of_error(&failure));
            return Err(failure.into());
        }
        self.transition(AppEvent::Initialized, "every resource is set up");
        self.lifecycle.start().await?;
        Ok(())
    }

    /// The order of the end. Each step is taken whatever the others do, and all of them within one
    /// deadline.
    async fn shut_down(&self, why: Result<Signal, StartError>) -> Ending {
        let config = self.lifecycle.config();
        let serving = self.lifecycle.state() == AppState::Running;
        // From here on the readiness probe fails, and requests are still served.
        self.transition(AppEvent::Stop, &reason(&why));
        self.models.refuse_changes();
        if serving && matches!(why, Ok(Signal::Terminate)) {
            info!(delay = ?config.pre_stop_delay, "serving on until traffic has gone elsewhere");
            sleep(config.pre_stop_delay).await;
        }
        let deadline = Deadline::after(config.shutdown_timeout);
        let drained = self.listener.drain(deadline).await;
        let cleaned = self.clean_up(deadline).await;
        let stragglers = self.stragglers();
        let ending = match (why, drained && stragglers.is_empty(), cleaned) {
            (Ok(_), true, true) => Ending::Clean,
            (Ok(_), false, _) => Ending::Forced,
            (Err(_), ..) | (Ok(_), true, false) => Ending::Failed,
        };
        self.transition(AppEvent::Stopped, &format!("{ending:?}, still inside: {stragglers:?}"));
        ending
    }

    /// Runs the shutdown handlers and the resources' cleaners; whether all of them did their work.
    async fn clean_up(&self, deadline: Deadline) -> bool {
        let handlers = self.lifecycle.stop_handlers(deadline).await.failures;
        for failure in &handlers {
            error!(cause = causes::of_error(failure), "a shutdown handler did not complete");
        }
        let resources = self.resources.clean_all(deadline).await;
        for failure in &resources {
            error!(cause = causes::of_error(failure), "a resource was not cleaned up");
        }
        self.stop_background.cancel();
        self.background.close();
        let stop = async { tokio::join!(self.health.stop(), self.background.wait()) };
        deadline.bound(stop).await;
        handlers.is_empty() && resources.is_empty()
    }

    /// The requests that are inside a model still, by version.
    fn stragglers(&self) -> Vec<(String, u64)> {
        let stragglers = self.models.in_flight();
        for (version, requests) in &stragglers {
            error!(version, requests, "requests were cut off at the deadline");
        }
        stragglers
    }

    /// Moves the application on. The order of this file follows the state machine.
    #[track_caller]
    fn transition(&self, event: AppEvent, reason: &str) {
        self.lifecycle
            .transition(event, reason)
            .expect("the composition root follows the application's state machine");
    }
}

fn reason(why: &Result<Signal, StartError>) -> String {
    match why {
        Ok(Signal::Terminate) => "SIGTERM".to_owned(),
        Ok(Signal::Interrupt) => "SIGINT".to_owned(),
        Err(failure) => {
            let cause = causes::of_error(failure);
            error!(cause, "the server could not start");
            cause
        }
    }
}
