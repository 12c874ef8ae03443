//! Tensors as bytes, classification, and bodies that are compressed.

use std::cmp::Ordering;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::connection::Connection;
use crate::support::contract;
use crate::support::onnx::{
    Dim, Elem, add_constant, identity, two_inputs_two_outputs, with_symbolic_and_fixed,
};
use crate::support::{Answer, Repository, Server, x};

const LENGTH: &str = "inference-header-content-length";

/// Sends JSON with bytes after it.
async fn send(server: &Server, model: &str, header: &Value, tail: &[u8]) -> Answer {
    let header = header.to_string();
    let body = [header.as_bytes(), tail].concat();
    post(server, model, &[(LENGTH, &header.len().to_string())], body).await
}

async fn post(server: &Server, model: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let path = format!("/v2/models/{model}/infer");
    let request = server.request(Method::POST, &path).body(body);
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let answer = Answer::of(request.send().await.unwrap()).await.unwrap();
    if !answer.headers.contains_key("content-encoding") {
        contract::check(&Method::POST, &path, &answer);
    }
    answer
}

/// The JSON of an answer with bytes, and the bytes.
fn parts(answer: &Answer) -> (Value, Vec<u8>) {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    let length: usize = answer.header(LENGTH).parse().unwrap();
    (serde_json::from_slice(&answer.body[..length]).unwrap(), answer.body[length..].to_vec())
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The bytes of two elements of each datatype.
fn samples() -> Vec<(Elem, &'static str, Vec<u8>)> {
    let text = [&3_u32.to_le_bytes()[..], b"\0\xff\"", &0_u32.to_le_bytes()].concat();
    vec![
        (Elem::Bool, "BOOL", vec![1, 0]),
        (Elem::Uint8, "UINT8", vec![0, 255]),
        (Elem::Uint16, "UINT16", vec![1, 2, 255, 255]),
        (Elem::Uint32, "UINT32", vec![1, 2, 3, 4, 255, 255, 255, 255]),
        (Elem::Uint64, "UINT64", (0..16).collect()),
        (Elem::Int8, "INT8", vec![128, 127]),
        (Elem::Int16, "INT16", vec![0, 128, 255, 127]),
        (Elem::Int32, "INT32", (0..8).collect()),
        (Elem::Int64, "INT64", (0..16).collect()),
        (Elem::Float16, "FP16", vec![0, 0x7e, 0, 0x3c]),
        (Elem::BFloat16, "BF16", vec![0xc0, 0x7f, 0x80, 0x3f]),
        (Elem::Float, "FP32", floats(&[f32::NAN, f32::INFINITY])),
        (Elem::Double, "FP64", (0..16).collect()),
        (Elem::String, "BYTES", text),
    ]
}

#[tokio::test]
async fn a_large_answer_is_whole_though_its_model_has_gone() {
    let graph = identity(Elem::Float, &[Dim::Symbolic("n")]);
    let server = Server::start(Repository::of("m", &graph)).await;
    let values: Vec<u8> = (0..32_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let header = json!({
        "inputs": [{
            "name": "x", "datatype": "FP32", "shape": [values.len() / 4],
            "parameters": { "binary_data_size": values.len() },
        }],
        "parameters": { "binary_data_output": true },
    });
    let header = header.to_string();
    let request = server.request(Method::POST, "/v2/models/m/infer");
    let request = request.header(LENGTH, header.len()).body([header.as_bytes(), &values].concat());
    // Its head has come, and of its body what fits between the two.
    let response = request.send().await.unwrap();
    server.send(Method::POST, "/lifecycle/models/m/unload", vec![]).await.ok();
    let (_, bytes) = parts(&Answer::of(response).await.unwrap());
    assert!(bytes == values, "it came as it was");
}

#[tokio::test]
async fn every_datatype_comes_back_byte_for_byte() {
    let cases = samples();
    assert_eq!(cases.len(), Elem::ALL.len());
    let repository = Repository::empty();
    for (elem, datatype, _) in &cases {
        repository.put(&format!("id-{datatype}"), 1, &identity(*elem, &[Dim::Symbolic("n")]));
    }
    let server = Server::start(repository).await;
    for (_, datatype, bytes) in cases {
        let parameters = json!({ "binary_data_size": bytes.len() });
        let input =
            json!({ "name": "x", "shape": [2], "datatype": datatype, "parameters": parameters });
        let header = json!({ "inputs": [input], "parameters": { "binary_data_output": true } });
        let answer = send(&server, &format!("id-{datatype}"), &header, &bytes).await;
        let (header, tail) = parts(&answer);
        assert_eq!(tail, bytes, "{datatype}");
        let output =
            json!({ "name": "y", "datatype": datatype, "shape": [2], "parameters": parameters });
        assert_eq!(header["outputs"], json!([output]));
    }
}

#[tokio::test]
async fn each_tensor_goes_its_own_way() {
    let server = Server::start(Repository::of("pair", &two_inputs_two_outputs())).await;
    let a_bytes = json!({
        "name": "a", "shape": [1, 2], "datatype": "FP32", "parameters": { "binary_data_size": 8 },
    });
    let a_text = json!({ "name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1, 2] });
    let b_bytes = json!({
        "name": "b", "shape": [1], "datatype": "INT64", "parameters": { "binary_data_size": 8 },
    });
    let b_text = json!({ "name": "b", "shape": [1], "datatype": "INT64", "data": [7] });
    let (a_tail, b_tail) = (floats(&[1.0, 2.0]), 7_i64.to_le_bytes().to_vec());
    let inputs = [
        (json!([a_bytes, b_bytes]), [&a_tail[..], &b_tail].concat()),
        (json!([b_bytes, a_bytes]), [&b_tail[..], &a_tail].concat()),
        (json!([a_bytes, b_text]), a_tail.clone()),
        (json!([a_text, b_bytes]), b_tail.clone()),
        (json!([a_text, b_text]), vec![]),
    ];
    let (sum, b_out) = (floats(&[2.0, 4.0]), b_tail);
    for (inputs, tail) in inputs {
        for (sum_binary, b_binary) in [(true, true), (true, false), (false, true), (false, false)] {
            let header = json!({
                "inputs": inputs,
                "outputs": [
                    { "name": "b_out", "parameters": { "binary_data": b_binary } },
                    { "name": "sum", "parameters": { "binary_data": sum_binary } },
                ],
            });
            let answer = send(&server, "pair", &header, &tail).await;
            let mut expected: Vec<u8> = Vec::new();
            expected.extend(if b_binary { &b_out[..] } else { &[] });
            expected.extend(if sum_binary { &sum[..] } else { &[] });
            let header = if expected.is_empty() {
                assert!(!answer.headers.contains_key(LENGTH));
                answer.ok()
            } else {
                let (header, tail) = parts(&answer);
                assert_eq!(tail, expected);
                header
            };
            let told = |place: usize, key: &str| header["outputs"][place][key].clone();
            let data = |is_binary, data: Value| if is_binary { Value::Null } else { data };
            assert_eq!(told(0, "data"), data(b_binary, json!([7])));
            assert_eq!(told(1, "data"), data(sum_binary, json!([2.0, 4.0])));
        }
    }
}

#[tokio::test]
async fn raw_bytes_are_the_only_input() {
    let repository = Repository::of("add", &add_constant(1.0))
        .and("text", 1, &identity(Elem::String, &[Dim::Symbolic("n")]))
        .and("pair", 1, &two_inputs_two_outputs());
    let server = Server::start(repository).await;
    let raw = async |model: &str, body: Vec<u8>| post(&server, model, &[(LENGTH, "0")], body).await;
    for rows in [1, 3] {
        let (header, tail) = parts(&raw("add", floats(&vec![1.0; rows * 4])).await);
        assert_eq!(header["outputs"][0]["shape"], json!([rows, 4]));
        assert_eq!(tail, floats(&vec![2.0; rows * 4]));
    }
    let (header, tail) = parts(&raw("text", b"plain".to_vec()).await);
    assert_eq!((&header["outputs"][0]["shape"], &tail[4..]), (&json!([1]), &b"plain"[..]));
    for bytes in [0, 7, 17] {
        let told = format!("FP32 of shape [-1,4] needs a multiple of 16 bytes, got {bytes}");
        raw("add", vec![0; bytes]).await.refused(400, "invalid_request", &["input 'x'", &told]);
    }
    raw("pair", vec![0; 8]).await.refused(400, "invalid_request", &["exactly one input"]);
    let metrics = String::from_utf8(server.get("/metrics").await.body).unwrap();
    let counted = |model: &str| {
        format!(
            "onward_inference_requests_total{{model=\"{model}\",outcome=\"invalid\",protocol=\"http\",version=\"1\"}}"
        )
    };
    for (model, refused) in [("add", 3), ("pair", 1), ("text", 0)] {
        let line = format!("{} {refused}\n", counted(model));
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
}

#[tokio::test]
async fn bytes_that_do_not_fit_are_told() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let input = |size: u64, shape: Value| {
        json!({ "inputs": [{
            "name": "x", "shape": shape, "datatype": "FP32",
            "parameters": { "binary_data_size": size },
        }] })
    };
    let sound = floats(&[0.0; 4]);
    for (header, tail, told) in [
        (input(16, json!([1, 4])), &sound[..12], "expecting 4 additional bytes"),
        (input(u64::MAX, json!([1, 4])), &sound, "unexpected size for input 'x'"),
        (input(12, json!([1, 4])), &sound, "needs 16 bytes, got 12"),
        (input(12, json!([1, 3])), &sound, "4 bytes are left"),
        (input(16, json!([1_u64 << 62, 4])), &sound, "too many elements"),
    ] {
        send(&server, "add", &header, tail).await.refused(400, "invalid_request", &[told]);
    }
    // Of BYTES, each element is checked.
    let text = identity(Elem::String, &[Dim::Symbolic("n")]);
    let server = Server::start(Repository::of("text", &text)).await;
    let header = json!({ "inputs": [{
        "name": "x", "shape": [1], "datatype": "BYTES", "parameters": { "binary_data_size": 6 },
    }] });
    let tail = [&9_u32.to_le_bytes()[..], b"ab"].concat();
    let refused = send(&server, "text", &header, &tail).await;
    refused.refused(400, "invalid_request", &["element 0", "only 2 are left"]);
    let header = json!({ "inputs": [{
        "name": "x", "shape": [1], "datatype": "BYTES", "parameters": { "binary_data_size": 5 },
    }] });
    let tail = [&1_u32.to_le_bytes()[..], b"\xff"].concat();
    let refused = send(&server, "text", &header, &tail).await;
    refused.refused(501, "unsupported", &["UTF-8", "binary_data"]);
}

/// The bytes of one tensor with its header, and how long that is.
fn with_header() -> (Vec<u8>, usize) {
    let input = json!({
        "name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": { "binary_data_size": 16 },
    });
    let header = json!({ "inputs": [input] }).to_string();
    let body = [header.as_bytes(), &floats(&[1.0; 4])].concat();
    (body, header.len())
}

#[tokio::test]
async fn a_header_of_a_wrong_length_is_told() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let mut connection = Connection::open(server.address).await;
    let path = "/v2/models/add/infer";
    let (body, length) = with_header();
    let expected =
        "the number of bytes before the tensors, from 0 to the length of the body, got '";
    let long = "9".repeat(1000);
    for wrong in
        ["-1", "x", "+5", "0x10", "1.5", "1e2", "", "1 2", "\u{fc}", "18446744073709551616", &long]
    {
        let answer = connection.post(path, &[(LENGTH, wrong)], &body).await;
        answer.refused(400, "invalid_request", &[LENGTH, expected]);
    }
    for beyond in [body.len() + 1, usize::MAX] {
        let beyond = beyond.to_string();
        let answer = connection.post(path, &[(LENGTH, &beyond)], &body).await;
        let told = format!("{LENGTH} is {beyond}, but the body has only {} bytes", body.len());
        answer.refused(400, "invalid_request", &[&told]);
    }
    // What is cut off of the JSON is no tensor, and what is added to it is missing from one.
    for wrong in 1..=body.len() {
        let answer = connection.post(path, &[(LENGTH, &wrong.to_string())], &body).await;
        let told = match wrong.cmp(&length) {
            Ordering::Less => {
                format!("the first {wrong} bytes of the body, its JSON part, are not valid JSON")
            }
            Ordering::Equal => {
                answer.ok();
                continue;
            }
            Ordering::Greater => format!("expecting {} additional bytes", wrong - length),
        };
        answer.refused(400, "invalid_request", &[&told]);
    }
    let (length, other) = (length.to_string(), (length + 1).to_string());
    let twice = connection.post(path, &[(LENGTH, &length), (LENGTH, &other)], &body).await;
    twice.refused(400, "invalid_request", &[LENGTH, "more than once"]);
    // All of it is said to be one tensor, of which no multiple is that long.
    let raw = connection.post(path, &[(LENGTH, "0")], &body).await;
    raw.refused(400, "invalid_request", &["input 'x'", "a multiple of 16 bytes"]);
    let without = connection.post(path, &[], &body).await;
    without.refused(400, "invalid_request", &["input 'x'", "expecting 16 additional bytes"]);
    let answer = connection.post(path, &[(LENGTH, &length)], &body).await;
    assert_eq!(answer.output("y"), json!([2.0, 2.0, 2.0, 2.0]));
}

#[tokio::test]
async fn a_body_that_is_cut_anywhere_is_refused() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let mut connection = Connection::open(server.address).await;
    let (body, length) = with_header();
    let headers = [(LENGTH, &*length.to_string())];
    for end in 0..body.len() {
        let answer = connection.post("/v2/models/add/infer", &headers, &body[..end]).await;
        let missing = body.len() - end;
        let told = if end < length {
            format!("{LENGTH} is {length}, but the body has only {end} bytes")
        } else {
            format!(
                "unexpected size for input 'x', expecting {missing} additional bytes for model 'add'"
            )
        };
        answer.refused(400, "invalid_request", &[&told]);
    }
    let more = [&body[..], b"more"].concat();
    let answer = connection.post("/v2/models/add/infer", &headers, &more).await;
    let told = "unexpected additional input data for model 'add': 4 bytes are left";
    answer.refused(400, "invalid_request", &[told]);
    connection.post("/v2/models/add/infer", &headers, &body).await.output("y");
}

#[tokio::test]
async fn elements_in_bytes_are_checked() {
    let free = [Dim::Symbolic("n")];
    let repository = Repository::of("bool", &identity(Elem::Bool, &free))
        .and("text", 1, &identity(Elem::String, &free))
        .and("half", 1, &identity(Elem::Float16, &free));
    let server = Server::start(repository).await;
    let element = |length: u32, text: &[u8]| [&length.to_le_bytes()[..], text].concat();
    for (model, datatype, bytes, told) in [
        ("bool", "BOOL", vec![1, 2], "element 1 of its data must be 0 or 1 (BOOL), got 2"),
        ("half", "FP16", vec![0; 3], "FP16 of shape [2] needs 4 bytes, got 3"),
        ("text", "BYTES", vec![], "shape [2] needs 2 elements, got 0"),
        ("text", "BYTES", element(1, b"a"), "shape [2] needs 2 elements, got 1"),
        ("text", "BYTES", vec![0; 12], "shape [2] needs 2 elements, got 3"),
        (
            "text",
            "BYTES",
            vec![0; 7],
            "element 1 of its data has no length: that takes 4 bytes, but only 3",
        ),
        ("text", "BYTES", element(u32::MAX, b"a"), "element 0 of its data has 4294967295 bytes"),
        ("text", "BYTES", element(2, b"a"), "element 0 of its data has 2 bytes by its length, but"),
    ] {
        let parameters = json!({ "binary_data_size": bytes.len() });
        let input =
            json!({ "name": "x", "shape": [2], "datatype": datatype, "parameters": parameters });
        let answer = send(&server, model, &json!({ "inputs": [input] }), &bytes).await;
        answer.refused(400, "invalid_request", &["input 'x'", told]);
    }
    for size in [json!(-1), json!("many"), json!(1.5), json!(null), json!([1])] {
        let input = json!({ "name": "x", "shape": [2], "datatype": "BOOL", "parameters": { "binary_data_size": size } });
        let answer = send(&server, "bool", &json!({ "inputs": [input] }), &[1, 0]).await;
        let told = "input 'x': parameter 'binary_data_size' is a number of bytes, got";
        answer.refused(400, "invalid_request", &[told]);
    }
}

#[tokio::test]
async fn the_largest_numbers_are_classes() {
    let repository = Repository::of("id", &with_symbolic_and_fixed());
    let server = Server::start(repository).await;
    let values: Vec<u32> = vec![3, 9, 1, 7, 5, 2];
    let classes = async |count: Value, data: &[u32]| {
        let rows = data.len() / 6;
        let input = json!({ "name": "x", "shape": [rows, 3, 2], "datatype": "FP32", "data": data });
        let output = json!({ "name": "y", "parameters": { "classification": count } });
        server.infer("id", &json!({ "inputs": [input], "outputs": [output] })).await
    };
    let answer = classes(json!(2), &values).await.ok()["outputs"][0].clone();
    assert_eq!((&answer["datatype"], &answer["shape"]), (&json!("BYTES"), &json!([1, 2])));
    assert_eq!(answer["data"], json!(["9.000000:1", "7.000000:3"]));
    let all = classes(json!(99), &[values.clone(), values].concat()).await.ok();
    assert_eq!(all["outputs"][0]["shape"], json!([2, 6]));
    classes(json!("x"), &[0; 6]).await.refused(400, "invalid_request", &["classification"]);
    let text = identity(Elem::String, &[Dim::Symbolic("n")]);
    let server = Server::start(Repository::of("text", &text)).await;
    let body = json!({
        "inputs": [{ "name": "x", "shape": [1], "datatype": "BYTES", "data": ["a"] }],
        "outputs": [{ "name": "y", "parameters": { "classification": 1 } }],
    });
    server.infer("text", &body).await.refused(400, "invalid_request", &["'y'", "BYTES"]);
}

#[tokio::test]
async fn what_json_has_no_number_for_is_as_asked_for() {
    let number = identity(Elem::Float, &[Dim::Symbolic("n")]);
    let server = Server::start(Repository::of("id", &number)).await;
    let ask = async |policy: Value| {
        let input =
            json!({ "name": "x", "shape": [2], "datatype": "FP32", "data": ["NaN", "-Infinity"] });
        let parameters = json!({ "non_finite_numbers": policy });
        server.infer("id", &json!({ "inputs": [input], "parameters": parameters })).await
    };
    assert_eq!(ask(json!("string")).await.output("y"), json!(["NaN", "-Infinity"]));
    assert_eq!(ask(json!("null")).await.output("y"), json!([null, null]));
    ask(json!("error")).await.refused(501, "unsupported", &["'y'", "not finite"]);
    ask(json!("zero")).await.refused(400, "invalid_request", &["string, null or error"]);
}

fn compress(coding: &str, body: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::encode_all(body, 1).unwrap(),
    }
}

fn expand(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        "gzip" => GzDecoder::new(body).read_to_end(&mut plain).map(drop).unwrap(),
        "deflate" => ZlibDecoder::new(body).read_to_end(&mut plain).map(drop).unwrap(),
        _ => plain = zstd::decode_all(body).unwrap(),
    }
    plain
}

#[tokio::test]
async fn bodies_are_compressed_both_ways() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let rows = 500;
    let bytes = floats(&vec![1.0; rows * 4]);
    let header = json!({
        "inputs": [{
            "name": "x", "shape": [rows, 4], "datatype": "FP32",
            "parameters": { "binary_data_size": bytes.len() },
        }],
        "parameters": { "binary_data_output": true },
    });
    let header = header.to_string();
    let (length, body) = (header.len().to_string(), [header.as_bytes(), &bytes].concat());
    for coding in ["gzip", "deflate", "zstd"] {
        let headers =
            [(LENGTH, length.as_str()), ("content-encoding", coding), ("accept-encoding", coding)];
        let answer = post(&server, "add", &headers, compress(coding, &body)).await;
        assert_eq!((answer.status, answer.header("content-encoding")), (200, coding));
        assert!(answer.body.len() < 2_000, "{}", answer.body.len());
        let plain = expand(coding, &answer.body);
        let length: usize = answer.header(LENGTH).parse().unwrap();
        assert_eq!(plain[length..], floats(&vec![2.0; rows * 4]));
    }
    // What is short, or an error, is sent as it is.
    let accept = [("accept-encoding", "gzip, deflate, br")];
    let short = x(&[1, 4], &[0.0; 4]).to_string().into_bytes();
    post(&server, "add", &accept, short).await.output("y");
    post(&server, "add", &accept, vec![b'x'; 4_000]).await.refused(400, "invalid_request", &[]);
}

#[tokio::test]
async fn a_bomb_is_stopped_at_the_limit() {
    let repository = Repository::of("add", &add_constant(1.0));
    let server = Server::start_with(repository, &[("server.max_body_size", "64KiB")]).await;
    let before = server.process.peak();
    let bomb = vec![b' '; 64 << 20];
    for coding in ["gzip", "deflate", "zstd"] {
        let small = compress(coding, &bomb);
        // What is too large already as it comes is told so, too.
        for header in [&[][..], &[(LENGTH, "0")], &[(LENGTH, "1000")]] {
            let headers = [&[("content-encoding", coding)], header].concat();
            let answer = post(&server, "add", &headers, small.clone()).await;
            answer.refused(413, "payload_too_large", &["65536"]);
        }
        let damaged = post(&server, "add", &[("content-encoding", coding)], vec![1; 50]).await;
        damaged.refused(400, "invalid_request", &["the body cannot be read as", coding]);
        let sound = compress(coding, x(&[1, 4], &[0.0; 4]).to_string().as_bytes());
        let with_more = [&sound[..], b"more"].concat();
        for wrong in [&sound[..sound.len() - 1], &with_more, b""] {
            let answer = post(&server, "add", &[("content-encoding", coding)], wrong.into()).await;
            answer.refused(400, "invalid_request", &["the body cannot be read as", coding]);
        }
        post(&server, "add", &[("content-encoding", coding)], sound).await.output("y");
    }
    if let Some((before, after)) = before.zip(server.process.peak()) {
        assert!(after - before < 16 << 20, "{before} bytes became {after}");
    }
    server.infer("add", &x(&[1, 4], &[0.0; 4])).await.ok();
}
