//! Operations: changes that go on whether their caller waits or not.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::error::{ApiError, Failure};
use super::models::{self, TrafficBody};
use super::query::Parameters;
use super::target::{OperationTarget, Target};
use super::wire::{json, time};
use super::{Services, Shared};
use crate::auth::Access;
use crate::model::{
    Change, Conditions, Done, IdempotencyKey, LoadReport, MemoryChange, Operation, OperationReport,
    Step, SwapReport, UnloadReport, Version,
};
use crate::units;

/// How long an answer waits for its operation where the request does not say.
const WAIT: Duration = Duration::from_mins(1);

/// Says that what was decided does not outlive the server, though it should.
const UNSAVED: HeaderName = HeaderName::from_static("x-onward-unsaved");

/// The longest `Idempotency-Key`, in bytes.
const LONGEST_KEY: usize = 255;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    wait: Option<String>,
}

#[derive(Serialize)]
struct OperationsBody {
    operations: Vec<OperationBody>,
}

#[derive(Serialize)]
pub(super) struct OperationBody {
    id: String,
    operation: &'static str,
    model: String,
    state: &'static str,
    started: String,
    ended: Option<String>,
    cancellable: bool,
    unsaved: Option<String>,
    steps: Vec<StepBody>,
    result: Option<ResultBody>,
    error: Option<ErrorBody>,
}

#[derive(Serialize)]
struct StepBody {
    what: String,
    version: Option<String>,
    at: String,
}

#[derive(Serialize)]
struct ErrorBody {
    error: String,
    code: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ResultBody {
    Load(LoadBody),
    Unload(UnloadBody),
    Swap(SwapBody),
    Traffic(TrafficBody),
    Verify(VerifyBody),
}

#[derive(Serialize)]
struct LoadBody {
    model: String,
    current_version: String,
    loaded: Vec<String>,
    total_seconds: f64,
}

#[derive(Serialize)]
struct UnloadBody {
    model: String,
    versions: Vec<String>,
    drained: bool,
    memory: Option<MemoryBody>,
}

#[derive(Serialize)]
struct SwapBody {
    model: String,
    from: String,
    to: String,
    load_seconds: f64,
    total_seconds: f64,
    drained: bool,
    kept: bool,
    kept_until: Option<String>,
    memory: Option<MemoryBody>,
}

#[derive(Serialize)]
struct VerifyBody {
    model: String,
    version: String,
    samples: Vec<String>,
    total_seconds: f64,
}

#[derive(Serialize)]
struct MemoryBody {
    before_bytes: u64,
    after_bytes: u64,
}

/// What a request for a change says besides what is to be changed.
pub(super) struct Asked {
    conditions: Conditions,
    wait: Duration,
}

impl Asked {
    /// Reads `?wait=`, `If-Match` and `Idempotency-Key`. `request` is what is asked for, as text, `caller` who asks,
    /// and `origin` by what the request is found.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn read(
        services: &Services,
        headers: &HeaderMap,
        Parameters(Wait { wait }): Parameters<Wait>,
        (caller, request, origin): (String, String, Option<String>),
    ) -> Result<Self, ApiError> {
        let wait = self::wait(wait)?;
        let generation = models::expected(services, headers)?;
        let key = key(headers)?.map(|key| IdempotencyKey { caller, key, request });
        Ok(Self { conditions: Conditions { generation, key, origin }, wait })
    }
}

/// How long to wait, from `?wait=`.
pub(super) fn wait(given: Option<String>) -> Result<Duration, ApiError> {
    let Some(text) = given else { return Ok(WAIT) };
    let wrong = || format!("wait: expected a duration such as 30s, got \"{text}\"");
    units::duration(&text).ok_or_else(|| ApiError::bad_request(wrong()))
}

fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(given) = headers.get("idempotency-key") else { return Ok(None) };
    let text = given.to_str().ok().filter(|text| (1..=LONGEST_KEY).contains(&text.len()));
    let wrong = || format!("an Idempotency-Key has 1 to {LONGEST_KEY} visible ASCII characters");
    text.map(|text| Some(text.to_owned())).ok_or_else(|| ApiError::bad_request(wrong()))
}

/// Begins a change; answers with its result if it ends in time, and with where to look for it if not.
///
/// # Errors
/// What the change failed for.
pub(super) async fn begin(
    services: &Services,
    target: &Target,
    change: Change,
    Asked { conditions, wait }: Asked,
) -> Result<Response, ApiError> {
    let operation = services.parts.models.begin(&target.model, change, conditions)?;
    if wait.is_zero() {
        return Ok(accepted(&operation));
    }
    match timeout(wait, operation.done()).await {
        Ok(outcome) => {
            let answer = json(&ResultBody::new(&target.model.to_string(), outcome?));
            Ok(if operation.report().unsaved.is_some() {
                ([(UNSAVED, HeaderValue::from_static("true"))], answer).into_response()
            } else {
                answer
            })
        }
        Err(_) => Ok(accepted(&operation)),
    }
}

fn accepted(operation: &Operation) -> Response {
    let path = format!("/lifecycle/operations/{}", operation.id());
    let location = HeaderValue::from_str(&path).expect("ids are visible ASCII");
    let body = json(&OperationBody::from(operation.report()));
    (StatusCode::ACCEPTED, [(LOCATION, location)], body).into_response()
}

/// `GET /lifecycle/operations`
pub(super) async fn list(State(services): Shared, access: Access) -> Response {
    let operations = services.parts.models.operations();
    let reports = operations.iter().map(|operation| operation.report());
    let seen = reports.filter(|report| access.sees(report.model.as_str()));
    let operations = seen.map(OperationBody::from);
    json(&OperationsBody { operations: operations.collect() })
}

/// `GET /lifecycle/operations/{operation}`
pub(super) async fn detail(
    State(services): Shared,
    access: Access,
    target: OperationTarget,
) -> Result<Response, ApiError> {
    Ok(json(&OperationBody::from(find(&services, &access, target)?.report())))
}

/// `DELETE /lifecycle/operations/{operation}`
pub(super) async fn cancel(
    State(services): Shared,
    access: Access,
    target: OperationTarget,
) -> Result<Response, ApiError> {
    let operation = find(&services, &access, target)?;
    operation.cancel()?;
    Ok(accepted(&operation))
}

/// One of a model that the caller may not see is none.
fn find(
    services: &Services,
    access: &Access,
    target: OperationTarget,
) -> Result<Arc<Operation>, ApiError> {
    let operation = services.parts.models.operation(&target.0);
    let operation = operation.filter(|found| access.sees(found.report().model.as_str()));
    operation.ok_or(ApiError::NoOperation(target.0))
}

impl From<OperationReport> for OperationBody {
    fn from(report: OperationReport) -> Self {
        let model = report.model.to_string();
        let ended = report.end.as_ref().map(|(at, _)| time(*at));
        let (state, result, error) = match report.end {
            None => ("running", None, None),
            Some((_, Ok(done))) => ("succeeded", Some(ResultBody::new(&model, done)), None),
            Some((_, Err(error))) => {
                let failure = Failure::of(ApiError::from(error));
                let state = if failure.is_cancelled() { "cancelled" } else { "failed" };
                let (error, code) = (failure.text().to_owned(), failure.code());
                (state, None, Some(ErrorBody { error, code }))
            }
        };
        Self {
            id: report.id,
            operation: report.kind.name(),
            model,
            state,
            started: time(report.started),
            ended,
            cancellable: report.cancellable,
            unsaved: report.unsaved,
            steps: report.steps.into_iter().map(StepBody::from).collect(),
            result,
            error,
        }
    }
}

impl From<Step> for StepBody {
    fn from(step: Step) -> Self {
        let version = step.version.map(|version| version.to_string());
        Self { what: step.what, version, at: time(step.at) }
    }
}

impl ResultBody {
    fn new(model: &str, done: Done) -> Self {
        let model = model.to_owned();
        match done {
            Done::Load(report) => Self::Load(LoadBody::new(model, &report)),
            Done::Unload(report) => Self::Unload(UnloadBody::new(model, &report)),
            Done::Swap(report) => Self::Swap(SwapBody::new(model, &report)),
            Done::Traffic(report) => Self::Traffic(TrafficBody::from(report)),
            Done::Verify(report) => Self::Verify(VerifyBody {
                model,
                version: report.version.to_string(),
                samples: report.samples,
                total_seconds: report.took.as_secs_f64(),
            }),
        }
    }
}

impl LoadBody {
    fn new(model: String, report: &LoadReport) -> Self {
        Self {
            model,
            current_version: report.current.to_string(),
            loaded: texts(&report.loaded),
            total_seconds: report.took.as_secs_f64(),
        }
    }
}

impl UnloadBody {
    fn new(model: String, report: &UnloadReport) -> Self {
        let memory = report.memory.map(MemoryBody::from);
        Self { model, versions: texts(&report.versions), drained: report.drained, memory }
    }
}

impl SwapBody {
    fn new(model: String, report: &SwapReport) -> Self {
        Self {
            model,
            from: report.from.to_string(),
            to: report.to.to_string(),
            load_seconds: report.load_took.as_secs_f64(),
            total_seconds: report.took.as_secs_f64(),
            drained: report.drained,
            kept: report.kept,
            kept_until: report.kept_until.map(time),
            memory: report.memory.map(MemoryBody::from),
        }
    }
}

impl From<MemoryChange> for MemoryBody {
    fn from(change: MemoryChange) -> Self {
        Self { before_bytes: change.before, after_bytes: change.after }
    }
}

fn texts(versions: &[Version]) -> Vec<String> {
    versions.iter().map(ToString::to_string).collect()
}
