//! Mistakes of clients over gRPC: each is named, and none is the server's.

use prost::Message;
use tonic::Code;

use crate::support::grpc::proto::infer_parameter::ParameterChoice;
use crate::support::grpc::proto::model_infer_request::InferRequestedOutputTensor;
use crate::support::grpc::proto::{InferParameter, InferTensorContents, ModelInferRequest};
use crate::support::grpc::{Client, Frame, Stream, floats, http2, input, raw, refused, x};
use crate::support::onnx::{Dim, Elem, add_constant, identity, two_inputs_two_outputs};
use crate::support::{Repository, Server};

const INVALID: (Code, &str) = (Code::InvalidArgument, "invalid_request");
const UNSUPPORTED: (Code, &str) = (Code::Unimplemented, "unsupported");

/// A server with `add`, which takes `x` of FP32 and the shape [-1, 4]; `pair`, which takes `a` and `b`;
/// and `texts` and `bytes`, which give back BYTES and UINT8.
async fn server() -> Server {
    let repository = Repository::of("add", &add_constant(1.0));
    let repository = repository.and("pair", 1, &two_inputs_two_outputs());
    let free = [Dim::Symbolic("n")];
    let repository = repository.and("texts", 1, &identity(Elem::String, &free));
    Server::start(repository.and("bytes", 1, &identity(Elem::Uint8, &free))).await
}

async fn check(
    client: &mut Client,
    request: ModelInferRequest,
    (expected, texts): ((Code, &str), &[&str]),
) {
    let told = format!("{request:?}");
    let refusal = client.model_infer(request).await.expect_err(&told);
    refused(&refusal, expected, texts);
}

fn good() -> ModelInferRequest {
    x("add", &[1, 4], &[0.0; 4])
}

fn wanting(outputs: &[&str]) -> ModelInferRequest {
    let wanted = |name: &&str| InferRequestedOutputTensor {
        name: (*name).to_owned(),
        ..InferRequestedOutputTensor::default()
    };
    ModelInferRequest { outputs: outputs.iter().map(wanted).collect(), ..good() }
}

#[tokio::test]
async fn names_of_inputs_and_outputs_are_checked() {
    let server = server().await;
    let mut client = server.grpc().await;
    let four = floats(&[0.0; 4]);
    let tensor = |name| (name, "FP32", &[1, 4][..], four.as_slice());
    let cases = [
        (raw("add", &[]), &["missing input 'x' of datatype FP32 and shape [-1,4]"][..]),
        (raw("add", &[tensor("q")]), &["unexpected input 'q', the model takes 'x'"]),
        (raw("add", &[tensor("x"), tensor("x")]), &["input 'x' is given more than once"]),
        (raw("pair", &[("b", "INT64", &[1], &[0; 8])]), &["missing input 'a'"]),
        (wanting(&["w"]), &["unexpected output 'w', the model gives 'y'"]),
        (wanting(&["y", "y"]), &["output 'y' is asked for more than once"]),
    ];
    for (request, texts) in cases {
        check(&mut client, request, (INVALID, texts)).await;
    }
}

#[tokio::test]
async fn datatypes_shapes_and_sizes_are_checked() {
    let server = server().await;
    let mut client = server.grpc().await;
    let four = floats(&[0.0; 4]);
    let huge = [1 << 62, 4];
    let cases = [
        (
            raw("add", &[("x", "FP64", &[1, 4], &[0; 32])]),
            &["input 'x' must be FP32, got FP64"][..],
        ),
        (raw("add", &[("x", "FP8", &[1, 4], &four)]), &["input 'x': unknown datatype 'FP8'"]),
        (raw("add", &[("x", "FP32", &[4], &four)]), &["input 'x' must have shape [-1,4], got [4]"]),
        (
            raw("add", &[("x", "FP32", &[-1, 4], &four)]),
            &["input 'x'", "0 or more, got -1 in the shape [-1,4]"],
        ),
        (raw("add", &[("x", "FP32", &huge, &four)]), &["input 'x'", "too many elements"]),
        (raw("add", &[("x", "FP32", &[i64::MIN], &four)]), &["input 'x'", "0 or more"]),
        (
            raw("add", &[("x", "FP32", &[1, 4], &four[1..])]),
            &["input 'x'", "needs 16 bytes, got 15"],
        ),
        (raw("add", &[("x", "FP32", &[2, 4], &four)]), &["input 'x'", "needs 32 bytes, got 16"]),
        (raw("texts", &[("x", "BYTES", &[1], b"\x09\0\0\0a")]), &["input 'x'", "element 0"]),
        (raw("texts", &[("x", "BYTES", &[2], b"\x01\0\0\0a")]), &["input 'x'", "needs 2 elements"]),
    ];
    for (request, texts) in cases {
        check(&mut client, request, (INVALID, texts)).await;
    }
}

#[tokio::test]
async fn contents_are_checked() {
    let server = server().await;
    let mut client = server.grpc().await;
    let with = |model: &str, datatype: &str, contents: InferTensorContents| {
        let mut input = input("x", datatype, &[2]);
        input.contents = Some(contents);
        ModelInferRequest { inputs: vec![input], ..raw(model, &[]) }
    };
    let uints = |values: &[u32]| InferTensorContents {
        uint_contents: values.to_vec(),
        ..InferTensorContents::default()
    };
    let none = InferTensorContents::default;
    let mut both = with("bytes", "UINT8", uints(&[1, 2]));
    both.raw_input_contents = vec![vec![1, 2].into()];
    let text = "contents field must not be specified when using raw_input_contents for 'x' for model 'bytes'";
    let mut too_few = good();
    too_few.inputs.push(input("z", "FP32", &[1, 4]));
    let mut too_many = good();
    too_many.raw_input_contents.push(vec![0; 4].into());
    let cases = [
        (both, &[text][..]),
        (too_few, &["input 'z' has no entry in raw_input_contents"]),
        (too_many, &["unexpected additional input data for model 'add'"]),
        (
            with("bytes", "UINT8", uints(&[1, 256])),
            &["input 'x'", "element 1", "0 to 255 (UINT8), got 256"],
        ),
        (with("bytes", "UINT8", uints(&[1])), &["input 'x'", "needs 2 elements, got 1"]),
        (with("bytes", "UINT8", none()), &["input 'x'", "needs 2 elements, got 0"]),
        (with("bytes", "INT8", uints(&[1, 2])), &["input 'x'", "int_contents", "uint_contents"]),
        (
            with(
                "bytes",
                "UINT8",
                InferTensorContents { bool_contents: vec![true], ..uints(&[1, 2]) },
            ),
            &["input 'x': UINT8 goes into uint_contents, but bool_contents has elements"],
        ),
        (with("bytes", "FP16", none()), &["input 'x'", "raw_input_contents"]),
    ];
    for (request, texts) in cases {
        check(&mut client, request, (INVALID, texts)).await;
    }
}

/// Elements travel in 32 bits or 64, and some datatypes have fewer.
#[tokio::test]
async fn elements_beyond_their_datatype_are_refused() {
    let ints = |values: [i32; 2]| InferTensorContents {
        int_contents: values.to_vec(),
        ..InferTensorContents::default()
    };
    let uints = |values: [u32; 2]| InferTensorContents {
        uint_contents: values.to_vec(),
        ..InferTensorContents::default()
    };
    let cases = [
        (Elem::Int8, "INT8", ints([127, 128]), "from -128 to 127 (INT8), got 128"),
        (Elem::Int8, "INT8", ints([0, -129]), "from -128 to 127 (INT8), got -129"),
        (Elem::Int16, "INT16", ints([0, 32768]), "from -32768 to 32767 (INT16), got 32768"),
        (Elem::Int16, "INT16", ints([0, i32::MIN]), "(INT16), got -2147483648"),
        (Elem::Uint8, "UINT8", uints([255, 256]), "from 0 to 255 (UINT8), got 256"),
        (Elem::Uint16, "UINT16", uints([0, 65536]), "from 0 to 65535 (UINT16), got 65536"),
        (Elem::Uint16, "UINT16", uints([0, u32::MAX]), "(UINT16), got 4294967295"),
    ];
    let repository = Repository::empty();
    for (elem, datatype, ..) in &cases {
        repository.put(datatype, 1, &identity(*elem, &[Dim::Symbolic("n")]));
    }
    let server = Server::start(repository).await;
    let mut client = server.grpc().await;
    for (_, datatype, contents, told) in cases {
        let mut input = input("x", datatype, &[2]);
        input.contents = Some(contents);
        let request = ModelInferRequest { inputs: vec![input], ..raw(datatype, &[]) };
        let texts = ["input 'x': element 1 of its contents must be a whole number", told];
        check(&mut client, request, (INVALID, &texts)).await;
    }
}

#[tokio::test]
async fn bytes_are_checked_to_be_elements() {
    let free = [Dim::Symbolic("n")];
    let repository = Repository::of("bool", &identity(Elem::Bool, &free))
        .and("texts", 1, &identity(Elem::String, &free))
        .and("half", 1, &identity(Elem::Float16, &free));
    let server = Server::start(repository).await;
    let mut client = server.grpc().await;
    for (model, datatype, bytes, told) in [
        ("bool", "BOOL", &[1, 2][..], "element 1 of its data must be 0 or 1 (BOOL), got 2"),
        ("half", "FP16", &[0; 3], "FP16 of shape [2] needs 4 bytes, got 3"),
        ("texts", "BYTES", &[], "shape [2] needs 2 elements, got 0"),
        ("texts", "BYTES", &[0; 12], "shape [2] needs 2 elements, got 3"),
        ("texts", "BYTES", &[0; 7], "element 1 of its data has no length"),
        ("texts", "BYTES", b"\xff\xff\xff\xffa", "element 0 of its data has 4294967295 bytes"),
        ("texts", "BYTES", b"\x02\0\0\0a", "has 2 bytes by its length, but only 1 are left"),
    ] {
        let request = raw(model, &[("x", datatype, &[2], bytes)]);
        check(&mut client, request, (INVALID, &["input 'x'", told])).await;
    }
}

#[tokio::test]
async fn a_message_that_is_cut_anywhere_is_refused() {
    let server = server().await;
    let address = server.grpc_address().await;
    let message = good().encode_to_vec();
    let framed = Frame::message(&message);
    for end in 0..message.len() {
        // As it is told to be so long, and as it is told to be longer.
        let refusal = Frame::message(&message[..end]).send(address).await;
        assert_eq!(refusal.code(), Code::InvalidArgument, "{end}: {refusal:?}");
        let refusal = framed.cut(5 + end).send(address).await;
        refused(&refusal, INVALID, &["the message cannot be read"]);
    }
    assert!(!framed.answer(address).await.is_empty());
    server.grpc().await.model_infer(good()).await.unwrap();
}

#[tokio::test]
async fn what_is_nested_deeply_or_has_very_many_parts_costs_nothing() {
    let server = server().await;
    let address = server.grpc_address().await;
    let before = server.process.peak();
    // The beginnings of groups in a field that there is not.
    let deep = Frame::message(&[0x7b; 10_000]).send(address).await;
    refused(&deep, INVALID, &["the message cannot be read"]);
    let too_many = (Code::ResourceExhausted, "payload_too_large");
    // Inputs, outputs and tensors of no bytes: two bytes each, and hundreds in memory.
    for part in [0x2a, 0x32, 0x3a] {
        let message = [part, 0].repeat(4 << 20);
        let refusal = Frame::message(&message).send(address).await;
        refused(&refusal, too_many, &["more than 65536 parts", "inputs, outputs"]);
    }
    let mut client = server.grpc().await;
    let mut stream = Stream::open(&mut client).await;
    stream.send(
        "",
        ModelInferRequest {
            outputs: vec![InferRequestedOutputTensor::default(); 70_000],
            ..good()
        },
    );
    let refusal = stream.answers.message().await.unwrap_err();
    refused(&refusal, too_many, &["more than 65536 parts"]);
    // Eight MiB at a time, and what the test's own frames take on the way.
    if let Some((before, after)) = before.zip(server.process.peak()) {
        assert!(after - before < 128 << 20, "{before} bytes became {after}");
    }
    client.model_infer(good()).await.unwrap();
}

#[tokio::test]
async fn what_does_not_say_that_it_is_grpc_is_none() {
    let server = server().await;
    let path = "/inference.GRPCInferenceService/ModelInfer";
    for kind in ["application/json", "application/grpc-web", "application/grpcx", "text/plain", ""]
    {
        let post = |address| {
            let request = http2().post(format!("http://{address}{path}"));
            request.header("content-type", kind).body(vec![0; 5]).send()
        };
        let answer = post(server.grpc_address().await).await.unwrap();
        assert_eq!(answer.status(), 415, "{kind}");
        let answer = post(server.address).await.unwrap();
        assert_eq!(answer.status(), 404, "{kind}");
        assert_eq!(answer.headers()["content-type"], "application/json");
    }
    server.grpc().await.model_infer(good()).await.unwrap();
}

#[tokio::test]
async fn parameters_are_checked() {
    let server = server().await;
    let mut client = server.grpc().await;
    let with = |name: &str, choice: Option<ParameterChoice>| {
        let mut request = good();
        request.parameters.insert(name.to_owned(), InferParameter { parameter_choice: choice });
        request
    };
    let int = |number| Some(ParameterChoice::Int64Param(number));
    let cases = [
        (with("triton_x", int(1)), INVALID, &["'triton_x' is reserved"][..]),
        (with("timeout", int(-1)), INVALID, &["'timeout'", "microseconds", "-1"]),
        (
            with("priority", Some(ParameterChoice::BoolParam(true))),
            INVALID,
            &["'priority'", "true"],
        ),
        (with("routing_key", int(1)), INVALID, &["'routing_key' is a string"]),
        (with("mine", None), INVALID, &["'mine' has no value"]),
        (with("sequence_id", int(1)), UNSUPPORTED, &["'sequence_id'", "state"]),
    ];
    for (request, expected, texts) in cases {
        check(&mut client, request, (expected, texts)).await;
    }
    let mut classified = wanting(&["y"]);
    let minus = InferParameter { parameter_choice: int(-1) };
    classified.outputs[0].parameters.insert("classification".to_owned(), minus);
    check(&mut client, classified, (INVALID, &["output 'y'", "classification"])).await;
    let mut shared = good();
    let region =
        InferParameter { parameter_choice: Some(ParameterChoice::StringParam("r".into())) };
    shared.inputs[0].parameters.insert("shared_memory_region".to_owned(), region);
    check(&mut client, shared, (UNSUPPORTED, &["input 'x'", "shared_memory_region"])).await;
}

#[tokio::test]
async fn models_and_versions_are_looked_up() {
    let server = server().await;
    let mut client = server.grpc().await;
    let asked = |model: &str, version: &str| ModelInferRequest {
        model_name: model.to_owned(),
        model_version: version.to_owned(),
        ..good()
    };
    let unknown = "Request for unknown model";
    let spelled = "failed to get model version from specified version string '1.0'";
    let cases = [
        (asked("no", ""), (Code::NotFound, "unknown_model"), &[unknown, "no"][..]),
        (asked("add", "9"), (Code::NotFound, "unknown_version"), &[unknown, "9"]),
        (asked("add", "stable"), (Code::NotFound, "unknown_alias"), &["stable"]),
        (asked("add", "1.0"), (Code::InvalidArgument, "invalid_name"), &[spelled]),
        (asked("", ""), (Code::InvalidArgument, "invalid_name"), &["1 to 255 bytes"]),
        (asked("../add", ""), (Code::InvalidArgument, "invalid_name"), &["../add"]),
    ];
    for (request, expected, texts) in cases {
        check(&mut client, request, (expected, texts)).await;
    }
    let long = asked(&"x".repeat(100_000), "");
    check(&mut client, long, ((Code::InvalidArgument, "invalid_name"), &["got 100000"])).await;
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let server = server().await;
    let address = server.grpc_address().await;
    // The name of the model, of two bytes that are no UTF-8.
    let not_text = Frame::message(b"\x0a\x02\xff\xfe");
    let cases = [
        (not_text, INVALID, &["model_name", "UTF-8"][..]),
        (Frame::message(b"\x0a\x7f"), INVALID, &["the message cannot be read"]),
        (Frame::bytes(b""), INVALID, &["the message cannot be read"]),
        (Frame::bytes(b"\0\0\0\0\x05ab"), INVALID, &["the message cannot be read"]),
        (Frame::bytes(b"\x01\0\0\0\x01a"), INVALID, &["the message cannot be read"]),
        (Frame::bytes(b"\x07\0\0\0\x01a"), INVALID, &["the message cannot be read"]),
        (
            Frame::message(b"").with("grpc-encoding", "br"),
            (Code::Unimplemented, "unsupported_encoding"),
            &["br", "use gzip, deflate or zstd, or send messages as they are"],
        ),
        (
            Frame::message(b"").with("grpc-encoding", "gzip, gzip"),
            (Code::Unimplemented, "unsupported_encoding"),
            &["gzip, gzip"],
        ),
        (
            Frame::bytes(b"\x01\0\0\0\0").with("grpc-encoding", "gzip"),
            INVALID,
            &["the message cannot be read"],
        ),
        (
            Frame::bytes(b"\x01\0\0\0\x03abc").with("grpc-encoding", "gzip"),
            INVALID,
            &["the message cannot be read"],
        ),
        (Frame::message(b"").with("grpc-timeout", "soon"), INVALID, &["grpc-timeout", "soon"]),
        (Frame::message(b"").of("ModelLook"), UNSUPPORTED, &["ModelLook is not offered"]),
        (
            Frame::message(b"").of("SystemSharedMemoryStatus"),
            UNSUPPORTED,
            &["SystemSharedMemoryStatus is not offered"],
        ),
    ];
    for (frame, expected, texts) in cases {
        for address in [address, server.address] {
            refused(&frame.send(address).await, expected, texts);
        }
    }
    let elsewhere = Frame::message(b"").to("/other.Service/Call");
    refused(&elsewhere.send(address).await, UNSUPPORTED, &["/other.Service/Call"]);
}

#[tokio::test]
async fn each_port_tells_what_it_does_not_speak() {
    let server = server().await;
    let grpc = http2().get(format!("http://{}/livez", server.grpc_address().await));
    assert_eq!(grpc.send().await.unwrap().status(), 415);
    let rest = http2().get(server.url("/livez")).send().await.unwrap();
    assert_eq!((rest.status().as_u16(), rest.version()), (200, reqwest::Version::HTTP_2));
    // Over HTTP/1.1, there is no gRPC.
    let call = server.request(reqwest::Method::POST, "/inference.GRPCInferenceService/ServerLive");
    let answer = call.header("content-type", "application/grpc").send().await.unwrap();
    assert_eq!(answer.status(), 404);
}
