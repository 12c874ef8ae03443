//! Triton's model repository extension: index, load, unload.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::error::ApiError;
use super::target::Target;
use super::wire::json;
use super::{Services, Shared, body, trail};
use crate::auth::Access;
use crate::model::{IndexEntry, Overrides};
use crate::oip::repository::{self, FILE, Given};

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
pub(super) async fn index(
    State(services): Shared,
    access: Access,
    request: Request,
) -> Result<Response, ApiError> {
    let body = read(&services, request).await?;
    let IndexRequest { ready } = body::parse_or_default(&body)?;
    let entries = repository::index(&services.parts.models, ready).await?;
    let seen = entries.into_iter().filter(|entry| access.sees(entry.model.as_str()));
    let items: Vec<IndexItem> = seen.map(IndexItem::from).collect();
    Ok(json(&items))
}

/// `POST /v2/repository/models/{model}/load`
pub(super) async fn load(
    State(services): Shared,
    access: Access,
    target: Target,
    request: Request,
) -> Result<Response, ApiError> {
    let (limits, origin) = (services.limits(), trail::origin(&request));
    let body = body::read(request, &limits, Instant::now() + limits.request_timeout).await?;
    let overrides = services.heavy.run(body.len(), move || overrides(&body)).await?;
    if overrides.is_some() {
        // What it brings may be made of models that the caller may not see.
        access.on_server()?;
    }
    repository::load(&services.parts.models, (&target.model, origin), overrides).await?;
    Ok(().into_response())
}

/// `POST /v2/repository/models/{model}/unload`
pub(super) async fn unload(
    State(services): Shared,
    target: Target,
    request: Request,
) -> Result<Response, ApiError> {
    let origin = trail::origin(&request);
    let body = read(&services, request).await?;
    let ChangeRequest { .. } = body::parse_or_default(&body)?;
    repository::unload(&services.parts.models, (&target.model, origin)).await?;
    Ok(().into_response())
}

/// What a load brings; files are in base64.
fn overrides(body: &[u8]) -> Result<Option<Overrides>, ApiError> {
    let ChangeRequest { parameters } = body::parse_or_default(body)?;
    let given = parameters.into_iter().map(|(name, value)| {
        let given = match value {
            Value::String(text) if name.starts_with(FILE) => {
                let decoded = STANDARD.decode(text).map_err(|problem| {
                    ApiError::bad_request(format!("parameter '{name}' is no base64: {problem}"))
                });
                Given::Bytes(decoded?.into())
            }
            Value::String(text) => Given::Text(text),
            _ => Given::Other,
        };
        Ok((name, given))
    });
    let given = given.collect::<Result<Vec<_>, ApiError>>()?;
    Ok(repository::overrides(given)?)
}

async fn read(services: &Services, request: Request) -> Result<Bytes, ApiError> {
    body::read_small(request, &services.limits()).await
}

impl From<IndexEntry> for IndexItem {
    fn from(entry: IndexEntry) -> Self {
        Self {
            name: entry.model.to_string(),
            version: entry.version.map(|(version, _)| version.to_string()),
            state: entry.version.map(|(_, state)| repository::state(state)),
            reason: entry.reason,
        }
    }
}
