//! Which version answered the requests that named none, and when.

use std::collections::VecDeque;
use std::time::SystemTime;

use super::names::Version;

/// How many tenures are remembered.
const REMEMBERED: usize = 64;

/// What made a version current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A load, by the model's version policy.
    Load,
    /// A swap.
    Swap,
    /// A rollback that somebody asked for.
    Rollback,
    /// The new version did not prove itself.
    RolledBackByItself,
}

impl Cause {
    /// The cause's name, such as `swap`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Swap => "swap",
            Self::Rollback => "rollback",
            Self::RolledBackByItself => "automatic_rollback",
        }
    }
}

/// A time during which one version was current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenure {
    /// The version.
    pub version: Version,
    /// SHA-256 over its files as they were then.
    pub digest: String,
    /// Since when.
    pub since: SystemTime,
    /// Until when; `None` for who is current now.
    pub until: Option<SystemTime>,
    /// What made it current.
    pub cause: Cause,
}

/// The tenures of one model, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Tenure>);

impl History {
    /// Notes who is current from now on; `None` when nobody is. A version that stays with the same
    /// files goes on with its tenure.
    pub(super) fn note(&mut self, current: Option<(Version, &str)>, cause: Cause) {
        let now = SystemTime::now();
        if let Some(last) = self.0.back_mut().filter(|last| last.until.is_none()) {
            if current == Some((last.version, &last.digest)) {
                return;
            }
            last.until = Some(now);
        }
        if let Some((version, digest)) = current {
            if self.0.len() >= REMEMBERED {
                self.0.pop_front();
            }
            let digest = digest.to_owned();
            self.0.push_back(Tenure { version, digest, since: now, until: None, cause });
        }
    }

    /// The last tenure of a version that is not `current`. One that was taken back because it did not
    /// prove itself is none to go back to.
    pub(super) fn before(&self, current: Version) -> Option<&Tenure> {
        let taken_back = |place: usize| {
            self.0.get(place + 1).is_some_and(|next| next.cause == Cause::RolledBackByItself)
        };
        let mut places = (0..self.0.len()).rev();
        let found =
            places.find(|place| self.0[*place].version != current && !taken_back(*place))?;
        self.0.get(found)
    }

    pub(super) fn tenures(&self) -> Vec<Tenure> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64) -> Version {
        Version::new(number).unwrap()
    }

    #[test]
    fn tenures_follow_each_other() {
        let mut history = History::default();
        history.note(None, Cause::Load);
        assert!(history.tenures().is_empty());
        history.note(Some((version(1), "a")), Cause::Load);
        history.note(Some((version(1), "a")), Cause::Swap);
        assert_eq!(history.tenures().len(), 1, "nothing has changed");
        history.note(Some((version(2), "b")), Cause::Swap);
        history.note(None, Cause::Load);
        history.note(Some((version(2), "c")), Cause::Load);
        let told: Vec<_> = history
            .tenures()
            .iter()
            .map(|tenure| (tenure.version.number(), tenure.digest.clone(), tenure.until.is_some()))
            .collect();
        let expected = [(1, "a", true), (2, "b", true), (2, "c", false)];
        assert_eq!(told, expected.map(|(v, digest, ended)| (v, digest.to_owned(), ended)));
        assert_eq!(history.before(version(2)).unwrap().version, version(1));
        assert_eq!(history.before(version(1)).unwrap().digest, "c");
    }

    #[test]
    fn what_did_not_prove_itself_is_none_to_go_back_to() {
        let mut history = History::default();
        history.note(Some((version(1), "a")), Cause::Load);
        history.note(Some((version(2), "b")), Cause::Swap);
        history.note(Some((version(1), "a")), Cause::RolledBackByItself);
        assert_eq!(history.before(version(1)), None);
        history.note(Some((version(3), "c")), Cause::Swap);
        assert_eq!(history.before(version(3)).unwrap().version, version(1));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut history = History::default();
        for number in 1..=100 {
            history.note(Some((version(number), "")), Cause::Swap);
        }
        let tenures = history.tenures();
        assert_eq!((tenures.len(), tenures[0].version), (REMEMBERED, version(37)));
    }
}
