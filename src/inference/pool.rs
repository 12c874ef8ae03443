//! Instances on threads of their own, fed from one bounded queue.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::error;

use super::backend::{Instance, RunError};
use super::control::RunControl;
use super::queue::{BoundedQueue, Refused};
use super::request::{InputError, PreparedRequest};
use super::tensor::Tensor;
use crate::causes;

/// How a pool admits requests.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Names the threads: `<name>/<index>`.
    pub name: String,
    /// Requests that may wait for a busy instance; one more is refused.
    pub queue_capacity: NonZeroUsize,
}

/// Where the time of one request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// From admission until an instance took it.
    pub queue: Duration,
    /// Inside the engine, conversion of the outputs included.
    pub compute: Duration,
}

/// A finished run.
#[derive(Debug, Clone)]
pub struct Completion {
    /// One tensor per output asked for, in that order.
    pub outputs: Vec<Tensor>,
    /// Where the time went.
    pub timings: Timings,
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// The request does not fit the model.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The queue is full: try again later, or elsewhere.
    #[error("the model is overloaded: {capacity} requests are waiting")]
    Overloaded {
        /// The queue's capacity.
        capacity: usize,
    },
    /// The deadline passed while the request waited or ran.
    #[error("the deadline passed before an answer was ready")]
    DeadlineExceeded,
    /// The instances have stopped. Callers that hold an in-flight guard do not see this.
    #[error("the model's instances have stopped")]
    Stopped,
    /// The run itself failed.
    #[error(transparent)]
    Run(#[from] RunError),
}

struct Job {
    request: PreparedRequest,
    control: Arc<RunControl>,
    deadline: Instant,
    admitted: Instant,
    reply: oneshot::Sender<Result<Completion, InferError>>,
}

/// The running instances of one model version.
///
/// Dropping the pool stops the threads after what is queued has been answered, without waiting for
/// them; [`InstancePool::shutdown`] waits.
pub struct InstancePool {
    queue: Arc<BoundedQueue<Job>>,
    capacity: usize,
    instances: usize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl InstancePool {
    /// Gives every instance a thread of its own.
    ///
    /// # Errors
    /// When the system refuses a thread; those already started stop again.
    pub fn start(
        options: &PoolOptions,
        instances: Vec<Box<dyn Instance>>,
    ) -> std::io::Result<Self> {
        let capacity = options.queue_capacity.get();
        let queue = Arc::new(BoundedQueue::new(capacity, instances.len()));
        let pool = Self { queue, capacity, instances: instances.len(), threads: Mutex::default() };
        for (index, instance) in instances.into_iter().enumerate() {
            let queue = Arc::clone(&pool.queue);
            let thread = thread::Builder::new()
                .name(format!("{}/{index}", options.name))
                .spawn(move || serve(instance, &queue))?;
            pool.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(pool)
    }

    /// Queues a request and waits for its answer.
    ///
    /// Cancel safe: dropping the future cancels the run, whether it waits or is under way.
    ///
    /// # Errors
    /// Every variant of [`InferError`] except [`InferError::Input`].
    pub async fn run(
        &self,
        request: PreparedRequest,
        deadline: Instant,
    ) -> Result<Completion, InferError> {
        let control = Arc::new(RunControl::default());
        let (reply, answer) = oneshot::channel();
        let cancel_on_drop = CancelOnDrop(Arc::clone(&control));
        let admitted = Instant::now();
        let job = Job { request, control, deadline, admitted, reply };
        let abandoned = |waiting: &Job| waiting.reply.is_closed();
        self.queue.push(job, abandoned).map_err(|refused| match refused {
            Refused::Full => InferError::Overloaded { capacity: self.capacity },
            Refused::Closed => InferError::Stopped,
        })?;
        let answer = timeout_at(deadline, answer).await;
        drop(cancel_on_drop);
        answer.map_err(|_| InferError::DeadlineExceeded)?.unwrap_or(Err(InferError::Stopped))
    }

    /// How many requests wait for an instance.
    pub fn queue_depth(&self) -> usize {
        self.queue.len()
    }

    /// How many requests may wait.
    pub fn queue_capacity(&self) -> usize {
        self.capacity
    }

    /// How many instances there are.
    pub fn instances(&self) -> usize {
        self.instances
    }

    /// Answers what is queued, stops the threads and drops the instances. Blocks until all is done;
    /// a second call returns at once.
    pub fn shutdown(&self) {
        self.queue.close();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = std::mem::take(&mut *threads);
        for thread in threads {
            if thread.join().is_err() {
                error!("an instance thread panicked outside a run");
            }
        }
    }
}

impl Drop for InstancePool {
    fn drop(&mut self) {
        self.queue.close();
    }
}

struct CancelOnDrop(Arc<RunControl>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn serve(mut instance: Box<dyn Instance>, queue: &BoundedQueue<Job>) {
    while let Some(job) = queue.pop() {
        let answer = answer(instance.as_mut(), &job);
        queue.done();
        // The caller may have gone; then nobody wants the answer.
        drop(job.reply.send(answer));
    }
}

fn answer(instance: &mut dyn Instance, job: &Job) -> Result<Completion, InferError> {
    let started = Instant::now();
    if job.control.is_cancelled() {
        return Err(RunError::Cancelled.into());
    }
    if started >= job.deadline {
        return Err(InferError::DeadlineExceeded);
    }
    let run = AssertUnwindSafe(|| instance.run(&job.request, &job.control));
    let outputs = catch_unwind(run)
        .unwrap_or_else(|panic| Err(RunError::Panicked(causes::of_panic(panic.as_ref()))))?;
    let (given, wanted) = (outputs.len(), job.request.outputs().len());
    if given != wanted {
        let fault = format!("it gave {given} outputs, {wanted} were asked for");
        return Err(RunError::Engine(fault).into());
    }
    let timings = Timings { queue: started - job.admitted, compute: started.elapsed() };
    Ok(Completion { outputs, timings })
}
