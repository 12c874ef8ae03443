//! The pages that others make: metrics, the configuration, the description of this interface.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::wire::json;

const OPENAPI: &str = include_str!("../../openapi.yaml");

/// `GET /metrics`
pub(super) async fn metrics(State(services): Shared) -> Response {
    let page = &services.parts.metrics;
    ([(CONTENT_TYPE, page.content_type)], (page.render)()).into_response()
}

/// `GET /lifecycle/config`
pub(super) async fn configuration(State(services): Shared) -> Response {
    json(&services.parts.configuration.0())
}

/// `GET /openapi.yaml`; the media type is that of RFC 9512.
pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/yaml")], OPENAPI).into_response()
}
