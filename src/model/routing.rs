//! Aliases and weights: which version answers, without loading any.

use std::sync::Arc;

use super::change::{Core, Lineup, Next};
use super::error::ChangeError;
use super::history::Cause;
use super::intent::{Intent, ShadowTarget};
use super::names::{AliasName, ModelName, Version, VersionId, VersionRef};
use super::operation::Operation;
use super::registry::ModelEntry;
use super::report::{self, TrafficReport};
use super::serving_map::Routes;
use super::swap::named;
use super::traffic::Weights;
use crate::lifecycle::Event;

/// A change of the rules by which requests are routed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoutingChange {
    /// Gives a version a name, which another may have had.
    SetAlias(AliasName, VersionRef),
    /// Takes a name away.
    RemoveAlias(AliasName),
    /// Shares the requests that name no version, by hundredths of a percent.
    SetWeights(Vec<(VersionRef, u32)>),
    /// Gives all of them to the current version.
    RemoveWeights,
    /// Copies a part of the requests, in hundredths of a percent, to a version.
    SetShadow(VersionRef, u32),
    /// Ends that.
    RemoveShadow,
}

impl Core {
    /// Changes the rules in one step. What it names has to be loaded; what it takes back need not be.
    pub(super) async fn route(
        &self,
        name: &ModelName,
        change: RoutingChange,
        operation: &Arc<Operation>,
    ) -> Result<TrafficReport, ChangeError> {
        let entry = self.known(name)?;
        let _permit = self.permit_now(&entry, operation).await?;
        let routes = self.serving.routes(name);
        let intent = changed(&entry, routes.as_deref(), change)?;
        operation.commit()?;
        match routes {
            Some(routes) => {
                let lineup = Lineup::of(&routes);
                self.publish(&entry, Next::lineup(lineup, Cause::Load).decided(intent));
            }
            None => entry.decide(|decided| *decided = intent),
        }
        let report = report::traffic(&entry, self.serving.routes(name).as_deref());
        let rules = rules(&report);
        self.events.publish(Event::ModelTraffic { model: name.to_string(), rules });
        Ok(report)
    }
}

fn changed(
    entry: &ModelEntry,
    routes: Option<&Routes>,
    change: RoutingChange,
) -> Result<Intent, ChangeError> {
    let mut intent = entry.intent();
    match change {
        RoutingChange::SetAlias(alias, version) => {
            intent.aliases.insert(alias, loaded(entry, routes, &version)?);
        }
        RoutingChange::RemoveAlias(alias) => {
            if intent.aliases.remove(&alias).is_none() {
                return Err(ChangeError::UnknownAlias { model: entry.name.clone(), alias });
            }
        }
        RoutingChange::SetWeights(weights) => {
            let numbers: Result<Vec<_>, ChangeError> = weights
                .into_iter()
                .map(|(version, weight)| Ok((loaded(entry, routes, &version)?, weight)))
                .collect();
            intent.weights = Some(Weights::new(numbers?)?);
        }
        RoutingChange::RemoveWeights => intent.weights = None,
        RoutingChange::SetShadow(version, share) => {
            let version = loaded(entry, routes, &version)?;
            intent.shadow = Some(ShadowTarget { version, share });
        }
        RoutingChange::RemoveShadow => intent.shadow = None,
    }
    Ok(intent)
}

/// The version, if it takes requests.
fn loaded(
    entry: &ModelEntry,
    routes: Option<&Routes>,
    version: &VersionRef,
) -> Result<Version, ChangeError> {
    let routes = routes.ok_or_else(|| ChangeError::NotLoaded(entry.name.clone()))?;
    let version = named(entry, version)?;
    if routes.versions.contains_key(&version) {
        return Ok(version);
    }
    Err(ChangeError::VersionNotLoaded(VersionId { model: entry.name.clone(), version }))
}

/// The rules in words, for the log and for events.
fn rules(report: &TrafficReport) -> String {
    let weights = report.weights.iter().map(|(version, weight)| {
        let (whole, rest) = (weight / 100, weight % 100);
        format!("{whole}.{rest:02}% to version {version}")
    });
    let aliases =
        report.aliases.iter().map(|(alias, version)| format!("{alias} is version {version}"));
    let shadow = report.shadow.iter().map(|shadow| {
        let (whole, rest) = (shadow.share / 100, shadow.share % 100);
        format!("{whole}.{rest:02}% copied to version {}", shadow.version)
    });
    let rules: Vec<String> = weights.chain(aliases).chain(shadow).collect();
    if rules.is_empty() { "all to the current version".to_owned() } else { rules.join(", ") }
}
