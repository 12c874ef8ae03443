//! Who stays in memory: leases, and what would be evicted and why.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::query::Parameters;
use super::target::{LeaseTarget, Target};
use super::wire::{json, time};
use super::{Shared, body};
use crate::model::{EvictionReport, EvictionVerdict, LeaseReport};
use crate::units;

/// The longest name of a holder, in bytes.
const LONGEST_HOLDER: usize = 255;

/// The longest that a lease may be asked for.
const LONGEST_LEASE: Duration = Duration::from_hours(24 * 365);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaseRequest {
    ttl: String,
    holder: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Room {
    #[serde(default)]
    free_bytes: u64,
}

/// A lease.
#[derive(Debug, Serialize)]
pub(super) struct LeaseBody {
    id: String,
    holder: String,
    expires: String,
}

#[derive(Serialize)]
struct EndedBody {
    ended: bool,
}

#[derive(Serialize)]
struct EvictionBody {
    used_bytes: u64,
    budget_bytes: Option<u64>,
    models: Vec<VerdictBody>,
}

#[derive(Serialize)]
struct VerdictBody {
    model: String,
    bytes: u64,
    idle_seconds: f64,
    idle_ttl_seconds: Option<f64>,
    spared: Option<String>,
    evicted: Option<String>,
}

/// `POST /lifecycle/models/{model}/leases`
pub(super) async fn lease(
    State(services): Shared,
    target: Target,
    request: Request,
) -> Result<Response, ApiError> {
    let body = body::read_small(request, &services.limits()).await?;
    let request: LeaseRequest = body::parse(&body)?;
    let (ttl, holder) = (ttl(&request)?, request.holder.unwrap_or_default());
    if holder.len() > LONGEST_HOLDER {
        let text = format!("a holder has {LONGEST_HOLDER} bytes at most, got {}", holder.len());
        return Err(ApiError::bad_request(text));
    }
    let lease = services.parts.models.lease(&target.model, &holder, ttl)?;
    Ok(json(&LeaseBody::from(lease)))
}

/// `PUT /lifecycle/models/{model}/leases/{lease}`
pub(super) async fn renew(
    State(services): Shared,
    LeaseTarget { target, lease }: LeaseTarget,
    request: Request,
) -> Result<Response, ApiError> {
    let body = body::read_small(request, &services.limits()).await?;
    let ttl = ttl(&body::parse(&body)?)?;
    let lease = services.parts.models.renew_lease(&target.model, &lease, ttl)?;
    Ok(json(&LeaseBody::from(lease)))
}

/// `DELETE /lifecycle/models/{model}/leases/{lease}`
pub(super) async fn end(
    State(services): Shared,
    LeaseTarget { target, lease }: LeaseTarget,
) -> Result<Response, ApiError> {
    services.parts.models.end_lease(&target.model, &lease)?;
    Ok(json(&EndedBody { ended: true }))
}

/// `GET /lifecycle/eviction`
pub(super) async fn plan(
    State(services): Shared,
    Parameters(Room { free_bytes }): Parameters<Room>,
) -> Response {
    json(&EvictionBody::from(services.parts.models.eviction(free_bytes)))
}

/// `POST /lifecycle/eviction`
pub(super) async fn evict(State(services): Shared, request: Request) -> Result<Response, ApiError> {
    let body = body::read_small(request, &services.limits()).await?;
    let Room { free_bytes } = body::parse_or_default(&body)?;
    Ok(json(&EvictionBody::from(services.parts.models.evict(free_bytes).await)))
}

fn ttl(request: &LeaseRequest) -> Result<Duration, ApiError> {
    let text = &request.ttl;
    let wrong = || format!("ttl: expected a duration such as 5m, a year at most, got \"{text}\"");
    let ttl = units::duration(text).filter(|ttl| !ttl.is_zero() && *ttl <= LONGEST_LEASE);
    ttl.ok_or_else(|| ApiError::bad_request(wrong()))
}

impl From<LeaseReport> for LeaseBody {
    fn from(report: LeaseReport) -> Self {
        Self { id: report.id, holder: report.holder, expires: time(report.expires) }
    }
}

impl From<EvictionReport> for EvictionBody {
    fn from(report: EvictionReport) -> Self {
        Self {
            used_bytes: report.used,
            budget_bytes: report.budget,
            models: report.verdicts.into_iter().map(VerdictBody::from).collect(),
        }
    }
}

impl From<EvictionVerdict> for VerdictBody {
    fn from(EvictionVerdict { resident, evicted }: EvictionVerdict) -> Self {
        Self {
            model: resident.model.to_string(),
            bytes: resident.bytes,
            idle_seconds: resident.idle.as_secs_f64(),
            idle_ttl_seconds: resident.ttl.map(|ttl| ttl.as_secs_f64()),
            spared: resident.spared,
            evicted,
        }
    }
}
