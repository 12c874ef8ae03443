//! What is around every call: limits, compression, and errors that the library finds.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic_reflection::server::Builder;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::debug;

use super::health::Health;
use super::proto::DESCRIPTORS;
use super::proto::grpc_inference_service_server::{GrpcInferenceServiceServer, SERVICE_NAME};
use super::proto::health::health_server::HealthServer;
use super::status::{self, status};
use super::terms::Terms;
use super::upload::Timely;
use super::{Parts, Shared, gate};
use crate::oip::{Code, Refusal};

/// The call that has no end of its own.
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// How messages may be compressed.
const ENCODINGS: [(&str, CompressionEncoding); 3] = [
    ("gzip", CompressionEncoding::Gzip),
    ("deflate", CompressionEncoding::Deflate),
    ("zstd", CompressionEncoding::Zstd),
];

/// Whether a request is a call of gRPC; one of gRPC-Web is none.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let rest = kind.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// What a call is told that is not let in.
pub(crate) fn refuse(refusal: &Refusal) -> Response {
    answer(&status::refused(refusal))
}

/// The router over what it is given.
pub fn router(parts: Parts) -> Router {
    let (guard, parts) = (parts.guard.clone(), Arc::new(parts));
    let health = HealthServer::new(Health::new(Arc::clone(&parts)));
    let builder = || Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    let sound = "the descriptors were compiled with this program";
    let (v1, v1alpha) =
        (builder().build_v1().expect(sound), builder().build_v1alpha().expect(sound));
    let router = Router::new()
        .route(&format!("/{SERVICE_NAME}/{{call}}"), post(inference))
        .route_service("/grpc.health.v1.Health/{call}", health)
        .route_service("/grpc.reflection.v1.ServerReflection/{call}", v1)
        .route_service("/grpc.reflection.v1alpha.ServerReflection/{call}", v1alpha)
        .fallback(not_offered)
        .method_not_allowed_fallback(not_offered)
        .layer(CatchPanicLayer::custom(panicked));
    let router = match guard {
        Some(guard) => router.layer(from_fn_with_state(guard, gate::guarded)),
        None => router,
    };
    router.layer(from_fn_with_state(Arc::clone(&parts), only_grpc)).with_state(parts)
}

/// Makes the call, and tells the log.
async fn inference(State(parts): Shared, uri: Uri, request: Request) -> Response {
    let started = Instant::now();
    let response = call(parts, &uri, request).await;
    let status = response.headers().get("grpc-status").and_then(|status| status.to_str().ok());
    let duration_ms = started.elapsed().as_secs_f64() * 1000.0;
    debug!(call = uri.path(), status = status.unwrap_or("0"), duration_ms, "gRPC call answered");
    response
}

/// Reads the request, lets its call be made, and completes the answer.
async fn call(parts: Arc<Parts>, uri: &Uri, request: Request) -> Response {
    let limits = (parts.limits)();
    let terms = match Terms::read(request.headers(), limits) {
        Ok(terms) => terms,
        Err(refusal) => return answer(&status::refused(&refusal)),
    };
    let (call, largest) = (uri.path(), gate::largest(uri.path(), limits.max_message_size));
    let server = GrpcInferenceServiceServer::from_arc(Arc::clone(&parts))
        .max_decoding_message_size(largest)
        // What a model answers is not bounded by what it may be asked.
        .max_encoding_message_size(usize::MAX);
    let server =
        ENCODINGS.iter().fold(server, |server, (_, encoding)| server.accept_compressed(*encoding));
    // Whoever compresses is answered so, and nobody else: it costs more than a fast network does.
    let server = match encoding(request.headers()) {
        Some(encoding) => server.send_compressed(encoding),
        None => server,
    };
    let made = server.oneshot(with_terms(request, uri, terms)).await;
    let response = made.unwrap_or_else(|never| match never {});
    complete(response.map(Body::new), call, largest)
}

fn with_terms(request: Request, uri: &Uri, terms: Terms) -> Request {
    let arrival = terms.arrival();
    let mut request = match uri.path() {
        STREAM => request,
        _ => request.map(|body| Body::new(Timely::new(body, arrival))),
    };
    request.extensions_mut().insert(terms);
    request
}

fn encoding(headers: &HeaderMap) -> Option<CompressionEncoding> {
    let name = headers.get("grpc-encoding")?.to_str().ok()?;
    ENCODINGS.iter().find(|(known, _)| *known == name).map(|(_, encoding)| *encoding)
}

/// Gives an error that the library has found a code.
fn complete(response: Response, call: &str, limit: usize) -> Response {
    if response.headers().contains_key(status::CODE) {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        Some(found) if found.code() != tonic::Code::Ok => {
            answer(&status::of_library(&found, call, limit))
        }
        _ => response,
    }
}

/// What is no gRPC has no way to be told an error of it; all else is counted.
async fn only_grpc(State(parts): Shared, request: Request, next: Next) -> Response {
    if !is_grpc(request.headers()) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let (started, uri) = (Instant::now(), request.uri().clone());
    let response = next.run(request).await;
    parts.counts.add(uri.path(), &response, started.elapsed());
    response
}

async fn not_offered(uri: Uri) -> Response {
    answer(&status(Code::Unsupported, &format!("{} is not offered", uri.path())))
}

/// The answer to a call whose handler panicked.
#[expect(clippy::needless_pass_by_value, reason = "the signature that CatchPanicLayer asks for")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    answer(&status::bug(panic.as_ref()))
}

pub(super) fn answer(status: &Status) -> Response {
    status.clone().into_http::<Body>().into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_known_by_its_type() {
        let known = |kind: &'static str| {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(kind))];
            is_grpc(&headers.into_iter().collect())
        };
        let calls = ["application/grpc", "application/grpc+proto", "application/grpc;charset=x"];
        assert!(calls.into_iter().all(known));
        assert!(!known("application/json") && !known("application/grpc-web"));
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
