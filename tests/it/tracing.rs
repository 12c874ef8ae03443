//! Spans at a collector, and what the log tells of requests.

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Request;

use crate::support::collector::{Collector, Span};
use crate::support::onnx::{add_constant, slow};
use crate::support::process::{PATIENCE, onward};
use crate::support::{Answer, Repository, Server, grpc, x};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Waits for more than there is, so that what is asked at once shares runs.
const PATIENT: &str = "instances: 1\nbatching: {max_size: 8, max_delay: 50ms}\n";

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

/// A server whose spans this collector gets, with further settings.
async fn traced(collector: &Collector, settings: &[(&str, &str)]) -> Server {
    let repository = Repository::of("add", &add_constant(1.0));
    traced_of(repository, collector, settings).await
}

async fn traced_of(
    repository: Repository,
    collector: &Collector,
    settings: &[(&str, &str)],
) -> Server {
    let url = collector.url();
    let of_collector = [("telemetry.otlp_endpoint", url.as_str())];
    Server::start_with(repository, &[&of_collector, settings].concat()).await
}

async fn infer(server: &Server, model: &str, headers: &[(&str, &str)]) -> Answer {
    let body = x(&[1, 4], &[0.0; 4]).to_string();
    send(server, model, headers, body.into_bytes()).await
}

async fn send(server: &Server, model: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let path = format!("/v2/models/{model}/infer");
    let request = server.request(Method::POST, &path).body(body);
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Answer::of(request.send().await.unwrap()).await.unwrap()
}

fn of_trace(trace: &str) -> impl Fn(&Span) -> bool {
    let trace = trace.to_owned();
    move |span| span.kind == 2 && span.trace == trace
}

/// The span of the server under the caller's, with its queue and its run.
async fn followed(collector: &Collector) -> Span {
    let request = collector.span(of_trace(TRACE)).await;
    assert_eq!(request.parent, CALLER);
    collector.part(&request, "queue").await;
    let compute = collector.part(&request, "compute").await;
    for part in ["compute.input", "compute.infer", "compute.output"] {
        collector.part(&compute, part).await;
    }
    request
}

#[tokio::test]
async fn a_trace_goes_on_through_rest() {
    let collector = Collector::start().await;
    let server = traced(&collector, &[("telemetry.service_name", "digits")]).await;
    let headers = [("traceparent", &*parent("01")), ("tracestate", "a=1"), ("x-request-id", "r-1")];
    let answer = infer(&server, "add", &headers).await;
    assert_eq!(answer.status, 200);
    let request = followed(&collector).await;
    assert_eq!(request.name, "POST /v2/models/{model}/infer");
    assert_eq!((request.state.as_str(), request.flags, request.failed), ("a=1", 0x301, false));
    let digest = answer.header("x-onward-digest");
    request.tells(&[
        ("http.request.method", "POST"),
        ("http.route", "/v2/models/{model}/infer"),
        ("url.path", "/v2/models/add/infer"),
        ("http.response.status_code", "200"),
        ("client.address", "127.0.0.1"),
        ("onward.request_id", "r-1"),
        ("onward.model.name", "add"),
        ("onward.model.version", "1"),
        ("onward.model.digest", digest),
    ]);
    assert_eq!(request.resource["service.name"], "digits");
    assert!(!request.resource["service.instance.id"].is_empty());
}

#[tokio::test]
async fn a_trace_goes_on_through_binary_tensors_and_http_to_the_collector() {
    let collector = Collector::start().await;
    let settings = [
        ("telemetry.otlp_protocol", "http/protobuf"),
        ("telemetry.otlp_headers", "api-key=a secret"),
    ];
    let server = traced(&collector, &settings).await;
    let head = json!({ "inputs": [{
        "name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": { "binary_data_size": 16 },
    }] });
    let body = [head.to_string().as_bytes(), &[0; 16]].concat();
    let length = head.to_string().len().to_string();
    let headers = [("traceparent", &*parent("01")), ("inference-header-content-length", &length)];
    assert_eq!(send(&server, "add", &headers, body).await.status, 200);
    followed(&collector).await;
    assert_eq!(collector.headers()["api-key"], "a secret");
    let shown = server.get("/lifecycle/config").await.ok().to_string();
    assert!(shown.contains("***") && !shown.contains("a secret"), "{shown}");
    assert!(!server.process.log().contains("a secret"));
}

#[tokio::test]
async fn a_trace_goes_on_through_grpc_and_its_streams() {
    let collector = Collector::start().await;
    let server = traced(&collector, &[]).await;
    let mut client = server.grpc().await;
    let with_parent = |message| {
        let mut request = Request::new(message);
        request.metadata_mut().insert("traceparent", parent("01").parse().unwrap());
        request
    };
    client.model_infer(with_parent(grpc::x("add", &[1, 4], &[0.0; 4]))).await.unwrap();
    let request = followed(&collector).await;
    assert_eq!(request.name, "inference.GRPCInferenceService/ModelInfer");
    request.tells(&[
        ("rpc.system", "grpc"),
        ("rpc.service", "inference.GRPCInferenceService"),
        ("rpc.method", "ModelInfer"),
        ("rpc.grpc.status_code", "0"),
        ("onward.model.name", "add"),
    ]);
    let mut stream = grpc::Stream::open(&mut client).await;
    stream.send("a", grpc::x("add", &[1, 4], &[0.0; 4]));
    stream.send("b", grpc::x("add", &[1, 3], &[0.0; 3]));
    assert!(stream.answer().await.error_message.is_empty());
    assert!(!stream.answer().await.error_message.is_empty());
    drop(stream);
    let is_stream = |span: &Span| span.name.ends_with("/ModelStreamInfer");
    let whole = collector.span(is_stream).await;
    let message = |id: &'static str| {
        let whole = whole.id.clone();
        move |span: &Span| {
            span.parent == whole
                && span.attributes.get("onward.request_id").is_some_and(|told| told == id)
        }
    };
    let sound = collector.span(message("a")).await;
    collector.part(&sound, "compute").await;
    collector.span(message("b")).await.tells(&[("error.type", "invalid_request")]);
}

#[tokio::test]
async fn requests_that_share_a_run_tell_of_each_other() {
    let collector = Collector::start().await;
    let repository = Repository::of("add", &add_constant(1.0)).with_settings("add", PATIENT);
    let server = traced_of(repository, &collector, &[]).await;
    let asked = (0..4).map(|_| infer(&server, "add", &[]));
    assert!(join_all(asked).await.iter().all(|answer| answer.status == 200));
    let is_shared = |span: &Span| {
        let requests = span.attributes.get("onward.batch.requests");
        span.name == "batch" && requests.is_some_and(|requests| requests != "1")
    };
    let batch = collector.span(is_shared).await;
    assert_eq!(batch.attributes["onward.batch.requests"], batch.attributes["onward.batch.entries"]);
    let is_whole = |span: &Span| span.kind == 2 && span.id == batch.parent;
    let request = collector.span(is_whole).await;
    let queue = collector.part(&request, "queue").await;
    let compute = collector.part(&batch, "compute").await;
    assert!(queue.time.1 <= batch.time.0 && batch.time.0 <= compute.time.0);
}

/// Waits for two, whenever they come.
const PAIR: &str = "instances: 1\nbatching: {max_size: 2, max_delay: 30s}\n";

/// The parts of a request that has shared its run with one other; how long that and its steps took.
async fn shared(collector: &Collector, request: &Span) -> Vec<u64> {
    let queue = collector.part(request, "queue").await;
    let batch = collector.part(request, "batch").await;
    batch.tells(&[("onward.batch.requests", "2"), ("onward.batch.entries", "2")]);
    let compute = collector.part(&batch, "compute").await;
    let mut steps = Vec::new();
    for name in ["compute.input", "compute.infer", "compute.output"] {
        steps.push(collector.part(&compute, name).await);
    }
    let ends = [queue.time.1, compute.time.1, compute.time.0, steps[0].time.1, steps[1].time.1];
    let begins = [batch.time.0, batch.time.1, steps[0].time.0, steps[1].time.0, steps[2].time.0];
    assert_eq!(
        (ends, steps[2].time.1),
        (begins, compute.time.1),
        "each begins as the one before ends"
    );
    let length = |span: &Span| span.time.1 - span.time.0;
    std::iter::once(&compute).chain(&steps).map(length).collect()
}

#[tokio::test]
async fn two_traces_go_on_through_the_run_that_they_share() {
    let collector = Collector::start().await;
    let repository = Repository::of("add", &add_constant(1.0)).with_settings("add", PAIR);
    let server = traced_of(repository, &collector, &[]).await;
    let callers = [(TRACE, CALLER), ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")];
    let asked = callers.map(|(trace, caller)| {
        let parent = format!("00-{trace}-{caller}-01");
        let server = &server;
        async move { infer(server, "add", &[("traceparent", &parent)]).await.status }
    });
    assert_eq!(join_all(asked).await, [200, 200]);
    let mut runs = Vec::new();
    for (trace, caller) in callers {
        let request = collector.span(of_trace(trace)).await;
        assert_eq!(request.parent, caller);
        request.tells(&[("http.response.status_code", "200"), ("onward.model.name", "add")]);
        runs.push(shared(&collector, &request).await);
    }
    assert_eq!(runs[0], runs[1], "it is one run");
    assert_eq!(server.stop().await, 0);
    for (trace, _) in callers {
        let of_it = collector.spans().into_iter().filter(|span| span.trace == trace);
        let mut names: Vec<String> = of_it.map(|span| span.name).collect();
        names.sort_unstable();
        let parts = ["compute", "compute.infer", "compute.input", "compute.output", "queue"];
        let expected = [&["POST /v2/models/{model}/infer", "batch"][..], &parts].concat();
        assert_eq!(names, expected, "each once, and nothing of the other");
    }
}

#[tokio::test]
async fn callers_decide_and_who_does_not_gets_a_new_trace() {
    let collector = Collector::start().await;
    let server = traced(&collector, &[]).await;
    for unsampled in [parent("00"), parent("02")] {
        infer(&server, "add", &[("traceparent", &unsampled)]).await;
    }
    server.get("/livez").await;
    server.get("/metrics").await;
    let uppercase = parent("01").to_uppercase();
    for malformed in ["nonsense", &uppercase, &format!("{}-more", parent("01"))] {
        infer(&server, "add", &[("traceparent", malformed), ("tracestate", "a=1")]).await;
    }
    infer(&server, "add", &[("traceparent", &parent("01")), ("traceparent", &parent("01"))]).await;
    assert_eq!(server.stop().await, 0);
    let spans = collector.spans();
    let requests: Vec<&Span> = spans.iter().filter(|span| span.kind == 2).collect();
    assert_eq!(requests.len(), 4, "{requests:#?}");
    for request in requests {
        assert_ne!(request.trace, TRACE);
        assert_eq!((request.parent.as_str(), request.state.as_str()), ("", ""));
    }
}

#[tokio::test]
async fn of_traces_that_begin_here_a_part_is_recorded() {
    let collector = Collector::start().await;
    let server = traced(&collector, &[("telemetry.trace_sample_ratio", "0")]).await;
    infer(&server, "add", &[]).await;
    infer(&server, "add", &[("traceparent", &parent("01"))]).await;
    assert_eq!(server.stop().await, 0);
    let spans = collector.spans();
    let requests: Vec<&Span> = spans.iter().filter(|span| span.kind == 2).collect();
    assert_eq!(requests.iter().map(|span| &span.trace).collect::<Vec<_>>(), [TRACE]);
}

/// The address of an endpoint for events, and what comes there: the trace in the head, and the event.
async fn webhook() -> (String, mpsc::Receiver<(Option<String>, Value)>) {
    let (sender, posts) = mpsc::channel(1000);
    let take = move |headers: HeaderMap, body: String| async move {
        let header = headers.get("traceparent").map(|value| value.to_str().unwrap().to_owned());
        sender.send((header, serde_json::from_str(&body).unwrap())).await.unwrap();
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().route("/", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, posts)
}

#[tokio::test]
async fn changes_are_recorded_with_their_steps_under_who_asked() {
    let collector = Collector::start().await;
    let repository = Repository::of("add", &add_constant(1.0)).and("add", 2, &add_constant(2.0));
    let (hook, mut posts) = webhook().await;
    let settings = [("webhooks.urls", hook.as_str()), ("webhooks.kinds", "operation")];
    let server = traced_of(repository, &collector, &settings).await;
    let by_itself = collector.span(|span| span.name == "load").await;
    assert_eq!(by_itself.parent, "");
    by_itself.tells(&[("onward.model.name", "add")]);
    for step in ["fetching", "verifying", "loading", "warming"] {
        collector.part(&by_itself, step).await.tells(&[("onward.model.version", "2")]);
    }
    let swap = server.request(Method::POST, "/lifecycle/models/add/swap");
    let swap = swap.header("traceparent", parent("01")).body(json!({ "to": "1" }).to_string());
    assert_eq!(swap.send().await.unwrap().status(), 200);
    let request = collector.span(of_trace(TRACE)).await;
    assert_eq!(request.name, "POST /lifecycle/models/{model}/swap");
    let swap = collector.part(&request, "swap").await;
    collector.part(&swap, "flip").await;
    let asked = format!("00-{TRACE}-{}-01", request.id);
    loop {
        let (header, event) = timeout(PATIENCE, posts.recv()).await.unwrap().unwrap();
        assert_eq!(header.as_deref(), event["traceparent"].as_str());
        if event["data"]["operation"] == "swap" {
            assert_eq!(header, Some(asked));
            break;
        }
    }
    let load = server.request(Method::POST, "/v2/repository/models/nothing/load");
    let load = load.header("traceparent", parent("01"));
    assert_eq!(load.send().await.unwrap().status(), 404);
    let is_failed = |span: &Span| span.name == "load" && span.trace == TRACE;
    assert!(collector.span(is_failed).await.failed);
}

/// How long an inference takes.
async fn took(server: &Server) -> Duration {
    let begun = Instant::now();
    assert_eq!(infer(server, "add", &[]).await.status, 200);
    begun.elapsed()
}

#[tokio::test]
async fn a_collector_that_is_away_costs_requests_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [silent.local_addr().unwrap(), closed.local_addr().unwrap()];
    drop(closed);
    for (address, protocol) in
        addresses.into_iter().flat_map(|at| ["grpc", "http/protobuf"].map(|by| (at, by)))
    {
        let url = format!("http://{address}");
        let settings = [
            ("telemetry.otlp_endpoint", url.as_str()),
            ("telemetry.otlp_protocol", protocol),
            ("telemetry.otlp_timeout", "300ms"),
        ];
        let repository = Repository::of("add", &add_constant(1.0));
        let server = Server::start_with(repository, &settings).await;
        server.process.logged(&["spans are not taken", &url]).await;
        let mut durations = Vec::new();
        for _ in 0..50 {
            durations.push(took(&server).await);
        }
        durations.sort();
        assert!(durations[25] < Duration::from_millis(100), "{durations:?}");
        assert_eq!(server.get("/readyz").await.status, 200);
        let told = server.process.log().matches("spans are not taken").count();
        assert_eq!(told, 1);
        let begun = Instant::now();
        assert_eq!(server.stop().await, 0);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

/// Of the time that the end has, others have need too.
#[tokio::test]
async fn a_silent_collector_leaves_time_for_the_rest_of_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let (hook, mut told) = webhook().await;
    let settings = [
        ("telemetry.otlp_endpoint", url.as_str()),
        ("lifecycle.shutdown_timeout", "4s"),
        ("webhooks.urls", hook.as_str()),
        ("webhooks.kinds", "application"),
    ];
    let repository = Repository::of("add", &add_constant(1.0));
    let server = Server::start_with(repository, &settings).await;
    infer(&server, "add", &[]).await;
    assert_eq!(server.stop().await, 0);
    let stopped = async {
        while let Some((_, event)) = told.recv().await {
            if event.to_string().contains("STOPPED") {
                return;
            }
        }
        panic!("nobody was told of the end");
    };
    timeout(PATIENCE, stopped).await.unwrap();
}

#[tokio::test]
async fn what_is_not_taken_is_counted_by_why() {
    let collector = Collector::answering(StatusCode::UNAUTHORIZED).await;
    let settings = [("telemetry.otlp_protocol", "http/protobuf")];
    let server = traced(&collector, &settings).await;
    infer(&server, "add", &[]).await;
    server.process.logged(&["spans are not taken", "401"]).await;
    let failed = "onward_trace_spans_dropped_total{reason=\"failed\"} ";
    loop {
        let page = String::from_utf8(server.get("/metrics").await.body).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(failed)).unwrap().to_owned();
        assert!(page.contains("onward_trace_spans_sent_total 0\n"));
        if line != "0" {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_end_of_the_server_sends_what_there_is() {
    for protocol in ["grpc", "http/protobuf"] {
        let collector = Collector::start().await;
        let server = traced(&collector, &[("telemetry.otlp_protocol", protocol)]).await;
        infer(&server, "add", &[("traceparent", &parent("01"))]).await;
        assert_eq!(server.stop().await, 0);
        assert!(collector.spans().iter().any(of_trace(TRACE)), "{protocol}");
    }
}

/// Of a log, the line with all of these texts.
async fn line(server: &Server, texts: &[&str]) -> Value {
    serde_json::from_str(&server.process.logged(texts).await).unwrap()
}

#[tokio::test]
async fn every_request_has_a_line_where_that_is_asked_for() {
    let settings = [("telemetry.access_log", "true"), ("telemetry.log_level", "info")];
    let server = Server::start_with(Repository::of("add", &add_constant(1.0)), &settings).await;
    let parent = parent("01");
    let headers = [("traceparent", parent.as_str()), ("x-request-id", "r-1")];
    infer(&server, "add", &headers).await;
    let told = line(&server, &["onward::access", "r-1"]).await;
    for (name, value) in [
        ("protocol", json!("http")),
        ("method", json!("POST")),
        ("route", json!("/v2/models/{model}/infer")),
        ("path", json!("/v2/models/add/infer")),
        ("status", json!(200)),
        ("outcome", json!("answered")),
        ("trace_id", json!(TRACE)),
        ("model", json!("add")),
        ("version", json!("1")),
    ] {
        assert_eq!(told[name], value, "{name} in {told}");
    }
    assert!(told["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{told}");
    assert!(told["duration_ms"].as_f64().unwrap() > 0.0, "{told}");
    assert!(told["response_bytes"].as_u64().unwrap() > 0, "{told}");
    let mut client = server.grpc().await;
    client.model_infer(grpc::x("nothing", &[1, 4], &[0.0; 4])).await.unwrap_err();
    let told = line(&server, &["onward::access", "\"grpc\"", "ModelInfer"]).await;
    assert_eq!((&told["code"], &told["model"]), (&json!("unknown_model"), &json!("nothing")));
    assert_eq!(told["status"], 5);
    server.get("/livez").await;
    server.get("/metrics").await;
    server.get("/v2").await;
    line(&server, &["onward::access", "\"/v2\""]).await;
    let log = server.process.log();
    assert!(!log.contains("\"/livez\"") && !log.contains("\"/metrics\""), "{log}");
}

#[tokio::test]
async fn calls_that_are_not_let_in_have_a_line_too() {
    let settings =
        [("telemetry.access_log", "true"), ("server.rate_limit", "1"), ("server.rate_burst", "1")];
    let server = Server::start_with(Repository::of("add", &add_constant(1.0)), &settings).await;
    let mut client = server.grpc().await;
    while client.model_infer(grpc::x("add", &[1, 4], &[0.0; 4])).await.is_ok() {}
    let told = line(&server, &["onward::access", "rate_limited"]).await;
    assert_eq!((&told["status"], &told["outcome"]), (&json!(8), &json!("refused")), "{told}");
    assert_eq!(told["route"], "inference.GRPCInferenceService/ModelInfer");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let url = format!("http://{}/v2", server.grpc_address().await);
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let refused = client.post(url).header("content-type", "application/grpc-web").send().await;
    assert_eq!(refused.unwrap().status(), 415);
    let told = line(&server, &["onward::access", "\"status\":415"]).await;
    assert_eq!(
        (&told["protocol"], &told["outcome"]),
        (&json!("http"), &json!("refused")),
        "{told}"
    );
}

#[tokio::test]
async fn a_slow_request_tells_where_its_time_went() {
    let settings = [("telemetry.slow_request", "50ms")];
    let repository = Repository::of("slow", &slow(200_000)).and("add", 1, &add_constant(1.0));
    let server = Server::start_with(repository, &settings).await;
    let body = x(&[1], &[0.0]);
    let parent = parent("00");
    let headers = [("traceparent", parent.as_str()), ("x-request-id", "r-2")];
    infer(&server, "add", &[]).await;
    send(&server, "slow", &headers, body.to_string().into_bytes()).await;
    let told = line(&server, &["onward::slow", "r-2"]).await;
    assert_eq!((&told["level"], &told["trace_id"]), (&json!("WARN"), &json!(TRACE)));
    let [all, compute] = ["duration_ms", "compute_ms"].map(|name| told[name].as_f64().unwrap());
    assert!(all > 50.0 && compute > 0.0 && compute <= all, "{told}");
    assert!(told["queue_ms"].is_f64() && told["elsewhere_ms"].is_f64(), "{told}");
    assert!(!server.process.log().contains("onward::access"));
}

#[tokio::test]
async fn a_trace_of_triton_tells_its_ids() {
    let collector = Collector::start().await;
    let server = traced(&collector, &[]).await;
    let settings = json!({ "trace_level": ["TIMESTAMPS"], "trace_rate": "1" });
    server.post("/v2/trace/setting", &settings).await.ok();
    infer(&server, "add", &[("traceparent", &parent("01"))]).await;
    let told = line(&server, &["onward::trace", TRACE]).await;
    let request = collector.span(of_trace(TRACE)).await;
    assert_eq!(told["span_id"], request.id);
}

#[tokio::test]
async fn mistakes_in_settings_name_them() {
    use crate::support::process::run;
    for (key, value) in [
        ("telemetry.otlp_endpoint", "collector:4317"),
        ("telemetry.otlp_protocol", "http/json"),
        ("telemetry.otlp_timeout", "0s"),
        ("telemetry.otlp_headers", "very secret"),
        ("telemetry.trace_sample_ratio", "1.5"),
        ("telemetry.slow_request", "soon"),
    ] {
        let (code, _, error) = run(onward().args(["serve", &format!("--{key}"), value]));
        assert_eq!(code, 78, "{error}");
        assert!(error.contains(key) && !error.contains("very secret"), "{error}");
    }
}
