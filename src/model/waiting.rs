//! Requests that wait for a model: one that is loaded on its first request, or is between two versions.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::error::LookupError;
use super::handle::VersionHandle;
use super::manager::ModelLifecycleManager;
use super::operation::By;
use super::registry::ModelEntry;
use super::serving_map::Wanted;
use super::unrouted::Unrouted;

/// How long a model that could not be loaded is not tried again.
const BACKOFF: Duration = Duration::from_secs(5);

/// Likewise, where that may pass at any moment: there was no room, or somebody is writing it.
const SOON: Duration = Duration::from_millis(500);

impl ModelLifecycleManager {
    /// [`ModelLifecycleManager::acquire`] for a request that can wait: a model that is loaded on demand
    /// is loaded, once for all who wait, and one that is between two versions is waited for. A request that is
    /// refused is counted.
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
        let acquired = self.acquire_in_time(model, wanted, deadline).await;
        acquired.inspect_err(|error| self.count_unrouted(model, error))
    }

    fn count_unrouted(&self, model: &str, error: &LookupError) {
        match self.core.registry.get(model) {
            Some(entry) => entry.unrouted.add(Unrouted::of(error, entry.lacks_room())),
            None => self.core.unrouted.add(Unrouted::of(error, false)),
        }
    }

    async fn acquire_in_time(
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
        let crowded = |_| LookupError::Crowded { model: model.to_owned() };
        // Taken first: who loads it goes on as long as somebody waits.
        let _place = entry.waiting.try_acquire().map_err(crowded)?;
        let (mut coming, mut has_waited) = (entry.coming(), false);
        loop {
            let is_coming = *coming.borrow_and_update() > 0;
            // It may have come, and gone again before this request got to it.
            let is_coming = is_coming || self.load_on_demand(&entry);
            match self.acquire(model, wanted) {
                Ok(handle) if has_waited => return Ok(handle.after_waiting()),
                Ok(handle) => return Ok(handle),
                Err(refusal) if !is_coming => return Err(refusal),
                Err(_) => {}
            }
            // The entry, and with it the sender, is there as long as this.
            let changed = timeout_at(deadline, coming.changed()).await;
            if changed.is_err() || Instant::now() >= deadline {
                return Err(LookupError::Late { model: model.to_owned() });
            }
            has_waited = true;
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
        let Ok(operation) = self.begin_load(&entry.name, By::Demand) else { return false };
        let entry = Arc::clone(entry);
        self.core.tasks.spawn(async move {
            if let Err(failure) = operation.done().await {
                let passes = failure.is_no_room() || failure.is_unsettled();
                let pause = if passes { SOON } else { BACKOFF };
                entry.rest(Instant::now() + pause, failure.is_no_room());
            }
            drop(arrival);
        });
        true
    }
}
