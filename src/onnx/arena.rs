//! When a session gives memory back.
//!
//! What a run has taken stays with its session for the next one. That is as it should be, until a run is far
//! larger than others: then what it took would stay for ever. So it is given back at the end of such a run,
//! and once more when it is certain that no other like it has come, for the run's own answer was left out.

use std::sync::atomic::{AtomicU64, Ordering};

/// So many times as large as usual is far larger.
const FAR: u64 = 8;

/// Of what is usual, one part in so many is forgotten with each run: after some seventy runs an eighth is left.
const FORGOTTEN: u64 = 32;

/// The sizes of a session's runs, in bytes of their inputs.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// The largest one of late.
    usual: AtomicU64,
    /// The largest one whose memory may still be kept.
    held: AtomicU64,
}

impl Sizes {
    /// Notes a run of this size: whether memory is to be given back at its end. Of several at once one may
    /// be missed.
    pub(super) fn gives_back(&self, size: u64) -> bool {
        let before = self.usual.load(Ordering::Relaxed);
        let usual = before - before / FORGOTTEN;
        self.usual.store(usual.max(size), Ordering::Relaxed);
        let held = self.held.load(Ordering::Relaxed).max(size);
        let gives_back = before > 0 && held >= usual.saturating_mul(FAR);
        self.held.store(if gives_back { size } else { held }, Ordering::Relaxed);
        gives_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of these runs give memory back.
    fn giving(runs: impl IntoIterator<Item = u64>) -> Vec<usize> {
        let sizes = Sizes::default();
        let runs = runs.into_iter().enumerate();
        runs.filter_map(|(at, size)| sizes.gives_back(size).then_some(at)).collect()
    }

    /// So many runs of one size.
    fn runs(count: usize, size: u64) -> impl Iterator<Item = u64> {
        std::iter::repeat_n(size, count)
    }

    #[test]
    fn runs_of_about_the_same_size_give_nothing_back() {
        assert_eq!(giving(runs(1000, 4096)), [0; 0]);
        assert_eq!(giving(runs(1000, 0)), [0; 0]);
        let mixed = (0..1000).map(|at| 1000 * (1 + at % 7));
        assert_eq!(giving(mixed), [0; 0]);
    }

    #[test]
    fn one_far_larger_run_gives_back_at_its_end_and_once_more() {
        let found = giving(runs(10, 1000).chain([1_000_000]).chain(runs(1000, 1000)));
        assert_eq!((found.len(), found[0]), (2, 10), "{found:?}");
        assert!((70..90).contains(&found[1]), "{found:?}");
    }

    #[test]
    fn large_runs_that_come_again_and_again_keep_what_they_need() {
        let often = (0..2000).map(|at| if at % 50 == 40 { 1_000_000 } else { 1000 });
        assert_eq!(giving(often), [40]);
        let burst = runs(10, 1000).chain(runs(500, 1_000_000)).chain(runs(1000, 1000));
        let found = giving(burst);
        assert_eq!((found.len(), found[0]), (2, 10), "{found:?}");
        assert!(found[1] > 560, "{found:?}");
    }
}
