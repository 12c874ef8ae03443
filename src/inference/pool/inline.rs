//! Runs on the threads that serve requests: of one request, or of several that are there at the same time.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::backend::RunError;
use super::super::batching::{Batching, LARGEST};
use super::super::costs::Run;
use super::super::placement::{Placement, Ran, STALL};
use super::super::task::{Completion, InferError, Task};
use super::gathering::Gathering;
use super::room::{Guest, Inside, Met};
use super::shared::{Group, Shared};

impl Shared {
    /// Has a request meet those that are on this thread too; it comes back where there is no point in that.
    pub(super) fn meet(&self, task: Task) -> Result<Inside, Task> {
        // Who has little time has it alone, where it is kept to.
        let has_time = task.terms.deadline >= task.admitted + STALL;
        let batching = self.batching.as_ref().ok();
        let Some(batching) = batching.filter(|_| has_time && self.is_inline(&task)) else {
            return Err(task);
        };
        let task = match Inside::enter(self.number, task, batching) {
            Ok(inside) => return Ok(inside),
            Err(task) => task,
        };
        let gathering = self.company.is_sought().then(|| self.gathering(&task, batching)).flatten();
        match gathering {
            Some(gathering) => Ok(Inside::open(self.number, task, gathering)),
            None => Err(task),
        }
    }

    fn is_inline(&self, task: &Task) -> bool {
        self.placement(Some(task)) == Placement::Inline
    }

    /// What may share an inline run with a request.
    fn gathering(&self, task: &Task, batching: &Batching) -> Option<Gathering> {
        let limit = batching.limit().min(self.pace.short_together());
        Gathering::of(task, (limit, self.pace.bytes_together(limit).min(LARGEST)), batching)
    }

    /// Runs a request on this thread. It comes back where that is not the place for it, or no instance is
    /// idle, or where it takes so long that a thread of the pool should begin again with it.
    pub(super) fn run_inline(&self, task: Task) -> Result<Result<Completion, InferError>, Task> {
        let Some(answer) = self.try_inline(&task) else { return Err(task) };
        match task.in_time(answer, Instant::now()) {
            Err(InferError::Run(RunError::Cancelled)) => Err(task.again()),
            answer => Ok(answer),
        }
    }

    fn try_inline(&self, task: &Task) -> Option<Result<Completion, InferError>> {
        if !self.is_inline(task) {
            return None;
        }
        let mut instance = self.queue.claim()?;
        let _watched = self.watch.begin(task.terms.deadline, &task.control)?;
        let answer = self.run(task, instance.as_mut(), None);
        // Without company it tells nothing of when there is some, but how long one alone takes.
        let tells = |batching: &&Batching| self.company.is_usual() || batching.wants_one();
        let batching = self.batching.as_ref().ok().filter(tells);
        if let (Some(batching), Ok(Completion { timings, .. })) = (batching, &answer) {
            let (entries, bytes) = (self.entries(task), task.size);
            batching.ran(Run { entries, bytes, took: timings.compute });
        }
        Some(answer)
    }

    /// Runs requests that have met on this thread, and tells each what becomes of it.
    pub(super) fn run_met(&self, since: Instant, guests: Vec<Guest>) {
        self.company.met(guests.len());
        let (now, mut alive) = (Instant::now(), Vec::with_capacity(guests.len()));
        for guest in guests {
            match guest.task.dead(now) {
                None => alive.push(guest),
                Some(error) => guest.tell(|_| Met::Answer(Err(error))),
            }
        }
        let tasks: Vec<&Task> = alive.iter().map(|guest| &guest.task).collect();
        let answered = self.try_together((&tasks, since));
        drop(tasks);
        match answered {
            Some(Ok(completions)) => {
                let now = Instant::now();
                for (guest, completion) in alive.into_iter().zip(completions) {
                    guest.tell(|task| Met::Answer(task.in_time(Ok(completion), now)));
                }
            }
            Some(Err(Failed)) => alive.into_iter().for_each(|guest| guest.tell(Met::Alone)),
            None => alive.into_iter().for_each(|guest| guest.tell(Met::Back)),
        }
    }

    /// `None` where they are one, or cannot be run here now.
    fn try_together(
        &self,
        (tasks, since): (&[&Task], Instant),
    ) -> Option<Result<Vec<Completion>, Failed>> {
        let latest = tasks.iter().map(|task| task.terms.deadline).max();
        let latest = latest.filter(|_| tasks.len() > 1)?;
        if self.placement(None) == Placement::Thread {
            return None;
        }
        let (instance, control) = (self.queue.claim()?, Arc::default());
        let _watched = self.watch.begin(latest, &control)?;
        let began = Instant::now();
        let group = Group { tasks, gathered: Some(since), stopwatch: None };
        let answer = self.run_group(group, &control, instance).map_err(|_| Failed);
        let (took, (_, size)) = (began.elapsed(), self.extent(tasks));
        self.pace.ran_together_inline(Ran { took, size, answered: answer.is_ok() }, tasks.len());
        Some(answer)
    }
}

/// None of them has an answer.
struct Failed;
