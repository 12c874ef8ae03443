//! Probes. They read the last results of the registered checks and never run one.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::error::ApiError;
use super::query::Parameters;
use super::wire::{Check, json};
use crate::lifecycle::{CheckKind, Verdict};

#[derive(Deserialize)]
pub(super) struct Detail {
    verbose: Option<String>,
}

#[derive(Serialize)]
struct ProbeBody {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Vec<Check>>,
}

#[derive(Serialize)]
struct Live {
    live: bool,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
}

/// `GET /livez`
pub(super) async fn livez(state: Shared, detail: Parameters<Detail>) -> Result<Response, ApiError> {
    probe(&state, CheckKind::Liveness, &detail.0)
}

/// `GET /readyz`
pub(super) async fn readyz(
    state: Shared,
    detail: Parameters<Detail>,
) -> Result<Response, ApiError> {
    probe(&state, CheckKind::Readiness, &detail.0)
}

/// `GET /startupz`
pub(super) async fn startupz(
    state: Shared,
    detail: Parameters<Detail>,
) -> Result<Response, ApiError> {
    probe(&state, CheckKind::Startup, &detail.0)
}

/// `GET /v2/health/live`
pub(super) async fn live(State(services): Shared) -> Response {
    let live = services.parts.health.verdict(CheckKind::Liveness).passing;
    answer(live, json(&Live { live }))
}

/// `GET /v2/health/ready`
pub(super) async fn ready(State(services): Shared) -> Response {
    let ready = services.parts.health.verdict(CheckKind::Readiness).passing;
    answer(ready, json(&Ready { ready }))
}

fn probe(services: &Shared, kind: CheckKind, detail: &Detail) -> Result<Response, ApiError> {
    let Verdict { passing, checks, .. } = services.parts.health.verdict(kind);
    let checks = detail.wanted()?.then(|| checks.into_iter().map(Check::from).collect());
    let status = if passing { "pass" } else { "fail" };
    Ok(answer(passing, json(&ProbeBody { status, checks })))
}

fn answer(passing: bool, mut response: Response) -> Response {
    if !passing {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response.into_response()
}

impl Detail {
    fn wanted(&self) -> Result<bool, ApiError> {
        match self.verbose.as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => {
                Err(ApiError::bad_request(format!("verbose must be true or false, got '{other}'")))
            }
        }
    }
}
