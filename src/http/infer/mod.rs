//! `POST /v2/models/{model}[/versions/{version}]/infer`

mod request;
mod response;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;
use super::target::Target;
use super::{Shared, body};
use crate::inference::InferError;
use request::Decoded;

/// The header with which a request announces binary tensors after its JSON.
const BINARY_HEADER: &str = "inference-header-content-length";

/// The header with a key for which one version answers as long as the model's traffic rules stay.
const ROUTING_KEY_HEADER: &str = "x-onward-routing-key";

/// Reads the request, lets the model answer it, and writes the answer.
pub(super) async fn infer(
    State(services): Shared,
    target: Target,
    request: Request,
) -> Result<Response, ApiError> {
    let limits = services.limits();
    let received = Instant::now();
    refuse_binary(request.headers())?;
    let key = routing_key(request.headers())?;
    let body = body::read(request, &limits, received + limits.request_timeout).await?;
    let size = body.len();
    let decode = move || Decoded::read(&body);
    let deadline = received + limits.request_timeout;
    let late = |_| ApiError::from(InferError::DeadlineExceeded);
    let decoded = timeout_at(deadline, services.heavy.run(size, decode)).await.map_err(late)?;
    let Decoded { id, request, timeout, routing_key } = decoded?;
    let allowed = timeout.map_or(limits.request_timeout, |t| t.min(limits.request_timeout));
    let wanted = target.wanted(key.as_deref().or(routing_key.as_deref()));
    // The version is chosen as late as this, so that a slow upload holds none.
    let models = &services.parts.models;
    let version = models.acquire_waiting(target.model.as_str(), wanted, received + allowed).await?;
    let answer = version.infer(request, received + allowed).await?;
    response::write(&services.heavy, id, &version, answer).await
}

/// What the caller wants to be recognised by, so that it always meets the same version.
fn routing_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(given) = headers.get(ROUTING_KEY_HEADER) else { return Ok(None) };
    let wrong = || ApiError::bad_request(format!("{ROUTING_KEY_HEADER} is not visible ASCII"));
    given.to_str().map(|key| Some(key.to_owned())).map_err(|_| wrong())
}

fn refuse_binary(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(BINARY_HEADER) {
        return Err(request::binary_is_unsupported());
    }
    Ok(())
}
