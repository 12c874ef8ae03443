//! What runs of a version cost, by the size of their batch, and so how large batches should be.
//!
//! A batch makes some models faster, as weights are read once for all of its entries, and others slower. The
//! requests in it all wait for the last one. So batches are made no larger than is measured to be worth it.
//!
//! Now and then another size is tried beside the one in use. A run of the one is compared with the run of the
//! other just before it by the same thread, so that whatever else the machine does is the same for both: a core
//! that shares its execution units with somebody else's work may take nearly twice as long as the one beside it.
//! Each pair is a vote, so that one which was disturbed counts no more than any other, and there are as many as it
//! takes for one size to be clearly ahead: Wald's sequential test of which of two is more likely.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Sizes are told apart by their power of two: 1, 2, 3 to 4, 5 to 8, and so on.
const LEVELS: usize = 16;

/// By how much less an entry has to cost in a batch twice as large for that to be worth it, ...
const WORTH: f64 = 0.95;

/// ... and by how much more at most in one half as large, for that to be preferred.
const NOT_WORTH: f64 = 1.02;

/// By how many votes a size has to be ahead of the other.
const AHEAD: i32 = 7;

/// A trial ends undecided after so many runs: it hardly matters, or not enough requests wait for the larger size.
const TOO_LONG: u32 = 200;

/// A run that ended longer than this before another began tells nothing of what the machine did then.
const SOON: Duration = Duration::from_millis(100);

/// Runs between two trials, after one that has changed nothing; that doubles, up to the second.
const PAUSES: (u32, u32) = (128, 2048);

/// An entry of fewer bytes counts as so many: what it takes has little to do with its size.
const LEAST: u64 = 64;

/// A run that was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// Entries of its batch.
    pub(super) entries: usize,
    /// Of its inputs, in bytes. What is computed grows with it where requests differ in length.
    pub(super) bytes: u64,
    pub(super) took: Duration,
}

/// What is known of a version.
#[derive(Debug)]
pub(super) struct Costs {
    known: Mutex<Known>,
    /// The highest level that batches may have.
    most: usize,
}

#[derive(Debug)]
struct Known {
    /// The level in use.
    level: usize,
    /// What is tried, or when something is next.
    next: Next,
    /// Of the last pause.
    pause: u32,
    /// Whether the last trial was of a larger size.
    grew: bool,
    /// What a byte costs on average, in nanoseconds.
    usual: f64,
}

#[derive(Debug)]
enum Next {
    /// After so many runs.
    Pause(u32),
    Trial(Trial),
}

/// Another level beside the one in use.
#[derive(Debug)]
struct Trial {
    level: usize,
    /// Of each thread whose next run is to be of the other level, its last run of the one in use.
    own: Vec<Own>,
    /// Votes for the other level less those for the one in use.
    ahead: i32,
    runs: u32,
}

/// A run of the level in use.
#[derive(Debug)]
struct Own {
    thread: ThreadId,
    cost: f64,
    ended: Instant,
}

/// A run that has ended just now.
#[derive(Debug, Clone, Copy)]
struct Ran {
    level: usize,
    /// Of a byte.
    cost: f64,
    took: Duration,
    thread: ThreadId,
}

impl Costs {
    /// For batches of up to `most` entries.
    pub(super) fn new(most: usize) -> Self {
        let (level_of_most, next) = (level(most), Next::Pause(0));
        let known = Known { level: 0, next, pause: PAUSES.0, grew: false, usual: 0.0 };
        Self { known: Mutex::new(known), most: level_of_most }
    }

    pub(super) fn ran(&self, run: Run) {
        let took = run.took;
        let cost = took.as_secs_f64() * 1e9 / precise(size((run.entries, run.bytes)));
        let ran = Ran { level: level(run.entries), cost, took, thread: thread::current().id() };
        self.lock().ran(ran, self.most);
    }

    /// How many entries the next batch of the calling thread should have at most.
    pub(super) fn limit(&self) -> usize {
        1 << self.lock().next_level(|| thread::current().id())
    }

    /// How long a batch of so many entries and bytes usually takes; `None` where nothing is known.
    pub(super) fn expected(&self, batch: (usize, u64)) -> Option<Duration> {
        let usual = Some(self.lock().usual).filter(|usual| *usual > 0.0)?;
        Duration::try_from_secs_f64(usual * precise(size(batch)) / 1e9).ok()
    }

    /// How many entries are worth it, by what is known.
    pub(super) fn worth(&self) -> usize {
        1 << self.lock().level
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn next_level(&self, thread: impl FnOnce() -> ThreadId) -> usize {
        match &self.next {
            Next::Trial(trial) if trial.of(thread()).is_some() => trial.level,
            _ => self.level,
        }
    }

    fn ran(&mut self, ran: Ran, most: usize) {
        self.usual += (ran.cost - self.usual) * if self.usual > 0.0 { 0.1 } else { 1.0 };
        match &mut self.next {
            Next::Pause(0) => self.next = self.begin(most),
            Next::Pause(left) => *left -= 1,
            Next::Trial(trial) => {
                trial.runs += 1;
                if ran.level == self.level {
                    trial.ran_own(ran);
                } else if ran.level == trial.level {
                    trial.ran_other(ran, self.level);
                }
                if trial.ahead.abs() >= AHEAD || trial.runs >= TOO_LONG {
                    self.end();
                }
            }
        }
    }

    /// A trial of a larger size, or of a smaller one, in turns where there are both.
    fn begin(&mut self, most: usize) -> Next {
        let grows = self.level < most && (self.level == 0 || !self.grew);
        let level = if grows { self.level + 1 } else { self.level.saturating_sub(1) };
        self.grew = grows;
        if level == self.level {
            return Next::Pause(PAUSES.1);
        }
        Next::Trial(Trial { level, own: Vec::new(), ahead: 0, runs: 0 })
    }

    fn end(&mut self) {
        let Next::Trial(trial) = mem::replace(&mut self.next, Next::Pause(0)) else { return };
        if trial.ahead >= AHEAD {
            self.level = trial.level;
            self.pause = PAUSES.0;
            // As it was better in this direction, it may be even more so further on.
            self.grew = !self.grew;
        } else {
            self.next = Next::Pause(self.pause);
            self.pause = self.pause.saturating_mul(2).min(PAUSES.1);
        }
    }
}

impl Trial {
    fn of(&self, thread: ThreadId) -> Option<usize> {
        self.own.iter().position(|own| own.thread == thread)
    }

    fn ran_own(&mut self, Ran { cost, thread, .. }: Ran) {
        self.own.retain(|own| own.thread != thread);
        self.own.push(Own { thread, cost, ended: Instant::now() });
    }

    /// A run of the level that is tried, beside the one in use: a vote, if there is what it can be compared with.
    fn ran_other(&mut self, Ran { cost, took, thread, .. }: Ran, in_use: usize) {
        let Some(place) = self.of(thread) else {
            // It was gathered by a thread that could not compare it either, and would go on so.
            self.own.clear();
            return;
        };
        let own = self.own.swap_remove(place);
        // Of the time since then, its own may have been up to four times as long as what counts.
        if own.ended.elapsed() <= SOON + took * 4 {
            let bound = if self.level > in_use { WORTH } else { NOT_WORTH };
            self.ahead += if cost < own.cost * bound { 1 } else { -1 };
        }
    }
}

/// As how many bytes a batch counts, of which there are `bytes`. There may be a batch without an entry.
fn size((entries, bytes): (usize, u64)) -> u64 {
    bytes.max(LEAST.saturating_mul(entries.max(1) as u64))
}

fn level(entries: usize) -> usize {
    let power = entries.max(1).checked_next_power_of_two().unwrap_or(usize::MAX);
    usize::try_from(power.ilog2()).map_or(LEVELS - 1, |level| level.min(LEVELS - 1))
}

#[expect(clippy::cast_precision_loss, reason = "it is a measure")]
fn precise(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs batches as large as they may be, but for `waiting` entries, many times. A run takes as long as
    /// `of` says, for so many entries.
    fn settled(costs: &Costs, (waiting, runs): (usize, u32), of: impl Fn(f64) -> f64) -> usize {
        for _ in 0..runs {
            let entries = costs.limit().min(waiting);
            #[expect(clippy::cast_precision_loss, reason = "they are few")]
            let took = Duration::from_secs_f64(of(entries as f64));
            costs.ran(Run { entries, bytes: entries as u64 * 256, took });
        }
        costs.worth()
    }

    const MANY: (usize, u32) = (64, 300);

    #[test]
    fn levels_are_powers_of_two() {
        let levels = [0, 1, 2, 3, 4, 5, 8, 9, 32, 33, usize::MAX].map(level);
        assert_eq!(levels, [0, 0, 1, 2, 2, 3, 3, 4, 5, 6, LEVELS - 1]);
    }

    #[test]
    fn batches_grow_as_long_as_they_gain() {
        let costs = Costs::new(32);
        assert_eq!(costs.limit(), 1, "what one costs comes first");
        assert_eq!(settled(&costs, MANY, |entries| 100e-6 + entries * 1e-6), 32);
        let costs = Costs::new(32);
        assert_eq!(settled(&costs, MANY, |entries| 5e-3 * entries.max(8.0) / 8.0), 8);
        let costs = Costs::new(32);
        assert_eq!(settled(&costs, MANY, |entries| 5e-3 * entries), 1);
        let costs = Costs::new(1);
        assert_eq!(settled(&costs, MANY, |_| 5e-3), 1);
    }

    #[test]
    fn batches_grow_also_of_a_few_bytes() {
        let costs = Costs::new(32);
        for _ in 0..300 {
            let entries = costs.limit();
            let took = Duration::from_micros(10);
            costs.ran(Run { entries, bytes: entries as u64 * 4, took });
        }
        assert_eq!(costs.worth(), 32);
    }

    #[test]
    fn a_run_without_an_entry_spoils_nothing() {
        let costs = Costs::new(32);
        let took = Duration::from_micros(64);
        for entries in [1, 0, 1, 0] {
            costs.ran(Run { entries, bytes: entries as u64 * 64, took });
        }
        assert_eq!(costs.expected((1, 64)), Some(took));
    }

    #[test]
    fn what_gains_little_is_left() {
        let costs = Costs::new(32);
        assert_eq!(settled(&costs, MANY, |entries| entries.powf(0.95)), 1);
        let costs = Costs::new(32);
        assert_eq!(settled(&costs, MANY, |_| 5e-3), 32);
        assert_eq!(settled(&costs, (64, 20_000), |entries| entries.powf(0.99)), 1);
    }

    #[test]
    fn what_changes_is_found_again() {
        let costs = Costs::new(32);
        assert_eq!(settled(&costs, (64, 3000), |entries| 5e-3 * entries), 1);
        assert_eq!(settled(&costs, (64, 10_000), |_| 5e-3), 32);
        assert_eq!(settled(&costs, (64, 10_000), |entries| 1e-3 * entries * entries), 1);
    }

    #[test]
    fn sizes_for_which_too_few_requests_wait_are_not_waited_for() {
        let costs = Costs::new(32);
        assert_eq!(settled(&costs, (3, 3000), |_| 5e-3), 4);
        assert_eq!(settled(&costs, (1, 3000), |_| 5e-3), 4, "nothing tells that it is wrong");
    }

    /// Between 0 and 1, the same ones every time.
    fn noise() -> impl FnMut() -> f64 {
        let mut state = 1_u32;
        move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 24)
        }
    }

    fn other_thread() -> ThreadId {
        thread::spawn(|| {}).thread().id()
    }

    /// How often a size other than one is ever found to be worth it, of many versions whose runs take as long as
    /// `of` says on one of two threads, the other of which is slower.
    fn found(of: impl Fn(f64) -> f64) -> usize {
        let (threads, mut noise) = ([(other_thread(), 1.0), (other_thread(), 1.7)], noise());
        let grown = (0..200).filter(|_| {
            let costs = Costs::new(2);
            (0..200).any(|_| {
                let (thread, slowness) = threads[usize::from(noise() < 0.5)];
                let level = costs.lock().next_level(|| thread);
                let disturbed = if noise() < 0.1 { 3.0 } else { 1.0 };
                let entries = f64::from(1 << level);
                let cost = of(entries) / entries * slowness * disturbed * (0.85 + 0.3 * noise());
                costs.lock().ran(Ran { level, cost, took: Duration::ZERO, thread }, 1);
                costs.worth() > 1
            })
        });
        grown.count()
    }

    #[test]
    fn neither_noise_nor_a_slow_core_decides() {
        let (same, worse, better) =
            (found(|entries| entries), found(|entries| entries * entries), found(|_| 1.0));
        assert!(same <= 20, "{same} of 200");
        assert_eq!((worse, better), (0, 200));
        let a_little = found(|entries| entries.powf(0.8));
        assert!(a_little >= 190, "{a_little} of 200");
    }

    #[test]
    fn what_was_long_ago_decides_nothing() {
        let (costs, thread) = (Costs::new(2), thread::current().id());
        let ran = |level, cost| Ran { level, cost, took: Duration::ZERO, thread };
        costs.lock().ran(ran(0, 1.0), 1);
        for _ in 0..=AHEAD {
            costs.lock().ran(ran(0, 1.0), 1);
            if let Next::Trial(trial) = &mut costs.lock().next {
                trial.own[0].ended -= SOON * 2;
            }
            costs.lock().ran(ran(1, 0.1), 1);
        }
        assert_eq!((costs.worth(), costs.limit()), (1, 1));
    }

    #[test]
    fn a_run_that_another_thread_makes_is_compared_with_nothing() {
        let (costs, thread) = (Costs::new(2), thread::current().id());
        let ran = |(level, cost), thread| {
            costs.lock().ran(Ran { level, cost, took: Duration::ZERO, thread }, 1);
        };
        ran((0, 1.0), thread);
        for _ in 0..=AHEAD {
            ran((0, 1.0), thread);
            assert_eq!(costs.limit(), 2);
            ran((1, 0.1), other_thread());
            assert_eq!(costs.limit(), 1, "it asks for another to compare with");
        }
        assert_eq!(costs.worth(), 1);
    }

    #[test]
    fn a_size_that_is_tried_has_few_of_the_runs() {
        let costs = Costs::new(32);
        settled(&costs, (64, 20_000), |entries| 5e-3 * entries);
        let tried = (0..10_000).filter(|_| {
            let entries = costs.limit();
            settled(&costs, (64, 1), |entries| 5e-3 * entries);
            entries > 1
        });
        assert!(tried.count() < 100);
    }

    #[test]
    fn runs_of_other_lengths_are_compared_by_the_byte() {
        let costs = Costs::new(8);
        for length in [1, 4, 2, 8].repeat(100) {
            let entries = costs.limit();
            let bytes = entries as u64 * length * LEAST;
            costs.ran(Run { entries, bytes, took: Duration::from_micros(bytes) });
        }
        assert_eq!(costs.worth(), 1);
        assert_eq!(costs.expected((1, 1000)), Some(Duration::from_millis(1)));
        assert_eq!(Costs::new(8).expected((1, 1000)), None);
    }
}
