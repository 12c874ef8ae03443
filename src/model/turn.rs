//! The turn of a model that is followed: a look at it, and what is to be done of it.

use std::time::Duration;

use tokio::time::sleep;

use super::error::ChangeError;
use super::followed::{Found, Known, Turned};
use super::loader::{Glance, SourceError};
use super::manager::{Change, ModelLifecycleManager};
use super::names::ModelName;
use super::operation::{By, Ended};
use crate::causes;

/// How often it is looked whether a model has left.
const LOOK: Duration = Duration::from_millis(5);

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
        if let Some(ended) = self.make_declared(name).await {
            // Where it cannot be what is declared of it, it is at least there.
            if ended.is_ok() || self.core.serving.routes(name).is_some() {
                return Found::of(stamp, &ended);
            }
        }
        let Ok(operation) = self.begin_load(name, By::Follower) else { return Found::Same };
        let ended = operation.done().await;
        let entry = self.core.registry.get(name.as_str());
        if ended.is_ok() && entry.is_some_and(|entry| entry.is_makeshift()) {
            return Found::Failed(stamp);
        }
        Found::of(stamp, &ended)
    }

    /// Makes the model what is declared of it and is not so yet; `None` where nothing is.
    async fn make_declared(&self, name: &ModelName) -> Option<Ended> {
        let entry = self.core.registry.get(name.as_str())?;
        let intent = entry.outstanding(|outstanding| outstanding.declared().cloned())?;
        let apply = Change::Apply(intent.is_wanted().then_some(intent.intent)?);
        let operation = self.begin_aside(name, apply, By::Reconciler).ok()?;
        Some(operation.done().await)
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
        let leaves = async {
            while self.core.serving.routes(name).is_some() {
                sleep(LOOK).await;
            }
        };
        // Its requests are not waited for: the model may come back meanwhile.
        let ended = tokio::select! {
            biased;
            ended = operation.done() => ended.map(drop),
            () = leaves => Ok(()),
        };
        match ended.as_ref().map_err(AsRef::as_ref) {
            Ok(()) | Err(ChangeError::NotLoaded(_)) => {
                // It may come back, and is then to be loaded.
                entry.leave_open();
                entry.forget_failures();
                entry.note_gone(true);
                // It is told by a check where that fails.
                self.core.keep_model(name).await.ok();
                Found::Gone
            }
            Err(_) => Found::Kept,
        }
    }
}

impl Found {
    /// What has come of a load of a model that looked so.
    fn of(stamp: String, ended: &Ended) -> Self {
        match ended.as_ref().map_err(AsRef::as_ref) {
            // What stands against it passes, and nobody tells when.
            Err(ChangeError::Unsettled { .. } | ChangeError::Busy { .. }) => Self::Unsettled,
            Err(failure) if failure.may_pass() => Self::Failed(stamp),
            _ => Self::Done(stamp),
        }
    }
}
