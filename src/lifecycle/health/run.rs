//! One run of a check, kept apart from everything else.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::thread;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::check::{AsyncProbe, BlockingProbe, CheckResult, Probe};
use crate::causes;

/// The name of the threads that blocking checks run on.
const THREAD: &str = "health-check";

/// A run that was started. Dropping it ends one that awaits, and leaves one that blocks to itself.
pub(super) struct Running {
    /// Its result. A panic is a failure.
    pub(super) result: Pin<Box<dyn Future<Output = CheckResult> + Send>>,
    abort: Option<AbortHandle>,
}

impl Running {
    /// Asks a run that awaits to end; one that blocks cannot be asked.
    pub(super) fn abort(&self) {
        if let Some(abort) = &self.abort {
            abort.abort();
        }
    }
}

impl Probe {
    /// Starts a run.
    pub(super) fn start(&self, tasks: &TaskTracker) -> Running {
        match self {
            Self::Async(probe) => awaiting(Arc::clone(probe), tasks),
            Self::Blocking(probe) => blocking(Arc::clone(probe)),
        }
    }
}

/// In a task of its own, so that also one that blocks its thread does not hold up its own timeout.
fn awaiting(probe: Arc<AsyncProbe>, tasks: &TaskTracker) -> Running {
    let task = AbortOnDropHandle::new(tasks.spawn(async move { probe().await }));
    let abort = Some(task.abort_handle());
    let result = async move {
        match task.await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(result) => result,
            Err(Ok(panic)) => Err(panicked(panic.as_ref())),
            Err(Err(_)) => Err("it was ended".to_owned()),
        }
    };
    Running { result: Box::pin(result), abort }
}

/// On a thread of its own rather than one of the runtime's, whose number is bounded and for which
/// the end of the runtime waits.
fn blocking(probe: Arc<BlockingProbe>) -> Running {
    let (reply, result) = oneshot::channel();
    let work = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| probe()));
        // Without a receiver nobody waits any more.
        drop(reply.send(outcome.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))));
    };
    let started = thread::Builder::new().name(THREAD.to_owned()).spawn(work);
    let result = async move {
        match started {
            Ok(_) => result.await.unwrap_or_else(|_| Err("its thread is gone".to_owned())),
            Err(error) => Err(format!("there is no thread to run it on: {error}")),
        }
    };
    Running { result: Box::pin(result), abort: None }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    format!("it panicked: {}", causes::of_panic(panic))
}
