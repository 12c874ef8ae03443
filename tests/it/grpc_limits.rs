//! What a call over gRPC may take, and that none is lost at the end.

use std::time::Duration;

use serde_json::json;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use crate::support::grpc::proto::infer_parameter::ParameterChoice;
use crate::support::grpc::proto::{InferParameter, ModelInferRequest, ServerLiveRequest};
use crate::support::grpc::{
    Frame, channel, connect, floats, http2, input, raw, refused, within, x,
};
use crate::support::onnx::{Dim, Elem, add_constant, identity, slow_by_input};
use crate::support::process::{onward, run};
use crate::support::{Repository, Server, x as json_x};

/// A request that keeps an instance busy for about this many milliseconds.
fn slow(milliseconds: i64) -> ModelInferRequest {
    let (x, iterations) = (floats(&[0.0]), (milliseconds * 1200).to_le_bytes());
    raw("slow", &[("x", "FP32", &[1], &x), ("iterations", "INT64", &[1], &iterations)])
}

fn id() -> Repository {
    Repository::of("id", &identity(Elem::Float, &[Dim::Symbolic("n")]))
}

#[tokio::test]
async fn a_message_has_the_size_of_a_body_at_most_also_once_it_is_not_compressed() {
    let server = Server::start_with(id(), &[("server.max_body_size", "1MiB")]).await;
    let large = x("id", &[300_000], &vec![0.0; 300_000]);
    let expected = (Code::ResourceExhausted, "payload_too_large");
    let texts = ["1048576 bytes, the setting server.max_body_size"];
    let client = server.grpc().await;
    let refusal = client.clone().model_infer(large.clone()).await.unwrap_err();
    refused(&refusal, expected, &texts);
    for encoding in
        [CompressionEncoding::Gzip, CompressionEncoding::Deflate, CompressionEncoding::Zstd]
    {
        let mut client = client.clone().send_compressed(encoding).accept_compressed(encoding);
        let refusal = client.model_infer(large.clone()).await.unwrap_err();
        refused(&refusal, expected, &texts);
        let answer = client.model_infer(x("id", &[1000], &[0.5; 1000])).await.unwrap();
        let told = answer.metadata().get("grpc-encoding").unwrap().to_str().unwrap();
        assert_eq!(told, encoding.to_string());
        assert_eq!(answer.into_inner().raw_output_contents[0], floats(&[0.5; 1000]));
    }
    // Who does not compress is not answered so.
    let mut client = client.accept_compressed(CompressionEncoding::Gzip);
    let answer = client.model_infer(x("id", &[1000], &[0.5; 1000])).await.unwrap();
    assert!(!answer.metadata().contains_key("grpc-encoding"));
}

#[tokio::test]
async fn a_message_of_more_parts_than_a_request_can_need_is_refused() {
    let server = Server::start_with(id(), &[]).await;
    let mut client = server.grpc().await;
    let request =
        ModelInferRequest { inputs: vec![input("", "", &[]); 10_000], ..x("id", &[1], &[1.0]) };
    let refusal = client.model_infer(request).await.unwrap_err();
    refused(&refusal, (Code::InvalidArgument, "invalid_request"), &["more than 10000 fields"]);
    client.model_infer(x("id", &[1], &[1.0])).await.unwrap();
}

#[tokio::test]
async fn a_deadline_ends_a_run_that_is_under_way() {
    let settings = [("inference.instances", "1"), ("server.request_timeout", "300ms")];
    let server = Server::start_with(Repository::of("slow", &slow_by_input()), &settings).await;
    let mut client = server.grpc().await;
    let late = (Code::DeadlineExceeded, "deadline_exceeded");
    let setting = client.model_infer(slow(10_000)).await.unwrap_err();
    refused(&setting, late, &["deadline"]);
    let mut impatient = slow(10_000);
    let millisecond = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(1000)) };
    impatient.parameters.insert("timeout".to_owned(), millisecond);
    refused(&client.model_infer(impatient).await.unwrap_err(), late, &["deadline"]);
    let given_up = client.model_infer(within(50, slow(10_000))).await.unwrap_err();
    // The client may be the first to notice.
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&given_up.code()), "{given_up:?}");
    // The instance is free again: it was not left to compute an answer that nobody wants.
    client.model_infer(slow(1)).await.unwrap();
}

/// By the server, whatever the client does.
#[tokio::test]
async fn a_deadline_that_the_client_has_told_is_held() {
    let server = Server::start(Repository::of("slow", &slow_by_input())).await;
    let message = prost::Message::encode_to_vec(&slow(100_000));
    let frame = Frame::message(&message).with("grpc-timeout", "50m");
    let late = (Code::DeadlineExceeded, "deadline_exceeded");
    refused(&frame.send(server.grpc_address().await).await, late, &["deadline"]);
}

#[tokio::test]
async fn overload_is_refused_at_once() {
    let settings = [("inference.instances", "1"), ("inference.queue_capacity", "1")];
    let server = Server::start_with(Repository::of("slow", &slow_by_input()), &settings).await;
    let client = server.grpc().await;
    let infer = |request| {
        let mut client = client.clone();
        async move { client.model_infer(request).await }
    };
    let told = |inside, waiting| {
        server.until(("slow", "1"), move |report| {
            report["in_flight"] == inside && report["queue_depth"] == waiting
        })
    };
    let second = async {
        told(1, 0).await;
        infer(slow(1)).await
    };
    let third = async {
        told(2, 1).await;
        infer(slow(1)).await
    };
    let (first, second, third) = tokio::join!(infer(slow(1500)), second, third);
    assert!(first.is_ok() && second.is_ok());
    let expected = (Code::Unavailable, "overloaded");
    refused(&third.unwrap_err(), expected, &["1 requests are waiting"]);
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_instance() {
    let settings = [("inference.instances", "1")];
    let server = Server::start_with(Repository::of("slow", &slow_by_input()), &settings).await;
    let mut client = server.grpc().await;
    let abandoned = tokio::spawn(async move { client.model_infer(slow(12_000)).await });
    server.until(("slow", "1"), |report| report["in_flight"] == 1).await;
    abandoned.abort();
    let report = server.until(("slow", "1"), |report| report["in_flight"] == 0).await;
    assert_eq!((&report["requests"], &report["failures"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn sigterm_answers_what_is_in_flight_and_exits_with_0() {
    let one_by_one = [("inference.instances", "1")];
    let repository = Repository::of("slow", &slow_by_input());
    let mut server = Server::start_with(repository, &one_by_one).await;
    let clients = [server.grpc().await, connect(server.address).await];
    // The first holds the others up until all are inside.
    let requests: Vec<_> = std::iter::once(2000)
        .chain([50; 29])
        .enumerate()
        .map(|(number, milliseconds)| {
            let mut client = clients[number % 2].clone();
            tokio::spawn(async move { client.model_infer(slow(milliseconds)).await })
        })
        .collect();
    server.until(("slow", "1"), |report| report["in_flight"] == 30).await;
    server.process.signal("TERM");
    for request in requests {
        request.await.unwrap().expect("every request is answered");
    }
    assert_eq!(server.process.exit_code().await, 0);
}

/// Until there is nobody to connect to.
async fn ask_until_refused(address: std::net::SocketAddr) -> usize {
    let mut answered = 0;
    loop {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
        let Ok(channel) = endpoint.unwrap().connect().await else { return answered };
        let mut client = crate::support::grpc::Client::new(channel);
        match client.model_infer(x("add", &[1, 4], &[0.0; 4])).await {
            Ok(_) => answered += 1,
            Err(lost) => panic!("a call was lost after {answered}: {lost:?}"),
        }
    }
}

#[tokio::test]
async fn whoever_connects_until_the_last_moment_is_answered() {
    let settings = [("lifecycle.pre_stop_delay", "300ms")];
    let repository = Repository::of("add", &add_constant(1.0));
    let mut server = Server::start_with(repository, &settings).await;
    let addresses = [server.grpc_address().await, server.address];
    let asking: Vec<_> =
        (0..8).map(|number| tokio::spawn(ask_until_refused(addresses[number % 2]))).collect();
    server.get("/livez").await;
    server.process.signal("TERM");
    for client in asking {
        assert!(client.await.unwrap() > 0, "nobody was answered");
    }
    assert_eq!(server.process.exit_code().await, 0);
}

#[tokio::test]
async fn a_connection_without_a_call_does_not_hold_the_end_up() {
    let mut server = Server::start(Repository::empty()).await;
    let unused = channel(server.grpc_address().await).await;
    let mut used = server.grpc().await;
    used.server_live(ServerLiveRequest {}).await.unwrap();
    let silent = tokio::net::TcpStream::connect(server.grpc_address().await).await.unwrap();
    let started = tokio::time::Instant::now();
    server.process.signal("TERM");
    assert_eq!(server.process.exit_code().await, 0);
    assert!(started.elapsed() < Duration::from_secs(15), "it waited for the deadline");
    drop((unused, used, silent));
}

/// REST over HTTP/2. The peer stops the one answer, not the connection.
#[tokio::test]
async fn an_answer_that_is_read_slowly_over_http_2_is_read_to_its_end() {
    let mut server = Server::start(id()).await;
    let body = json_x(&[2_000_000], &vec![0.123_456_78; 2_000_000]).to_string();
    let request = http2().post(server.url("/v2/models/id/infer")).body(body);
    let mut answer = request.send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    let length = usize::try_from(answer.content_length().unwrap()).unwrap();
    let first = answer.chunk().await.unwrap().unwrap();
    server.process.signal("TERM");
    server.process.logged(&["STOPPING"]).await;
    // Longer than a connection that does nothing is kept.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut read = first.len();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        read += chunk.len();
    }
    assert_eq!(read, length);
    assert_eq!(server.process.exit_code().await, 0);
}

#[tokio::test]
async fn the_port_that_is_grpcs_alone_can_be_closed() {
    let repository = Repository::of("add", &add_constant(1.0));
    let server = Server::start_with(repository, &[("server.grpc_listen", "off")]).await;
    assert!(!server.process.log().contains("listening for gRPC"));
    let mut client = connect(server.address).await;
    client.model_infer(x("add", &[1, 4], &[0.0; 4])).await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_by_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = onward();
    command.args(["serve", "--server.listen", "127.0.0.1:0", "--server.grpc_listen", &address]);
    let (code, _, error) = run(&mut command);
    assert_ne!(code, 0);
    assert!(error.contains(&address) && error.contains("server.grpc_listen"), "{error}");
}

#[tokio::test]
async fn reflection_tells_the_services() {
    let server = Server::start(Repository::empty()).await;
    // `list_services`, field 7 of the request.
    let request = Frame::message(b"\x3a\0");
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let answer = request.clone().to(&path).answer(server.grpc_address().await).await;
        let text = String::from_utf8_lossy(&answer);
        for service in ["inference.GRPCInferenceService", "grpc.health.v1.Health"] {
            assert!(text.contains(service), "{text:?}");
        }
    }
}
