//! The registered resources, one by one: how they are, and what an operator may do to them.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::Shared;
use super::error::ApiError;
use super::target::ResourceTarget;
use super::wire::{json, milliseconds, time};
use crate::lifecycle::ResourceReport;

#[derive(Serialize)]
struct ResourcesBody {
    resources: Vec<ResourceBody>,
}

#[derive(Serialize)]
pub(super) struct ResourceBody {
    name: String,
    state: &'static str,
    since: String,
    error: Option<String>,
    lazy: bool,
    lasting: bool,
    after: Vec<String>,
    uses: u64,
    in_use: usize,
    last_use: Option<String>,
    initializations: u64,
    consecutive_failures: u32,
    retry_in_ms: Option<f64>,
}

/// `GET /lifecycle/resources`
pub(super) async fn list(State(services): Shared) -> Response {
    let reports = services.parts.resources.reports();
    json(&ResourcesBody { resources: reports.into_iter().map(ResourceBody::from).collect() })
}

/// `GET /lifecycle/resources/{resource}`
pub(super) async fn detail(
    State(services): Shared,
    ResourceTarget(name): ResourceTarget,
) -> Result<Response, ApiError> {
    Ok(json(&ResourceBody::from(services.parts.resources.report(&name)?)))
}

/// `POST /lifecycle/resources/{resource}/init`
pub(super) async fn init(
    State(services): Shared,
    ResourceTarget(name): ResourceTarget,
) -> Result<Response, ApiError> {
    Ok(json(&ResourceBody::from(services.parts.resources.init(&name).await?)))
}

/// `POST /lifecycle/resources/{resource}/reset`
pub(super) async fn reset(
    State(services): Shared,
    ResourceTarget(name): ResourceTarget,
) -> Result<Response, ApiError> {
    Ok(json(&ResourceBody::from(services.parts.resources.reset(&name).await?)))
}

/// `POST /lifecycle/resources/{resource}/clean`
pub(super) async fn clean(
    State(services): Shared,
    ResourceTarget(name): ResourceTarget,
) -> Result<Response, ApiError> {
    Ok(json(&ResourceBody::from(services.parts.resources.clean(&name).await?)))
}

impl From<ResourceReport> for ResourceBody {
    fn from(report: ResourceReport) -> Self {
        Self {
            name: report.name,
            state: report.state.name(),
            since: time(report.since),
            error: report.error,
            lazy: report.lazy,
            lasting: report.lasting,
            after: report.after,
            uses: report.uses,
            in_use: report.in_use,
            last_use: report.last_use.map(time),
            initializations: report.initializations,
            consecutive_failures: report.consecutive_failures,
            retry_in_ms: report.retry_in.map(milliseconds),
        }
    }
}
