//! `/v2[/models/{model}]/trace/setting`: which requests are traced, as Triton's clients read and change it.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::target::Target;
use super::wire::json;
use super::{Services, Shared, body};
use crate::model::{ModelLifecycleManager, ModelName, Traces};
use crate::oip::trace::{self, Named};

/// What a request says of a setting; null clears it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a string, a list of strings, or null")]
enum Given {
    None,
    One(String),
    Several(Vec<String>),
}

#[derive(Serialize)]
struct TraceBody {
    trace_level: Vec<String>,
    trace_rate: String,
    trace_count: String,
    log_frequency: String,
    trace_file: String,
    trace_mode: String,
}

/// `GET /v2/trace/setting`
pub(super) async fn of_all(State(services): Shared) -> Result<Response, ApiError> {
    Ok(answer(trace::settings(services.tracing(), None)?))
}

/// `GET /v2/models/{model}/trace/setting`
pub(super) async fn of_model(
    State(services): Shared,
    target: Target,
) -> Result<Response, ApiError> {
    Ok(answer(trace::settings(services.tracing(), Some(&target.model))?))
}

/// `POST /v2/trace/setting`
pub(super) async fn change_all(
    State(services): Shared,
    request: Request,
) -> Result<Response, ApiError> {
    change(&services, None, request).await
}

/// `POST /v2/models/{model}/trace/setting`
pub(super) async fn change_model(
    State(services): Shared,
    target: Target,
    request: Request,
) -> Result<Response, ApiError> {
    change(&services, Some(&target.model), request).await
}

async fn change(
    services: &Services,
    model: Option<&ModelName>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = body::read_small(request, &services.limits()).await?;
    let given: BTreeMap<String, Given> = body::parse_or_default(&body)?;
    let given = given.into_iter().map(|(name, given)| (name, given.values()));
    Ok(answer(trace::change(services.tracing(), model, given)?))
}

impl Services {
    fn tracing(&self) -> (&ModelLifecycleManager, &Traces) {
        (&self.parts.models, &self.parts.traces)
    }
}

impl Given {
    fn values(self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::One(value) => vec![value],
            Self::Several(values) => values,
        }
    }
}

fn answer(settings: [Named; 6]) -> Response {
    let [trace_level, rate, count, frequency, file, mode] = settings.map(|(_, values)| values);
    json(&TraceBody {
        trace_level,
        trace_rate: rate.concat(),
        trace_count: count.concat(),
        log_frequency: frequency.concat(),
        trace_file: file.concat(),
        trace_mode: mode.concat(),
    })
}
