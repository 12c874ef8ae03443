//! What there is to tell of models: their versions, their traffic, their history.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header::ETAG;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use super::residence::LeaseBody;
use super::target::Target;
use super::wire::{json, milliseconds, time};
use super::{Services, Shared};
use crate::auth::Access;
use crate::inference::BatchingReport;
use crate::model::{
    MemoryChange, ModelReport, ServingReport, ShadowReport, StepReport, Tenure, TrafficReport,
    VersionReport,
};

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
    warnings: Vec<String>,
    generation: u64,
    traffic: TrafficBody,
    parked_version: Option<String>,
    leases: Vec<LeaseBody>,
    history: Vec<TenureBody>,
    versions: Vec<VersionBody>,
}

/// The rules by which requests are routed.
#[derive(Debug, Serialize)]
pub(super) struct TrafficBody {
    aliases: BTreeMap<String, String>,
    weights: BTreeMap<String, f64>,
    shadow: Option<ShadowBody>,
}

#[derive(Debug, Serialize)]
struct ShadowBody {
    version: String,
    percent: f64,
    due: u64,
    skipped: u64,
    failed: u64,
    compared: u64,
    agreed: u64,
    max_abs_diff: Option<f64>,
}

#[derive(Serialize)]
struct TenureBody {
    version: String,
    digest: String,
    since: String,
    until: Option<String>,
    cause: &'static str,
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
struct BatchingBody {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct ServingBody {
    digest: String,
    memory_bytes: u64,
    measured_memory_bytes: Option<i64>,
    instances: usize,
    placement: &'static str,
    batching: BatchingBody,
    in_flight: u64,
    queue_depth: usize,
    queue_capacity: usize,
    requests: u64,
    failures: u64,
    last_access: Option<String>,
    latency: Option<LatencyBody>,
    response_cache: Option<CacheBody>,
    steps: Vec<StepBody>,
    held_by: Vec<String>,
}

/// How often an answer had been kept.
#[derive(Serialize)]
struct CacheBody {
    hits: u64,
    misses: u64,
}

/// A step of an ensemble, with the version that it has of it.
#[derive(Serialize)]
struct StepBody {
    model: String,
    version: String,
    digest: String,
    inputs: BTreeMap<String, String>,
    outputs: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct LatencyBody {
    #[serde(rename = "p50_ms")]
    p50: f64,
    #[serde(rename = "p90_ms")]
    p90: f64,
    #[serde(rename = "p99_ms")]
    p99: f64,
}

/// `GET /lifecycle/models`
pub(super) async fn list(State(services): Shared, access: Access) -> Response {
    let reports = services.parts.models.reports().into_iter();
    let seen = reports.filter(|report| access.sees(report.name.as_str()));
    json(&ModelsBody { models: seen.map(ModelBody::from).collect() })
}

/// `GET /lifecycle/models/{model}`
pub(super) async fn detail(State(services): Shared, target: Target) -> Result<Response, ApiError> {
    let report = services.parts.models.report(target.model.as_str());
    let report = report.ok_or(ApiError::NoReport(target.model))?;
    let tag = tag(&services, report.generation);
    Ok(([(ETAG, tag)], json(&ModelBody::from(report))).into_response())
}

/// What tells one generation of a model from every other, also of another life of the server.
fn tag(services: &Services, generation: u64) -> HeaderValue {
    let text = format!("\"{}.{generation}\"", services.parts.cloud_events.instance());
    HeaderValue::from_str(&text).expect("the parts are visible ASCII")
}

/// The generation that `If-Match` asks for; `None` where anything is right.
///
/// # Errors
/// [`ApiError::Stale`] for every tag that was not given by this life of the server.
pub(super) fn expected(services: &Services, headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(given) = headers.get("if-match") else { return Ok(None) };
    let text = given.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let instance = services.parts.cloud_events.instance();
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let number = inner.and_then(|inner| inner.strip_prefix(instance)?.strip_prefix('.'));
    let generation = number.and_then(|number| number.parse().ok());
    generation.map(Some).ok_or_else(|| ApiError::Stale(text.to_owned()))
}

/// Hundredths of a percent as percent.
fn percent(weight: u32) -> f64 {
    f64::from(weight) / 100.0
}

impl From<ModelReport> for ModelBody {
    fn from(report: ModelReport) -> Self {
        Self {
            name: report.name.to_string(),
            current_version: report.current.map(|version| version.to_string()),
            required: report.required,
            problem: report.problem,
            warnings: report.warnings,
            generation: report.generation,
            traffic: TrafficBody::from(report.traffic),
            parked_version: report.parked.map(|version| version.to_string()),
            leases: report.leases.into_iter().map(LeaseBody::from).collect(),
            history: report.history.into_iter().map(TenureBody::from).collect(),
            versions: report.versions.into_iter().map(VersionBody::from).collect(),
        }
    }
}

impl From<TrafficReport> for TrafficBody {
    fn from(report: TrafficReport) -> Self {
        let aliases = report.aliases.into_iter();
        let weights = report.weights.into_iter();
        Self {
            aliases: aliases
                .map(|(alias, version)| (alias.to_string(), version.to_string()))
                .collect(),
            shadow: report.shadow.map(ShadowBody::from),
            weights: weights
                .map(|(version, weight)| (version.to_string(), percent(weight)))
                .collect(),
        }
    }
}

impl From<ShadowReport> for ShadowBody {
    fn from(ShadowReport { version, share, tally }: ShadowReport) -> Self {
        Self {
            version: version.to_string(),
            percent: percent(share),
            due: tally.due,
            skipped: tally.skipped,
            failed: tally.failed,
            compared: tally.compared,
            agreed: tally.agreed,
            max_abs_diff: tally.max_abs_diff,
        }
    }
}

impl From<Tenure> for TenureBody {
    fn from(tenure: Tenure) -> Self {
        Self {
            version: tenure.version.to_string(),
            digest: digest(&tenure.digest),
            since: time(tenure.since),
            until: tenure.until.map(time),
            cause: tenure.cause.name(),
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

impl From<BatchingReport> for BatchingBody {
    fn from(report: BatchingReport) -> Self {
        match report {
            BatchingReport::On { max_entries, entries } => {
                Self { state: "on", max_size: Some(max_entries), size: Some(entries), reason: None }
            }
            BatchingReport::Off { reason } => {
                Self { state: "off", max_size: None, size: None, reason: Some(reason) }
            }
        }
    }
}

impl From<StepReport> for StepBody {
    fn from(step: StepReport) -> Self {
        Self {
            model: step.model.to_string(),
            version: step.version.to_string(),
            digest: digest(&step.digest),
            inputs: step.inputs,
            outputs: step.outputs,
        }
    }
}

fn digest(hexadecimal: &str) -> String {
    format!("sha256:{hexadecimal}")
}

impl From<ServingReport> for ServingBody {
    fn from(report: ServingReport) -> Self {
        Self {
            digest: digest(&report.digest),
            memory_bytes: report.memory,
            measured_memory_bytes: report.measured.map(MemoryChange::grown),
            instances: report.instances,
            placement: report.placement.name(),
            batching: BatchingBody::from(report.batching),
            in_flight: report.in_flight,
            queue_depth: report.queue_depth,
            queue_capacity: report.queue_capacity,
            requests: report.usage.requests,
            failures: report.usage.failures,
            last_access: report.usage.last_access.map(time),
            latency: report.usage.latency.map(|latency| LatencyBody {
                p50: milliseconds(latency.p50),
                p90: milliseconds(latency.p90),
                p99: milliseconds(latency.p99),
            }),
            response_cache: report
                .response_cache
                .map(|usage| CacheBody { hits: usage.hits.count, misses: usage.misses.count }),
            steps: report.steps.into_iter().map(StepBody::from).collect(),
            held_by: report.held_by.iter().map(ToString::to_string).collect(),
        }
    }
}
