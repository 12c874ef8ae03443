//! What was set up, and is cleaned up when it is let go.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::work::Cleaner;
use crate::causes;
use crate::lifecycle::deadline::Deadline;
use crate::lifecycle::handler::{Failure, attempt};

/// How what is let go is cleaned up.
pub(super) struct Cleaning<T> {
    /// The resource's.
    pub(super) name: String,
    pub(super) clean: Option<Cleaner<T>>,
    pub(super) timeout: Duration,
    /// What is not cleaned up yet.
    pub(super) alive: TaskTracker,
    pub(super) count: CleaningCount,
}

/// How often it has come to which end.
#[derive(Debug, Default)]
pub(super) struct CleaningCount {
    pub(super) cleaned: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// A value whose cleaner runs when it is dropped: on the runtime in which it was set up, as long as
/// that runs.
pub(super) struct Owned<T: Send + Sync + 'static> {
    value: Option<Arc<T>>,
    cleaning: Arc<Cleaning<T>>,
    alive: TaskTrackerToken,
    runtime: Handle,
}

impl<T: Send + Sync + 'static> Owned<T> {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(value: T, cleaning: Arc<Cleaning<T>>) -> Self {
        let (alive, runtime) = (cleaning.alive.token(), Handle::current());
        Self { value: Some(Arc::new(value)), cleaning, alive, runtime }
    }

    /// The value for somebody who sees to its cleaner.
    pub(super) fn keep(mut self) -> Arc<T> {
        self.value.take().expect(THERE)
    }

    pub(super) fn value(&self) -> &Arc<T> {
        self.value.as_ref().expect(THERE)
    }

    /// The value, unless somebody else has it too.
    pub(super) fn value_mut(&mut self) -> Option<&mut T> {
        Arc::get_mut(self.value.as_mut().expect(THERE))
    }
}

const THERE: &str = "a value is there until it is kept or dropped";

impl<T: Send + Sync + 'static> Drop for Owned<T> {
    fn drop(&mut self) {
        let Some(value) = self.value.take() else { return };
        let (cleaning, alive) = (Arc::clone(&self.cleaning), self.alive.clone());
        self.runtime.spawn(async move {
            cleaning.run(value).await;
            drop(alive);
        });
    }
}

impl<T: Send + Sync + 'static> Cleaning<T> {
    async fn run(&self, value: Arc<T>) {
        if let Some(clean) = &self.clean {
            let cleaned = attempt(call(clean, value), Deadline::after(self.timeout)).await;
            if let Err(failure) = cleaned {
                self.count.failed.fetch_add(1, Ordering::Relaxed);
                let (resource, cause) = (&self.name, causes::of_error(&failure));
                tracing::error!(resource, cause, "what was set up was not cleaned up");
                return;
            }
        }
        self.count.cleaned.fetch_add(1, Ordering::Relaxed);
    }
}

/// Calls the cleaner inside the future, so that a panic of the call is caught like one of its work.
pub(super) fn call<T: Send + Sync + 'static>(
    clean: &Cleaner<T>,
    value: Arc<T>,
) -> impl Future<Output = Result<(), Failure>> + Send + use<T> {
    let clean = Arc::clone(clean);
    async move { clean(value).await }
}
