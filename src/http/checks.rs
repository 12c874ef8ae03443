//! The registered checks, one by one: what is known of them, and a run of them now.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::Shared;
use super::error::ApiError;
use super::target::CheckTarget;
use super::wire::{Check, json, milliseconds, time};
use crate::lifecycle::{CheckChange, CheckDetail, CheckRunError, CheckSchedule};

#[derive(Serialize)]
struct ChecksBody {
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct DetailBody {
    check: Check,
    schedule: Option<ScheduleBody>,
    history: Vec<ChangeBody>,
}

#[derive(Serialize)]
struct ScheduleBody {
    interval_ms: f64,
    timeout_ms: f64,
    failure_threshold: u32,
    success_threshold: u32,
}

#[derive(Serialize)]
struct ChangeBody {
    at: String,
    status: &'static str,
    detail: String,
}

/// `GET /lifecycle/checks`
pub(super) async fn list(State(services): Shared) -> Response {
    let checks = services.parts.health.checks().into_iter().map(Check::from).collect();
    json(&ChecksBody { checks })
}

/// `GET /lifecycle/checks/{kind}/{check}`
pub(super) async fn detail(
    State(services): Shared,
    CheckTarget { kind, name }: CheckTarget,
) -> Result<Response, ApiError> {
    let detail = services.parts.health.check(kind, &name);
    let detail = detail.ok_or(CheckRunError::Unknown { kind, name })?;
    Ok(json(&DetailBody::from(detail)))
}

/// `POST /lifecycle/checks/{kind}/{check}/run`
pub(super) async fn run(
    State(services): Shared,
    CheckTarget { kind, name }: CheckTarget,
) -> Result<Response, ApiError> {
    let detail = services.parts.health.run(kind, &name).await?;
    Ok(json(&DetailBody::from(detail)))
}

impl From<CheckDetail> for DetailBody {
    fn from(detail: CheckDetail) -> Self {
        Self {
            check: detail.report.into(),
            schedule: detail.schedule.map(ScheduleBody::from),
            history: detail.history.into_iter().map(ChangeBody::from).collect(),
        }
    }
}

impl From<CheckSchedule> for ScheduleBody {
    fn from(schedule: CheckSchedule) -> Self {
        Self {
            interval_ms: milliseconds(schedule.interval),
            timeout_ms: milliseconds(schedule.timeout),
            failure_threshold: schedule.failure_threshold,
            success_threshold: schedule.success_threshold,
        }
    }
}

impl From<CheckChange> for ChangeBody {
    fn from(change: CheckChange) -> Self {
        Self { at: time(change.at), status: change.status.name(), detail: change.detail }
    }
}
