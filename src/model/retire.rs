//! Draining a version and giving its memory back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::error;

use super::change::Core;
use super::handle::Serving;
use super::record::VersionRecord;
use super::state::{VersionEvent, VersionState};
use crate::causes;

impl Core {
    /// Takes a record from DRAINING to UNLOADED in the background, however long its requests take.
    pub(super) fn retire(self: &Arc<Self>, record: Arc<VersionRecord>) -> JoinHandle<()> {
        let core = Arc::clone(self);
        self.tasks.spawn(async move { core.drain_and_unload(&record).await })
    }

    /// Retires the records and waits at most `limit`; whether all were unloaded by then.
    pub(super) async fn retire_within(
        self: &Arc<Self>,
        records: Vec<Arc<VersionRecord>>,
        limit: Duration,
    ) -> bool {
        let retiring = records.into_iter().map(|record| self.retire(record));
        timeout(limit, join_all(retiring)).await.is_ok()
    }

    async fn drain_and_unload(&self, record: &VersionRecord) {
        let VersionState::Draining(serving) = record.snapshot().state else {
            return;
        };
        serving.gate.close();
        serving.gate.drained().await;
        record.advance(VersionEvent::Drained);
        let backend = Arc::clone(&self.loader.backend);
        let release = move || {
            release(serving);
            backend.released();
        };
        let released = self.housekeeping.run(&format!("unload {}", record.id), release).await;
        if let Err(failure) = released {
            let cause = causes::of_error(&failure);
            error!(version = %record.id, cause, "unloading failed, its memory may stay in use");
        }
        record.advance(VersionEvent::Released);
    }
}

/// Stops the instances, which drops them on their own threads.
fn release(serving: Arc<Serving>) {
    serving.pool.shutdown();
    drop(serving);
}
