//! What is known of a model that is followed, and when it is looked at again. A pure machine: time comes
//! from outside.

use std::time::Duration;

use tokio::time::Instant;

/// Until a model that somebody is writing is looked at again.
const SOON: Duration = Duration::from_millis(500);

/// How long a model has to be missing to be gone: who replaces a folder moves the old one away first.
const GONE: Duration = Duration::from_secs(1);

/// After so many failures in a row the time until the next attempt doubles no more.
const DOUBLINGS: u32 = 5;

/// One model.
#[derive(Debug, Default)]
pub(super) struct Followed {
    tried: Option<Tried>,
    missing: Option<Instant>,
    due: Option<Instant>,
    turn: Turn,
}

/// What was made of the model as it was then.
#[derive(Debug)]
struct Tried {
    /// How it looked.
    stamp: String,
    failures: u32,
    /// When the same is tried again; `None` where that would be of no use.
    again: Option<Instant>,
}

/// Whether the model is being looked at, or changed.
#[derive(Debug, Default)]
enum Turn {
    #[default]
    Idle,
    UnderWay {
        /// Whether something may have changed since.
        again: bool,
    },
}

/// What a turn has to know.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The look of the model for which nothing is to be done now.
    pub(super) stamp: Option<String>,
    /// Whether the model is to be unloaded if it is still missing.
    pub(super) is_gone: bool,
}

/// How a turn has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing is to be done.
    Same,
    /// Somebody is writing all that there is of it.
    Unsettled,
    /// It is not there.
    Missing,
    /// As it looked then, it is loaded, or cannot be.
    Done(String),
    /// As it looked then, it could not be loaded for now.
    Failed(String),
    /// It was unloaded, because it is gone.
    Gone,
    /// It is gone, and cannot be unloaded for now.
    Kept,
}

/// A turn that has ended.
#[derive(Debug)]
pub(super) struct Turned {
    pub(super) found: Found,
    /// Whether somebody is writing a version of the model, whatever was found of the others.
    pub(super) is_written: bool,
}

impl Followed {
    /// Begins a turn; `None` while one is under way, which another one follows then.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Known> {
        if let Turn::UnderWay { again } = &mut self.turn {
            *again = true;
            return None;
        }
        self.turn = Turn::UnderWay { again: false };
        self.due = None;
        let rests = |tried: &&Tried| tried.again.is_none_or(|again| now < again);
        let stamp = self.tried.as_ref().filter(rests).map(|tried| tried.stamp.clone());
        let is_gone = self.missing.is_some_and(|since| now - since >= GONE);
        Some(Known { stamp, is_gone })
    }

    /// Ends a turn. `interval` is the time between two rounds.
    pub(super) fn end(&mut self, turned: Turned, now: Instant, interval: Duration) {
        let Turned { found, is_written } = turned;
        let soon = now + SOON.min(interval);
        if !matches!(found, Found::Missing | Found::Kept) {
            self.missing = None;
        }
        self.due = match found {
            Found::Same => self.tried.as_ref().and_then(|tried| tried.again),
            Found::Unsettled => Some(soon),
            Found::Missing => Some(*self.missing.get_or_insert(now) + GONE),
            Found::Kept => Some(now + interval),
            Found::Gone => {
                self.tried = None;
                None
            }
            Found::Done(stamp) => {
                self.tried = Some(Tried { stamp, failures: 0, again: None });
                None
            }
            Found::Failed(stamp) => Some(self.failed(stamp, now, interval)),
        };
        if is_written || matches!(self.turn, Turn::UnderWay { again: true }) {
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        }
        self.turn = Turn::Idle;
    }

    /// Notes a failure; when the same is tried again.
    fn failed(&mut self, stamp: String, now: Instant, interval: Duration) -> Instant {
        let before = self.tried.as_ref().filter(|tried| tried.stamp == stamp);
        let failures = before.map_or(0, |tried| tried.failures);
        let again = now + interval * 2_u32.pow(failures.min(DOUBLINGS));
        self.tried = Some(Tried { stamp, failures: failures + 1, again: Some(again) });
        again
    }

    /// When a turn is due, whatever happens until then.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether a turn is under way.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.turn, Turn::UnderWay { .. })
    }

    /// Whether nothing was made of the model yet.
    pub(super) fn is_new(&self) -> bool {
        self.tried.is_none() && self.missing.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(15);

    fn known(stamp: &str) -> Known {
        Known { stamp: Some(stamp.to_owned()), is_gone: false }
    }

    const NOTHING: Known = Known { stamp: None, is_gone: false };

    struct Model {
        followed: Followed,
        now: Instant,
    }

    impl Model {
        fn new() -> Self {
            Self { followed: Followed::default(), now: Instant::now() }
        }

        /// Takes a turn after some time; what it knows, and in how long the next one is due.
        fn turn(&mut self, after: Duration, found: Found) -> (Known, Option<Duration>) {
            self.now += after;
            let known = self.followed.begin(self.now).expect("none is under way");
            self.followed.end(of(found), self.now, INTERVAL);
            (known, self.followed.due().map(|due| due - self.now))
        }
    }

    fn of(found: Found) -> Turned {
        Turned { found, is_written: false }
    }

    fn done(stamp: &str) -> Found {
        Found::Done(stamp.to_owned())
    }

    fn failed(stamp: &str) -> Found {
        Found::Failed(stamp.to_owned())
    }

    #[test]
    fn what_is_done_is_not_done_again_until_it_looks_otherwise() {
        let mut model = Model::new();
        assert!(model.followed.is_new());
        assert_eq!(model.turn(INTERVAL, done("a")), (NOTHING, None));
        assert!(!model.followed.is_new());
        assert_eq!(model.turn(INTERVAL, Found::Same), (known("a"), None));
        assert_eq!(model.turn(INTERVAL, done("b")), (known("a"), None));
        assert_eq!(model.turn(INTERVAL, Found::Same), (known("b"), None));
    }

    #[test]
    fn what_may_pass_is_tried_again_less_and_less_often() {
        let mut model = Model::new();
        let waits = |times: u32| Some(INTERVAL * times);
        assert_eq!(model.turn(INTERVAL, failed("a")), (NOTHING, waits(1)));
        let half = INTERVAL / 2;
        assert_eq!(model.turn(half, Found::Same), (known("a"), Some(half)));
        assert_eq!(model.turn(half, failed("a")), (NOTHING, waits(2)));
        for times in [4, 8, 16, 32, 32] {
            assert_eq!(model.turn(INTERVAL * 100, failed("a")), (NOTHING, waits(times)));
        }
        assert_eq!(model.turn(half, failed("b")), (known("a"), waits(1)), "it has changed");
        assert_eq!(model.turn(INTERVAL, done("b")), (NOTHING, None));
        assert_eq!(model.turn(INTERVAL, Found::Same), (known("b"), None));
    }

    #[test]
    fn what_is_being_written_is_looked_at_soon() {
        let mut model = Model::new();
        assert_eq!(model.turn(INTERVAL, Found::Unsettled), (NOTHING, Some(SOON)));
        assert!(model.followed.is_new());
        assert_eq!(model.turn(SOON, done("a")), (NOTHING, None));
        model.followed.begin(model.now);
        model.followed.end(of(Found::Unsettled), model.now, SOON / 2);
        assert_eq!(model.followed.due(), Some(model.now + SOON / 2), "as soon as a round comes");
    }

    #[test]
    fn who_has_a_version_that_is_being_written_is_looked_at_soon_whatever_was_found() {
        let mut model = Model::new();
        for found in [done("a"), Found::Same, failed("b"), Found::Same, Found::Unsettled] {
            model.followed.begin(model.now);
            model.followed.end(Turned { found, is_written: true }, model.now, INTERVAL);
            assert_eq!(model.followed.due(), Some(model.now + SOON));
        }
        assert_eq!(model.turn(SOON, Found::Same), (known("b"), INTERVAL.checked_sub(SOON)));
        assert_eq!(model.turn(SOON, done("c")), (known("b"), None), "it is written");
    }

    #[test]
    fn who_is_missing_for_long_enough_is_gone() {
        let mut model = Model::new();
        let gone = || Known { stamp: Some("a".to_owned()), is_gone: true };
        model.turn(INTERVAL, done("a"));
        assert_eq!(model.turn(INTERVAL, Found::Missing), (known("a"), Some(GONE)));
        assert_eq!(model.turn(GONE / 2, Found::Missing), (known("a"), Some(GONE / 2)));
        assert_eq!(model.turn(GONE / 2, Found::Kept), (gone(), Some(INTERVAL)));
        assert_eq!(model.turn(INTERVAL, Found::Gone), (gone(), None));
        assert_eq!(model.turn(INTERVAL, done("a")), (NOTHING, None), "it came back");
    }

    #[test]
    fn who_was_only_replaced_is_not_gone() {
        let mut model = Model::new();
        model.turn(INTERVAL, done("a"));
        model.turn(INTERVAL, Found::Missing);
        assert_eq!(model.turn(GONE / 2, done("b")), (known("a"), None));
        assert_eq!(model.turn(INTERVAL, Found::Missing), (known("b"), Some(GONE)));
    }

    #[test]
    fn one_turn_at_a_time_and_another_after_it_where_it_was_asked_for() {
        let mut model = Model::new();
        assert!(model.followed.begin(model.now).is_some() && model.followed.is_busy());
        assert_eq!(model.followed.begin(model.now), None);
        assert_eq!(model.followed.begin(model.now), None);
        model.followed.end(of(done("a")), model.now, INTERVAL);
        assert_eq!(model.followed.due(), Some(model.now + SOON));
        assert!(!model.followed.is_busy());
        assert_eq!(model.turn(SOON, Found::Same), (known("a"), None));
    }
}
