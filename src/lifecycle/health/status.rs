//! A check's status, and the one function that changes it.

use std::fmt;

/// What is known of a check.
///
/// ```text
/// UNKNOWN --successes--> PASSING --failures--> FAILING
///    |                      ^                     |
///    +--failures-> FAILING  +------successes------+
/// ```
///
/// Each move takes as many results of one sort in a row as the check's threshold for that sort says.
/// There is no way back to UNKNOWN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckStatus {
    /// No threshold was reached yet.
    Unknown,
    /// It passes.
    Passing,
    /// It fails.
    Failing,
}

impl CheckStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Unknown, Self::Passing, Self::Failing];

    /// The status' name, such as `passing`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Passing => "passing",
            Self::Failing => "failing",
        }
    }
}

impl fmt::Display for CheckStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many results in a row change a status; at least one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Thresholds {
    failures: u32,
    successes: u32,
}

impl Thresholds {
    /// The first result of either sort decides.
    pub(super) const ONE: Self = Self { failures: 1, successes: 1 };

    pub(super) fn new(failures: u32, successes: u32) -> Self {
        Self { failures: failures.max(1), successes: successes.max(1) }
    }

    pub(super) const fn failures(self) -> u32 {
        self.failures
    }

    pub(super) const fn successes(self) -> u32 {
        self.successes
    }
}

/// A status with the results in a row that led to it, or on from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    status: CheckStatus,
    failures: u32,
    successes: u32,
}

impl Tally {
    pub(super) const fn new(status: CheckStatus) -> Self {
        Self { status, failures: 0, successes: 0 }
    }

    pub(super) const fn status(self) -> CheckStatus {
        self.status
    }

    /// Failures since the last success.
    pub(super) const fn failures(self) -> u32 {
        self.failures
    }

    /// The tally after one more result.
    #[must_use]
    pub(super) const fn next(self, passed: bool, thresholds: Thresholds) -> Self {
        let (failures, successes) = if passed {
            (0, self.successes.saturating_add(1))
        } else {
            (self.failures.saturating_add(1), 0)
        };
        let status = if successes >= thresholds.successes {
            CheckStatus::Passing
        } else if failures >= thresholds.failures {
            CheckStatus::Failing
        } else {
            self.status
        };
        Self { status, failures, successes }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::CheckStatus::{Failing, Passing, Unknown};
    use super::*;

    /// Failures and successes in a row.
    type Counts = (u32, u32);

    /// The status before, the results in a row before, the next result, and what comes of it with
    /// three failures and two successes as thresholds.
    const TABLE: [(CheckStatus, Counts, bool, CheckStatus, Counts); 18] = [
        (Unknown, (0, 0), true, Unknown, (0, 1)),
        (Unknown, (0, 1), true, Passing, (0, 2)),
        (Unknown, (2, 0), true, Unknown, (0, 1)),
        (Unknown, (0, 0), false, Unknown, (1, 0)),
        (Unknown, (2, 0), false, Failing, (3, 0)),
        (Unknown, (0, 1), false, Unknown, (1, 0)),
        (Passing, (0, 2), true, Passing, (0, 3)),
        (Passing, (0, u32::MAX), true, Passing, (0, u32::MAX)),
        (Passing, (2, 0), true, Passing, (0, 1)),
        (Passing, (0, 2), false, Passing, (1, 0)),
        (Passing, (1, 0), false, Passing, (2, 0)),
        (Passing, (2, 0), false, Failing, (3, 0)),
        (Failing, (3, 0), true, Failing, (0, 1)),
        (Failing, (0, 1), true, Passing, (0, 2)),
        (Failing, (0, 0), true, Failing, (0, 1)),
        (Failing, (3, 0), false, Failing, (4, 0)),
        (Failing, (u32::MAX, 0), false, Failing, (u32::MAX, 0)),
        (Failing, (0, 1), false, Failing, (1, 0)),
    ];

    #[test]
    fn every_status_and_result() {
        for (status, (failures, successes), passed, expected, counts) in TABLE {
            let before = Tally { status, failures, successes };
            let after = before.next(passed, Thresholds::new(3, 2));
            let expected = Tally { status: expected, failures: counts.0, successes: counts.1 };
            assert_eq!(after, expected, "{before:?} after passed = {passed}");
        }
    }

    #[test]
    fn a_threshold_of_nothing_is_one() {
        assert_eq!(Thresholds::new(0, 0), Thresholds::ONE);
        let failed = Tally::new(Passing).next(false, Thresholds::new(0, 0));
        assert_eq!(failed.status(), Failing);
    }

    /// What the status must be, said without counting: the last time that one sort of result came as
    /// often in a row as its threshold says decides.
    fn expected(
        initial: CheckStatus,
        results: &[bool],
        (failures, successes): (u32, u32),
    ) -> CheckStatus {
        let ends_with = |results: &[bool], sort: bool, count: u32| {
            let count = count as usize;
            results.len() >= count
                && results[results.len() - count..].iter().all(|one| *one == sort)
        };
        for end in (1..=results.len()).rev() {
            if ends_with(&results[..end], true, successes) {
                return Passing;
            }
            if ends_with(&results[..end], false, failures) {
                return Failing;
            }
        }
        initial
    }

    proptest! {
        #[test]
        fn the_last_full_row_of_results_decides(
            initial in prop::sample::select(CheckStatus::ALL.to_vec()),
            results in prop::collection::vec(any::<bool>(), 0..40),
            thresholds in (1_u32..6, 1_u32..6),
        ) {
            let mut tally = Tally::new(initial);
            for (count, passed) in results.iter().enumerate() {
                tally = tally.next(*passed, Thresholds::new(thresholds.0, thresholds.1));
                let seen = &results[..=count];
                prop_assert_eq!(tally.status(), expected(initial, seen, thresholds));
                let in_a_row = seen.iter().rev().take_while(|passed| !**passed).count();
                prop_assert_eq!(tally.failures() as usize, in_a_row);
            }
        }
    }
}
