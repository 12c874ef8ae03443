//! What the threads of a pool and its callers have in common.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tracing::warn;

use super::super::backend::{Instance, RunError};
use super::super::batching::Batching;
use super::super::control::RunControl;
use super::super::costs::Run;
use super::super::group::{self, Apart};
use super::super::placement::{Pace, Placement, Ran};
use super::super::queue::{BoundedQueue, Claim};
use super::super::runs::RunCounts;
use super::super::task::{Completion, InferError, Task};
use super::super::threads::{Spawner, Stopwatch};
use super::super::watch::RunWatch;
use super::room::Company;
use crate::causes;

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
    /// Tells it from all others.
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) queue: BoundedQueue<Job, Server>,
    pub(super) capacity: usize,
    pub(super) spawner: Spawner,
    pub(super) watch: Arc<RunWatch>,
    pub(super) pace: Pace,
    pub(super) batched: bool,
    pub(super) batching: Result<Batching, String>,
    /// What requests meet of their like on the threads that serve connections.
    pub(super) company: Company,
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

    /// Runs requests as one. The instance comes back where each of them is to be run alone.
    pub(super) fn run_group<'q>(
        &self,
        Group { tasks, gathered, stopwatch }: Group<'_>,
        control: &Arc<RunControl>,
        mut instance: Claim<'q, Job, Server>,
    ) -> Result<Vec<Completion>, Claim<'q, Job, Server>> {
        let Ok(batching) = &self.batching else { return Err(instance) };
        let padding = &batching.options.padding;
        let run = || group::run((tasks, padding), instance.as_mut(), control);
        // A fault in joining or dividing them would be everybody's.
        let caught = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            Err(RunError::Panicked(causes::of_panic(panic.as_ref())).into())
        });
        let mut completions = match caught {
            Ok(completions) => completions,
            Err(apart) => {
                let now = Instant::now();
                // One that nobody wants any more tells nothing of batches.
                if tasks.iter().any(|task| task.dead(now).is_none()) {
                    self.failed_together(batching, &apart);
                }
                return Err(instance);
            }
        };
        drop(instance);
        let (entries, bytes) = self.extent(tasks);
        let shared = (completions.len(), entries);
        if let Some(Completion { timings, .. }) = completions.first() {
            let took = stopwatch.map_or(timings.compute, |stopwatch| stopwatch.took());
            self.runs.add(entries as u64, timings);
            self.pace.ran_together(timings.compute);
            batching.ran(Run { entries, bytes, took });
        }
        batching.batch_answered();
        for Completion { timings, .. } in &mut completions {
            *timings = timings.shared(shared, gathered);
        }
        Ok(completions)
    }

    fn failed_together(&self, batching: &Batching, apart: &Apart) {
        batching.batch_failed();
        if let Apart::Indivisible(problem) = apart
            && batching.give_up(problem.to_string())
        {
            warn!(model = self.name, reason = %problem, "requests share no runs any more");
        }
    }

    /// How many entries and bytes they have together.
    pub(super) fn extent(&self, tasks: &[&Task]) -> (usize, u64) {
        let entries = tasks.iter().map(|task| self.entries(task)).sum();
        (entries, tasks.iter().map(|task| task.size).sum())
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

/// Requests that are run as one.
pub(super) struct Group<'a> {
    pub(super) tasks: &'a [&'a Task],
    /// Since when they were looked for.
    pub(super) gathered: Option<Instant>,
    /// Measures the run, where that is not simply how long it took.
    pub(super) stopwatch: Option<Stopwatch>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
