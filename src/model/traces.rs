//! Which requests are traced: one in so many, up to so many, of every model or of one.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::names::ModelName;

/// One in so many requests is traced where nobody has said.
const RATE: NonZeroU32 = NonZeroU32::new(1000).expect("it is not zero");

/// What is told of a request that is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TraceLevel {
    /// Nothing: no request is.
    #[default]
    Off,
    /// Where its time went.
    Timestamps,
}

/// How requests are traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceSettings {
    /// What is told of them.
    pub level: TraceLevel,
    /// One in so many is.
    pub rate: NonZeroU32,
    /// How many still are; `None` for no bound.
    pub left: Option<u64>,
}

/// What is to become of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Update<T> {
    /// It stays.
    #[default]
    Keep,
    /// A model's becomes that of all models, theirs the default.
    Clear,
    /// It becomes this.
    Set(T),
}

/// A change of how requests are traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TraceChange {
    /// As in [`TraceSettings`].
    pub level: Update<TraceLevel>,
    /// As in [`TraceSettings`].
    pub rate: Update<NonZeroU32>,
    /// How many are traced from now on; `None` for no bound.
    pub count: Update<Option<u64>>,
}

/// Decides which requests are traced. Requests take no lock here.
#[derive(Debug, Default)]
pub struct Traces {
    scopes: ArcSwap<Scopes>,
    changing: Mutex<()>,
    traced: AtomicU64,
}

#[derive(Debug, Clone, Default)]
struct Scopes {
    all: Arc<Scope>,
    models: BTreeMap<ModelName, Arc<Scope>>,
}

/// What was said of one model, or of all of them; where it is silent, that of all holds, or the default.
#[derive(Debug, Default)]
struct Scope {
    level: Option<TraceLevel>,
    rate: Option<NonZeroU32>,
    left: Option<Arc<Left>>,
    /// Requests so far that might have been traced.
    seen: AtomicU64,
}

/// How many requests are still traced.
#[derive(Debug)]
enum Left {
    Unbounded,
    Count(AtomicU64),
}

impl<T> Update<T> {
    fn applied(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Keep => before,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }
}

impl Traces {
    /// How a model's requests are traced; those of models of which nothing else was said where none is
    /// named.
    pub fn settings(&self, model: Option<&ModelName>) -> TraceSettings {
        let scopes = self.scopes.load();
        let (scope, all) = (scopes.of(model), &scopes.all);
        TraceSettings {
            level: scope.level.or(all.level).unwrap_or_default(),
            rate: scope.rate.or(all.rate).unwrap_or(RATE),
            left: scope.left.as_ref().or(all.left.as_ref()).and_then(|left| left.count()),
        }
    }

    /// Changes how a model's requests are traced, or those of all models.
    pub fn change(&self, model: Option<&ModelName>, change: TraceChange) {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scopes = Scopes::clone(&self.scopes.load());
        let before = match model {
            None => Some(&scopes.all),
            Some(model) => scopes.models.get(model),
        };
        let next = Arc::new(Scope::changed(before.map(Arc::as_ref), change));
        match model {
            None => scopes.all = next,
            Some(model) if next.is_silent() => drop(scopes.models.remove(model)),
            Some(model) => drop(scopes.models.insert(model.clone(), next)),
        }
        self.scopes.store(Arc::new(scopes));
    }

    /// Whether a request of this model that comes now is traced; then, the how manieth it is.
    pub(crate) fn sample(&self, model: &ModelName) -> Option<u64> {
        let scopes = self.scopes.load();
        let (scope, all) = (scopes.of(Some(model)), &scopes.all);
        if scope.level.or(all.level).unwrap_or_default() == TraceLevel::Off {
            return None;
        }
        let rate = scope.rate.or(all.rate).unwrap_or(RATE);
        let seen = scope.seen.fetch_add(1, Ordering::Relaxed);
        let is_one = seen.is_multiple_of(u64::from(rate.get()));
        let left = scope.left.as_ref().or(all.left.as_ref());
        let is_traced = is_one && left.is_none_or(|left| left.take());
        is_traced.then(|| self.traced.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl Scopes {
    fn of(&self, model: Option<&ModelName>) -> &Scope {
        model.and_then(|model| self.models.get(model)).unwrap_or(&self.all)
    }
}

impl Scope {
    /// What is said from now on. It is counted anew, so that the next request is the first.
    fn changed(before: Option<&Self>, change: TraceChange) -> Self {
        let TraceChange { level, rate, count } = change;
        let left = before.and_then(|before| before.left.clone());
        let count = match count {
            Update::Keep => Update::Keep,
            Update::Clear => Update::Clear,
            Update::Set(count) => Update::Set(Arc::new(Left::new(count))),
        };
        Self {
            level: level.applied(before.and_then(|before| before.level)),
            rate: rate.applied(before.and_then(|before| before.rate)),
            left: count.applied(left),
            seen: AtomicU64::new(0),
        }
    }

    fn is_silent(&self) -> bool {
        self.level.is_none() && self.rate.is_none() && self.left.is_none()
    }
}

impl Left {
    fn new(count: Option<u64>) -> Self {
        count.map_or(Self::Unbounded, |count| Self::Count(AtomicU64::new(count)))
    }

    fn count(&self) -> Option<u64> {
        match self {
            Self::Unbounded => None,
            Self::Count(left) => Some(left.load(Ordering::Relaxed)),
        }
    }

    /// Takes one, if there is one left.
    fn take(&self) -> bool {
        match self {
            Self::Unbounded => true,
            Self::Count(left) => {
                let one_less = |left: u64| left.checked_sub(1);
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ModelName {
        ModelName::new(name).unwrap()
    }

    fn every(rate: u32, count: Update<Option<u64>>) -> TraceChange {
        let rate = NonZeroU32::new(rate).unwrap();
        TraceChange { level: Update::Set(TraceLevel::Timestamps), rate: Update::Set(rate), count }
    }

    /// Which of so many requests are traced.
    fn traced(traces: &Traces, model: &str, requests: usize) -> Vec<usize> {
        let model = name(model);
        (0..requests).filter(|_| traces.sample(&model).is_some()).collect()
    }

    #[test]
    fn one_in_so_many_is_traced_up_to_so_many() {
        let traces = Traces::default();
        assert!(traced(&traces, "a", 10).is_empty());
        traces.change(None, every(3, Update::Set(Some(2))));
        assert_eq!(traced(&traces, "a", 10), [0, 3]);
        assert_eq!(traces.settings(None).left, Some(0));
        traces.change(None, TraceChange { count: Update::Clear, ..TraceChange::default() });
        assert_eq!(traced(&traces, "a", 10), [0, 3, 6, 9]);
    }

    #[test]
    fn a_model_may_be_traced_otherwise_until_that_is_cleared() {
        let traces = Traces::default();
        traces.change(Some(&name("a")), every(1, Update::Keep));
        assert_eq!(traced(&traces, "a", 2), [0, 1]);
        assert!(traced(&traces, "b", 2).is_empty());
        assert_eq!(traces.settings(Some(&name("b"))).level, TraceLevel::Off);
        let level = TraceChange { level: Update::Clear, ..TraceChange::default() };
        traces.change(Some(&name("a")), level);
        assert!(traced(&traces, "a", 2).is_empty());
        assert_eq!(traces.settings(Some(&name("a"))).rate.get(), 1);
        traces.change(Some(&name("a")), TraceChange { rate: Update::Clear, ..level });
        assert_eq!(traces.settings(Some(&name("a"))), traces.settings(None));
    }

    #[test]
    fn models_of_which_nothing_was_said_have_one_count() {
        let traces = Traces::default();
        traces.change(None, every(1, Update::Set(Some(3))));
        assert_eq!(traced(&traces, "a", 2), [0, 1]);
        assert_eq!(traced(&traces, "b", 2), [0]);
    }
}
