//! The instances of a version: run by who has the request, or by threads fed from one bounded queue.

use std::io;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::error;

use super::backend::{Instance, RunError};
use super::control::RunControl;
use super::inline::InlineRuns;
use super::placement::{Pace, Placement, Ran};
use super::queue::{BoundedQueue, Refused};
use super::request::PreparedRequest;
use super::task::{Completion, InferError, Task};
use super::threads::{Spawner, give_way};

/// How a pool admits requests.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Names the threads: `<name>/<index>`.
    pub name: String,
    /// Requests that may wait for a busy instance; one more is refused.
    pub queue_capacity: NonZeroUsize,
}

struct Job {
    task: Task,
    reply: oneshot::Sender<Result<Completion, InferError>>,
}

/// The running instances of one model version.
///
/// Each instance serves one request at a time. Those that are expected to be short are run by the caller
/// itself while an instance is idle, all others by threads of the pool.
///
/// Dropping the pool stops the threads after what is queued has been answered, without waiting for
/// them; [`InstancePool::shutdown`] waits.
pub struct InstancePool {
    shared: Arc<Shared>,
    capacity: usize,
    instances: usize,
}

/// What the threads of a pool and its callers have in common.
struct Shared {
    queue: BoundedQueue<Job, Box<dyn Instance>>,
    spawner: Spawner,
    inline: Arc<InlineRuns>,
    pace: Pace,
    /// Told of each place that comes free in the queue.
    room: Notify,
    /// Whether runs give way to everything else.
    background: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl InstancePool {
    /// Starts as many threads as there are instances.
    ///
    /// # Errors
    /// When the system refuses a thread; those already started stop again.
    pub fn start(
        options: &PoolOptions,
        instances: Vec<Box<dyn Instance>>,
        (spawner, inline): (&Spawner, &Arc<InlineRuns>),
    ) -> io::Result<Self> {
        let (capacity, count) = (options.queue_capacity.get(), instances.len());
        let shared = Arc::new(Shared {
            queue: BoundedQueue::new(capacity, instances),
            spawner: spawner.clone(),
            inline: Arc::clone(inline),
            pace: Pace::default(),
            room: Notify::new(),
            background: AtomicBool::new(false),
            threads: Mutex::default(),
        });
        let pool = Self { shared, capacity, instances: count };
        for index in 0..count {
            pool.shared.start_thread(&format!("{}/{index}", options.name))?;
        }
        Ok(pool)
    }

    /// Runs a request, or queues it and waits for its answer.
    ///
    /// Cancel safe: dropping the future cancels the run, whether it waits or is under way. A run that the
    /// caller makes itself, which is one that is expected to be short, has ended when the future can be
    /// dropped. It ends at the deadline; one that takes more than 0.1 s begins again on a thread of the pool.
    ///
    /// # Errors
    /// Every variant of [`InferError`] except [`InferError::Input`].
    pub async fn run(
        &self,
        request: PreparedRequest,
        deadline: Instant,
    ) -> Result<Completion, InferError> {
        let task = match self.shared.run_inline(Task::new(request, deadline)) {
            Ok(answer) => return answer,
            Err(task) => task,
        };
        self.admit(task)?.answer(deadline).await
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
        self.admit(Task::new(request, deadline))?.answer(deadline).await
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
            match self.admit(Task::new(request.clone(), deadline)) {
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

    /// Queues a request.
    fn admit(&self, task: Task) -> Result<Admitted, InferError> {
        let (reply, answer) = oneshot::channel();
        let cancel_on_drop = CancelOnDrop(Arc::clone(&task.control));
        let abandoned = |waiting: &Job| waiting.reply.is_closed();
        match self.shared.queue.push(Job { task, reply }, abandoned) {
            Ok(()) => Ok(Admitted { answer, cancel_on_drop }),
            Err(Refused::Full) => Err(InferError::Overloaded { capacity: self.capacity }),
            Err(Refused::Closed) => Err(InferError::Stopped),
        }
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

impl Shared {
    fn next_thread(&self) -> Option<JoinHandle<()>> {
        lock(&self.threads).pop()
    }

    /// Where a run is to happen, of this task or of one as usual.
    fn placement(&self, task: Option<&Task>) -> Placement {
        // Who gives way must not do so with a thread that others need.
        if self.background.load(Ordering::Relaxed) {
            return Placement::Thread;
        }
        task.map_or_else(|| self.pace.placement(), |task| self.pace.placement_of(task.size))
    }

    /// Runs a request on this thread. It comes back where that is not the place for it, or no instance is
    /// idle, or where it takes so long that a thread of the pool should begin again with it.
    fn run_inline(&self, task: Task) -> Result<Result<Completion, InferError>, Task> {
        match self.try_inline(&task) {
            None => Err(task),
            // As with a thread: an answer that comes late is none.
            Some(_) if task.deadline <= Instant::now() => Ok(Err(InferError::DeadlineExceeded)),
            Some(Err(InferError::Run(RunError::Cancelled))) => Err(task.again()),
            Some(answer) => Ok(answer),
        }
    }

    fn try_inline(&self, task: &Task) -> Option<Result<Completion, InferError>> {
        if self.placement(Some(task)) == Placement::Thread {
            return None;
        }
        let _watched = self.inline.begin(task.deadline, &task.control)?;
        let mut instance = self.queue.claim()?;
        Some(self.run(task, instance.as_mut()))
    }

    fn run(&self, task: &Task, instance: &mut dyn Instance) -> Result<Completion, InferError> {
        let started = Instant::now();
        let answer = task.run(instance);
        let (took, size) = (started.elapsed(), task.size);
        self.pace.ran(Ran { took, size, answered: answer.is_ok() });
        answer
    }

    /// Starts a thread that gives way to nobody and serves the queue until that is closed.
    fn start_thread(self: &Arc<Self>, name: &str) -> io::Result<()> {
        let (shared, its_name) = (Arc::clone(self), name.to_owned());
        // Locked until the handle is there, so that who joins all threads misses none.
        let mut threads = lock(&self.threads);
        threads.push(self.spawner.spawn(name, move || shared.serve(&its_name))?);
        Ok(())
    }

    fn serve(self: &Arc<Self>, name: &str) {
        let mut gives_way = false;
        while let Some((job, mut instance)) = self.queue.next() {
            match (gives_way, self.background.load(Ordering::Relaxed)) {
                (false, true) => {
                    give_way();
                    gives_way = true;
                }
                // A thread cannot take that back, so another goes on; where there is none left, this.
                (true, false) if self.start_thread(name).is_ok() => {
                    instance.give_back(job);
                    return;
                }
                _ => {}
            }
            self.room.notify_one();
            let answer = self.run(&job.task, instance.as_mut());
            drop(instance);
            // The caller may have gone; then nobody wants the answer.
            drop(job.reply.send(answer));
        }
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
