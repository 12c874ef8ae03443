//! The swap where there is no room for two versions: one goes before the other comes.

use std::sync::Arc;

use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::change::{Core, Lineup, Warm, Wish};
use super::error::ChangeError;
use super::history::Cause;
use super::intent::Choice;
use super::loading::Demands;
use super::names::{Version, VersionId};
use super::operation::Operation;
use super::registry::ModelEntry;
use super::report::SwapReport;
use super::swap::{Flip, is_wanted};

impl Core {
    /// Unloads the version that is current, then loads the new one. Requests wait in between.
    pub(super) async fn flip_one_by_one(
        self: &Arc<Self>,
        (entry, _permit): (&Arc<ModelEntry>, SemaphorePermit<'_>),
        flip: Flip,
        operation: &Arc<Operation>,
    ) -> Result<SwapReport, ChangeError> {
        let started = Instant::now();
        let old = self.routes_of(&entry.name)?;
        let from = old.current;
        entry.park(None);
        if let Some(other) =
            old.versions.keys().find(|other| **other != from && is_wanted(entry, **other))
        {
            let id = VersionId { model: entry.name.clone(), version: *other };
            let by =
                vec!["others: with the strategy 'resource' the model has one version".to_owned()];
            return Err(ChangeError::InUse { id, by });
        }
        // Asked before anything is given up: whether the version is there at all.
        self.settings_for(entry, flip.to).await?;
        operation.commit()?;
        let arrival = entry.begin_coming();
        operation.step("DRAIN", Some(from));
        let retired = self.publish(entry, None, (Vec::new(), flip.cause));
        drop(old);
        let limit = flip.drain_timeout.unwrap_or_else(|| self.drain_timeout());
        let (drained, memory) = self.retire_measured(retired, limit).await;
        let loading = Instant::now();
        let exchanged = self.exchange((entry, from), &flip, operation).await;
        drop(arrival);
        let (load_took, took) = (loading.elapsed(), started.elapsed());
        let report = SwapReport {
            from,
            to: flip.to,
            load_took,
            took,
            drained,
            kept: false,
            kept_until: None,
            memory,
        };
        exchanged.map(|()| report)
    }

    /// Loads the new version where nothing serves; the old one again if that fails.
    async fn exchange(
        self: &Arc<Self>,
        (entry, from): (&Arc<ModelEntry>, Version),
        flip: &Flip,
        operation: &Arc<Operation>,
    ) -> Result<(), ChangeError> {
        match self.alone((entry, flip.to), flip.demands.clone(), operation).await {
            Ok(warm) => {
                let newest = entry.newest(flip.to);
                entry.decide(|intent| {
                    intent.chosen = Some(Choice { version: flip.to, newest });
                    intent.weights = None;
                });
                self.become_only(entry, warm, flip.cause);
                Ok(())
            }
            Err(failure) => {
                let back = self.alone((entry, from), Demands::default(), operation).await?;
                self.become_only(entry, back, Cause::RolledBackByItself);
                Err(failure)
            }
        }
    }

    /// Makes a version warm that is to be the only one. Nobody gives it up half-way.
    async fn alone(
        self: &Arc<Self>,
        (entry, version): (&ModelEntry, Version),
        demands: Demands,
        operation: &Arc<Operation>,
    ) -> Result<Warm, ChangeError> {
        let settings = self.settings_for(entry, version).await?;
        let wish = Wish { entry, version, operation };
        let warm = self.warm(wish, &settings, demands).await;
        let mut warm = self.all_or_nothing(vec![warm], operation).await?;
        Ok(warm.pop().expect("it is what was asked for"))
    }

    fn become_only(&self, entry: &ModelEntry, warm: Warm, cause: Cause) {
        let version = warm.record.id.version;
        let versions = [(version, Arc::clone(&warm.serving))].into();
        let lineup = Lineup { current: version, versions };
        // Nothing else serves, so nothing is to be retired.
        self.publish(entry, Some(lineup), (vec![warm], cause));
    }
}
