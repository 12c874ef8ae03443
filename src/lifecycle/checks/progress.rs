//! Whether a runtime gets on, judged by looking at it now and then.

use std::time::Duration;

/// What one look at a runtime shows.
#[derive(Debug, Clone)]
pub(super) struct Look {
    /// Whether the task that was given to it at an earlier look has come to its end.
    pub(super) answered: bool,
    /// Its workers, always in the same order.
    pub(super) workers: Vec<WorkerLook>,
}

/// What one look at a worker shows. As long as it is inside one and the same task, nothing of it
/// changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WorkerLook {
    /// How often it has parked and unparked. Odd while it is parked: it has nothing to do.
    pub(super) parked_and_unparked: u64,
    /// How long it was busy, counted whenever it comes back to its scheduler.
    pub(super) busy: Duration,
}

impl WorkerLook {
    fn is_parked(self) -> bool {
        self.parked_and_unparked % 2 == 1
    }
}

/// Counts the looks without progress.
///
/// A look counts for the time that should lie between two of them, and not for the time that did: in
/// a process that was stopped, or that got no processor, the runtime had no chance to get on.
#[derive(Debug)]
pub(super) struct Progress {
    every: Duration,
    limit: Duration,
    unanswered: u32,
    /// Each worker's last look, and how many have shown the same.
    workers: Vec<(WorkerLook, u32)>,
}

impl Progress {
    /// For a look `every` so often, and a stall of more than `limit`.
    pub(super) fn new(every: Duration, limit: Duration) -> Self {
        Self { every, limit, unanswered: 0, workers: Vec::new() }
    }

    /// Takes one more look.
    ///
    /// # Errors
    /// What stalls, and for how long.
    pub(super) fn look(&mut self, look: &Look) -> Result<(), String> {
        self.unanswered = if look.answered { 0 } else { self.unanswered.saturating_add(1) };
        let before = std::mem::take(&mut self.workers);
        let same = |at: usize, now: &WorkerLook| match before.get(at) {
            Some((then, count)) if then == now && !now.is_parked() => count.saturating_add(1),
            _ => 0,
        };
        self.workers =
            look.workers.iter().enumerate().map(|(at, now)| (*now, same(at, now))).collect();
        let whole = self.stall("no worker took up a new task", self.unanswered);
        let each = self.workers.iter().enumerate().filter_map(|(number, (_, looks))| {
            self.stall(&format!("worker {number} did not come back from a task"), *looks)
        });
        let stalls: Vec<String> = whole.into_iter().chain(each).collect();
        if stalls.is_empty() { Ok(()) } else { Err(stalls.join("; ")) }
    }

    fn stall(&self, what: &str, looks: u32) -> Option<String> {
        let lasted = self.every.saturating_mul(looks);
        let so_long = humantime::format_duration(lasted);
        (lasted > self.limit).then(|| format!("{what} for {so_long}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn look(answered: bool, workers: &[(u64, u64)]) -> Look {
        let worker = |&(parked_and_unparked, busy)| WorkerLook {
            parked_and_unparked,
            busy: Duration::from_millis(busy),
        };
        Look { answered, workers: workers.iter().map(worker).collect() }
    }

    fn progress() -> Progress {
        Progress::new(SECOND, SECOND * 3)
    }

    /// The verdicts on the same look again and again.
    fn again(progress: &mut Progress, look: &Look, times: usize) -> Vec<bool> {
        (0..times).map(|_| progress.look(look).is_ok()).collect()
    }

    #[test]
    fn a_worker_inside_one_task_stalls_after_the_limit() {
        let mut progress = progress();
        let stuck = look(true, &[(3, 10), (4, 10)]);
        // The first look has nothing to compare with.
        assert_eq!(again(&mut progress, &stuck, 5), [true, true, true, true, false]);
        let error = progress.look(&stuck).unwrap_err();
        assert_eq!(error, "worker 1 did not come back from a task for 5s");
        assert_eq!(progress.look(&look(true, &[(3, 10), (4, 5000)])), Ok(()), "it came back");
        assert_eq!(again(&mut progress, &look(true, &[(3, 10), (5, 5000)]), 9), [true; 9]);
    }

    #[test]
    fn a_worker_that_is_parked_or_busy_with_many_tasks_does_not_stall() {
        let mut progress = progress();
        for busy in 0..100 {
            let look = look(true, &[(7, 10), (8, busy), (busy * 2, 10)]);
            assert_eq!(progress.look(&look), Ok(()));
        }
    }

    #[test]
    fn a_runtime_that_does_not_answer_stalls_after_the_limit() {
        let mut progress = progress();
        let silent = look(false, &[(1, 0), (1, 0)]);
        assert_eq!(again(&mut progress, &silent, 4), [true, true, true, false]);
        let error = progress.look(&silent).unwrap_err();
        assert_eq!(error, "no worker took up a new task for 5s");
        assert_eq!(progress.look(&look(true, &[(1, 0), (1, 0)])), Ok(()));
        assert_eq!(again(&mut progress, &silent, 4), [true, true, true, false]);
    }

    #[test]
    fn everything_that_stalls_is_named() {
        let mut progress = progress();
        let stuck = look(false, &[(2, 0), (2, 0)]);
        let last = (0..5).map(|_| progress.look(&stuck)).last().unwrap().unwrap_err();
        assert_eq!(
            last,
            "no worker took up a new task for 5s; worker 0 did not come back from a task for 4s; \
             worker 1 did not come back from a task for 4s"
        );
    }
}
