//! What a resource's initialiser, cleaner and check are, async or blocking.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::owned::{Cleaning, Owned};
use crate::lifecycle::deadline::Deadline;
use crate::lifecycle::handler::{Failure, HandlerError, attempt, blocking};
use crate::lifecycle::health::CheckResult;

/// Sets something up from a configuration.
pub(super) enum Setup<C, T> {
    Async(Arc<dyn Fn(C) -> BoxFuture<'static, Result<T, Failure>> + Send + Sync>),
    Blocking(Arc<dyn Fn(C) -> Result<T, Failure> + Send + Sync>),
}

/// Sets something up.
pub(super) enum Initializer<T> {
    Async(Box<dyn Fn() -> BoxFuture<'static, Result<T, Failure>> + Send + Sync>),
    Blocking(Arc<dyn Fn() -> Result<T, Failure> + Send + Sync>),
}

/// Cleans up what was set up.
pub(super) type Cleaner<T> =
    Arc<dyn Fn(Arc<T>) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// A check of what was set up.
pub(super) enum Probe<T> {
    Async(Arc<dyn Fn(Arc<T>) -> BoxFuture<'static, CheckResult> + Send + Sync>),
    Blocking(Arc<dyn Fn(&T) -> CheckResult + Send + Sync>),
}

impl<C, T> Setup<C, T>
where
    C: Clone + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    pub(super) fn with(&self, config: C) -> Initializer<T> {
        match self {
            Self::Async(init) => {
                let init = Arc::clone(init);
                Initializer::Async(Box::new(move || init(config.clone())))
            }
            Self::Blocking(init) => {
                let init = Arc::clone(init);
                Initializer::Blocking(Arc::new(move || init(config.clone())))
            }
        }
    }
}

impl<T: Send + Sync + 'static> Initializer<T> {
    /// Sets it up once. What a blocking initialiser sets up when nobody waits for it any more is
    /// cleaned up. Cancel safe.
    pub(super) async fn attempt(
        &self,
        cleaning: &Arc<Cleaning<T>>,
        deadline: Deadline,
    ) -> Result<Owned<T>, HandlerError> {
        let cleaning = Arc::clone(cleaning);
        match self {
            Self::Async(init) => {
                attempt(async { Ok(Owned::new(init().await?, cleaning)) }, deadline).await
            }
            Self::Blocking(init) => {
                let (init, alive) = (Arc::clone(init), cleaning.alive.token());
                let work = move || {
                    let _alive = alive;
                    Ok::<_, Failure>(Owned::new(init()?, cleaning))
                };
                attempt(blocking(work), deadline).await
            }
        }
    }
}

impl<T: Send + Sync + 'static> Probe<T> {
    /// Checks it once.
    pub(super) async fn attempt(
        &self,
        value: &Arc<T>,
        deadline: Deadline,
    ) -> Result<(), HandlerError> {
        let value = Arc::clone(value);
        match self {
            Self::Async(probe) => attempt(async { Ok(probe(value).await?) }, deadline).await,
            Self::Blocking(probe) => {
                let probe = Arc::clone(probe);
                attempt(blocking(move || probe(&value)), deadline).await
            }
        }
    }
}

impl<T> Clone for Probe<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Async(probe) => Self::Async(Arc::clone(probe)),
            Self::Blocking(probe) => Self::Blocking(Arc::clone(probe)),
        }
    }
}
