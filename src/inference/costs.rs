//! What runs of a version cost, by the size of their batch, and so how large batches should be.
//!
//! A batch makes some models faster, as weights are read once for all of its entries, and others slower. The
//! requests in it all wait for the last one. So batches are made no larger than is measured to be worth it.

use std::array;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Sizes are told apart by their power of two: 1, 2, 3 to 4, 5 to 8, and so on.
const LEVELS: usize = 16;

/// By how much less an entry has to cost in a larger batch for that to be worth it.
const WORTH: f64 = 0.97;

/// How far beyond the best level known so far is looked: there may be one that gains nothing in between.
const AHEAD: usize = 2;

/// Runs after which what a level costs is known.
const ENOUGH: u32 = 6;

/// After so many runs a larger batch is tried again, once, and after as many a smaller one.
const AGAIN: u32 = 500;

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
    levels: [Level; LEVELS],
    /// Runs since one of another size was tried for its own sake.
    since: u32,
    /// Whether that was a larger one.
    grew: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Level {
    runs: u32,
    /// For each byte, in nanoseconds.
    cost: f64,
}

impl Costs {
    /// For batches of up to `most` entries.
    pub(super) fn new(most: usize) -> Self {
        let known = Known { levels: array::from_fn(|_| Level::default()), since: 0, grew: false };
        Self { known: Mutex::new(known), most: level(most) }
    }

    pub(super) fn ran(&self, run: Run) {
        let cost = run.took.as_secs_f64() * 1e9 / precise(run.bytes.max(1));
        let mut known = self.lock();
        known.since = known.since.saturating_add(1);
        known.levels[level(run.entries)].ran(cost);
    }

    /// How many entries the next batch should have at most.
    pub(super) fn limit(&self) -> usize {
        let mut known = self.lock();
        let best = known.best(self.most);
        if known.levels[best].runs < ENOUGH {
            return 1 << best;
        }
        let untried = (best + 1..=self.most.min(best + AHEAD))
            .find(|level| known.levels[*level].runs < ENOUGH);
        let next = match untried {
            Some(level) => level,
            None if known.since >= AGAIN => {
                known.since = 0;
                known.grew = !known.grew;
                if known.grew { self.most.min(best + 1) } else { best.saturating_sub(1) }
            }
            None => best,
        };
        1 << next
    }

    /// How many entries are worth it, by what is known.
    pub(super) fn worth(&self) -> usize {
        1 << self.lock().best(self.most)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The smallest level than which no larger one is worth it.
    fn best(&self, most: usize) -> usize {
        let known = (0..=most).filter(|level| self.levels[*level].runs >= ENOUGH);
        known.fold(0, |best, level| {
            let is_first = self.levels[best].runs < ENOUGH;
            let gains = self.levels[level].cost < self.levels[best].cost * WORTH;
            if is_first || gains { level } else { best }
        })
    }
}

impl Level {
    /// What others on the machine do only ever makes a run longer: so it falls fast and rises slowly.
    fn ran(&mut self, cost: f64) {
        self.runs = self.runs.saturating_add(1);
        let weight = if cost < self.cost { 0.5 } else { 0.1 };
        self.cost = if self.runs == 1 { cost } else { self.cost + (cost - self.cost) * weight };
    }
}

fn level(entries: usize) -> usize {
    let power = entries.max(1).checked_next_power_of_two().unwrap_or(usize::MAX);
    usize::try_from(power.ilog2()).map_or(LEVELS - 1, |level| level.min(LEVELS - 1))
}

#[expect(clippy::cast_precision_loss, reason = "it is divided by")]
fn precise(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs batches as large as they may be, until nothing changes any more. A run takes as long as `of`
    /// says, for so many entries.
    fn settled(costs: &Costs, of: impl Fn(f64) -> f64) -> usize {
        for _ in 0..100 {
            let entries = costs.limit();
            #[expect(clippy::cast_precision_loss, reason = "they are few")]
            let took = Duration::from_secs_f64(of(entries as f64));
            costs.ran(Run { entries, bytes: entries as u64 * 256, took });
        }
        costs.worth()
    }

    #[test]
    fn levels_are_powers_of_two() {
        let levels = [0, 1, 2, 3, 4, 5, 8, 9, 32, 33, usize::MAX].map(level);
        assert_eq!(levels, [0, 0, 1, 2, 2, 3, 3, 4, 5, 6, LEVELS - 1]);
    }

    #[test]
    fn batches_grow_as_long_as_they_gain() {
        let costs = Costs::new(32);
        assert_eq!(costs.limit(), 1, "what one costs comes first");
        assert_eq!(settled(&costs, |entries| 100e-6 + entries * 1e-6), 32);
        let costs = Costs::new(32);
        assert_eq!(settled(&costs, |entries| 5e-3 * entries.max(8.0) / 8.0), 8);
        let costs = Costs::new(32);
        assert_eq!(settled(&costs, |entries| 5e-3 * entries), 1);
        let costs = Costs::new(1);
        assert_eq!(settled(&costs, |_| 5e-3), 1);
    }

    #[test]
    fn a_level_that_gains_nothing_does_not_hide_the_next() {
        let costs = Costs::new(32);
        let cost = |entries: f64| if entries < 4.0 { 1e-3 * entries } else { 2e-3 };
        assert!(settled(&costs, cost) >= 4);
    }

    #[test]
    fn what_changes_is_found_again() {
        let costs = Costs::new(32);
        assert_eq!(settled(&costs, |entries| 5e-3 * entries), 1);
        let cheap = |_| 5e-3;
        let rounds = (1..100).find(|_| settled(&costs, cheap) == 32);
        assert!(rounds.is_some_and(|rounds| rounds > 1), "{rounds:?}");
        let dear = |entries: f64| 1e-3 * entries * entries;
        let rounds = (1..100).find(|_| settled(&costs, dear) == 1);
        assert!(rounds.is_some(), "{costs:?}");
    }

    #[test]
    fn runs_of_other_lengths_are_compared_by_the_byte() {
        let costs = Costs::new(8);
        for length in [1, 4, 2, 8].repeat(10) {
            let entries = costs.limit();
            let bytes = entries as u64 * length;
            costs.ran(Run { entries, bytes, took: Duration::from_micros(bytes) });
        }
        assert_eq!(costs.worth(), 1);
    }
}
