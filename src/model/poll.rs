//! Polling: the repository is what is to be served, and what comes, changes or goes is followed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;

use super::error::{ChangeError, LoadError};
use super::loader::Glance;
use super::manager::{Change, ModelLifecycleManager};
use super::names::ModelName;
use super::operation::Conditions;
use crate::causes;

/// What was seen of each model when it was loaded last.
type Seen = BTreeMap<ModelName, String>;

impl ModelLifecycleManager {
    /// Loads what the repository has, and begins to follow it on an interval: what is new or has changed
    /// is loaded once it has settled, and what is gone is unloaded. What an operator has unloaded stays
    /// so.
    ///
    /// # Errors
    /// [`ChangeError::Repository`] when the repository cannot be read. What fails of a model is told by
    /// its report, and tried again when it changes, or at the next round where that may help.
    pub async fn follow(&self, interval: Duration) -> Result<(), Arc<ChangeError>> {
        let mut seen = Seen::new();
        self.look(&mut seen).await.map_err(Arc::new)?;
        let manager = self.clone();
        self.core.tasks.spawn(async move {
            let closing = &manager.core.refusing;
            while closing.run_until_cancelled(sleep(interval)).await.is_some() {
                if let Err(error) = manager.look(&mut seen).await {
                    warn!(cause = causes::of_error(&error), "the repository cannot be polled");
                }
            }
        });
        Ok(())
    }

    /// One round.
    async fn look(&self, seen: &mut Seen) -> Result<(), ChangeError> {
        let names = self.available().await?;
        for name in &names {
            let unwanted =
                self.core.registry.get(name.as_str()).is_some_and(|entry| entry.is_unwanted());
            let glance = self.core.ask(name, |loader, name| loader.source.glance(name)).await;
            // What cannot be read is told by who loads it.
            let Ok(Glance { settled: true, stamp }) = glance else { continue };
            let news = !unwanted && seen.get(name) != Some(&stamp);
            if news && self.follow_one(name).await {
                seen.insert(name.clone(), stamp);
            }
        }
        let gone: Vec<ModelName> =
            seen.keys().filter(|name| !names.contains(name)).cloned().collect();
        for name in gone {
            if let Ok(operation) = self.begin(&name, Change::Unload(None), Conditions::default()) {
                let ended = operation.done().await;
                if ended.is_err_and(|error| matches!(*error, ChangeError::Leased { .. })) {
                    // It is tried again.
                    continue;
                }
            }
            // It may come back, and is then to be loaded.
            if let Some(entry) = self.core.registry.get(name.as_str()) {
                entry.leave_open();
            }
            // It is told by a check where that fails.
            self.core.keep().await.ok();
            seen.remove(&name);
        }
        Ok(())
    }

    /// Loads a model as it is now; whether there is no use in trying the same again.
    async fn follow_one(&self, name: &ModelName) -> bool {
        let Ok(operation) = self.begin_load(name) else { return false };
        match operation.done().await {
            Ok(_) => true,
            Err(error) => !may_pass(&error),
        }
    }
}

/// Whether a failure may be of the moment.
fn may_pass(error: &ChangeError) -> bool {
    match error {
        ChangeError::Busy { .. } | ChangeError::Repository(_) => true,
        ChangeError::Source { source, .. } => source.may_pass(),
        ChangeError::Load { source, .. } | ChangeError::Scan { source, .. } => match source {
            LoadError::TimedOut(_) | LoadError::NoRoom(_) => true,
            source => source.may_pass(),
        },
        _ => false,
    }
}
