//! Onward's own interface: the application's life.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::resources::ResourceBody;
use super::wire::{Check, json, time};
use super::{Services, Shared, body};
use crate::lifecycle::Transition;

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
