//! `POST /v2/models/{model}[/versions/{version}]/infer`

mod compression;
#[cfg(any(test, fuzzing))]
pub(in crate::http) mod fuzzing;
mod input;
mod parts;
mod request;
mod response;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use bytes::Bytes;
use tokio::time::Instant;

use super::error::ApiError;
use super::target::Target;
use super::{Services, Shared, body, trail};
use crate::inference::InferError;
use crate::model::{ModelName, Protocol};
use crate::oip::{Call, Inputs, RequestId, RequestOptions};
pub(super) use compression::{Coding, DecodeError};
use request::Decoded;
use response::Wanted;
pub(super) use response::{encode, text_size, trace};

/// The header that tells how long the JSON is, after which the bytes of tensors come.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The header with a key for which one version answers as long as the model's traffic rules stay.
const ROUTING_KEY_HEADER: &str = "x-onward-routing-key";

/// What the router has for it.
pub(super) async fn infer(
    State(services): Shared,
    target: Result<Target, ApiError>,
    request: Request,
) -> Result<Response, ApiError> {
    let id = request.extensions().get().cloned();
    answer(&services, target, request, id).await
}

/// Reads the request, lets the model answer it, and writes the answer.
pub(super) async fn answer(
    services: &Services,
    target: Result<Target, ApiError>,
    request: Request,
    request_id: Option<RequestId>,
) -> Result<Response, ApiError> {
    let limits = services.limits();
    let received = Instant::now();
    let trail = trail::of(&request);
    let headers = Headers::read(request.headers());
    let deadline = received + limits.request_timeout;
    let header = headers.as_ref().ok().and_then(|headers| headers.length).unwrap_or_default();
    let body = body::read_coded(request, &limits, (deadline, header)).await?;
    // Only now, as a connection ends with a body that is not read.
    let (headers, Target { model, version }) = (headers?, target?);
    let (size, limit, length) = (body.work(), limits.max_body_size, headers.length);
    let decode = move || {
        let body = body.plain(limit)?;
        check_length(length, body.len())?;
        Ok::<_, ApiError>((Decoded::read(body, length, &model)?, model))
    };
    let late = || ApiError::from(InferError::DeadlineExceeded);
    let decoded = services.heavy.run_until(deadline, size, decode).await.ok_or_else(late)?;
    let (Decoded { id, options, inputs, outputs, form }, model) = decoded?;
    let routing_key = headers.routing_key.or(options.routing_key);
    let options = RequestOptions { routing_key, ..options };
    let call_id = id.clone().map(Bytes::from).or(request_id.map(|id| id.to_bytes()));
    let (protocol, id_of_call) = (Protocol::Http, call_id);
    let call = Call { protocol, id: id_of_call, trail, model, version, options, inputs, outputs };
    let serving = (&services.parts.models, &*services.parts.traces);
    let reply = call.run(serving, (received, limits.request_timeout)).await?;
    let wanted = Wanted { id, form, coding: headers.coding };
    response::write(&services.heavy, reply, wanted).await
}

/// The inputs in a body for a model, of which the JSON has `header` bytes; all of it where that is `None`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decode(
    body: Bytes,
    header: Option<usize>,
    model: &ModelName,
) -> Result<Inputs, ApiError> {
    check_length(header, body.len())?;
    Ok(Decoded::read(body, header, model)?.inputs)
}

/// What the head of a request says of its body and of the answer.
struct Headers {
    length: Option<usize>,
    routing_key: Option<String>,
    coding: Option<Coding>,
}

impl Headers {
    fn read(headers: &HeaderMap) -> Result<Self, ApiError> {
        Ok(Self {
            length: header_length(headers)?,
            routing_key: routing_key(headers)?,
            coding: Coding::accepted(headers),
        })
    }
}

/// How long the JSON is, where something comes after it.
fn header_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let mut given = headers.get_all(HEADER_LENGTH).iter();
    let Some(first) = given.next() else { return Ok(None) };
    if given.any(|other| other != first) {
        let text = format!("{HEADER_LENGTH} is given more than once, with different lengths");
        return Err(ApiError::bad_request(text));
    }
    let wrong = || {
        let shown = String::from_utf8_lossy(first.as_bytes());
        let expected = "the number of bytes before the tensors, from 0 to the length of the body";
        ApiError::bad_request(format!("{HEADER_LENGTH} is {expected}, got '{shown}'"))
    };
    // A sign would be taken for a part of the number.
    let digits = first.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).map(Some).ok_or_else(wrong)
}

fn check_length(header: Option<usize>, body: usize) -> Result<(), ApiError> {
    match header {
        Some(header) if header > body => {
            let text = format!("{HEADER_LENGTH} is {header}, but the body has only {body} bytes");
            Err(ApiError::bad_request(text))
        }
        _ => Ok(()),
    }
}

/// What the caller wants to be recognised by, so that it always meets the same version.
pub(super) fn routing_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(given) = headers.get(ROUTING_KEY_HEADER) else { return Ok(None) };
    let wrong = || ApiError::bad_request(format!("{ROUTING_KEY_HEADER} is not visible ASCII"));
    given.to_str().map(|key| Some(key.to_owned())).map_err(|_| wrong())
}
