//! The desired state: what is to be served, declared as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::time::timeout;

use super::error::ApiError;
use super::operations::{self, OperationBody};
use super::query::Parameters;
use super::wire::{json, milliseconds};
use super::{Shared, body};
use crate::http::changes::{hundredths, version_text};
use crate::model::{
    AliasName, Choice, Desire, DesiredModel, DesiredState, Intent, ModelName, Operation,
    PlannedChange, ShadowTarget, Unmet, Version, Weights,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    #[serde(default)]
    dry_run: bool,
    wait: Option<String>,
}

/// The whole set, as it is told and as it is declared.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DesiredBody {
    models: BTreeMap<String, ModelBody>,
    /// Is told, and not declared: what was told can be declared again.
    #[serde(default, deserialize_with = "ignored")]
    unmet: BTreeMap<String, UnmetBody>,
}

#[derive(Serialize)]
struct UnmetBody {
    reason: String,
    failures: u32,
    retry_in_ms: f64,
}

fn ignored<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, UnmetBody>, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| BTreeMap::new())
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelBody {
    #[serde(default = "yes")]
    loaded: bool,
    #[serde(default)]
    version: Option<VersionText>,
    #[serde(default)]
    aliases: BTreeMap<String, VersionText>,
    #[serde(default)]
    weights: BTreeMap<String, f64>,
    #[serde(default)]
    shadow: Option<ShadowBody>,
    #[serde(default)]
    pinned: Vec<VersionText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShadowBody {
    version: VersionText,
    percent: f64,
}

/// A version as it is told; it may be declared as a number too.
#[derive(Serialize)]
struct VersionText(String);

impl<'de> Deserialize<'de> for VersionText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        version_text(deserializer).map(Self)
    }
}

impl From<Version> for VersionText {
    fn from(version: Version) -> Self {
        Self(version.to_string())
    }
}

impl VersionText {
    fn parse(&self) -> Result<Version, ApiError> {
        Ok(self.0.parse()?)
    }
}

#[derive(Serialize)]
struct PlanBody {
    changes: Vec<ChangeBody>,
}

#[derive(Serialize)]
struct ChangeBody {
    model: String,
    actions: Vec<String>,
    operation: Option<OperationBody>,
}

fn yes() -> bool {
    true
}

/// `GET /lifecycle/desired`
pub(super) async fn get(State(services): Shared) -> Response {
    let models = &services.parts.models;
    let unmet = models.unmet().into_iter();
    let unmet = unmet.map(|Unmet { model, reason, failures, pause }| {
        (model.to_string(), UnmetBody { reason, failures, retry_in_ms: milliseconds(pause) })
    });
    let told = models.desired().models.into_iter();
    let told = told.map(|(name, model)| (name.to_string(), model.into()));
    json(&DesiredBody { models: told.collect(), unmet: unmet.collect() })
}

/// `PUT /lifecycle/desired`
pub(super) async fn put(
    State(services): Shared,
    Parameters(Query { dry_run, wait }): Parameters<Query>,
    request: Request,
) -> Result<Response, ApiError> {
    let wait = operations::wait(wait)?;
    let text = body::read_declaration(request, &services.limits()).await?;
    let wanted = DesiredState::try_from(body::parse::<DesiredBody>(&text)?)?;
    let models = &services.parts.models;
    if dry_run {
        let plan = models.desired().changes_to(&wanted).into_iter().map(|plan| (plan, None));
        return Ok(json(&PlanBody { changes: plan.map(ChangeBody::from).collect() }));
    }
    let begun = models.declare(&wanted).await?;
    let ends = begun.iter().map(|(_, operation)| operation.done());
    let in_time = timeout(wait, join_all(ends)).await.is_ok();
    let changes =
        begun.into_iter().map(|(plan, operation)| ChangeBody::from((plan, Some(operation))));
    let answer = json(&PlanBody { changes: changes.collect() });
    Ok(if in_time { answer } else { (StatusCode::ACCEPTED, answer).into_response() })
}

impl From<(PlannedChange, Option<Arc<Operation>>)> for ChangeBody {
    fn from((plan, operation): (PlannedChange, Option<Arc<Operation>>)) -> Self {
        let operation = operation.map(|operation| OperationBody::from(operation.report()));
        Self { model: plan.model.to_string(), actions: plan.actions, operation }
    }
}

impl From<DesiredModel> for ModelBody {
    fn from(model: DesiredModel) -> Self {
        let target = model.target();
        let (loaded, intent) = (target.is_wanted(), target.intent.clone());
        let percent = |weight: u32| f64::from(weight) / 100.0;
        let aliases = intent.aliases.into_iter();
        let weights = intent.weights.iter().flat_map(Weights::iter);
        Self {
            loaded,
            version: intent.chosen.map(|choice| choice.version.into()),
            aliases: aliases.map(|(alias, version)| (alias.to_string(), version.into())).collect(),
            weights: weights
                .map(|(version, weight)| (version.to_string(), percent(weight)))
                .collect(),
            shadow: intent.shadow.map(|shadow| ShadowBody {
                version: shadow.version.into(),
                percent: percent(shadow.share),
            }),
            pinned: intent.pinned.into_iter().map(VersionText::from).collect(),
        }
    }
}

impl TryFrom<DesiredBody> for DesiredState {
    type Error = ApiError;

    fn try_from(body: DesiredBody) -> Result<Self, ApiError> {
        let models = body
            .models
            .into_iter()
            .map(|(name, model)| Ok((ModelName::new(&name)?, DesiredModel::try_from(model)?)));
        Ok(Self { models: models.collect::<Result<_, ApiError>>()? })
    }
}

impl TryFrom<ModelBody> for DesiredModel {
    type Error = ApiError;

    fn try_from(body: ModelBody) -> Result<Self, ApiError> {
        let version = body.version.map(|text| text.parse()).transpose()?;
        let aliases = body
            .aliases
            .iter()
            .map(|(alias, version)| Ok((alias.parse::<AliasName>()?, version.parse()?)));
        let weights = body.weights.iter().map(|(version, percent)| {
            Ok((version.parse::<Version>()?, hundredths("weights", *percent)?))
        });
        let weights = weights.collect::<Result<Vec<_>, ApiError>>()?;
        let weights = (!weights.is_empty()).then(|| Weights::new(weights)).transpose();
        let shadow = body.shadow.map(|ShadowBody { version, percent }| {
            let share = hundredths("shadow.percent", percent)?;
            Ok::<_, ApiError>(ShadowTarget { version: version.parse()?, share })
        });
        let intent = Intent {
            // The newest that is known is found out when it is applied.
            chosen: version.map(|version| Choice { version, newest: version }),
            aliases: aliases.collect::<Result<_, ApiError>>()?,
            weights: weights.map_err(|error| ApiError::bad_request(error.to_string()))?,
            shadow: shadow.transpose()?,
            pinned: body.pinned.iter().map(VersionText::parse).collect::<Result<_, _>>()?,
        };
        let desire = if body.loaded { Desire::Loaded } else { Desire::Unloaded };
        Ok(Self { desire, intent, ..Self::default() })
    }
}
