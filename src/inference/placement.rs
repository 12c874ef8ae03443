//! Where the runs of a version happen: on threads of its own, or where the request already is.
//!
//! Handing a request to another thread and its answer back costs tens of microseconds, and more where all
//! cores are busy. A model that computes for less is better run at once, by the thread that serves the
//! connection; one that computes for longer would keep that thread from its other connections.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// Where a version's runs happen at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// On the thread that serves the request, as long as an instance is idle.
    Inline,
    /// On a thread of the version's own.
    Thread,
}

impl Placement {
    /// As it is told to operators.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Thread => "thread",
        }
    }
}

/// Runs are inline when they take less than this on average, ...
const SHORT: Duration = Duration::from_micros(200);

/// ... until they take more than this.
const NOT_SHORT: Duration = Duration::from_micros(400);

/// What counts at most of one run: the system may have had the core for others.
const MOST: Duration = Duration::from_millis(1);

/// A run of this length is no chance, and one such at a time is enough.
const LONG: Duration = Duration::from_millis(10);

/// As what a long run counts: after it, about seventy short ones make the runs inline again.
const PENALTY: Duration = Duration::from_secs(1);

/// An inline run that takes this long is ended, and begins again on a thread of the version.
pub(super) const STALL: Duration = Duration::from_millis(100);

/// After so many runs of that length, which one machine may have without any fault of a version, its runs are
/// never inline again.
const STRIKES: u8 = 3;

/// The weight of what was before, less one, against that of the last run.
const INERTIA: u64 = 7;

/// By how much the inputs of a run may be larger than they are on average, for it to be expected to take
/// about as long. What some models compute grows with the square of it.
const LARGER: u64 = 4;

/// Inputs of so many bytes are not large for any model.
const SMALL: u64 = 4096;

/// How long the runs of a version take, and what follows from that.
///
/// It is moved by every run, without a lock: of two that end at once, one may be lost.
#[derive(Debug)]
pub(super) struct Pace {
    /// How long they take on average, in nanoseconds.
    average: AtomicU64,
    /// Whether that is short, as it was found last.
    short: AtomicBool,
    /// How large their inputs are on average, in bytes.
    size: AtomicU64,
    /// Runs that took as long as [`STALL`].
    stalls: AtomicU8,
}

/// A run that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ran {
    pub(super) took: Duration,
    /// Of its inputs, in bytes.
    pub(super) size: u64,
    /// Whether it has given an answer.
    pub(super) answered: bool,
}

impl Default for Pace {
    fn default() -> Self {
        // Nothing is known: about a dozen short runs tell.
        Self {
            average: AtomicU64::new(nanoseconds(MOST)),
            short: AtomicBool::new(false),
            size: AtomicU64::new(0),
            stalls: AtomicU8::new(0),
        }
    }
}

impl Pace {
    pub(super) fn placement(&self) -> Placement {
        let stalls = self.stalls.load(Ordering::Relaxed) >= STRIKES;
        let inline = self.short.load(Ordering::Relaxed) && !stalls;
        if inline { Placement::Inline } else { Placement::Thread }
    }

    /// Where a run with inputs of so many bytes is to happen.
    pub(super) fn placement_of(&self, size: u64) -> Placement {
        let usual = self.size.load(Ordering::Relaxed).saturating_mul(LARGER).max(SMALL);
        if size > usual { Placement::Thread } else { self.placement() }
    }

    /// How many requests can share a run that is still short.
    pub(super) fn short_together(&self) -> usize {
        let requests = nanoseconds(SHORT) / self.average.load(Ordering::Relaxed).max(1);
        usize::try_from(requests).unwrap_or(usize::MAX)
    }

    /// How many bytes the inputs of so many may have together.
    pub(super) fn bytes_together(&self, requests: usize) -> u64 {
        let usual = self.size.load(Ordering::Relaxed).max(SMALL / LARGER);
        usual.saturating_mul(requests as u64)
    }

    /// Begins with what is known of another.
    pub(super) fn adopt(&self, other: &Self) {
        for (own, known) in [(&self.average, &other.average), (&self.size, &other.size)] {
            own.store(known.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.short.store(other.short.load(Ordering::Relaxed), Ordering::Relaxed);
        self.stalls.store(other.stalls.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// A batch has ended that was made of several requests. It tells of one of them only that it takes no
    /// longer.
    pub(super) fn ran_together(&self, took: Duration) {
        let average = self.average.load(Ordering::Relaxed);
        if took < SHORT && nanoseconds(took) < average {
            self.note(moved(average, nanoseconds(took)));
        }
    }

    /// A batch of so many requests has ended where others wait for the thread: where it was not short, each of
    /// them counts as one that was not.
    pub(super) fn ran_together_inline(&self, run: Ran, requests: usize) {
        if run.took >= NOT_SHORT {
            self.ran(Ran { size: run.size / (requests.max(1) as u64), ..run });
        }
    }

    /// A run has ended. If it has given no answer and was short, it tells nothing.
    pub(super) fn ran(&self, Ran { took, size, answered }: Ran) {
        if !answered && took < LONG {
            return;
        }
        if took >= STALL {
            let stalls = self.stalls.load(Ordering::Relaxed).saturating_add(1);
            self.stalls.store(stalls, Ordering::Relaxed);
        }
        let average = if took >= LONG {
            nanoseconds(PENALTY)
        } else {
            moved(self.average.load(Ordering::Relaxed), nanoseconds(took.min(MOST)))
        };
        self.note(average);
        self.size.store(moved(self.size.load(Ordering::Relaxed), size), Ordering::Relaxed);
    }

    /// Runs take this long on average now.
    fn note(&self, average: u64) {
        self.average.store(average, Ordering::Relaxed);
        let bound = if self.short.load(Ordering::Relaxed) { NOT_SHORT } else { SHORT };
        self.short.store(average < nanoseconds(bound), Ordering::Relaxed);
    }
}

/// An average after one more.
fn moved(average: u64, last: u64) -> u64 {
    // Divided first: a size may be anything.
    average - average / (INERTIA + 1) + last / (INERTIA + 1)
}

/// Of a time that is a second at most.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(took: Duration) -> Ran {
        Ran { took, size: 256, answered: true }
    }

    fn short() -> Ran {
        ran(Duration::from_micros(20))
    }

    /// How many such runs it takes until the placement is another.
    fn until(pace: &Pace, run: Ran) -> usize {
        let before = pace.placement();
        let turns = (1..200).find(|_| {
            pace.ran(run);
            pace.placement() != before
        });
        turns.expect("two hundred runs tell")
    }

    #[test]
    fn short_runs_become_inline_and_long_ones_do_not_stay() {
        let pace = Pace::default();
        assert_eq!(pace.placement(), Placement::Thread);
        let turns = until(&pace, short());
        assert!((10..30).contains(&turns), "{turns}");
        assert_eq!(pace.placement(), Placement::Inline);
        let turns = until(&pace, ran(Duration::from_micros(600)));
        assert!((2..15).contains(&turns), "{turns}");
    }

    #[test]
    fn between_the_bounds_nothing_changes() {
        let (fast, slow) = (Pace::default(), Pace::default());
        until(&fast, short());
        for pace in [&fast, &slow] {
            let before = pace.placement();
            (0..200).for_each(|_| pace.ran(ran(Duration::from_micros(300))));
            assert_eq!(pace.placement(), before);
        }
    }

    #[test]
    fn a_batch_that_is_short_keeps_short_runs_inline() {
        let pace = Pace::default();
        until(&pace, short());
        (0..200).for_each(|_| pace.ran(ran(Duration::from_micros(300))));
        pace.ran_together(Duration::from_micros(150));
        assert_eq!(pace.placement(), Placement::Inline);
    }

    #[test]
    fn batches_may_be_as_large_as_they_are_short() {
        let pace = Pace::default();
        assert_eq!(pace.short_together(), 0, "nothing is known");
        (0..200).for_each(|_| pace.ran(short()));
        let most = pace.short_together();
        assert!((8..=10).contains(&most), "{most}");
        assert_eq!(pace.bytes_together(4), 4 * 1024);
        // That a batch takes longer than one request tells nothing of one request.
        (0..200).for_each(|_| pace.ran_together(Duration::from_micros(190)));
        assert_eq!(pace.short_together(), most);
        let long = Ran { size: 1024, ..ran(Duration::from_millis(1)) };
        let turns = (1..200).find(|_| {
            pace.ran_together_inline(long, 4);
            pace.placement() == Placement::Thread
        });
        assert!(turns.is_some_and(|turns| turns < 10), "{turns:?}");
    }

    #[test]
    fn a_hiccup_changes_nothing_but_a_long_run_does() {
        let pace = Pace::default();
        until(&pace, short());
        pace.ran(ran(Duration::from_millis(4)));
        assert_eq!(pace.placement(), Placement::Inline);
        pace.ran(Ran { answered: false, ..ran(LONG) });
        assert_eq!(pace.placement(), Placement::Thread);
        let turns = until(&pace, short());
        assert!((50..100).contains(&turns), "{turns}");
    }

    #[test]
    fn runs_without_an_answer_do_not_make_a_version_fast() {
        let pace = Pace::default();
        (0..200).for_each(|_| pace.ran(Ran { answered: false, ..short() }));
        assert_eq!(pace.placement(), Placement::Thread);
    }

    #[test]
    fn a_version_that_stalls_again_and_again_is_never_inline_again() {
        let pace = Pace::default();
        for _ in 1..STRIKES {
            pace.ran(ran(STALL));
            until(&pace, short());
        }
        pace.ran(ran(STALL));
        (0..1000).for_each(|_| pace.ran(short()));
        assert_eq!(pace.placement(), Placement::Thread);
    }

    #[test]
    fn an_input_that_is_larger_than_usual_is_not_expected_to_be_quick() {
        let pace = Pace::default();
        (0..100).for_each(|_| pace.ran(Ran { size: 10_000, ..short() }));
        assert_eq!(pace.placement_of(30_000), Placement::Inline);
        assert_eq!(pace.placement_of(50_000), Placement::Thread);
        (0..100).for_each(|_| pace.ran(Ran { size: 0, ..short() }));
        assert_eq!(pace.placement_of(SMALL), Placement::Inline);
        assert_eq!(pace.placement_of(u64::MAX), Placement::Thread);
    }
}
