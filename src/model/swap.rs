//! Swap: load the new version beside the old, flip in one step, then drain and unload the old.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::change::{Core, Warm};
use super::error::ChangeError;
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
        let permit = entry.change.try_acquire().map_err(|_| ChangeError::Busy(name.clone()))?;
        if self.closing.is_cancelled() {
            return Err(ChangeError::ShuttingDown);
        }
        let old = self.serving.routes(name).ok_or_else(not_loaded)?;
        let id = VersionId { model: name.clone(), version: options.to };
        if old.current == options.to {
            return Err(ChangeError::AlreadyCurrent(id));
        }
        let started = Instant::now();
        let fresh = match old.versions.get(&options.to) {
            Some(_) => Vec::new(),
            None => self.fresh(&entry, id).await?,
        };
        let load_took = started.elapsed();
        let retired = self.publish(&entry, Some(flipped(&old, &fresh, options)), fresh);
        let (from, to) = (old.current, options.to);
        // The model may change again while the old version's requests are waited for.
        drop((permit, old));
        let limit = options.drain_timeout.unwrap_or_else(|| self.drain_timeout());
        let drained = self.retire_within(retired, limit).await;
        Ok(SwapReport { from, to, load_took, took: started.elapsed(), drained })
    }

    /// Makes a version of the repository warm.
    async fn fresh(
        self: &Arc<Self>,
        entry: &ModelEntry,
        id: VersionId,
    ) -> Result<Vec<Warm>, ChangeError> {
        let version = id.version;
        let settings = self.settings_for(id).await?;
        let warm = self.warm(entry, version, &settings).await;
        self.all_or_nothing(vec![warm]).await
    }
}

/// The routes with the new version in place of the old.
fn flipped(old: &Routes, fresh: &[Warm], options: SwapOptions) -> Routes {
    let mut versions = old.versions.clone();
    if !options.keep_previous {
        versions.remove(&old.current);
    }
    versions.extend(fresh.iter().map(|warm| (options.to, Arc::clone(&warm.serving))));
    Routes { current: options.to, versions }
}
