//! Work on large bodies, kept off the threads that serve connections.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

/// Below this many bytes, work takes less time than handing it over would be worth: parsing them
/// takes about a quarter of a millisecond.
const INLINE: usize = 64 * 1024;

/// Runs work on large bodies, a few at a time, so that probes are answered beside it.
#[derive(Debug)]
pub(super) struct HeavyWork {
    permits: Semaphore,
}

impl HeavyWork {
    /// At most `at_once` pieces of heavy work run at a time.
    pub(super) fn new(at_once: NonZeroUsize) -> Self {
        Self { permits: Semaphore::new(at_once.get()) }
    }

    /// [`HeavyWork::run`] with a time for that; `None` once it is over.
    ///
    /// Cancel safe as that.
    pub(super) async fn run_until<T: Send + 'static>(
        &self,
        deadline: Instant,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if bytes < INLINE {
            return Some(work());
        }
        timeout_at(deadline, self.run(bytes, work)).await.ok()
    }

    /// Runs `work`, which reads or writes about `bytes` bytes.
    ///
    /// Cancel safe; work that has begun goes on to its end, and its result is dropped.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if bytes < INLINE {
            return work();
        }
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        match spawn_blocking(work).await {
            Ok(result) => result,
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime is going down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
