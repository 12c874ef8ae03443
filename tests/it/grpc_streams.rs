//! Inference over one stream of gRPC.

use tonic::Code;

use crate::support::grpc::proto::infer_parameter::ParameterChoice;
use crate::support::grpc::proto::{InferParameter, ModelInferRequest};
use crate::support::grpc::{Stream, floats, raw, refused, x};
use crate::support::onnx::{Dim, Elem, add_constant, identity, slow_by_input};
use crate::support::{Repository, Server};

fn slow(iterations: i64) -> ModelInferRequest {
    let (x, iterations) = (floats(&[0.0]), iterations.to_le_bytes());
    raw("slow", &[("x", "FP32", &[1], &x), ("iterations", "INT64", &[1], &iterations)])
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_requests_and_an_error_ends_nothing() {
    let repository = Repository::of("slow", &slow_by_input()).and("add", 1, &add_constant(1.0));
    let server = Server::start(repository).await;
    let mut stream = Stream::open(&mut server.grpc().await).await;
    stream.send("slow", slow(300_000));
    stream.send("unknown", x("no", &[1, 4], &[0.0; 4]));
    stream.send("wrong", x("add", &[1, 3], &[0.0; 3]));
    for number in 0..40 {
        stream.send(&number.to_string(), x("add", &[1, 4], &[0.0; 4]));
    }
    let failed = [("unknown", "unknown_model"), ("wrong", "invalid_request")];
    let first = stream.answer().await;
    assert_eq!(
        (first.error_message.as_str(), first.infer_response.unwrap().id.as_str()),
        ("", "slow")
    );
    for (id, expected) in failed {
        let answer = stream.answer().await;
        assert!(!answer.error_message.is_empty());
        let response = answer.infer_response.unwrap();
        let code = response.parameters["onward-error-code"].parameter_choice.clone();
        assert_eq!(code, Some(ParameterChoice::StringParam(expected.to_owned())));
        assert_eq!((response.id.as_str(), response.outputs.len()), (id, 0));
    }
    for number in 0..40 {
        let answer = stream.answer().await;
        assert_eq!(answer.error_message, "");
        assert_eq!(answer.infer_response.unwrap().id, number.to_string());
    }
    let Stream { requests, mut answers } = stream;
    drop(requests);
    assert_eq!(answers.message().await.unwrap(), None);
}

#[tokio::test]
async fn an_answer_tells_that_it_is_the_last_to_who_asks() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let mut stream = Stream::open(&mut server.grpc().await).await;
    for (wanted, told) in [(true, Some(true)), (false, None)] {
        let mut request = x("add", &[1, 4], &[0.0; 4]);
        let wanted = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(wanted)) };
        request.parameters.insert("triton_enable_empty_final_response".to_owned(), wanted);
        stream.send("", request);
        let parameters = stream.answer().await.infer_response.unwrap().parameters;
        let last = parameters.get("triton_final_response");
        let last = last.and_then(|last| last.parameter_choice.clone());
        assert_eq!(last, told.map(ParameterChoice::BoolParam));
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_ends_the_stream() {
    let settings = [("server.max_body_size", "1KiB")];
    let identity = identity(Elem::Float, &[Dim::Symbolic("n")]);
    let server = Server::start_with(Repository::of("id", &identity), &settings).await;
    let mut stream = Stream::open(&mut server.grpc().await).await;
    stream.send("small", x("id", &[1], &[1.0]));
    stream.send("large", x("id", &[1000], &[0.0; 1000]));
    assert_eq!(stream.answer().await.infer_response.unwrap().id, "small");
    let end = stream.answers.message().await.unwrap_err();
    refused(&end, (Code::ResourceExhausted, "payload_too_large"), &["1024 bytes"]);
}

#[tokio::test]
async fn at_the_end_of_the_server_what_was_sent_is_answered() {
    let one_by_one = [("inference.instances", "1")];
    let repository = Repository::of("slow", &slow_by_input());
    let mut server = Server::start_with(repository, &one_by_one).await;
    let mut stream = Stream::open(&mut server.grpc().await).await;
    for number in 0..4 {
        stream.send(&number.to_string(), slow(500_000));
    }
    server.until(("slow", "1"), |report| report["in_flight"] == 4).await;
    server.process.signal("TERM");
    for number in 0..4 {
        assert_eq!(stream.answer().await.infer_response.unwrap().id, number.to_string());
    }
    let end = stream.answers.message().await.unwrap_err();
    refused(&end, (Code::Unavailable, "shutting_down"), &[]);
    assert_eq!(server.process.exit_code().await, 0);
}

#[tokio::test]
async fn a_stream_that_is_given_up_frees_its_instances() {
    let one_by_one = [("inference.instances", "1")];
    let repository = Repository::of("slow", &slow_by_input());
    let server = Server::start_with(repository, &one_by_one).await;
    let stream = Stream::open(&mut server.grpc().await).await;
    stream.send("long", slow(1_000_000_000));
    server.until(("slow", "1"), |report| report["in_flight"] == 1).await;
    drop(stream);
    server.until(("slow", "1"), |report| report["in_flight"] == 0).await;
}
