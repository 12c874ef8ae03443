//! A collector of OpenTelemetry: takes spans over gRPC and over HTTP, on a port of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;

use super::process::PATIENCE;
use proto as collector;
use proto::Span as Sent;
use proto::any_value::Value;
use proto::{AnyValue, KeyValue};

#[allow(clippy::all, clippy::pedantic, clippy::clone_on_ref_ptr, dead_code, reason = "generated")]
#[allow(unreachable_pub, unused_qualifications, reason = "generated")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/otlp_server/opentelemetry.proto.collector.trace.v1.rs"));
}

/// A span as it came.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    /// 2 for that of a server, 1 for a part of something.
    pub(crate) kind: i32,
    pub(crate) state: String,
    pub(crate) flags: u32,
    /// Nanoseconds since 1970.
    pub(crate) time: (u64, u64),
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) failed: bool,
    /// What all spans of its program have in common.
    pub(crate) resource: BTreeMap<String, String>,
}

/// What a collector has got, and how it answers.
#[derive(Debug, Clone)]
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    spans: watch::Receiver<Vec<Span>>,
    headers: watch::Receiver<HeaderMap>,
}

#[derive(Clone)]
struct Taking {
    spans: Arc<watch::Sender<Vec<Span>>>,
    headers: Arc<watch::Sender<HeaderMap>>,
    status: StatusCode,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::answering(StatusCode::OK).await
    }

    /// One that answers so over HTTP.
    pub(crate) async fn answering(status: StatusCode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (spans, taken) = watch::channel(Vec::new());
        let (headers, heads) = watch::channel(HeaderMap::new());
        let taking = Taking { spans: Arc::new(spans), headers: Arc::new(headers), status };
        let service = collector::trace_service_server::TraceServiceServer::new(taking.clone());
        let path = "/opentelemetry.proto.collector.trace.v1.TraceService/{call}";
        let router = Router::new().route("/v1/traces", post(taken_by_post)).with_state(taking);
        let router = router.route_service(path, service);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, spans: taken, headers: heads }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came with the last spans.
    pub(crate) fn headers(&self) -> HeaderMap {
        self.headers.borrow().clone()
    }

    /// What came so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans.borrow().clone()
    }

    /// Waits until there is such a span.
    #[track_caller]
    pub(crate) fn span(&self, is_it: impl Fn(&Span) -> bool) -> impl Future<Output = Span> {
        let mut spans = self.spans.clone();
        async move {
            let seen = spans.wait_for(|spans| spans.iter().any(&is_it));
            let found = timeout(PATIENCE, seen).await.ok();
            let found =
                found.and_then(|spans| spans.ok()?.iter().find(|span| is_it(span)).cloned());
            found.unwrap_or_else(|| panic!("no such span among {:#?}", spans.borrow().clone()))
        }
    }

    /// The part of a span that has this name.
    pub(crate) async fn part(&self, whole: &Span, name: &str) -> Span {
        let part = self.span(|span| span.parent == whole.id && span.name == name).await;
        assert_eq!((&part.trace, part.kind), (&whole.trace, 1));
        assert!(part.time.0 <= part.time.1, "{part:?}");
        // Clocks are read by two threads.
        let slack = 1_000_000;
        assert!(whole.time.0 <= part.time.0 + slack, "{part:?} in {whole:?}");
        assert!(part.time.1 <= whole.time.1 + slack, "{part:?} in {whole:?}");
        part
    }
}

async fn taken_by_post(State(taking): State<Taking>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers[CONTENT_TYPE], "application/x-protobuf");
    if taking.status.is_success() {
        let request = collector::ExportTraceServiceRequest::decode(body).expect("it is one");
        taking.take(headers, request);
    }
    let answer = collector::ExportTraceServiceResponse::default().encode_to_vec();
    (taking.status, [(CONTENT_TYPE, "application/x-protobuf")], answer).into_response()
}

#[tonic::async_trait]
impl collector::trace_service_server::TraceService for Taking {
    async fn export(
        &self,
        request: tonic::Request<collector::ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<collector::ExportTraceServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        self.take(headers, request.into_inner());
        Ok(tonic::Response::new(collector::ExportTraceServiceResponse::default()))
    }
}

impl Taking {
    fn take(&self, headers: HeaderMap, request: collector::ExportTraceServiceRequest) {
        self.headers.send_replace(headers);
        self.spans.send_modify(|spans| {
            for of_program in request.resource_spans {
                let resource = texts(of_program.resource.unwrap_or_default().attributes);
                let sent = of_program.scope_spans.into_iter().flat_map(|scope| scope.spans);
                spans.extend(sent.map(|span| Span::new(span, resource.clone())));
            }
        });
    }
}

impl Span {
    fn new(sent: Sent, resource: BTreeMap<String, String>) -> Self {
        Self {
            trace: hex(&sent.trace_id),
            id: hex(&sent.span_id),
            parent: hex(&sent.parent_span_id),
            name: sent.name,
            kind: sent.kind,
            state: sent.trace_state,
            flags: sent.flags,
            time: (sent.start_time_unix_nano, sent.end_time_unix_nano),
            attributes: texts(sent.attributes),
            failed: sent.status.is_some_and(|status| status.code == 2),
            resource,
        }
    }

    #[track_caller]
    pub(crate) fn tells(&self, attributes: &[(&str, &str)]) {
        for (name, value) in attributes {
            let told = self.attributes.get(*name).map(String::as_str);
            assert_eq!(told, Some(*value), "{name} of {self:#?}");
        }
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("a value of another kind: {other:?}"),
    };
    attributes.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes every text");
    }
    text
}
