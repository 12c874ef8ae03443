//! Probes. They read the last results of the registered checks and never run one.

use std::collections::BTreeSet;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Shared;
use super::error::ApiError;
use super::query::Parameters;
use super::wire::{Check, json};
use crate::lifecycle::{CheckKind, Verdict};

/// What the query of a probe asks for. Parameters of other names have no effect.
#[derive(Debug, Default)]
pub(super) struct ProbeQuery {
    verbose: bool,
    exclude: BTreeSet<String>,
}

#[derive(Serialize)]
struct ProbeBody {
    status: &'static str,
    #[serde(flatten)]
    detail: Option<ProbeDetail>,
}

#[derive(Serialize)]
struct ProbeDetail {
    checks: Vec<Check>,
    excluded: Vec<String>,
    unmatched: Vec<String>,
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
pub(super) async fn livez(State(services): Shared, query: ProbeQuery) -> Response {
    probe(services.parts.health.verdict_excluding(CheckKind::Liveness, &query.exclude), &query)
}

/// `GET /readyz`
pub(super) async fn readyz(State(services): Shared, query: ProbeQuery) -> Response {
    probe(services.parts.health.verdict_excluding(CheckKind::Readiness, &query.exclude), &query)
}

/// `GET /startupz`
pub(super) async fn startupz(State(services): Shared, query: ProbeQuery) -> Response {
    probe(services.parts.health.verdict_excluding(CheckKind::Startup, &query.exclude), &query)
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

/// Lists the checks where that was asked for, and always where the probe fails: whoever sees a
/// failure wants to know of what.
fn probe(verdict: Verdict, query: &ProbeQuery) -> Response {
    let Verdict { passing, checks, excluded, unmatched } = verdict;
    let checks = || checks.into_iter().map(Check::from).collect();
    let wanted = query.verbose || !passing;
    let detail = wanted.then(|| ProbeDetail { checks: checks(), excluded, unmatched });
    let status = if passing { "pass" } else { "fail" };
    answer(passing, json(&ProbeBody { status, detail }))
}

fn answer(passing: bool, mut response: Response) -> Response {
    if !passing {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response.into_response()
}

impl<S: Send + Sync> FromRequestParts<S> for ProbeQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Parameters(pairs): Parameters<Vec<(String, String)>> =
            Parameters::from_request_parts(parts, state).await?;
        pairs.into_iter().try_fold(Self::default(), Self::and)
    }
}

impl ProbeQuery {
    /// Takes one more parameter. Of `verbose` the last one holds; each `exclude` adds a name.
    fn and(mut self, (name, value): (String, String)) -> Result<Self, ApiError> {
        match name.as_str() {
            "verbose" => self.verbose = flag(&value)?,
            "exclude" => {
                self.exclude.insert(value);
            }
            _ => {}
        }
        Ok(self)
    }
}

fn flag(value: &str) -> Result<bool, ApiError> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => {
            Err(ApiError::bad_request(format!("verbose must be true or false, got '{other}'")))
        }
    }
}
