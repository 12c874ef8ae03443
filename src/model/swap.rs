//! Swap: load the new version beside the old, flip in one step, then drain and unload the old.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::change::{Core, Warm};
use super::error::ChangeError;
use super::handle::Serving;
use super::names::{ModelName, Version, VersionId};
use super::registry::ModelEntry;
use super::report::SwapReport;
use super::serving_map::Routes;

/// How a swap is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwapOptions {
    /// The version that is to answer requests without a version.
    pub to: Version,
    /// How long the swap waits for the old version to be unloaded before it reports that it is not;
    /// the manager's default where `None`. The old version's requests are never cut off.
    pub drain_timeout: Option<Duration>,
    /// Whether the old version stays loaded and answers requests that name it.
    pub keep_previous: bool,
}

impl Core {
    pub(super) async fn swap(
        self: &Arc<Self>,
        name: &ModelName,
        options: SwapOptions,
    ) -> Result<SwapReport, ChangeError> {
        let not_loaded = || ChangeError::NotLoaded(name.clone());
        let unknown = || ChangeError::UnknownModel(name.clone());
        let entry = self.registry.get(name.as_str()).ok_or_else(unknown)?;
        let _permit = entry.change.try_acquire().map_err(|_| ChangeError::Busy(name.clone()))?;
        if self.closing.is_cancelled() {
            return Err(ChangeError::ShuttingDown);
        }
        let old = self.serving.routes(name).ok_or_else(not_loaded)?;
        if old.current == options.to {
            let id = VersionId { model: name.clone(), version: options.to };
            return Err(ChangeError::AlreadyCurrent(id));
        }
        let started = Instant::now();
        let fresh = match old.versions.get(&options.to) {
            Some(_) => None,
            None => Some(self.warm(&entry, options.to, &self.settings(name).await?).await?),
        };
        let load_took = started.elapsed();
        let drained = self.flip(&entry, &old, fresh, options).await;
        let (from, to) = (old.current, options.to);
        Ok(SwapReport { from, to, load_took, took: started.elapsed(), drained })
    }

    /// Routes the new version in place of the old, and waits for the old to be unloaded.
    async fn flip(
        self: &Arc<Self>,
        entry: &ModelEntry,
        old: &Routes,
        fresh: Option<Warm>,
        options: SwapOptions,
    ) -> bool {
        let mut versions = old.versions.clone();
        if !options.keep_previous {
            versions.remove(&old.current);
        }
        let loaded = fresh.as_ref().map(|warm| Arc::clone(&warm.serving));
        versions.extend(loaded.map(|serving: Arc<Serving>| (options.to, serving)));
        let routes = Routes { current: options.to, versions };
        let retired = self.publish(entry, Some(routes), fresh.into_iter().collect());
        self.retire_within(retired, options.drain_timeout.unwrap_or(self.drain_timeout)).await
    }
}
