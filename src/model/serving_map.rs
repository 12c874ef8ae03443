//! Which version answers which request: an immutable snapshot that is replaced as a whole.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::gate::enter_current;
use super::handle::{Serving, VersionHandle};
use super::mirror::Mirror;
use super::names::{AliasName, ModelName, Version, VersionRef};
use super::traffic::Split;

/// The routes of every model that serves.
#[derive(Default)]
pub(super) struct ServingMap {
    models: ArcSwap<HashMap<ModelName, Arc<Routes>>>,
}

/// The versions of one model that take requests.
#[derive(Debug, Clone)]
pub(super) struct Routes {
    /// What answers a request without a version where no split says otherwise.
    pub(super) current: Version,
    /// What answers a request with one; has an entry for `current`, for every alias and for every
    /// version of the split.
    pub(super) versions: BTreeMap<Version, Arc<Serving>>,
    pub(super) aliases: BTreeMap<AliasName, Version>,
    pub(super) split: Option<Arc<Split>>,
    pub(super) mirror: Option<Arc<Mirror>>,
}

/// Which version of a model a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Whichever the model's traffic rules say. Requests with the same key get the same version as
    /// long as the rules stay.
    Any {
        /// What the caller wants to be recognised by.
        key: Option<&'a str>,
    },
    /// This one.
    Version(Version),
    /// The one of this name.
    Alias(&'a AliasName),
}

impl<'a> Wanted<'a> {
    /// The version that is named; or any, by the key, where none is.
    pub fn new(named: Option<&'a VersionRef>, key: Option<&'a str>) -> Self {
        match named {
            None => Self::Any { key },
            Some(VersionRef::Number(version)) => Self::Version(*version),
            Some(VersionRef::Alias(alias)) => Self::Alias(alias),
        }
    }
}

impl From<Option<Version>> for Wanted<'_> {
    fn from(version: Option<Version>) -> Self {
        version.map_or(Self::Any { key: None }, Self::Version)
    }
}

impl Routes {
    /// Lets a version that only gets copies give way to all that answer.
    pub(super) fn favour(&self) {
        for (version, serving) in &self.versions {
            let answers = *version == self.current
                || self.aliases.values().any(|named| named == version)
                || self.split.as_ref().is_some_and(|split| split.weights().of(*version) > 0);
            let copies = self.mirror.as_ref().is_some_and(|mirror| mirror.is_to(serving));
            serving.runner.give_way(copies && !answers);
        }
    }

    /// The version that is to answer; `None` where an alias names none.
    pub(super) fn pick(&self, model: &str, wanted: Wanted<'_>) -> Option<Version> {
        match wanted {
            Wanted::Version(version) => Some(version),
            Wanted::Alias(alias) => self.aliases.get(alias).copied(),
            Wanted::Any { key } => {
                let picked = self.split.as_ref().map(|split| split.pick(model, key));
                Some(picked.unwrap_or(self.current))
            }
        }
    }
}

impl ServingMap {
    /// Enters the version that is to answer; `None` when there is none. Takes no lock.
    pub(super) fn enter(&self, model: &str, wanted: Wanted<'_>) -> Option<VersionHandle> {
        // Only what would go to any version is copied: who names one wants that one.
        let copied = matches!(wanted, Wanted::Any { .. });
        let picked = || {
            let models = self.models.load();
            let routes = models.get(model)?;
            let serving = routes.versions.get(&routes.pick(model, wanted)?)?;
            let mirror = routes.mirror.as_ref().filter(|_| copied);
            Some((Arc::clone(serving), mirror.cloned()))
        };
        enter_current(picked, |(serving, mirror)| VersionHandle::enter(serving, mirror))
    }

    /// The routes of one model as they are now.
    pub(super) fn routes(&self, model: &ModelName) -> Option<Arc<Routes>> {
        self.models.load().get(model).cloned()
    }

    /// Replaces the routes of one model in one step; `None` removes them.
    pub(super) fn replace(&self, model: &ModelName, routes: Option<Routes>) {
        let routes = routes.map(Arc::new);
        self.models.rcu(|models| {
            let mut models = HashMap::clone(models);
            match &routes {
                Some(routes) => models.insert(model.clone(), Arc::clone(routes)),
                None => models.remove(model),
            };
            models
        });
    }
}

impl fmt::Debug for ServingMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.models.load().iter()).finish()
    }
}
