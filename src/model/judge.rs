//! Whether a new version proves itself beside the old one: a pure function of what both have done.

use std::fmt;
use std::time::Duration;

use super::mirror::MirrorTally;
use super::usage::Tally;

/// What a new version may do worse than the old one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// How much more of its requests may fail by its fault than of the old one's; a part of one.
    pub max_error_rate: f64,
    /// How many times the old one's 99th percentile its own may be.
    pub max_p99_ratio: f64,
    /// The part of the copied requests that it may answer otherwise than the old one.
    pub max_mismatch_rate: f64,
    /// How many requests have to be seen before it is found good.
    pub min_requests: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let (max_error_rate, max_p99_ratio, max_mismatch_rate) = (0.01, 2.0, 0.2);
        Self { max_error_rate, max_p99_ratio, max_mismatch_rate, min_requests: 100 }
    }
}

/// Outliers that prove nothing: a machine has them without any fault of a version.
const OUTLIERS: u64 = 2;

/// The part of the requests that may be above a 99th percentile.
const ABOVE_P99: f64 = 0.01;

/// What two versions have done in the same time.
#[derive(Debug, Clone, Default)]
pub(super) struct Evidence {
    pub(super) new: Tally,
    pub(super) old: Tally,
    pub(super) mirrored: MirrorTally,
}

/// What is made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is too little to go by.
    Undecided,
    /// Nothing speaks against the new version.
    Good,
    /// It is worse, with the reason.
    Bad(String),
}

impl Evidence {
    /// Judges the new version. It is found bad as soon as no number of good answers up to
    /// `min_requests` could make up for what is there.
    pub(super) fn judge(&self, limits: &Limits) -> Verdict {
        let bad = self.errors(limits).or_else(|| self.slow(limits)).or_else(|| self.unlike(limits));
        if let Some(reason) = bad {
            return Verdict::Bad(reason);
        }
        let enough = self.new.judged >= limits.min_requests;
        if enough { Verdict::Good } else { Verdict::Undecided }
    }

    fn errors(&self, limits: &Limits) -> Option<String> {
        let usual = rate(self.old.faults, self.old.judged);
        let allowed = usual + limits.max_error_rate;
        let seen = self.new.judged.max(limits.min_requests);
        (number(self.new.faults) > allowed * number(seen)).then(|| {
            format!(
                "error rate: {} of {} requests failed, {} of {} of the version before",
                self.new.faults, self.new.judged, self.old.faults, self.old.judged
            )
        })
    }

    /// A 99th percentile is beyond a limit exactly if more than one in a hundred are.
    fn slow(&self, limits: &Limits) -> Option<String> {
        if self.old.latencies.total() < limits.min_requests {
            return None;
        }
        let usual = self.old.latencies.quantile(0.99)?;
        let limit = usual.mul_f64(limits.max_p99_ratio);
        let above = self.new.latencies.above(limit);
        let seen = self.new.latencies.total().max(limits.min_requests);
        let slow = above > OUTLIERS && number(above) > ABOVE_P99 * number(seen);
        slow.then(|| {
            let p99 = self.new.latencies.quantile(0.99).unwrap_or_default();
            format!(
                "p99: {above} of {} requests took longer than {limit:?}, which is {} times the p99 \
                 of the version before; its own is {p99:?}",
                self.new.latencies.total(),
                limits.max_p99_ratio
            )
        })
    }

    fn unlike(&self, limits: &Limits) -> Option<String> {
        let MirrorTally { compared, agreed, failed, .. } = self.mirrored;
        let (seen, unlike) = (compared + failed, compared - agreed + failed);
        let allowed = limits.max_mismatch_rate * number(seen.max(limits.min_requests.min(20)));
        (number(unlike) > allowed).then(|| {
            format!(
                "output mismatch: {unlike} of {seen} copied requests were answered otherwise than \
                 by the version before, {failed} of them not at all"
            )
        })
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p99 = |tally: &Tally| tally.latencies.quantile(0.99).map_or(Duration::ZERO, |p99| p99);
        let ratio = p99(&self.new).as_secs_f64() / p99(&self.old).as_secs_f64().max(1e-9);
        let MirrorTally { compared, agreed, failed, max_abs_diff, .. } = self.mirrored;
        write!(
            f,
            "requests {}, errors {}; before: requests {}, errors {}; p99 {:?} against {:?}, ratio \
             {ratio:.2}; compared {compared}, agreed {agreed}, failed {failed}, max_abs_diff {}",
            self.new.judged,
            self.new.faults,
            self.old.judged,
            self.old.faults,
            p99(&self.new),
            p99(&self.old),
            max_abs_diff.map_or("-".to_owned(), |max| format!("{max:.3e}")),
        )
    }
}

fn rate(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { number(part) / number(whole) }
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::latency::Latencies;

    /// So many requests of so many microseconds each, and so many faults.
    fn tally(answered: &[(u64, u64)], faults: u64) -> Tally {
        let latencies = Latencies::default();
        for (count, micros) in answered {
            (0..*count).for_each(|_| latencies.add(Duration::from_micros(*micros)));
        }
        let latencies = latencies.counts();
        Tally { judged: latencies.total() + faults, faults, latencies }
    }

    fn evidence(new: Tally, old: Tally) -> Evidence {
        Evidence { new, old, mirrored: MirrorTally::default() }
    }

    #[track_caller]
    fn check(evidence: &Evidence, expected: &str) {
        let told = match evidence.judge(&Limits::default()) {
            Verdict::Undecided => "undecided".to_owned(),
            Verdict::Good => "good".to_owned(),
            Verdict::Bad(reason) => reason,
        };
        assert!(told.starts_with(expected), "{told}");
    }

    #[test]
    fn a_version_like_the_old_one_is_good_once_enough_was_seen() {
        let old = || tally(&[(980, 100), (20, 900)], 0);
        check(&evidence(tally(&[(99, 100)], 0), old()), "undecided");
        check(&evidence(tally(&[(99, 100)], 1), old()), "good");
        check(&evidence(tally(&[(98, 100), (2, 90_000)], 0), old()), "good");
        check(&evidence(tally(&[(100, 1_000)], 0), old()), "good");
    }

    #[test]
    fn errors_are_found_as_soon_as_they_are_too_many() {
        let sound = || tally(&[(1_000, 100)], 0);
        check(&evidence(tally(&[], 1), sound()), "undecided");
        check(&evidence(tally(&[], 2), sound()), "error rate: 2 of 2 requests failed, 0 of 1000");
        let failing = tally(&[(900, 100)], 100);
        check(&evidence(tally(&[(90, 100)], 10), failing), "good");
    }

    #[test]
    fn a_slow_version_is_found_and_a_hiccup_is_not() {
        let old = || tally(&[(1_000, 100)], 0);
        check(&evidence(tally(&[(3, 1_000)], 0), old()), "p99: 3 of 3 requests took longer");
        check(&evidence(tally(&[(98, 100), (2, 5_000)], 0), old()), "good");
        check(&evidence(tally(&[(97, 100), (3, 5_000)], 0), old()), "p99: 3 of 100");
        check(&evidence(tally(&[(997, 100), (3, 5_000)], 0), old()), "good");
        check(&evidence(tally(&[(50, 1_000)], 0), tally(&[(99, 100)], 0)), "undecided");
    }

    #[test]
    fn a_version_that_answers_otherwise_is_found() {
        let mirrored = |compared, agreed, failed| Evidence {
            mirrored: MirrorTally { failed, compared, agreed, ..MirrorTally::default() },
            ..Evidence::default()
        };
        check(&mirrored(4, 0, 0), "undecided");
        check(&mirrored(5, 0, 0), "output mismatch: 5 of 5 copied requests");
        check(&mirrored(100, 80, 0), "undecided");
        check(&mirrored(100, 79, 0), "output mismatch: 21 of 100");
        check(
            &mirrored(80, 80, 21),
            "output mismatch: 21 of 101 copied requests were answered otherwise than by the version before, 21 of them not at all",
        );
    }

    #[test]
    fn the_evidence_is_told_in_figures() {
        let evidence = evidence(tally(&[(100, 200)], 1), tally(&[(100, 100)], 0));
        let told = evidence.to_string();
        assert!(told.contains("requests 101, errors 1; before: requests 100, errors 0"), "{told}");
        assert!(told.contains("ratio 2.0"), "{told}");
    }
}
