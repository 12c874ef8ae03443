//! Unload: a whole model, or one version that nothing needs.

use std::sync::Arc;

use super::change::{Core, Lineup, Next};
use super::error::ChangeError;
use super::history::Cause;
use super::names::{ModelName, Version, VersionId};
use super::operation::Operation;
use super::report::UnloadReport;

impl Core {
    /// Drains and unloads every version of a model, and forgets what failed before.
    pub(super) async fn unload(
        self: &Arc<Self>,
        name: &ModelName,
        operation: &Arc<Operation>,
    ) -> Result<UnloadReport, ChangeError> {
        let entry = self.known(name)?;
        let permit = self.permit(&entry, operation).await?;
        let routes = match self.serving.routes(name) {
            Some(routes) => routes,
            // Nothing is to come back on demand either.
            None if entry.unload_what_is_to_come() => {
                entry.note_served(None);
                entry.note_callers(None);
                return Ok(UnloadReport::nothing());
            }
            None => return Err(ChangeError::NotLoaded(name.clone())),
        };
        operation.commit()?;
        entry.seal()?;
        entry.load_on_demand(false);
        entry.note_served(None);
        entry.note_callers(None);
        let versions = routes.versions.keys().copied().collect();
        entry.park(None);
        entry.want(false);
        let retired = self.publish(&entry, Next::nothing());
        entry.forget_failures();
        // The model may change again while its requests are waited for.
        drop((permit, routes));
        let (drained, memory) = self.retire_measured(retired, self.drain_timeout()).await;
        Ok(UnloadReport { versions, drained, memory })
    }

    /// Drains and unloads one version of a model that others of it can do without.
    pub(super) async fn unload_version(
        self: &Arc<Self>,
        name: &ModelName,
        version: Version,
        operation: &Arc<Operation>,
    ) -> Result<UnloadReport, ChangeError> {
        let entry = self.known(name)?;
        let permit = self.permit(&entry, operation).await?;
        let routes = self.routes_of(name)?;
        let id = VersionId { model: name.clone(), version };
        if !routes.versions.contains_key(&version) {
            return Err(ChangeError::VersionNotLoaded(id));
        }
        let mut uses = entry.intent().uses(version);
        uses.extend(routes.versions[&version].holds.users());
        if routes.current == version {
            uses.insert(0, "requests that name no version".to_owned());
        }
        if !uses.is_empty() {
            return Err(ChangeError::InUse { id, by: uses });
        }
        operation.commit()?;
        let mut lineup = Lineup::of(&routes);
        lineup.versions.remove(&version);
        if entry.parked().is_some_and(|parked| parked.version == version) {
            entry.park(None);
        }
        let retired = self.publish(&entry, Next::lineup(lineup, Cause::Load));
        drop((permit, routes));
        let (drained, memory) = self.retire_measured(retired, self.drain_timeout()).await;
        Ok(UnloadReport { versions: vec![version], drained, memory })
    }
}
