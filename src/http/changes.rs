//! Changes of models, each begun as an operation.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use super::error::ApiError;
use super::operations::{self, Asked, Wait};
use super::query::Parameters;
use super::target::{AliasTarget, Target};
use super::{Services, Shared, body, trail};
use crate::auth::Access;
use crate::model::{
    Bake, CanaryPlan, Change, Keep, Limits, LoadOptions, RollbackOptions, RoutingChange, Strategy,
    SwapOptions, Version, VersionRef, WHOLE,
};
use crate::units;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadRequest {
    #[serde(default)]
    allow_incompatible: bool,
    verify: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnloadRequest {
    #[serde(default, deserialize_with = "optional_number")]
    version: Option<Version>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwapRequest {
    #[serde(deserialize_with = "version")]
    to: VersionRef,
    #[serde(default, deserialize_with = "duration")]
    drain_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "keep")]
    keep_previous: Option<Keep>,
    #[serde(default)]
    allow_incompatible: bool,
    verify: Option<bool>,
    #[serde(default)]
    strategy: StrategyName,
    canary: Option<CanaryRequest>,
    #[serde(default, deserialize_with = "duration")]
    bake: Option<Duration>,
    #[serde(default)]
    limits: LimitsRequest,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StrategyName {
    #[default]
    Availability,
    Resource,
    Canary,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CanaryRequest {
    steps: Option<Vec<f64>>,
    #[serde(default, deserialize_with = "duration")]
    interval: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    patience: Option<Duration>,
    compare: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsRequest {
    max_error_rate: Option<f64>,
    max_p99_ratio: Option<f64>,
    max_mismatch_rate: Option<f64>,
    min_requests: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShadowRequest {
    #[serde(deserialize_with = "version")]
    version: VersionRef,
    percent: f64,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackRequest {
    #[serde(default, deserialize_with = "duration")]
    drain_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "keep")]
    keep_previous: Option<Keep>,
    #[serde(default)]
    allow_changed: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyRequest {
    #[serde(default, deserialize_with = "optional_version")]
    version: Option<VersionRef>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AliasRequest {
    #[serde(deserialize_with = "version")]
    version: VersionRef,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrafficRequest {
    weights: BTreeMap<String, f64>,
}

/// `POST /lifecycle/models/{model}/load`
pub(super) async fn load(
    State(services): Shared,
    target: Target,
    wait: Parameters<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let (asked, body) = read(&services, wait, request).await?;
    let LoadRequest { allow_incompatible, verify } = body::parse_or_default(&body)?;
    let skip_verification = verify == Some(false);
    let change = Change::Load(LoadOptions { allow_incompatible, skip_verification });
    operations::begin(&services, &target, change, asked).await
}

/// `POST /lifecycle/models/{model}/unload`
pub(super) async fn unload(
    State(services): Shared,
    target: Target,
    wait: Parameters<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let (asked, body) = read(&services, wait, request).await?;
    let UnloadRequest { version } = body::parse_or_default(&body)?;
    operations::begin(&services, &target, Change::Unload(version), asked).await
}

/// `POST /lifecycle/models/{model}/swap`
pub(super) async fn swap(
    State(services): Shared,
    target: Target,
    wait: Parameters<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let (asked, body) = read(&services, wait, request).await?;
    let options = options(body::parse(&body)?)?;
    operations::begin(&services, &target, Change::Swap(options), asked).await
}

/// `POST /lifecycle/models/{model}/rollback`
pub(super) async fn rollback(
    State(services): Shared,
    target: Target,
    wait: Parameters<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let (asked, body) = read(&services, wait, request).await?;
    let RollbackRequest { drain_timeout, keep_previous, allow_changed } =
        body::parse_or_default(&body)?;
    let options = RollbackOptions { drain_timeout, keep_previous, allow_changed };
    operations::begin(&services, &target, Change::Rollback(options), asked).await
}

/// `POST /lifecycle/models/{model}/verify`
pub(super) async fn verify(
    State(services): Shared,
    target: Target,
    wait: Parameters<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let (asked, body) = read(&services, wait, request).await?;
    let VerifyRequest { version } = body::parse_or_default(&body)?;
    operations::begin(&services, &target, Change::Verify(version), asked).await
}

/// `PUT /lifecycle/models/{model}/aliases/{alias}`
pub(super) async fn set_alias(
    State(services): Shared,
    AliasTarget { target, alias }: AliasTarget,
    wait: Parameters<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let (asked, body) = read(&services, wait, request).await?;
    let AliasRequest { version } = body::parse(&body)?;
    let change = Change::Route(RoutingChange::SetAlias(alias, version));
    operations::begin(&services, &target, change, asked).await
}

/// `DELETE /lifecycle/models/{model}/aliases/{alias}`
pub(super) async fn remove_alias(
    State(services): Shared,
    AliasTarget { target, alias }: AliasTarget,
    wait: Parameters<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let (asked, _) = read(&services, wait, request).await?;
    let change = Change::Route(RoutingChange::RemoveAlias(alias));
    operations::begin(&services, &target, change, asked).await
}

/// `PUT /lifecycle/models/{model}/traffic`
pub(super) async fn set_traffic(
    State(services): Shared,
    target: Target,
    wait: Parameters<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let (asked, body) = read(&services, wait, request).await?;
    let TrafficRequest { weights } = body::parse(&body)?;
    let weights = weights.into_iter().map(weight).collect::<Result<_, _>>()?;
    let change = Change::Route(RoutingChange::SetWeights(weights));
    operations::begin(&services, &target, change, asked).await
}

/// `DELETE /lifecycle/models/{model}/traffic`
pub(super) async fn remove_traffic(
    State(services): Shared,
    target: Target,
    wait: Parameters<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let (asked, _) = read(&services, wait, request).await?;
    operations::begin(&services, &target, Change::Route(RoutingChange::RemoveWeights), asked).await
}

/// `PUT /lifecycle/models/{model}/shadow`
pub(super) async fn set_shadow(
    State(services): Shared,
    target: Target,
    wait: Parameters<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let (asked, body) = read(&services, wait, request).await?;
    let ShadowRequest { version, percent } = body::parse(&body)?;
    let change = RoutingChange::SetShadow(version, hundredths("percent", percent)?);
    operations::begin(&services, &target, Change::Route(change), asked).await
}

/// `DELETE /lifecycle/models/{model}/shadow`
pub(super) async fn remove_shadow(
    State(services): Shared,
    target: Target,
    wait: Parameters<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let (asked, _) = read(&services, wait, request).await?;
    operations::begin(&services, &target, Change::Route(RoutingChange::RemoveShadow), asked).await
}

fn options(request: SwapRequest) -> Result<SwapOptions, ApiError> {
    let limits = limits(&request.limits)?;
    let strategy = match (request.strategy, request.canary) {
        (StrategyName::Availability, None) => Strategy::Availability,
        (StrategyName::Resource, None) if request.bake.is_some() => {
            let text = "the strategy 'resource' keeps no version to go back to, so it cannot bake";
            return Err(ApiError::bad_request(text));
        }
        (StrategyName::Resource, None) => Strategy::Resource,
        (StrategyName::Availability | StrategyName::Resource, Some(_)) => {
            let text = "'canary' says how a swap with \"strategy\": \"canary\" goes";
            return Err(ApiError::bad_request(text));
        }
        (StrategyName::Canary, canary) => {
            Strategy::Canary(plan(canary.unwrap_or_default(), limits)?)
        }
    };
    Ok(SwapOptions {
        to: request.to,
        strategy,
        bake: request.bake.map(|time| Bake { time, limits }),
        drain_timeout: request.drain_timeout,
        keep_previous: request.keep_previous,
        allow_incompatible: request.allow_incompatible,
        skip_verification: request.verify == Some(false),
    })
}

fn plan(request: CanaryRequest, limits: Limits) -> Result<CanaryPlan, ApiError> {
    let usual = CanaryPlan::default();
    let share = |percent| hundredths("canary.steps", percent);
    let steps = request.steps.map(|steps| steps.into_iter().map(share).collect()).transpose()?;
    let compare =
        request.compare.map(|percent| hundredths("canary.compare", percent)).transpose()?;
    Ok(CanaryPlan {
        steps: steps.unwrap_or(usual.steps),
        interval: request.interval.unwrap_or(usual.interval),
        patience: request.patience.unwrap_or(usual.patience),
        compare: compare.unwrap_or(usual.compare),
        limits,
    })
}

fn limits(request: &LimitsRequest) -> Result<Limits, ApiError> {
    let usual = Limits::default();
    let ratio = request.max_p99_ratio.unwrap_or(usual.max_p99_ratio);
    if !(1.0..=1e6).contains(&ratio) {
        let text = format!("limits.max_p99_ratio: expected a number of 1 or more, got {ratio}");
        return Err(ApiError::bad_request(text));
    }
    let part = |name: &str, given: Option<f64>, usual: f64| match given.unwrap_or(usual) {
        part if (0.0..=1.0).contains(&part) => Ok(part),
        part => {
            let text = format!("limits.{name}: expected a part of one, from 0 to 1, got {part}");
            Err(ApiError::bad_request(text))
        }
    };
    let mismatch = request.max_mismatch_rate;
    Ok(Limits {
        max_error_rate: part("max_error_rate", request.max_error_rate, usual.max_error_rate)?,
        max_p99_ratio: ratio,
        max_mismatch_rate: part("max_mismatch_rate", mismatch, usual.max_mismatch_rate)?,
        min_requests: request.min_requests.unwrap_or(usual.min_requests).max(1),
    })
}

/// Reads what every change may say, and the body.
async fn read(
    services: &Services,
    wait: Parameters<Wait>,
    request: Request,
) -> Result<(Asked, axum::body::Bytes), ApiError> {
    let (headers, origin) = (request.headers().clone(), trail::origin(&request));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let caller = request.extensions().get().map(Access::who).unwrap_or_default();
    let body = body::read_small(request, &services.limits()).await?;
    let text = format!("{method} {path} {}", String::from_utf8_lossy(&body));
    Ok((Asked::read(services, &headers, wait, (caller, text, origin))?, body))
}

/// A version or an alias with its share, from percent to hundredths of a percent.
fn weight((name, percent): (String, f64)) -> Result<(VersionRef, u32), ApiError> {
    let weight = hundredths(&format!("weights.{name}"), percent)?;
    Ok((name.parse()?, weight))
}

/// Percent as hundredths of a percent.
pub(super) fn hundredths(what: &str, percent: f64) -> Result<u32, ApiError> {
    let hundredths = percent * 100.0;
    let whole = hundredths.round();
    if !(0.0..=f64::from(WHOLE)).contains(&hundredths) || (hundredths - whole).abs() > 1e-6 {
        let text = format!(
            "{what}: expected a percentage from 0 to 100 with two decimals at most, got {percent}"
        );
        return Err(ApiError::bad_request(text));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    let whole = whole as u32;
    Ok(whole)
}

/// A version as the protocol writes it, in a string, or as a plain number; or an alias.
fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VersionRef, D::Error> {
    match Written::deserialize(deserializer)? {
        Written::Number(number) => numbered(number).map(VersionRef::Number),
        Written::Text(text) => text.parse().map_err(D::Error::custom),
    }
}

fn optional_version<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<VersionRef>, D::Error> {
    match Option::<Written>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Written::Number(number)) => numbered(number).map(VersionRef::Number).map(Some),
        Some(Written::Text(text)) => text.parse().map(Some).map_err(D::Error::custom),
    }
}

/// A version in a string or as a plain number, as text.
pub(super) fn version_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Written::deserialize(deserializer).map(Written::into_text)
}

fn optional_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Version>, D::Error> {
    match Option::<Written>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Written::Number(number)) => numbered(number).map(Some),
        Some(Written::Text(text)) => text.parse().map(Some).map_err(D::Error::custom),
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a version: a whole number of 1 or more, or a string")]
enum Written {
    Number(u64),
    Text(String),
}

impl Written {
    fn into_text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

fn numbered<E: serde::de::Error>(number: u64) -> Result<Version, E> {
    Version::new(number).ok_or_else(|| E::custom("versions begin at 1"))
}

/// A duration with its unit, such as `30s`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    optional::<String, D>(deserializer)?.map(|text| timed(&text)).transpose()
}

/// Whether to keep a version, or how long.
fn keep<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Keep>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "true, false, or a duration such as \"10m\"")]
    enum Written {
        Bool(bool),
        Text(String),
    }
    Ok(match optional::<Written, D>(deserializer)? {
        None => None,
        Some(Written::Bool(true)) => Some(Keep::Always),
        Some(Written::Bool(false)) => Some(Keep::No),
        Some(Written::Text(text)) => Some(Keep::For(timed(&text)?)),
    })
}

fn optional<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::<T>::deserialize(deserializer)
}

fn timed<E: serde::de::Error>(text: &str) -> Result<Duration, E> {
    let expected =
        || format!("expected a duration such as \"30s\", ten years at most, got \"{text}\"");
    let given = units::duration(text).filter(|given| *given <= units::LONGEST);
    given.ok_or_else(|| E::custom(expected()))
}
