//! Counts runs by the size of their batch.

use std::array;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::task::Timings;
use crate::tally::{Buckets, DurationsReport, nanoseconds};

/// The most sizes that are told apart; runs of any further one are counted together.
const SIZES: usize = 64;

/// Counters that requests bump without a lock. A size takes the first place that is free, beginning with
/// its own, and keeps it.
#[derive(Debug, Default)]
pub(crate) struct RunCounts {
    /// Made by the first run: a version that is never asked does without.
    made: OnceLock<Box<Made>>,
    others: Runs,
    /// The entries of those.
    entries_of_others: AtomicU64,
}

#[derive(Debug)]
struct Made {
    sizes: [Place; SIZES],
    stages: [Buckets; 4],
}

#[derive(Debug, Default)]
struct Place {
    /// The size plus one; zero for a place that is free.
    key: AtomicU64,
    runs: Runs,
}

/// How many there were, and how many nanoseconds they took in all.
#[derive(Debug, Default)]
struct Runs {
    count: AtomicU64,
    input: AtomicU64,
    infer: AtomicU64,
    output: AtomicU64,
}

/// How long runs took, and each of their stages, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StagesReport {
    /// All of it.
    pub whole: DurationsReport,
    /// Until the engine had its inputs.
    pub input: DurationsReport,
    /// Computing.
    pub infer: DurationsReport,
    /// From then on, until the outputs were read.
    pub output: DurationsReport,
}

/// Runs, and where their time went in all, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunsReport {
    /// How many there were.
    pub count: u64,
    /// Until the engine had its inputs.
    pub input: Duration,
    /// Computing.
    pub infer: Duration,
    /// From then on, until the outputs were read.
    pub output: Duration,
}

impl RunCounts {
    /// Counts a run with a batch of this size.
    pub(crate) fn add(&self, size: u64, timings: &Timings) {
        let Timings { compute, input, output, .. } = *timings;
        let infer = compute.saturating_sub(input).saturating_sub(output);
        let made = self.made.get_or_init(Box::default);
        let place = made.place(size);
        if place.is_none() {
            self.entries_of_others.fetch_add(size, Ordering::Relaxed);
        }
        place.map_or(&self.others, |place| &place.runs).add([input, infer, output]);
        for (stage, took) in made.stages.iter().zip([compute, input, infer, output]) {
            stage.add(took);
        }
    }

    /// How long they took, of all sizes.
    pub(crate) fn stages(&self) -> StagesReport {
        let Some(made) = self.made.get() else { return StagesReport::default() };
        let RunsReport { input, infer, output, .. } = self.total();
        let of =
            |place: usize, total| DurationsReport { buckets: made.stages[place].read(), total };
        StagesReport {
            whole: of(0, input + infer + output),
            input: of(1, input),
            infer: of(2, infer),
            output: of(3, output),
        }
    }

    /// The runs that are in none of [`RunCounts::by_size`], and their entries.
    pub(crate) fn beyond(&self) -> (u64, u64) {
        let count = self.others.count.load(Ordering::Relaxed);
        (count, self.entries_of_others.load(Ordering::Relaxed))
    }

    /// Those there are.
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.made.get().into_iter().flat_map(|made| made.sizes.iter())
    }

    /// Of every size that there was, the smallest first; without those that are counted together.
    pub(crate) fn by_size(&self) -> Vec<(u64, RunsReport)> {
        let of = |place: &Place| {
            let size = place.key.load(Ordering::Relaxed).checked_sub(1)?;
            Some((size, place.runs.report()))
        };
        let mut sizes: Vec<_> = self.places().filter_map(of).collect();
        sizes.sort_unstable_by_key(|(size, _)| *size);
        sizes
    }

    /// Of all sizes.
    pub(crate) fn total(&self) -> RunsReport {
        let runs = self.places().map(|place| &place.runs).chain([&self.others]);
        runs.map(Runs::report).fold(RunsReport::default(), |sum, runs| RunsReport {
            count: sum.count + runs.count,
            input: sum.input + runs.input,
            infer: sum.infer + runs.infer,
            output: sum.output + runs.output,
        })
    }
}

impl Default for Made {
    fn default() -> Self {
        let sizes = array::from_fn(|_| Place::default());
        Self { sizes, stages: array::from_fn(|_| Buckets::default()) }
    }
}

impl Made {
    /// The place of a size; `None` where all are taken by others.
    fn place(&self, size: u64) -> Option<&Place> {
        let key = size.saturating_add(1);
        let own = usize::try_from(size % SIZES as u64).unwrap_or_default();
        let (before, after) = self.sizes.split_at(own);
        after.iter().chain(before).find(|place| place.is_of(key))
    }
}

impl Place {
    /// Whether it is the size's, or is so from now on.
    fn is_of(&self, key: u64) -> bool {
        match self.key.load(Ordering::Relaxed) {
            0 => match self.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => true,
                Err(taken) => taken == key,
            },
            taken => taken == key,
        }
    }
}

impl Runs {
    fn add(&self, took: [Duration; 3]) {
        self.count.fetch_add(1, Ordering::Relaxed);
        for (total, took) in [&self.input, &self.infer, &self.output].into_iter().zip(took) {
            total.fetch_add(nanoseconds(took), Ordering::Relaxed);
        }
    }

    fn report(&self) -> RunsReport {
        let duration = |total: &AtomicU64| Duration::from_nanos(total.load(Ordering::Relaxed));
        RunsReport {
            count: self.count.load(Ordering::Relaxed),
            input: duration(&self.input),
            infer: duration(&self.infer),
            output: duration(&self.output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timings(nanoseconds: [u64; 3]) -> Timings {
        let [input, infer, output] = nanoseconds.map(Duration::from_nanos);
        Timings { compute: input + infer + output, input, output, ..Timings::default() }
    }

    #[test]
    fn runs_are_told_apart_by_their_size() {
        let counts = RunCounts::default();
        assert_eq!((counts.by_size(), counts.total()), (Vec::new(), RunsReport::default()));
        assert!(counts.made.get().is_none(), "who is never asked has no counts");
        for (size, took) in [(8, [1, 10, 2]), (1, [1, 5, 1]), (8, [3, 20, 4])] {
            counts.add(size, &timings(took));
        }
        let runs = |count, [input, infer, output]: [u64; 3]| RunsReport {
            count,
            input: Duration::from_nanos(input),
            infer: Duration::from_nanos(infer),
            output: Duration::from_nanos(output),
        };
        assert_eq!(counts.by_size(), [(1, runs(1, [1, 5, 1])), (8, runs(2, [4, 30, 6]))]);
        assert_eq!(counts.total(), runs(3, [5, 35, 7]));
        let StagesReport { whole, infer, .. } = counts.stages();
        assert_eq!((whole.count(), whole.total), (3, Duration::from_nanos(47)));
        assert_eq!((infer.buckets[0], infer.total), (3, Duration::from_nanos(35)));
    }

    #[test]
    fn sizes_beyond_those_there_is_room_for_are_counted_together() {
        let counts = RunCounts::default();
        // All of them have the same place of their own.
        let sizes: Vec<u64> = (0..100).map(|number| number * 64).chain([u64::MAX]).collect();
        for size in sizes.iter().chain(&sizes) {
            counts.add(*size, &timings([0, 1, 0]));
        }
        let told = counts.by_size();
        assert_eq!(told.len(), 64);
        assert!(
            told.iter()
                .zip(&sizes)
                .all(|((size, runs), expected)| { size == expected && runs.count == 2 })
        );
        assert_eq!(counts.total().count, 202);
        let (runs, _) = counts.beyond();
        assert_eq!(runs, 202 - 2 * 64);
    }
}
