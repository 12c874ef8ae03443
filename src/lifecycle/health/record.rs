//! A check's status with the history of its changes.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use super::check::CheckResult;
use super::report::CheckChange;
use super::status::{CheckStatus, Tally, Thresholds};

/// One run that has come to its end, or to its timeout.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) result: CheckResult,
    pub(super) duration: Duration,
}

/// Everything that the results of a check have left behind.
#[derive(Debug)]
pub(super) struct Record {
    tally: Tally,
    duration: Duration,
    last_error: Option<String>,
    /// Never empty: it begins with the initial status. The last is the status now.
    history: VecDeque<CheckChange>,
    capacity: usize,
}

impl Record {
    /// Keeps the last `capacity` changes, and one at least.
    pub(super) fn new(status: CheckStatus, detail: String, capacity: usize) -> Self {
        let last_error = (status == CheckStatus::Failing).then(|| detail.clone());
        let first = CheckChange { at: SystemTime::now(), status, detail };
        Self {
            tally: Tally::new(status),
            duration: Duration::ZERO,
            last_error,
            history: VecDeque::from([first]),
            capacity: capacity.max(1),
        }
    }

    /// Counts a result; the change of status that it brings about, if it does.
    pub(super) fn count(
        &mut self,
        Finished { result, duration }: Finished,
        thresholds: Thresholds,
    ) -> Option<CheckChange> {
        let before = self.tally.status();
        self.tally = self.tally.next(result.is_ok(), thresholds);
        self.duration = duration;
        let detail = result.err().unwrap_or_default();
        if self.tally.failures() > 0 {
            self.last_error = Some(detail.clone());
        }
        let status = self.tally.status();
        (status != before).then(|| self.change(status, detail))
    }

    fn change(&mut self, status: CheckStatus, detail: String) -> CheckChange {
        let change = CheckChange { at: SystemTime::now(), status, detail };
        if self.history.len() == self.capacity {
            self.history.pop_front();
        }
        self.history.push_back(change.clone());
        change
    }

    pub(super) fn status(&self) -> CheckStatus {
        self.tally.status()
    }

    /// When the status became what it is.
    pub(super) fn since(&self) -> SystemTime {
        self.history.back().expect("the history begins with the initial status").at
    }

    pub(super) fn duration(&self) -> Duration {
        self.duration
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    pub(super) fn consecutive_failures(&self) -> u32 {
        self.tally.failures()
    }

    pub(super) fn history(&self) -> Vec<CheckChange> {
        self.history.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(error: &str) -> Finished {
        let result = if error.is_empty() { Ok(()) } else { Err(error.to_owned()) };
        Finished { result, duration: Duration::from_millis(3) }
    }

    fn told(record: &Record) -> Vec<(CheckStatus, String)> {
        record.history().into_iter().map(|change| (change.status, change.detail)).collect()
    }

    #[test]
    fn the_history_has_changes_only_and_is_bounded() {
        let mut record = Record::new(CheckStatus::Unknown, "new".to_owned(), 3);
        let thresholds = Thresholds::new(2, 1);
        assert!(record.count(finished("one"), thresholds).is_none());
        assert_eq!(record.last_error(), Some("one"));
        assert_eq!(record.count(finished("two"), thresholds).unwrap().detail, "two");
        assert!(record.count(finished("three"), thresholds).is_none());
        assert_eq!(record.consecutive_failures(), 3);
        let expected = [(CheckStatus::Unknown, "new"), (CheckStatus::Failing, "two")];
        assert_eq!(told(&record), expected.map(|(status, text)| (status, text.to_owned())));
        for round in 0..10 {
            record.count(finished(""), thresholds);
            record.count(finished("a"), thresholds);
            record.count(finished(&format!("b{round}")), thresholds);
        }
        let expected = [
            (CheckStatus::Failing, "b8"),
            (CheckStatus::Passing, ""),
            (CheckStatus::Failing, "b9"),
        ];
        assert_eq!(told(&record), expected.map(|(status, text)| (status, text.to_owned())));
        assert_eq!(record.duration(), Duration::from_millis(3));
    }

    #[test]
    fn a_last_error_stays_after_a_success() {
        let mut record = Record::new(CheckStatus::Failing, "at first".to_owned(), 8);
        assert_eq!(record.last_error(), Some("at first"));
        record.count(finished("then"), Thresholds::ONE);
        record.count(finished(""), Thresholds::ONE);
        assert_eq!((record.status(), record.last_error()), (CheckStatus::Passing, Some("then")));
        assert_eq!(record.consecutive_failures(), 0);
    }
}
