//! Instances on threads of their own, fed from one bounded queue.

use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::error;

use super::backend::{Instance, RunError};
use super::control::RunControl;
use super::queue::{BoundedQueue, Refused};
use super::request::{InputError, PreparedRequest};
use super::tensor::Tensor;
use super::threads::{Spawner, give_way};
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
    /// When it was admitted.
    pub admitted: Option<Instant>,
    /// From admission until an instance took it.
    pub queue: Duration,
    /// With the instance: until it was given the outputs.
    pub compute: Duration,
    /// Of that, until the engine had the inputs; zero where it does not tell.
    pub input: Duration,
    /// Of that, from the moment when all was computed; zero where it does not tell.
    pub output: Duration,
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
    shared: Arc<Shared>,
    capacity: usize,
    instances: usize,
}

/// What the threads of a pool have in common.
struct Shared {
    queue: BoundedQueue<Job>,
    spawner: Spawner,
    /// Told of each place that comes free in the queue.
    room: Notify,
    /// Whether runs give way to everything else.
    background: AtomicBool,
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
        spawner: &Spawner,
    ) -> io::Result<Self> {
        let (capacity, count) = (options.queue_capacity.get(), instances.len());
        let shared = Arc::new(Shared {
            queue: BoundedQueue::new(capacity, count),
            spawner: spawner.clone(),
            room: Notify::new(),
            background: AtomicBool::new(false),
            threads: Mutex::default(),
        });
        let pool = Self { shared, capacity, instances: count };
        for (index, instance) in instances.into_iter().enumerate() {
            let name = format!("{}/{index}", options.name);
            let started = Worker::new(instance, name).start(&pool.shared);
            started.map_err(|failure| failure.1)?;
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
        self.admit(request, deadline)?.answer(deadline).await
    }

    /// Queues a request.
    fn admit(&self, request: PreparedRequest, deadline: Instant) -> Result<Admitted, InferError> {
        let control = Arc::new(RunControl::default());
        let (reply, answer) = oneshot::channel();
        let cancel_on_drop = CancelOnDrop(Arc::clone(&control));
        let job = Job { request, control, deadline, admitted: Instant::now(), reply };
        let abandoned = |waiting: &Job| waiting.reply.is_closed();
        match self.shared.queue.push(job, abandoned) {
            Ok(()) => Ok(Admitted { answer, cancel_on_drop }),
            Err(Refused::Full) => Err(InferError::Overloaded { capacity: self.capacity }),
            Err(Refused::Closed) => Err(InferError::Stopped),
        }
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
        deadline: Instant,
    ) -> Result<Completion, InferError> {
        let admitted = loop {
            let mut room = pin!(self.shared.room.notified());
            // Registered before the look, so that a place that comes free in between is noticed.
            room.as_mut().enable();
            match self.admit(request.clone(), deadline) {
                Err(InferError::Overloaded { .. }) => {}
                Err(refusal) => return Err(refusal),
                Ok(admitted) => break admitted,
            }
            if timeout_at(deadline, room).await.is_err() {
                return Err(InferError::DeadlineExceeded);
            }
        };
        admitted.answer(deadline).await
    }

    /// How many requests wait for an instance.
    pub fn queue_depth(&self) -> usize {
        self.shared.queue.len()
    }

    /// How many requests may wait.
    pub fn queue_capacity(&self) -> usize {
        self.capacity
    }

    /// How many instances there are.
    pub fn instances(&self) -> usize {
        self.instances
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
    }
}

impl Drop for InstancePool {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl Shared {
    fn next_thread(&self) -> Option<JoinHandle<()>> {
        lock(&self.threads).pop()
    }
}

/// A request that has a place in the queue.
struct Admitted {
    answer: oneshot::Receiver<Result<Completion, InferError>>,
    cancel_on_drop: CancelOnDrop,
}

impl Admitted {
    async fn answer(self, deadline: Instant) -> Result<Completion, InferError> {
        let answer = timeout_at(deadline, self.answer).await;
        drop(self.cancel_on_drop);
        answer.map_err(|_| InferError::DeadlineExceeded)?.unwrap_or(Err(InferError::Stopped))
    }
}

struct CancelOnDrop(Arc<RunControl>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// An instance, and whoever it works for at the moment.
struct Worker {
    instance: Box<dyn Instance>,
    name: String,
    /// Whether its thread gives way.
    gives_way: bool,
    job: Option<Job>,
}

impl Worker {
    fn new(instance: Box<dyn Instance>, name: String) -> Self {
        Self { instance, name, gives_way: false, job: None }
    }

    /// Lets the worker go on in a new thread, which gives way to nobody.
    ///
    /// # Errors
    /// The worker, and why the system refuses a thread.
    fn start(self, shared: &Arc<Shared>) -> Result<(), Box<(Self, io::Error)>> {
        let name = self.name.clone();
        let seat = Arc::new(Mutex::new(Some(Self { gives_way: false, ..self })));
        let (taken, its_own) = (Arc::clone(&seat), Arc::clone(shared));
        let work = move || lock(&taken).take().into_iter().for_each(|it| it.serve(&its_own));
        // Locked until the handle is there, so that who joins all threads misses none.
        let mut threads = lock(&shared.threads);
        match shared.spawner.spawn(&name, work) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                let worker = lock(&seat).take().expect("no thread has taken it");
                return Err(Box::new((worker, error)));
            }
        }
        Ok(())
    }

    fn serve(mut self, shared: &Arc<Shared>) {
        while let Some(job) = self.job.take().or_else(|| shared.queue.pop()) {
            shared.room.notify_one();
            self.job = Some(job);
            let Some(worker) = self.favoured_as(shared.background.load(Ordering::Relaxed), shared)
            else {
                return;
            };
            self = worker;
            let Some(job) = self.job.take() else { continue };
            let answer = answer(self.instance.as_mut(), &job);
            shared.queue.done();
            // The caller may have gone; then nobody wants the answer.
            drop(job.reply.send(answer));
        }
    }

    /// Gives way from now on, or not any more, for which it needs another thread; `None` when that has
    /// taken over.
    fn favoured_as(mut self, background: bool, shared: &Arc<Shared>) -> Option<Self> {
        match (self.gives_way, background) {
            (false, true) => {
                give_way();
                self.gives_way = true;
            }
            // Where there is no thread left, it goes on here.
            (true, false) => return self.start(shared).err().map(|failure| failure.0),
            _ => {}
        }
        Some(self)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    let timings = timings(job, (started, Instant::now()));
    Ok(Completion { outputs, timings })
}

fn timings(job: &Job, (started, ended): (Instant, Instant)) -> Timings {
    let (computing, computed) = job.control.steps();
    let since = |begin: Instant, end: Instant| end.saturating_duration_since(begin);
    Timings {
        admitted: Some(job.admitted),
        queue: started - job.admitted,
        compute: ended - started,
        input: computing.map(|at| since(started, at)).unwrap_or_default(),
        output: computed.map(|at| since(at, ended)).unwrap_or_default(),
    }
}
