//! The turn of a model that is followed: a look at it, and what is to be done of it.

use super::error::{ChangeError, LoadError};
use super::followed::{Found, Known, Turned};
use super::loader::{Glance, SourceError};
use super::manager::{Change, ModelLifecycleManager};
use super::names::ModelName;
use super::operation::By;
use crate::causes;

impl ModelLifecycleManager {
    /// Looks at a model, and makes it what it is in the repository.
    pub(super) async fn turn(&self, name: &ModelName, known: Known) -> Turned {
        let glance = self.core.ask(name, |loader, name| loader.source.glance(name)).await;
        let is_written = glance.as_ref().is_ok_and(|glance| !glance.unsettled.is_empty());
        Turned { found: self.follow_glance(name, known, glance).await, is_written }
    }

    async fn follow_glance(
        &self,
        name: &ModelName,
        known: Known,
        glance: Result<Glance, ChangeError>,
    ) -> Found {
        let stamp = match glance {
            Ok(Glance { settled: true, stamp, .. }) => stamp,
            Ok(Glance { settled: false, .. }) => return Found::Unsettled,
            Err(ChangeError::ShuttingDown) => return Found::Same,
            Err(ChangeError::Source { source: SourceError::UnknownModel(_), .. }) => {
                return if known.is_gone { self.let_go(name).await } else { Found::Missing };
            }
            // What cannot be read is told by who loads it.
            Err(error) => causes::of_error(&error),
        };
        if known.stamp.as_ref() == Some(&stamp) {
            return Found::Same;
        }
        let entry = self.core.registry.get(name.as_str());
        let is_unwanted = entry.is_some_and(|entry| entry.is_unwanted());
        if is_unwanted {
            return Found::Done(stamp);
        }
        if self.waits_for_a_request(name).await {
            if let Some(entry) = self.core.registry.get(name.as_str()) {
                entry.outdate();
            }
            return Found::Done(stamp);
        }
        let Ok(operation) = self.begin_load(name, By::Follower) else { return Found::Same };
        match operation.done().await {
            Err(failure) if matches!(*failure, ChangeError::Unsettled { .. }) => Found::Unsettled,
            Err(failure) if may_pass(&failure) => Found::Failed(stamp),
            _ => Found::Done(stamp),
        }
    }

    /// Whether a model that does not serve is loaded by its next request.
    async fn waits_for_a_request(&self, name: &ModelName) -> bool {
        let is_required = self.core.terms.load().required.contains(name);
        if is_required || self.core.serving.routes(name).is_some() {
            return false;
        }
        let entry = self.core.registry.get(name.as_str());
        if entry.is_some_and(|entry| entry.waits_for_a_request()) {
            return true;
        }
        let is_lazy = self.is_lazy(name).await;
        if is_lazy {
            self.core.registry.entry(name).load_on_demand(true);
        }
        is_lazy
    }

    /// Unloads a model that is gone from the repository.
    async fn let_go(&self, name: &ModelName) -> Found {
        let Some(entry) = self.core.registry.get(name.as_str()) else { return Found::Gone };
        // Nobody has decided it: what is declared of the model is made of it when it is back.
        let begun = self.begin_aside(name, Change::Unload(None), By::Follower);
        let Ok(operation) = begun else { return Found::Kept };
        match operation.done().await.as_ref().map_err(AsRef::as_ref) {
            Ok(_) | Err(ChangeError::NotLoaded(_)) => {
                // It may come back, and is then to be loaded.
                entry.leave_open();
                entry.forget_failures();
                // It is told by a check where that fails.
                self.core.keep_model(name).await.ok();
                Found::Gone
            }
            Err(_) => Found::Kept,
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
