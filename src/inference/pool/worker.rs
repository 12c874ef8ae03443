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
use super::super::group::{Apart, Group};
use super::super::queue::{Claim, Pick};
use super::super::task::{Completion, Task};
use super::super::threads::{Stopwatch, give_way};
use super::shared::{Job, Server, Shared, lock};

/// Requests that are to share a run, as they are found.
struct Gathering<'a> {
    batching: &'a Batching,
    /// What all of them have to have.
    key: Vec<usize>,
    entries: usize,
    bytes: u64,
    /// The most entries.
    limit: usize,
    /// How many more that wait are looked at, whether they fit or not.
    looks: usize,
    /// Until when more may be waited for.
    until: Instant,
    now: Instant,
}

/// So many times as many requests as a batch may have are looked at for those that fit it.
const LOOKS: usize = 8;

impl<'a> Gathering<'a> {
    /// Begins with `first`; `None` where that is to be alone.
    fn of(first: &Job, batching: &'a Batching) -> Option<Self> {
        let (request, now) = (&first.task.request, Instant::now());
        if first.alone || first.task.dead(now).is_some() {
            return None;
        }
        let entries = batching.entries(request)?;
        let limit = batching.limit();
        if entries >= limit {
            return None;
        }
        let key = batching.options.padding.key(request)?;
        let until = first.task.admitted + batching.options.max_delay;
        let until = until.min(first.task.terms.deadline);
        let looks = limit.saturating_mul(LOOKS);
        Some(Self { batching, key, entries, bytes: first.task.size, limit, looks, until, now })
    }

    fn is_full(&self) -> bool {
        self.entries >= self.limit
    }

    fn pick(&mut self, job: &Job) -> Pick {
        if self.is_full() || self.looks == 0 {
            return Pick::Stop;
        }
        self.looks -= 1;
        if job.task.dead(self.now).is_some() {
            // It is left out later.
            return Pick::Take;
        }
        let request = &job.task.request;
        let Some(more) = self.batching.entries(request).filter(|_| !job.alone) else {
            return Pick::Leave;
        };
        let entries = self.entries.saturating_add(more);
        let bytes = self.bytes.saturating_add(job.task.size);
        let has_room = entries <= self.limit && bytes <= LARGEST;
        if !has_room || self.batching.options.padding.key(request).as_ref() != Some(&self.key) {
            return Pick::Leave;
        }
        (self.entries, self.bytes) = (entries, bytes);
        self.until = self.until.min(job.task.terms.deadline);
        Pick::Take
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
        let gathering = self.batching.as_ref().ok();
        let Some(mut gathering) = gathering.and_then(|batching| Gathering::of(first, batching))
        else {
            return (Vec::new(), None);
        };
        let mut others = self.queue.take(|job| gathering.pick(job));
        self.tell_of_room(others.len());
        while !gathering.is_full() && gathering.batching.waits() {
            let until = gathering.until.into_std();
            let Some(more) = self.queue.wait_for_more(until, |job| gathering.pick(job)) else {
                break;
            };
            self.tell_of_room(more.len());
            others.extend(more);
        }
        (others, Some(gathering.now))
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
        mut instance: Claim<'_, Job, Server>,
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
        let (entries, bytes) = (tasks.iter().map(|task| self.entries(task)).sum(), size(&tasks));
        let (padding, most) = (&batching.options.padding, batching.patience(bytes));
        let (group, watch) = (Group { padding, watch: &self.watch, most }, Stopwatch::start());
        match group.run(&tasks, instance.as_mut()) {
            Ok(mut completions) => {
                drop(instance);
                let run = Run { entries, bytes, took: watch.took() };
                self.ran_together(batching, run, &completions);
                let shared = (completions.len(), entries);
                for Completion { timings, .. } in &mut completions {
                    *timings = timings.shared(shared, gathered);
                }
                let answered = jobs.into_iter().zip(completions);
                answered.for_each(|(job, completion)| job.answer(Ok(completion)));
            }
            Err(apart) => {
                let now = Instant::now();
                // One that nobody wants any more tells nothing of batches.
                if jobs.iter().any(|job| job.task.dead(now).is_none()) {
                    self.failed_together(batching, &apart);
                }
                instance.give_back(jobs.into_iter().map(|job| Job { alone: true, ..job }));
            }
        }
    }

    fn ran_together(&self, batching: &Batching, run: Run, completions: &[Completion]) {
        if let Some(completion) = completions.first() {
            self.runs.add(run.entries as u64, &completion.timings);
            self.pace.ran_together(completion.timings.compute);
        }
        batching.ran(run);
        batching.batch_answered();
    }

    fn failed_together(&self, batching: &Batching, apart: &Apart) {
        batching.batch_failed();
        if let Apart::Indivisible(problem) = apart
            && batching.give_up(problem.to_string())
        {
            warn!(model = self.name, reason = %problem, "requests share no runs any more");
        }
    }
}

/// Of the inputs of all of them, in bytes.
fn size(tasks: &[&Task]) -> u64 {
    tasks.iter().map(|task| task.size).sum()
}
