//! What every answer gets on its way out: the request's id, and an error's body.

use std::any::Any;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use tracing::{debug, error};

use super::Services;
use super::error::{ApiError, Failure};
use super::routes::methods;
use super::{trail, unread};
use crate::causes;
use crate::lifecycle::AppState;
use crate::oip::{self, RequestId};
use crate::trail::{Ids, Trail};

/// The header that carries a request's id both ways.
const REQUEST_ID: HeaderName = HeaderName::from_static(oip::REQUEST_ID);

/// Counts the request, has it handled, and completes its answer.
pub(super) async fn finish<F: Future<Output = Response>>(
    services: &Services,
    request: axum::http::Request<Incoming>,
    handle: impl FnOnce(Request, RequestId) -> F,
) -> Response {
    let _counted = services.parts.in_flight.enter();
    let started = Instant::now();
    let (request, unread) = unread::watched(request);
    let given = request.headers().get(&REQUEST_ID).map(HeaderValue::as_bytes);
    let id = services.request_ids.of(given);
    let trail = trail::of(&request);
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut response = match cross_site(&request) {
        Some(refusal) => refusal.into_response(),
        None => handle(request, id.clone()).await,
    };
    let request_id = id.as_str();
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        let body = failure.write(request_id, response.headers_mut());
        // In the place of what the router has told of the body that it knew.
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        // Over HTTP/2, a body would be sent although nobody has asked for it.
        let is_sent = method != Method::HEAD;
        *response.body_mut() = if is_sent { Body::from(body) } else { Body::empty() };
        let ids = trail.as_ref().map(Trail::ids).unwrap_or_default();
        log_failure(&failure, &response, (&method, uri.path()), (request_id, ids));
        trail.as_ref().inspect(|trail| trail.failed(failure.code()));
    }
    let took = started.elapsed();
    let route = count(services, (&method, uri.path()), (&mut response, took));
    if let Some(trail) = &trail {
        trail.identified(id.to_bytes());
        route.inspect(|route| trail.routed(route));
    }
    let (status, duration_ms) = (response.status().as_u16(), took.as_secs_f64() * 1000.0);
    debug!(%method, path = uri.path(), status, duration_ms, request_id, "request answered");
    let told = HeaderValue::from_maybe_shared(id.to_bytes());
    response.headers_mut().insert(REQUEST_ID, told.expect("it is visible ASCII"));
    // The end of a body that nobody has read would be taken for the next request.
    if services.parts.lifecycle.state() == AppState::Stopping || unread.is_left() {
        // A client that is told so sends its next request on another connection, and loses none.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Counts an answer; the template of its route, if it has one.
fn count(
    services: &Services,
    place: (&Method, &str),
    answer: (&mut Response, Duration),
) -> Option<&'static str> {
    let (counts, (method, path), (response, took)) = (&services.parts.counts, place, answer);
    let place = counts.of_inference(method, path).unwrap_or_else(|| {
        let matched = response.extensions_mut().remove::<MatchedPath>();
        counts.place(method, matched.as_ref().map(MatchedPath::as_str))
    });
    counts.add(place, response.status(), took);
    counts.route(place)
}

/// Refuses what a page of another site lets its reader's browser send: browsers send it also to
/// loopback, and say so.
fn cross_site(request: &Request) -> Option<ApiError> {
    if request.method() == Method::GET || request.method() == Method::HEAD {
        return None;
    }
    let header = |name: HeaderName| request.headers().get(name).map(|value| value.to_str());
    let site = header(HeaderName::from_static("sec-fetch-site"));
    let foreign_site = matches!(site, Some(Ok("cross-site" | "same-site") | Err(_)));
    // Over HTTP/2 it is part of the address.
    let authority = request.uri().authority().map(Authority::as_str);
    let host = header(HOST).and_then(Result::ok).or(authority).unwrap_or_default();
    let foreign_origin = header(ORIGIN).is_some_and(|origin| {
        let authority = origin.ok().and_then(|origin| origin.split_once("://"));
        authority.is_none_or(|(_, authority)| authority != host)
    });
    (foreign_site || foreign_origin).then_some(ApiError::CrossSite)
}

/// Logs what the operator should know of: a bug, or an engine that failed.
fn log_failure(
    failure: &Failure,
    response: &Response,
    (method, path): (&Method, &str),
    (request_id, ids): (&str, Ids),
) {
    let (code, text) = (failure.code(), failure.text());
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        let cause = failure.secret.as_deref().unwrap_or(text);
        let (trace_id, span_id) = (ids.trace(), ids.span());
        error!(%method, path, code, cause, request_id, trace_id, span_id, "request failed");
    } else {
        let text = (!failure.quotes_body()).then_some(text);
        debug!(%method, path, code, text, request_id, trace_id = ids.trace(), "request refused");
    }
}

/// The answer to a request whose handler panicked.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Response {
    ApiError::Panicked(causes::of_panic(panic)).into_response()
}

/// The answer to a path that does not exist.
pub(super) async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::NoSuchPath(uri.path().to_owned())
}

/// The answer to a method that a path does not have.
pub(super) async fn method_not_allowed(
    method: Method,
    matched: Option<MatchedPath>,
    uri: Uri,
) -> ApiError {
    let possible = matched.map(|path| methods(path.as_str())).unwrap_or_default();
    let (method, path) = (method.to_string(), uri.path().to_owned());
    ApiError::MethodNotAllowed { method, path, possible }
}
