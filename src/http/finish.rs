//! What every answer gets on its way out: the request's id, and an error's body.

use std::any::Any;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::{debug, error};

use super::error::{ApiError, Failure};
use super::{Shared, request_id};
use crate::causes;

/// Counts the request, and completes its answer.
pub(super) async fn finish(State(services): Shared, request: Request, next: Next) -> Response {
    let _counted = services.parts.in_flight.enter();
    let started = Instant::now();
    let id = services.request_ids.of(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    let request_id = id.to_str().expect("ids are visible ASCII");
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        let body = failure.write(request_id, response.headers_mut());
        *response.body_mut() = Body::from(body);
        log_failure(&failure, &response, (&method, &path), request_id);
    }
    let status = response.status().as_u16();
    let duration_ms = started.elapsed().as_secs_f64() * 1000.0;
    debug!(%method, path, status, duration_ms, request_id, "request answered");
    response.headers_mut().insert(request_id::HEADER, id);
    response
}

/// Logs what the operator should know of: a bug, or an engine that failed.
fn log_failure(failure: &Failure, response: &Response, place: (&Method, &str), request_id: &str) {
    let (method, path) = place;
    let (code, text) = (failure.code(), failure.text());
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        let cause = failure.secret.as_deref().unwrap_or(text);
        error!(%method, path, code, cause, request_id, "request failed");
    } else {
        debug!(%method, path, code, text, request_id, "request refused");
    }
}

/// The answer to a request whose handler panicked.
#[expect(clippy::needless_pass_by_value, reason = "the signature that CatchPanicLayer asks for")]
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    ApiError::Panicked(causes::of_panic(panic.as_ref())).into_response()
}

/// The answer to a path that does not exist.
pub(super) async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::NoSuchPath(uri.path().to_owned())
}

/// The answer to a method that a path does not have.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::MethodNotAllowed { method: method.to_string(), path: uri.path().to_owned() }
}
