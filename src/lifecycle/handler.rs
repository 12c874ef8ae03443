//! Named pieces of work that run when the application starts and stops.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::spawn_blocking;

use super::deadline::Deadline;
use crate::causes;

pub(super) type Failure = Box<dyn Error + Send + Sync>;
type Work = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;
pub(super) type Action = Box<dyn FnOnce() -> Work + Send>;

/// Work to do at start-up, at shutdown, or both.
///
/// The shutdown part runs only if the start-up part has succeeded (or there is none).
#[must_use = "a handler does nothing until it is registered"]
pub struct Handler {
    pub(super) name: String,
    pub(super) after: Vec<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) start: Option<Action>,
    pub(super) stop: Option<Action>,
}

/// How a handler went wrong.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// It returned an error.
    #[error(transparent)]
    Failed(Failure),
    /// It did not finish in time.
    #[error("it did not finish within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// It panicked.
    #[error("it panicked: {0}")]
    Panicked(String),
}

/// A handler's failure with its name.
#[derive(Debug, thiserror::Error)]
#[error("handler '{handler}' did not complete")]
pub struct HandlerFailure {
    /// The handler's name.
    pub handler: String,
    /// What went wrong.
    pub source: HandlerError,
}

impl Handler {
    /// A handler that does nothing yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), after: Vec::new(), timeout: None, start: None, stop: None }
    }

    /// Starts it after the handler called `name`, and stops it before.
    pub fn after(mut self, name: impl Into<String>) -> Self {
        self.after.push(name.into());
        self
    }

    /// Bounds each part; without it the manager's default holds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Runs `work` at start-up.
    pub fn on_start<F, W, E>(mut self, work: F) -> Self
    where
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Failure>,
    {
        self.start = Some(action(work));
        self
    }

    /// Runs `work` at shutdown.
    pub fn on_stop<F, W, E>(mut self, work: F) -> Self
    where
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Failure>,
    {
        self.stop = Some(action(work));
        self
    }

    /// Runs blocking `work` at start-up, on a thread where blocking is allowed. After a time-out
    /// the thread goes on until the work returns.
    pub fn on_start_blocking<F, E>(self, work: F) -> Self
    where
        F: FnOnce() -> Result<(), E> + Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        self.on_start(move || blocking(work))
    }

    /// Runs blocking `work` at shutdown, as [`Handler::on_start_blocking`] does.
    pub fn on_stop_blocking<F, E>(self, work: F) -> Self
    where
        F: FnOnce() -> Result<(), E> + Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        self.on_stop(move || blocking(work))
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("name", &self.name).finish_non_exhaustive()
    }
}

pub(super) fn action<F, W, E>(work: F) -> Action
where
    F: FnOnce() -> W + Send + 'static,
    W: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Failure>,
{
    Box::new(move || Box::pin(work().map(|result| result.map_err(Into::into))))
}

/// Runs work where it may block; its panic is the caller's.
pub(super) async fn blocking<F, T, E>(work: F) -> Result<T, Failure>
where
    F: FnOnce() -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Runs an action to its end, its deadline or its panic.
pub(super) async fn perform(action: Action, deadline: Deadline) -> Result<(), HandlerError> {
    attempt(async move { action().await }, deadline).await
}

/// Runs work to its end, its deadline or its panic.
pub(super) async fn attempt<T>(
    work: impl Future<Output = Result<T, Failure>>,
    deadline: Deadline,
) -> Result<T, HandlerError> {
    let allowed = deadline.remaining();
    let work = AssertUnwindSafe(work).catch_unwind();
    match deadline.bound(work).await {
        Some(Ok(result)) => result.map_err(HandlerError::Failed),
        Some(Err(panic)) => Err(HandlerError::Panicked(causes::of_panic(panic.as_ref()))),
        None => Err(HandlerError::TimedOut(allowed)),
    }
}
