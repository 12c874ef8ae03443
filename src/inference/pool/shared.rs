//! What the threads of a pool and its callers have in common.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::super::backend::{Instance, RunError};
use super::super::batching::Batching;
use super::super::placement::{Pace, Placement, Ran};
use super::super::queue::BoundedQueue;
use super::super::runs::RunCounts;
use super::super::task::{Completion, InferError, Task};
use super::super::threads::Spawner;
use super::super::watch::RunWatch;

/// A request that waits for an instance.
pub(super) struct Job {
    pub(super) task: Task,
    pub(super) reply: oneshot::Sender<Result<Completion, InferError>>,
    /// Whether it is not to share a run.
    pub(super) alone: bool,
}

pub(super) type Server = Box<dyn Instance>;

/// What the threads of a pool and its callers have in common.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) queue: BoundedQueue<Job, Server>,
    pub(super) capacity: usize,
    pub(super) spawner: Spawner,
    pub(super) watch: Arc<RunWatch>,
    pub(super) pace: Pace,
    pub(super) batched: bool,
    pub(super) batching: Result<Batching, String>,
    pub(super) runs: Arc<RunCounts>,
    /// Told of each place that comes free in the queue.
    pub(super) room: Notify,
    /// Whether runs give way to everything else.
    pub(super) background: AtomicBool,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Shared {
    pub(super) fn next_thread(&self) -> Option<JoinHandle<()>> {
        lock(&self.threads).pop()
    }

    /// Where a run is to happen, of this task or of one as usual.
    pub(super) fn placement(&self, task: Option<&Task>) -> Placement {
        // Who gives way must not do so with a thread that others need, nor may who waits for more requests.
        let waits = self.batching.as_ref().is_ok_and(Batching::waits);
        if waits || self.background.load(Ordering::Relaxed) {
            return Placement::Thread;
        }
        task.map_or_else(|| self.pace.placement(), |task| self.pace.placement_of(task.size))
    }

    /// Runs a request on this thread. It comes back where that is not the place for it, or no instance is
    /// idle, or where it takes so long that a thread of the pool should begin again with it.
    pub(super) fn run_inline(&self, task: Task) -> Result<Result<Completion, InferError>, Task> {
        match self.try_inline(&task) {
            None => Err(task),
            // As with a thread: an answer that comes late is none.
            Some(_) if task.terms.deadline <= Instant::now() => {
                Ok(Err(InferError::DeadlineExceeded))
            }
            Some(Err(InferError::Run(RunError::Cancelled))) => Err(task.again()),
            Some(answer) => Ok(answer),
        }
    }

    pub(super) fn try_inline(&self, task: &Task) -> Option<Result<Completion, InferError>> {
        if self.placement(Some(task)) == Placement::Thread {
            return None;
        }
        let mut instance = self.queue.claim()?;
        let _watched = self.watch.begin(task.terms.deadline, &task.control)?;
        Some(self.run(task, instance.as_mut(), None))
    }

    /// Runs a request alone, for which others may have been looked for since `gathered`.
    pub(super) fn run(
        &self,
        task: &Task,
        instance: &mut dyn Instance,
        gathered: Option<Instant>,
    ) -> Result<Completion, InferError> {
        let started = Instant::now();
        let mut answer = task.run(instance);
        let (took, size) = (started.elapsed(), task.size);
        self.pace.ran(Ran { took, size, answered: answer.is_ok() });
        if let Ok(Completion { timings, .. }) = &mut answer {
            let entries = self.entries(task);
            self.runs.add(entries as u64, timings);
            *timings = timings.shared((1, entries), gathered);
        }
        answer
    }

    /// How many entries the batch of a request has; one where the model takes none.
    pub(super) fn entries(&self, task: &Task) -> usize {
        task.request.entries(self.batched)
    }
}

impl Job {
    pub(super) fn answer(self, answer: Result<Completion, InferError>) {
        // The caller may have gone; then nobody wants the answer.
        drop(self.reply.send(answer));
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
