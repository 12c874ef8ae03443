//! Draining a version and giving its memory back.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::error;

use super::change::{Core, Next, Warm};
use super::handle::Serving;
use super::loader::ModelSettings;
use super::memory::{self, MemoryChange};
use super::names::VersionId;
use super::record::VersionRecord;
use super::registry::ModelEntry;
use super::state::{VersionEvent, VersionState};
use crate::causes;

impl Core {
    /// Retires the records without waiting for them.
    pub(super) fn retire_all(self: &Arc<Self>, records: Vec<Arc<VersionRecord>>) {
        for record in records {
            drop(self.retire(record));
        }
    }

    /// Takes a record from DRAINING to UNLOADED in the background, however long its requests take.
    fn retire(self: &Arc<Self>, record: Arc<VersionRecord>) -> JoinHandle<()> {
        let core = Arc::clone(self);
        self.tasks.spawn(async move { core.drain_and_unload(&record).await })
    }

    /// Retires the records and waits at most `limit`; whether all were unloaded by then. What an ensemble has
    /// as a step is not waited for once its requests are done: it stays as long as that does.
    pub(super) async fn retire_within(
        self: &Arc<Self>,
        records: Vec<Arc<VersionRecord>>,
        limit: Duration,
    ) -> bool {
        let retiring = records.into_iter().map(async |record| {
            let held = held(Arc::clone(&record));
            tokio::select! {
                biased;
                _ = self.retire(record) => true,
                () = held => false,
            }
        });
        let retired = timeout(limit, join_all(retiring)).await;
        retired.is_ok_and(|retired| retired.into_iter().all(|is_unloaded| is_unloaded))
    }

    /// [`Core::retire_within`], and what it has given back of the process's memory if all was unloaded.
    pub(super) async fn retire_measured(
        self: &Arc<Self>,
        records: Vec<Arc<VersionRecord>>,
        limit: Duration,
    ) -> (bool, Option<MemoryChange>) {
        let before = memory::resident().filter(|_| !records.is_empty());
        let drained = self.retire_within(records, limit).await;
        let after = before.and_then(|_| memory::resident()).filter(|_| drained);
        let change = before.zip(after).map(|(before, after)| MemoryChange { before, after });
        (drained, change)
    }

    /// Retires whatever the model serves, once a change that is under way is done.
    pub(super) async fn close(self: &Arc<Self>, entry: &ModelEntry) {
        // The semaphore is never closed; a change that gets its permit later is refused.
        let _permit = entry.change.acquire().await;
        self.retire_all(self.publish(entry, Next::nothing()));
    }

    async fn drain_and_unload(self: &Arc<Self>, record: &Arc<VersionRecord>) {
        let VersionState::Draining(serving) = record.snapshot().state else {
            return;
        };
        serving.gate.close();
        serving.gate.drained().await;
        serving.holds.released().await;
        record.advance(VersionEvent::Drained);
        self.release(&record.id, serving).await;
        if let Some(entry) = self.registry.get(record.id.model.as_str()) {
            entry.forget_superseded(record);
        }
        record.advance(VersionEvent::Released);
    }

    /// Gives up versions that are warm but were never routed.
    pub(super) async fn abandon(self: &Arc<Self>, versions: Vec<Warm>, reason: &str) {
        let abandoned = versions.into_iter().map(async |Warm { record, serving }| {
            record.fail(reason.to_owned());
            self.release(&record.id, serving).await;
        });
        join_all(abandoned).await;
    }

    /// Stops and drops the instances, and gives the memory back.
    async fn release(self: &Arc<Self>, id: &VersionId, serving: Arc<Serving>) {
        let (loader, settings) = (Arc::clone(&self.loader), serving.settings.clone());
        let release = move || {
            // Counted, so that no load that goes on meanwhile is said to have made it.
            loader.meter.measure(|| {
                serving.runner.shutdown();
                // The last request may still be about to drop its handle.
                serving.reservation.give_back();
                drop(serving);
                loader.backend.released();
            });
        };
        if let Err(failure) = self.unloads.run(&format!("unload {id}"), release).await {
            let cause = causes::of_error(&failure);
            error!(version = %id, cause, "unloading failed, its memory may stay in use");
        }
        self.let_go_aside(&settings);
    }

    /// Lets the steps go of a version that is gone, or did not come, where it was an ensemble.
    pub(super) fn let_go_aside(self: &Arc<Self>, settings: &ModelSettings) {
        let Some(definition) = &settings.ensemble else { return };
        let (core, models) = (Arc::clone(self), definition.models());
        self.tasks.spawn(async move { core.let_steps_go(models).await });
    }
}

/// Waits until nothing but an ensemble needs a version that is retired. Cancel safe.
async fn held(record: Arc<VersionRecord>) {
    let VersionState::Draining(serving) = record.snapshot().state else { return pending().await };
    // It is waited for only once it is closed.
    serving.gate.close();
    serving.gate.drained().await;
    if !serving.holds.is_held() {
        pending::<()>().await;
    }
}
