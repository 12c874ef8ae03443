//! The instances of a version: run by who has the request, or by threads fed from one bounded queue.

mod gathering;
mod inline;
mod room;
mod shared;
mod worker;

use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::error;

use room::{Company, Met};
use shared::{Job, Shared};

use super::backend::Instance;
use super::batching::{BatchOptions, Batching, BatchingReport};
use super::control::RunControl;
use super::placement::{Pace, Placement};
use super::queue::{BoundedQueue, Pushed, Refused};
use super::request::PreparedRequest;
use super::runs::RunCounts;
use super::task::{Completion, InferError, RunTerms, Task};
use super::threads::Spawner;
use super::watch::RunWatch;

/// How a pool admits and runs requests.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Names the threads.
    pub name: String,
    /// Requests that may wait for a busy instance; one more is refused.
    pub queue_capacity: NonZeroUsize,
    /// Whether the first dimension of its tensors is that of a batch.
    pub batched: bool,
    /// How requests share runs; or else why they do not.
    pub batching: Result<BatchOptions, String>,
}

/// How many there were.
static POOLS: AtomicU64 = AtomicU64::new(0);

/// The running instances of one model version.
///
/// Each instance serves one request at a time. Those that are expected to be short are run by the caller
/// itself while an instance is idle, all others by threads of the pool.
///
/// Dropping the pool stops the threads after what is queued has been answered, without waiting for
/// them; [`InstancePool::shutdown`] waits.
pub struct InstancePool {
    shared: Arc<Shared>,
    instances: usize,
}

impl InstancePool {
    /// One without threads, which start when there is something for them to do, as many as there are instances
    /// at most.
    pub fn new(
        options: &PoolOptions,
        instances: Vec<Box<dyn Instance>>,
        (spawner, watch): (&Spawner, &Arc<RunWatch>),
    ) -> Self {
        let (capacity, count) = (options.queue_capacity.get(), instances.len());
        let shared = Arc::new(Shared {
            number: POOLS.fetch_add(1, Ordering::Relaxed),
            name: options.name.clone(),
            queue: BoundedQueue::new(capacity, instances),
            capacity,
            spawner: spawner.clone(),
            watch: Arc::clone(watch),
            pace: Pace::default(),
            batched: options.batched,
            batching: options.batching.clone().map(Batching::new),
            company: Company::default(),
            runs: Arc::default(),
            room: Notify::new(),
            background: AtomicBool::new(false),
            threads: Mutex::default(),
        });
        Self { shared, instances: count }
    }

    /// Runs a request, or queues it and waits for its answer.
    ///
    /// Cancel safe: dropping the future cancels the run, whether it waits or is under way. A run that the
    /// caller makes itself, which is one that is expected to be short, has ended when the future can be
    /// dropped. It ends at the deadline; one that takes more than 0.1 s begins again on a thread of the pool. Where
    /// others are on the caller's thread at the same time, such runs are shared: the caller is polled once more
    /// before.
    ///
    /// # Errors
    /// Every variant of [`InferError`] except [`InferError::Input`].
    pub async fn run(
        &self,
        request: PreparedRequest,
        terms: impl Into<RunTerms>,
    ) -> Result<Completion, InferError> {
        let met = match self.shared.meet(Task::new(request, terms.into())) {
            Err(task) => Met::Back(task),
            Ok(inside) => {
                let run = |since, guests| self.shared.run_met(since, guests);
                inside.met(run).await.ok_or(InferError::Stopped)?
            }
        };
        match met {
            Met::Answer(answer) => answer,
            Met::Back(task) => match self.shared.run_inline(task) {
                Ok(answer) => answer,
                Err(task) => self.admit(task)?.answer().await,
            },
            Met::Alone(task) => self.admit_again(task)?.answer().await,
        }
    }

    /// [`InstancePool::run`] for a request that nobody waits for: it is always run by a thread of the
    /// pool, so that it holds nobody up.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As that.
    pub async fn run_aside(
        &self,
        request: PreparedRequest,
        deadline: Instant,
    ) -> Result<Completion, InferError> {
        self.admit(Task::new(request, deadline.into()))?.answer().await
    }

    /// [`InstancePool::run`] for a request that would rather wait for a place in the queue than be
    /// refused. Such requests get places in the order in which they came.
    ///
    /// Cancel safe as that.
    ///
    /// # Errors
    /// As that, except [`InferError::Overloaded`].
    pub async fn run_when_there_is_room(
        &self,
        request: PreparedRequest,
        terms: impl Into<RunTerms>,
    ) -> Result<Completion, InferError> {
        let terms = terms.into();
        loop {
            let mut room = pin!(self.shared.room.notified());
            // Registered before the look, so that a place that comes free in between is noticed.
            room.as_mut().enable();
            let answer = match self.admit(Task::new(request.clone(), terms)) {
                Ok(admitted) => admitted.answer().await,
                Err(refusal) => Err(refusal),
            };
            // Its place may have been taken by one that goes first.
            if !matches!(answer, Err(InferError::Overloaded { .. })) {
                return answer;
            }
            if timeout_at(terms.deadline, room).await.is_err() {
                return Err(InferError::DeadlineExceeded);
            }
        }
    }

    /// Queues a request.
    fn admit(&self, task: Task) -> Result<Admitted, InferError> {
        let (rank, (job, admitted)) = (task.rank(), waiting(task, false));
        let abandoned = |waiting: &Job| waiting.reply.is_closed();
        self.pushed(self.shared.queue.push((rank, job), abandoned)).map(|()| admitted)
    }

    /// Queues a request for a run of its own that has shared one in vain: it has a place in any case.
    fn admit_again(&self, task: Task) -> Result<Admitted, InferError> {
        if let Some(dead) = task.dead(Instant::now()) {
            return Err(dead);
        }
        let (job, admitted) = waiting(task, true);
        self.pushed(self.shared.queue.push_again(job)).map(|()| admitted)
    }

    fn pushed(&self, pushed: Result<Pushed<Job>, Refused>) -> Result<(), InferError> {
        let overloaded = || InferError::Overloaded { capacity: self.shared.capacity };
        match pushed {
            Ok(Pushed { displaced, wants_consumer }) => {
                if let Some(job) = displaced {
                    job.answer(Err(overloaded()));
                }
                if wants_consumer {
                    self.shared.add_thread();
                }
                Ok(())
            }
            Err(Refused::Full) => Err(overloaded()),
            Err(Refused::Closed) => Err(InferError::Stopped),
        }
    }

    /// How many requests wait for an instance.
    pub fn queue_depth(&self) -> usize {
        self.shared.queue.len()
    }

    /// How many requests may wait.
    pub fn queue_capacity(&self) -> usize {
        self.shared.capacity
    }

    /// How many instances there are.
    pub fn instances(&self) -> usize {
        self.instances
    }

    /// Whether requests share runs.
    pub fn batching(&self) -> BatchingReport {
        match &self.shared.batching {
            Ok(batching) => batching.report(),
            Err(reason) => BatchingReport::Off { reason: reason.clone() },
        }
    }

    /// The runs that gave answers.
    pub(crate) fn runs(&self) -> &Arc<RunCounts> {
        &self.shared.runs
    }

    /// Has its runs happen where those of `other` do, until they show how long they take.
    pub fn expect_like(&self, other: &Self) {
        self.shared.pace.adopt(&other.shared.pace);
    }

    /// Where the next run will happen, if an instance is idle.
    pub fn placement(&self) -> Placement {
        self.shared.placement(None)
    }

    /// Whether runs give way to everything else on the machine from now on; those under way go on as
    /// they began.
    pub fn give_way(&self, gives_way: bool) {
        self.shared.background.store(gives_way, Ordering::Relaxed);
    }

    /// Answers what is queued, stops the threads and drops the instances. Blocks until all is done;
    /// a second call returns at once.
    pub fn shutdown(&self) {
        self.shared.queue.close();
        // One at a time: a thread may have another take its place at its end.
        while let Some(thread) = self.shared.next_thread() {
            if thread.join().is_err() {
                error!("an instance thread panicked outside a run");
            }
        }
        drop(self.shared.queue.servers());
    }
}

impl Drop for InstancePool {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

/// A request for the queue, and who waits for its answer.
fn waiting(task: Task, alone: bool) -> (Job, Admitted) {
    let (reply, answer) = oneshot::channel();
    let (cancel_on_drop, deadline) = (CancelOnDrop(Arc::clone(&task.control)), task.terms.deadline);
    (Job { task, reply, alone }, Admitted { answer, cancel_on_drop, deadline })
}

/// A request that has a place in the queue.
struct Admitted {
    answer: oneshot::Receiver<Result<Completion, InferError>>,
    cancel_on_drop: CancelOnDrop,
    deadline: Instant,
}

impl Admitted {
    async fn answer(self) -> Result<Completion, InferError> {
        let answer = timeout_at(self.deadline, self.answer).await;
        drop(self.cancel_on_drop);
        answer.map_err(|_| InferError::DeadlineExceeded)?.unwrap_or(Err(InferError::Stopped))
    }
}

/// Cancels a run when its caller goes.
struct CancelOnDrop(Arc<RunControl>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod batch_tests;
#[cfg(test)]
mod tests;
