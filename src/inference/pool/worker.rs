//! What the threads of a pool do: they take what waits, alone or several at a time, and run it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::super::backend::RunError;
use super::super::batching::{Batching, LARGEST};
use super::super::costs::Run;
use super::super::queue::{Claim, Pick};
use super::super::task::Task;
use super::super::threads::{Stopwatch, give_way};
use super::gathering::Gathering;
use super::shared::{Group, Job, Server, Shared, lock};

/// So many times as many requests as a batch may have are looked at for those that fit it.
const LOOKS: usize = 8;

/// Those in the queue that are to share a run.
struct Picking<'a> {
    batching: &'a Batching,
    gathering: Gathering,
    /// How many more are looked at, whether they fit or not.
    looks: usize,
}

impl<'a> Picking<'a> {
    /// Begins with `first`; `None` where that is to be alone.
    fn of(first: &Job, batching: &'a Batching) -> Option<Self> {
        if first.alone {
            return None;
        }
        let limit = batching.limit();
        let gathering = Gathering::of(&first.task, (limit, LARGEST), batching)?;
        Some(Self { batching, gathering, looks: limit.saturating_mul(LOOKS) })
    }

    fn pick(&mut self, job: &Job) -> Pick {
        if self.gathering.is_full() || self.looks == 0 {
            return Pick::Stop;
        }
        self.looks -= 1;
        // One that is dead is left out later.
        let is_dead = job.task.dead(self.gathering.since).is_some();
        let mut takes = || !job.alone && self.gathering.takes(&job.task, self.batching);
        if is_dead || takes() { Pick::Take } else { Pick::Leave }
    }
}

/// A thread ends when there was nothing to do for so long: it takes memory, and a server may have thousands of
/// models.
const IDLE: Duration = Duration::from_secs(30);

impl Shared {
    /// Starts one more thread for what waits. Where there is none, nobody answers that.
    pub(super) fn add_thread(self: &Arc<Self>) {
        let Err(error) = self.start_thread() else { return };
        warn!(model = self.name, %error, "no thread can be started for the model's runs");
        for job in self.queue.lost_consumer() {
            job.answer(Err(RunError::Engine(format!("no thread can run it: {error}")).into()));
        }
    }

    /// Starts a thread that gives way to nobody and serves the queue until that is closed.
    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let shared = Arc::clone(self);
        // Locked until the handle is there, so that who joins all threads misses none.
        let mut threads = lock(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        threads.push(self.spawner.spawn(&self.name, move || shared.serve())?);
        Ok(())
    }

    fn serve(self: &Arc<Self>) {
        let mut gives_way = false;
        while let Some((job, instance)) = self.queue.next(IDLE) {
            match (gives_way, self.background.load(Ordering::Relaxed)) {
                (false, true) => {
                    give_way();
                    gives_way = true;
                }
                // A thread cannot take that back, so another goes on; where there is none left, this.
                (true, false) if self.start_thread().is_ok() => {
                    instance.give_back([job]);
                    return;
                }
                _ => {}
            }
            self.room.notify_one();
            let (others, gathered) = self.gather(&job);
            if others.is_empty() {
                self.run_alone(job, gathered, instance);
            } else {
                self.run_together((job, others), gathered, instance);
            }
        }
    }

    /// Those that wait and are to share the run of `first`, and since when they were looked for. Where the
    /// version's settings ask for that, it waits for more to come.
    fn gather(&self, first: &Job) -> (Vec<Job>, Option<Instant>) {
        let batching = self.batching.as_ref().ok();
        let Some(mut picking) = batching.and_then(|batching| Picking::of(first, batching)) else {
            return (Vec::new(), None);
        };
        let mut others = self.queue.take(|job| picking.pick(job));
        self.tell_of_room(others.len());
        while !picking.gathering.is_full() && picking.batching.waits() {
            let until = picking.gathering.until.into_std();
            let Some(more) = self.queue.wait_for_more(until, |job| picking.pick(job)) else {
                break;
            };
            self.tell_of_room(more.len());
            others.extend(more);
        }
        (others, Some(picking.gathering.since))
    }

    /// Tells of places that have come free in the queue.
    fn tell_of_room(&self, places: usize) {
        for _ in 0..places {
            self.room.notify_one();
        }
    }

    fn run_alone(&self, job: Job, gathered: Option<Instant>, mut instance: Claim<'_, Job, Server>) {
        let measured = self.batching.as_ref().ok().map(|batching| (batching, Stopwatch::start()));
        let answer = self.run(&job.task, instance.as_mut(), gathered);
        drop(instance);
        if let Some((batching, watch)) = measured.filter(|_| answer.is_ok()) {
            let (entries, bytes) = (self.entries(&job.task), job.task.size);
            batching.ran(Run { entries, bytes, took: watch.took() });
        }
        job.answer(answer);
    }

    /// Runs what shares a run. What has no answer afterwards waits again, for a run of its own.
    fn run_together(
        &self,
        (first, others): (Job, Vec<Job>),
        gathered: Option<Instant>,
        instance: Claim<'_, Job, Server>,
    ) {
        let now = Instant::now();
        let mut jobs = Vec::with_capacity(others.len() + 1);
        for job in std::iter::once(first).chain(others) {
            match job.task.dead(now) {
                None => jobs.push(job),
                Some(error) => job.answer(Err(error)),
            }
        }
        let Some(batching) = self.batching.as_ref().ok().filter(|_| !jobs.is_empty()) else {
            return;
        };
        let tasks: Vec<&Task> = jobs.iter().map(|job| &job.task).collect();
        let control = Arc::default();
        let _watched = self.watch.begin_aside(batching.patience(self.extent(&tasks)), &control);
        let stopwatch = Some(Stopwatch::start());
        match self.run_group(Group { tasks: &tasks, gathered, stopwatch }, &control, instance) {
            Ok(completions) => {
                let answered = jobs.into_iter().zip(completions);
                answered.for_each(|(job, completion)| job.answer(Ok(completion)));
            }
            Err(instance) => {
                instance.give_back(jobs.into_iter().map(|job| Job { alone: true, ..job }));
            }
        }
    }
}
