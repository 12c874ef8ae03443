//! The pages that others make: metrics, the configuration, the description of this interface.

use std::panic::resume_unwind;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio::task::spawn_blocking;

use super::Shared;
use super::wire::json;

const OPENAPI: &str = include_str!("../../openapi.yaml");

/// `GET /metrics`, made aside: of many models it is long, and the system is asked for some of it.
pub(super) async fn metrics(State(services): Shared) -> Response {
    let content_type = services.parts.metrics.content_type;
    let made = spawn_blocking(move || (services.parts.metrics.render)()).await;
    let text = made.unwrap_or_else(|error| resume_unwind(error.into_panic()));
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

/// `GET /lifecycle/config`
pub(super) async fn configuration(State(services): Shared) -> Response {
    json(&services.parts.configuration.0())
}

/// `GET /openapi.yaml`; the media type is that of RFC 9512.
pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/yaml")], OPENAPI).into_response()
}
