//! Triton's model repository extension: index, load, unload.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::ApiError;
use super::target::Target;
use super::wire::json;
use super::{Services, Shared, body};
use crate::model::{IndexEntry, StateKind};

#[derive(Default, Deserialize)]
struct IndexRequest {
    #[serde(default)]
    ready: bool,
}

#[derive(Default, Deserialize)]
struct ChangeRequest {
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// A model that was never loaded has neither version nor state.
#[derive(Serialize)]
struct IndexItem {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    reason: String,
}

/// `POST /v2/repository/index`
pub(super) async fn index(State(services): Shared, request: Request) -> Result<Response, ApiError> {
    let body = read(&services, request).await?;
    let IndexRequest { ready } = body::parse_or_default(&body)?;
    let entries = services.parts.models.index().await?.into_iter();
    let is_ready =
        |entry: &IndexEntry| entry.version.is_some_and(|(_, state)| state == StateKind::Ready);
    let items: Vec<IndexItem> =
        entries.filter(|entry| !ready || is_ready(entry)).map(IndexItem::from).collect();
    Ok(json(&items))
}

/// `POST /v2/repository/models/{model}/load`
pub(super) async fn load(
    State(services): Shared,
    target: Target,
    request: Request,
) -> Result<Response, ApiError> {
    let body = read(&services, request).await?;
    let ChangeRequest { parameters } = body::parse_or_default(&body)?;
    if let Some(name) = parameters.keys().find(|name| overrides(name)) {
        let text = format!("a load with the parameter '{name}' is not supported: change the files");
        return Err(ApiError::unsupported(text));
    }
    services.parts.models.load(&target.model).await?;
    Ok(().into_response())
}

/// `POST /v2/repository/models/{model}/unload`
pub(super) async fn unload(
    State(services): Shared,
    target: Target,
    request: Request,
) -> Result<Response, ApiError> {
    let body = read(&services, request).await?;
    // No model depends on another, so `unload_dependents` changes nothing.
    let ChangeRequest { .. } = body::parse_or_default(&body)?;
    services.parts.models.unload(&target.model).await?;
    Ok(().into_response())
}

/// Whether the parameter asks for something else than what the repository has.
fn overrides(name: &str) -> bool {
    name == "config" || name.starts_with("file:")
}

async fn read(services: &Services, request: Request) -> Result<Bytes, ApiError> {
    body::read_small(request, &services.limits()).await
}

impl From<IndexEntry> for IndexItem {
    fn from(entry: IndexEntry) -> Self {
        Self {
            name: entry.model.to_string(),
            version: entry.version.map(|(version, _)| version.to_string()),
            state: entry.version.map(|(_, state)| protocol_state(state)),
            reason: entry.reason,
        }
    }
}

/// The protocol's word for a state.
const fn protocol_state(state: StateKind) -> &'static str {
    match state {
        StateKind::New => "UNKNOWN",
        StateKind::Fetching | StateKind::Verifying | StateKind::Loading | StateKind::Warming => {
            "LOADING"
        }
        StateKind::Ready => "READY",
        StateKind::Draining | StateKind::Unloading => "UNLOADING",
        StateKind::Unloaded | StateKind::Failed => "UNAVAILABLE",
    }
}
