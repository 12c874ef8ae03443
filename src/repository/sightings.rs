//! For how long versions have looked as they do, by the server's own clock.
//!
//! The times of files are by the clock of whoever keeps them, which may be ahead. What does not change
//! before the server's eyes for long enough is complete, whatever those times say.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::warn;

use crate::model::{ModelName, Version};

/// How long a version must have looked the same, at least.
const LEAST: Duration = Duration::from_secs(5);

/// How far two clocks are apart that nobody is told of.
const APART: Duration = Duration::from_secs(5);

/// How many versions are remembered.
const REMEMBERED: usize = 1024;

/// What was seen of versions that no other sign tells to be complete.
#[derive(Debug, Default)]
pub(super) struct Sightings(Mutex<BTreeMap<Whose, Sighting>>);

/// A version, or a model that has none.
type Whose = (ModelName, Option<Version>);

#[derive(Debug)]
struct Sighting {
    looks: u64,
    since: Instant,
    is_told: bool,
}

/// A moment on two clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Since 1970, by the clock that files' times are held against.
    pub(super) wall: Duration,
    /// By the one that nobody sets.
    pub(super) steady: Instant,
}

impl Now {
    pub(super) fn get() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall, steady: Instant::now() }
    }
}

/// How something looks.
#[derive(Debug, Default)]
pub(super) struct Looks {
    hasher: DefaultHasher,
    /// When the last of it was changed, since 1970.
    pub(super) newest: Duration,
    /// What that was.
    latest: PathBuf,
}

impl Looks {
    /// Adds a part of it, by all that tells it from another.
    pub(super) fn add(&mut self, part: impl Hash, (path, changed): (&Path, Duration)) {
        part.hash(&mut self.hasher);
        if changed >= self.newest {
            (self.newest, self.latest) = (changed, path.to_owned());
        }
    }
}

/// A look at a model, beside those before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) model: &'a ModelName,
    pub(super) sightings: &'a Sightings,
    pub(super) now: Now,
}

impl Sight<'_> {
    /// Whether a version has looked like this for so long, and for five seconds. That a file of it is of
    /// a time to come is told, once.
    pub(super) fn is_unchanged(
        &self,
        version: Option<Version>,
        looks: &Looks,
        stable: Duration,
    ) -> bool {
        let ahead = looks.newest.saturating_sub(self.now.wall);
        let whose = (self.model.clone(), version);
        let mut known = self.sightings.known();
        let sighting = seen(&mut known, whose, (looks.hasher.finish(), self.now.steady));
        if ahead > APART && !sighting.is_told {
            sighting.is_told = true;
            let (path, ahead_s) = (looks.latest.display(), ahead.as_secs());
            warn!(%path, ahead_s, "the time of a file is ahead of this server's clock");
        }
        self.now.steady.saturating_duration_since(sighting.since) >= stable.max(LEAST)
    }

    /// Forgets what else was seen of the model before.
    pub(super) fn keep(&self, versions: &[Option<Version>]) {
        let of_others = |(model, version): &Whose, _: &mut Sighting| {
            model != self.model || versions.contains(version)
        };
        self.sightings.known().retain(of_others);
    }
}

impl Sightings {
    /// Forgets a model.
    pub(super) fn forget(&self, model: &ModelName) {
        self.known().retain(|(other, _), _| other != model);
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Whose, Sighting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was seen, once this was seen too.
fn seen(
    known: &mut BTreeMap<Whose, Sighting>,
    whose: Whose,
    (looks, now): (u64, Instant),
) -> &mut Sighting {
    if known.len() >= REMEMBERED && !known.contains_key(&whose) {
        let oldest = known.iter().min_by_key(|(_, sighting)| sighting.since);
        let oldest = oldest.map(|(whose, _)| whose.clone());
        oldest.and_then(|oldest| known.remove(&oldest));
    }
    let new = Sighting { looks, since: now, is_told: false };
    let sighting = known.entry(whose).or_insert(new);
    if sighting.looks != looks {
        (sighting.looks, sighting.since) = (looks, now);
    }
    sighting
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn looks(text: &str) -> Looks {
        let mut looks = Looks::default();
        looks.add(text, (Path::new(text), SECOND));
        looks
    }

    fn name(model: &str) -> ModelName {
        ModelName::new(model).unwrap()
    }

    #[test]
    fn what_looks_the_same_for_long_enough_is_unchanged() {
        let (sightings, model, begin) = (Sightings::default(), name("m"), Now::get());
        let sees = |after: u64, version, text, stable| {
            let now =
                Now { steady: begin.steady + SECOND * u32::try_from(after).unwrap(), ..begin };
            let sight = Sight { model: &model, sightings: &sightings, now };
            sight.is_unchanged(version, &looks(text), stable)
        };
        let first = Some(Version::FIRST);
        for (after, version, text, expected) in [
            (0, first, "a", false),
            (4, first, "a", false),
            (4, None, "a", false),
            (5, first, "a", true),
            (6, first, "b", false),
            (9, None, "a", true),
            (10, first, "b", false),
            (11, first, "b", true),
            (99, first, "b", true),
        ] {
            assert_eq!(sees(after, version, text, Duration::ZERO), expected, "{after} {text}");
        }
        assert!(!sees(99, first, "b", SECOND * 100) && sees(106, first, "b", SECOND * 100));
        let now = Now { steady: begin.steady + SECOND * 106, ..begin };
        Sight { model: &model, sightings: &sightings, now }.keep(&[None]);
        assert!(!sees(106, first, "b", SECOND), "it was forgotten");
        assert!(sees(106, None, "a", SECOND));
        sightings.forget(&model);
        assert!(sightings.known().is_empty());
    }

    #[test]
    fn a_time_to_come_is_told_once() {
        let (sightings, model, now) = (Sightings::default(), name("m"), Now::get());
        let is_told = |wall, text| {
            let sight = Sight { model: &model, sightings: &sightings, now: Now { wall, ..now } };
            sight.is_unchanged(None, &looks(text), SECOND);
            sightings.known().values().all(|sighting| sighting.is_told)
        };
        assert!(!is_told(SECOND, "a"));
        let mut ahead = looks("a");
        ahead.add("b", (Path::new("b"), now.wall + SECOND * 60));
        let sight = Sight { model: &model, sightings: &sightings, now };
        sight.is_unchanged(None, &ahead, SECOND);
        assert_eq!(ahead.latest, Path::new("b"));
        assert!(is_told(now.wall, "another"), "and still is when it has changed");
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let (sightings, begin) = (Sightings::default(), Now::get());
        for number in 0..REMEMBERED + 9 {
            let model = name(&format!("m{number}"));
            let steady = begin.steady + SECOND * u32::try_from(number).unwrap();
            let sight =
                Sight { model: &model, sightings: &sightings, now: Now { steady, ..begin } };
            sight.is_unchanged(None, &looks("a"), SECOND);
        }
        let known = sightings.known();
        assert_eq!(known.len(), REMEMBERED);
        assert!(
            !known.contains_key(&(name("m8"), None)) && known.contains_key(&(name("m9"), None))
        );
    }
}
