//! Which version answers which request: an immutable snapshot that is replaced as a whole.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::handle::{Serving, VersionHandle};
use super::names::{ModelName, Version};

/// The routes of every model that serves.
#[derive(Default)]
pub(super) struct ServingMap {
    models: ArcSwap<HashMap<ModelName, Arc<Routes>>>,
}

/// The versions of one model that take requests.
#[derive(Debug, Clone)]
pub(super) struct Routes {
    /// What answers a request without a version.
    pub(super) current: Version,
    /// What answers a request with one; has an entry for `current`.
    pub(super) versions: BTreeMap<Version, Arc<Serving>>,
}

impl ServingMap {
    /// Enters the version that is to answer; `None` when there is none.
    ///
    /// Takes no lock. A version leaves the map before it stops admitting, so a refusal means that
    /// the snapshot was stale, and the next one is another.
    pub(super) fn enter(&self, model: &str, version: Option<Version>) -> Option<VersionHandle> {
        loop {
            let models = self.models.load();
            let routes = models.get(model)?;
            let serving = routes.versions.get(&version.unwrap_or(routes.current))?;
            if let Some(handle) = VersionHandle::enter(serving) {
                return Some(handle);
            }
        }
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
