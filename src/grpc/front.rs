//! What is around every call: limits, compression, and errors that the library finds.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hyper::body::Incoming;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic_reflection::server::Builder;
use tower::{Service, ServiceExt};
use tracing::debug;

use super::call_id::CallId;
use super::counts::Method;
use super::health::Health;
use super::proto::DESCRIPTORS;
use super::proto::grpc_inference_service_server::{GrpcInferenceServiceServer, SERVICE_NAME};
use super::proto::health::health_server::HealthServer;
use super::status::{self, status};
use super::terms::Terms;
use super::upload::Timely;
use super::{Parts, gate};
use crate::oip::{Code, Refusal, RequestIds};
use crate::trail::Trail;

/// The call whose message may have an id.
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

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

/// The gRPC interface. Clones share everything.
#[derive(Debug, Clone)]
pub struct Grpc {
    parts: Arc<Parts>,
    ids: Arc<RequestIds>,
    /// What is beside the calls of the protocol, and what is none.
    others: Router,
}

impl Grpc {
    /// That over what it is given.
    pub fn new(parts: Parts) -> Self {
        let parts = Arc::new(parts);
        let health = HealthServer::new(Health::new(Arc::clone(&parts)));
        let builder = || Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
        let sound = "the descriptors were compiled with this program";
        let (v1, v1alpha) =
            (builder().build_v1().expect(sound), builder().build_v1alpha().expect(sound));
        let others = Router::new()
            .route_service("/grpc.health.v1.Health/{call}", health)
            .route_service("/grpc.reflection.v1.ServerReflection/{call}", v1)
            .route_service("/grpc.reflection.v1alpha.ServerReflection/{call}", v1alpha)
            .fallback(not_offered);
        Self { parts, ids: Arc::new(RequestIds::new()), others }
    }

    /// Answers a call. What is no gRPC has no way to be told an error of it; all else is counted.
    pub(crate) async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response {
        let trail = request.extensions().get::<Trail>().cloned();
        if !is_grpc(request.headers()) {
            trail.inspect(|trail| trail.failed(Code::UnsupportedEncoding.name()));
            return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
        }
        let (started, method) = (Instant::now(), Method::of(request.uri().path()));
        let id = CallId::given(request.headers(), &self.ids);
        if request.uri().path() != INFER {
            identify(&id, trail.as_ref());
        }
        request.extensions_mut().insert(id.clone());
        let called = id.clone().around(self.admitted(request, peer));
        let mut response = match &trail {
            None => called.await,
            // On the heap, where it is out of the way of what leaves nothing behind.
            Some(trail) => Box::pin(followed(trail, method, called)).await,
        };
        identify(&id, trail.as_ref());
        id.tell(response.headers_mut());
        self.parts.counts.add(method, &response, started.elapsed());
        response
    }

    /// What a call is told that is not let in.
    pub(crate) fn refuse<B>(&self, request: &Request<B>, refusal: &Refusal) -> Response {
        let (mut response, method) =
            (answer(&status::refused(refusal)), Method::of(request.uri().path()));
        let trail = request.extensions().get::<Trail>();
        trail.inspect(|trail| note(trail, method, &response));
        let id = CallId::given(request.headers(), &self.ids);
        identify(&id, trail);
        id.tell(response.headers_mut());
        self.parts.counts.add(method, &response, Duration::ZERO);
        response
    }

    /// Lets the call in, and has it made.
    async fn admitted(&self, request: Request<Incoming>, peer: SocketAddr) -> Response {
        let Parts { guard, audit, .. } = &*self.parts;
        let made = |request| self.made(request);
        gate::guarded((guard.as_ref(), audit), (request, peer), made).await
    }

    /// Has the call made, those of the protocol without the router, which takes as long as all that is
    /// around them.
    async fn made(&self, request: Request<Incoming>) -> Response {
        let called = async {
            let is_post = request.method() == axum::http::Method::POST;
            if is_post && is_of_protocol(request.uri().path()) {
                inference(&self.parts, request).await
            } else {
                self.others.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
            }
        };
        // What a handler has shared with others is as safe from its panic as their own locks make it.
        let called = AssertUnwindSafe(called).catch_unwind().await;
        called.unwrap_or_else(|panic| answer(&status::bug(panic.as_ref())))
    }
}

fn is_of_protocol(path: &str) -> bool {
    let call = path.strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME));
    let call = call.and_then(|call| call.strip_prefix('/'));
    call.is_some_and(|call| !call.is_empty() && !call.contains('/'))
}

/// Makes the call, and tells the log.
async fn inference(parts: &Arc<Parts>, request: Request<Incoming>) -> Response {
    let (started, uri) = (Instant::now(), request.uri().clone());
    let response = call(parts, &uri, request).await;
    let status = response.headers().get("grpc-status").and_then(|status| status.to_str().ok());
    let duration_ms = started.elapsed().as_secs_f64() * 1000.0;
    debug!(call = uri.path(), status = status.unwrap_or("0"), duration_ms, "gRPC call answered");
    response
}

/// Reads the request, lets its call be made, and completes the answer.
async fn call(parts: &Arc<Parts>, uri: &Uri, mut request: Request<Incoming>) -> Response {
    let limits = (parts.limits)();
    let terms = match Terms::read(request.headers(), limits) {
        Ok(terms) => terms,
        Err(refusal) => return answer(&status::refused(&refusal)),
    };
    let (call, largest) = (uri.path(), gate::largest(uri.path(), limits.max_message_size));
    let server = GrpcInferenceServiceServer::from_arc(Arc::clone(parts))
        .max_decoding_message_size(largest)
        // What a model answers is not bounded by what it may be asked.
        .max_encoding_message_size(usize::MAX);
    let server =
        ENCODINGS.iter().fold(server, |server, (_, encoding)| server.accept_compressed(*encoding));
    // Whoever compresses is answered so, and nobody else: it costs more than a fast network does.
    let mut server = match encoding(request.headers()) {
        Some(encoding) => server.send_compressed(encoding),
        None => server,
    };
    let arrival = (call != STREAM).then(|| terms.arrival());
    request.extensions_mut().insert(terms);
    // It is ready always.
    let made = server.call(request.map(|body| Timely::new(body, arrival))).await;
    let response = made.unwrap_or_else(|never| match never {});
    complete(response.map(Body::new), call, largest)
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

/// Has a call made that leaves something behind.
async fn followed(
    trail: &Trail,
    method: Method,
    called: impl Future<Output = Response>,
) -> Response {
    let response = trail.clone().around(called).await;
    note(trail, method, &response);
    response
}

/// Settles under which id a call is found.
pub(super) fn identify(id: &CallId, trail: Option<&Trail>) {
    if let Some(trail) = trail {
        trail.identified(id.settle().to_bytes());
    }
}

/// Notes what a call was, and how it was answered.
fn note(trail: &Trail, method: Method, response: &Response) {
    trail.routed(method.name());
    let code = response.headers().get(status::CODE).and_then(|code| code.to_str().ok());
    code.inspect(|code| trail.failed((*code).to_owned()));
}

async fn not_offered(uri: Uri) -> Response {
    answer(&status(Code::Unsupported, &format!("{} is not offered", uri.path())))
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

    #[test]
    fn a_call_of_the_protocol_is_known_by_its_path() {
        assert!(is_of_protocol("/inference.GRPCInferenceService/ModelInfer"));
        for other in ["", "/", "ModelInfer", "ModelInfer/more"] {
            assert!(!is_of_protocol(&format!("/inference.GRPCInferenceServic/{other}")));
        }
        for other in ["", "/", "/ModelInfer/more"] {
            assert!(!is_of_protocol(&format!("/inference.GRPCInferenceService{other}")), "{other}");
        }
    }
}
