//! Requests that wait for a model: one that is loaded on its first request, or is between two versions.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::error::LookupError;
use super::handle::VersionHandle;
use super::manager::ModelLifecycleManager;
use super::registry::ModelEntry;
use super::serving_map::Wanted;

/// How long a model that could not be loaded is not tried again.
const BACKOFF: Duration = Duration::from_secs(5);

impl ModelLifecycleManager {
    /// [`ModelLifecycleManager::acquire`] for a request that can wait: a model that is loaded on demand
    /// is loaded, once for all who wait, and one that is between two versions is waited for.
    ///
    /// Cancel safe; a load that was begun goes on.
    ///
    /// # Errors
    /// [`LookupError`]; [`LookupError::Crowded`] when as many wait as may, and [`LookupError::Late`] at
    /// the deadline.
    pub async fn acquire_waiting(
        &self,
        model: &str,
        wanted: Wanted<'_>,
        deadline: Instant,
    ) -> Result<VersionHandle, LookupError> {
        let refusal = match self.acquire(model, wanted) {
            Ok(handle) => return Ok(handle),
            Err(refusal) => refusal,
        };
        let Some(entry) = self.core.registry.get(model) else { return Err(refusal) };
        let mut coming = entry.coming();
        if *coming.borrow_and_update() == 0 && !self.load_on_demand(&entry) {
            // It may have come in between.
            return self.acquire(model, wanted);
        }
        let crowded = |_| LookupError::Crowded { model: model.to_owned() };
        let _place = entry.waiting.try_acquire().map_err(crowded)?;
        loop {
            let is_coming = *coming.borrow_and_update() > 0;
            match self.acquire(model, wanted) {
                Err(refusal) if !is_coming => return Err(refusal),
                Err(_) => {}
                Ok(handle) => return Ok(handle.after_waiting()),
            }
            let changed = timeout_at(deadline, coming.changed()).await;
            // The entry, and with it the sender, is there as long as this.
            let late = |_| LookupError::Late { model: model.to_owned() };
            drop(changed.map_err(late)?);
        }
    }

    /// Begins to load a model that is loaded on demand; whether it comes now.
    fn load_on_demand(&self, entry: &Arc<ModelEntry>) -> bool {
        let serves = self.core.serving.routes(&entry.name).is_some();
        if !entry.is_on_demand() || serves || self.core.closing.is_cancelled() {
            return false;
        }
        let Some(arrival) = entry.begin_coming_first() else { return true };
        // Also while the server refuses changes, for it still serves.
        let Ok(operation) = self.begin_load(&entry.name) else { return false };
        let entry = Arc::clone(entry);
        self.core.tasks.spawn(async move {
            if operation.done().await.is_err() {
                entry.rest(Instant::now() + BACKOFF);
            }
            drop(arrival);
        });
        true
    }
}
