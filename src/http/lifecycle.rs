//! Onward's own interface: the application's life and the lives of its models.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::error::ApiError;
use super::resources::ResourceBody;
use super::target::Target;
use super::wire::{Check, json, time};
use super::{Services, Shared, body};
use crate::lifecycle::Transition;
use crate::model::{ModelReport, ServingReport, SwapOptions, Version, VersionReport};
use crate::units;

/// The longest reason, in bytes: it is kept and told in many places.
const LONGEST_REASON: usize = 1024;

#[derive(Serialize)]
struct ApplicationBody {
    state: &'static str,
    since: String,
    uptime_seconds: Option<f64>,
    process_uptime_seconds: f64,
    drained: Option<String>,
    history: Vec<TransitionBody>,
    checks: Vec<Check>,
    resources: Vec<ResourceBody>,
}

#[derive(Serialize)]
struct TransitionBody {
    from: &'static str,
    to: &'static str,
    at: String,
    after_seconds: f64,
    reason: String,
}

#[derive(Serialize)]
struct ModelsBody {
    models: Vec<ModelBody>,
}

#[derive(Serialize)]
struct ModelBody {
    name: String,
    current_version: Option<String>,
    required: bool,
    problem: Option<String>,
    versions: Vec<VersionBody>,
}

#[derive(Serialize)]
struct VersionBody {
    version: String,
    state: &'static str,
    since: String,
    reason: String,
    phases: Vec<PhaseBody>,
    load_seconds: Option<f64>,
    #[serde(flatten)]
    serving: Option<ServingBody>,
}

#[derive(Serialize)]
struct PhaseBody {
    state: &'static str,
    seconds: f64,
}

#[derive(Serialize)]
struct ServingBody {
    digest: String,
    instances: usize,
    in_flight: u64,
    queue_depth: usize,
    queue_capacity: usize,
    requests: u64,
    failures: u64,
    last_access: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwapRequest {
    #[serde(deserialize_with = "version")]
    to: Version,
    #[serde(default, deserialize_with = "duration")]
    drain_timeout: Option<Duration>,
    #[serde(default)]
    keep_previous: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReasonRequest {
    reason: Option<String>,
}

#[derive(Serialize)]
struct DrainedBody {
    drained: Option<String>,
}

#[derive(Serialize)]
struct ShutdownBody {
    accepted: bool,
    reason: String,
}

#[derive(Serialize)]
struct SwapBody {
    model: String,
    from: String,
    to: String,
    load_seconds: f64,
    total_seconds: f64,
    drained: bool,
}

/// `GET /lifecycle`
pub(super) async fn application(State(services): Shared) -> Response {
    let parts = &services.parts;
    let history = parts.lifecycle.history();
    let since = history.last().map_or_else(std::time::SystemTime::now, |last| last.at);
    json(&ApplicationBody {
        state: parts.lifecycle.state().name(),
        since: time(since),
        uptime_seconds: parts.lifecycle.running_uptime().map(|uptime| uptime.as_secs_f64()),
        process_uptime_seconds: parts.lifecycle.process_uptime().as_secs_f64(),
        drained: parts.lifecycle.drained().borrow().clone(),
        history: history.into_iter().map(TransitionBody::from).collect(),
        checks: parts.health.checks().into_iter().map(Check::from).collect(),
        resources: parts.resources.reports().into_iter().map(ResourceBody::from).collect(),
    })
}

/// `POST /lifecycle/drain`
pub(super) async fn drain(State(services): Shared, request: Request) -> Result<Response, ApiError> {
    let reason = read_reason(&services, request).await?;
    services.parts.lifecycle.drain(reason.clone())?;
    Ok(json(&DrainedBody { drained: Some(reason) }))
}

/// `POST /lifecycle/resume`
pub(super) async fn resume(State(services): Shared) -> Result<Response, ApiError> {
    services.parts.lifecycle.resume()?;
    Ok(json(&DrainedBody { drained: None }))
}

/// `POST /lifecycle/shutdown`
pub(super) async fn shutdown(
    State(services): Shared,
    request: Request,
) -> Result<Response, ApiError> {
    let reason = read_reason(&services, request).await?;
    services.parts.lifecycle.request_shutdown(reason.clone());
    let mut response = json(&ShutdownBody { accepted: true, reason });
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

async fn read_reason(services: &Services, request: Request) -> Result<String, ApiError> {
    let body = body::read_small(request, &services.limits()).await?;
    let ReasonRequest { reason } = body::parse_or_default(&body)?;
    let reason = reason.unwrap_or_else(|| "requested over REST".to_owned());
    if reason.len() > LONGEST_REASON {
        let text = format!("a reason has {LONGEST_REASON} bytes at most, got {}", reason.len());
        return Err(ApiError::bad_request(text));
    }
    Ok(reason)
}

/// `GET /lifecycle/models`
pub(super) async fn models(State(services): Shared) -> Response {
    let models = services.parts.models.reports().into_iter().map(ModelBody::from).collect();
    json(&ModelsBody { models })
}

/// `GET /lifecycle/models/{model}`
pub(super) async fn model(State(services): Shared, target: Target) -> Result<Response, ApiError> {
    let report = services.parts.models.report(target.model.as_str());
    let report = report.ok_or(ApiError::NoReport(target.model))?;
    Ok(json(&ModelBody::from(report)))
}

/// `POST /lifecycle/models/{model}/swap`
pub(super) async fn swap(
    State(services): Shared,
    target: Target,
    request: Request,
) -> Result<Response, ApiError> {
    let body = body::read_small(request, &services.limits()).await?;
    let SwapRequest { to, drain_timeout, keep_previous } = body::parse(&body)?;
    let options = SwapOptions { to, drain_timeout, keep_previous };
    let report = services.parts.models.swap(&target.model, options).await?;
    Ok(json(&SwapBody {
        model: target.model.to_string(),
        from: report.from.to_string(),
        to: report.to.to_string(),
        load_seconds: report.load_took.as_secs_f64(),
        total_seconds: report.took.as_secs_f64(),
        drained: report.drained,
    }))
}

/// A version as the protocol writes it, in a string, or as a plain number.
fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a version: a whole number of 1 or more, or a string of one")]
    enum Written {
        Number(u64),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(number) => {
            Version::new(number).ok_or_else(|| D::Error::custom("versions begin at 1"))
        }
        Written::Text(text) => text.parse().map_err(D::Error::custom),
    }
}

/// A duration with its unit, such as `30s`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let expected = || format!("expected a duration such as \"30s\", got \"{text}\"");
    units::duration(&text).map(Some).ok_or_else(|| D::Error::custom(expected()))
}

impl From<Transition> for TransitionBody {
    fn from(transition: Transition) -> Self {
        Self {
            from: transition.from.name(),
            to: transition.to.name(),
            at: time(transition.at),
            after_seconds: transition.after.as_secs_f64(),
            reason: transition.reason,
        }
    }
}

impl From<ModelReport> for ModelBody {
    fn from(report: ModelReport) -> Self {
        Self {
            name: report.name.to_string(),
            current_version: report.current.map(|version| version.to_string()),
            required: report.required,
            problem: report.problem,
            versions: report.versions.into_iter().map(VersionBody::from).collect(),
        }
    }
}

impl From<VersionReport> for VersionBody {
    fn from(report: VersionReport) -> Self {
        let load_seconds = report.load_duration().map(|took| took.as_secs_f64());
        let phases = report.phases.into_iter().map(|(state, lasted)| PhaseBody {
            state: state.name(),
            seconds: lasted.as_secs_f64(),
        });
        Self {
            version: report.version.to_string(),
            state: report.state.name(),
            since: time(report.since),
            reason: report.reason,
            phases: phases.collect(),
            load_seconds,
            serving: report.serving.map(ServingBody::from),
        }
    }
}

impl From<ServingReport> for ServingBody {
    fn from(report: ServingReport) -> Self {
        Self {
            digest: format!("sha256:{}", report.digest),
            instances: report.instances,
            in_flight: report.in_flight,
            queue_depth: report.queue_depth,
            queue_capacity: report.queue_capacity,
            requests: report.usage.requests,
            failures: report.usage.failures,
            last_access: report.usage.last_access.map(time),
        }
    }
}
