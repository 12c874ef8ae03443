//! Inference over REST on real models.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::onnx::{
    Dim, Elem, add_constant, identity, optional_default, scalar_input, slow_by_input,
    two_inputs_two_outputs, with_symbolic_and_fixed,
};
use crate::support::{Repository, Server, x};

/// One name, datatype and some values that come back as they are written here.
fn round_trips() -> Vec<(Elem, &'static str, Value)> {
    vec![
        (Elem::Bool, "BOOL", json!([true, false])),
        (Elem::Uint8, "UINT8", json!([0, 255])),
        (Elem::Uint16, "UINT16", json!([0, 65535])),
        (Elem::Uint32, "UINT32", json!([0, 4_294_967_295_u32])),
        (Elem::Uint64, "UINT64", json!([0, 18_446_744_073_709_551_615_u64])),
        (Elem::Int8, "INT8", json!([-128, 127])),
        (Elem::Int16, "INT16", json!([-32768, 32767])),
        (Elem::Int32, "INT32", json!([-2_147_483_648, 2_147_483_647])),
        (Elem::Int64, "INT64", json!([i64::MIN, i64::MAX])),
        (Elem::Float16, "FP16", json!([0.5, -65504.0, "NaN", "-Infinity"])),
        (Elem::BFloat16, "BF16", json!([0.5, -1.5, "Infinity"])),
        (Elem::Float, "FP32", json!([0.1, -3.402_823_5e38, "NaN", "Infinity", "-Infinity"])),
        (Elem::Double, "FP64", json!([0.1, 5e-324, "NaN", "Infinity", "-Infinity"])),
        (Elem::String, "BYTES", json!(["", "plain", "quote \" and \\ and ]", "ü😀\n"])),
    ]
}

#[tokio::test]
async fn every_datatype_comes_back_as_it_was_sent() {
    let cases = round_trips();
    assert_eq!(cases.len(), Elem::ALL.len());
    let repository = Repository::empty();
    for (elem, datatype, _) in &cases {
        repository.put(&format!("id-{datatype}"), 1, &identity(*elem, &[Dim::Symbolic("n")]));
    }
    let server = Server::start(repository).await;
    for (_, datatype, data) in cases {
        let shape = [data.as_array().unwrap().len()];
        let body = json!({ "inputs": [
            { "name": "x", "shape": shape, "datatype": datatype, "data": data }
        ] });
        let answer = server.infer(&format!("id-{datatype}"), &body).await;
        let expected = json!({
            "model_name": format!("id-{datatype}"),
            "model_version": "1",
            "outputs": [{ "name": "y", "datatype": datatype, "shape": shape, "data": data }],
        });
        assert_eq!(answer.ok(), expected);
    }
}

#[tokio::test]
async fn data_may_be_flat_or_nested_and_a_dimension_may_be_zero() {
    let server = Server::start(Repository::of("id", &with_symbolic_and_fixed())).await;
    let infer = async |shape: [usize; 3], data: Value| {
        let body = json!({ "inputs": [
            { "name": "x", "shape": shape, "datatype": "FP32", "data": data }
        ] });
        server.infer("id", &body).await.ok()["outputs"][0].clone()
    };
    let nested = infer([1, 3, 2], json!([[[1, 2], [3, 4], [5, 6]]])).await;
    assert_eq!(nested, infer([1, 3, 2], json!([1, 2, 3, 4, 5, 6])).await);
    assert_eq!(nested["data"], json!([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let empty = infer([0, 3, 2], json!([])).await;
    assert_eq!((&empty["shape"], &empty["data"]), (&json!([0, 3, 2]), &json!([])));
}

#[tokio::test]
async fn a_tensor_without_dimensions_is_one_number() {
    let server = Server::start(Repository::of("scalar", &scalar_input())).await;
    for data in [json!([2.5]), json!(2.5)] {
        let body = json!({ "inputs": [
            { "name": "x", "shape": [], "datatype": "FP32", "data": data }
        ] });
        assert_eq!(server.infer("scalar", &body).await.output("y"), json!([2.5]));
    }
}

#[tokio::test]
async fn outputs_come_in_the_order_asked_for_and_the_id_comes_back() {
    let server = Server::start(Repository::of("pair", &two_inputs_two_outputs())).await;
    let body = json!({
        "id": "mine",
        "parameters": { "colour": "blue" },
        "inputs": [
            { "name": "b", "shape": [1], "datatype": "INT64", "data": [7] },
            { "name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1, 2] },
        ],
    });
    let names = |answer: &Value| {
        let outputs = answer["outputs"].as_array().unwrap().iter();
        outputs.map(|output| output["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = server.infer("pair", &body).await.ok();
    assert_eq!((&all["id"], names(&all)), (&json!("mine"), vec!["sum".into(), "b_out".into()]));
    let mut reversed = body.clone();
    reversed["outputs"] = json!([{ "name": "b_out" }, { "name": "sum" }]);
    assert_eq!(names(&server.infer("pair", &reversed).await.ok()), ["b_out", "sum"]);
    reversed["outputs"] = json!([{ "name": "sum" }]);
    assert_eq!(names(&server.infer("pair", &reversed).await.ok()), ["sum"]);
}

#[tokio::test]
async fn an_input_with_a_default_may_be_left_out() {
    let server = Server::start(Repository::of("default", &optional_default())).await;
    let mut body = x(&[1], &[1.0]);
    assert_eq!(server.infer("default", &body).await.output("y"), json!([2.0]));
    let bias = json!({ "name": "bias", "shape": [1], "datatype": "FP32", "data": [10] });
    body["inputs"].as_array_mut().unwrap().push(bias);
    assert_eq!(server.infer("default", &body).await.output("y"), json!([11.0]));
}

#[tokio::test]
async fn a_prediction_can_be_traced() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let answer = server.infer("add", &x(&[1, 4], &[0.0; 4])).await;
    assert_eq!((answer.header("x-onward-model"), answer.header("x-onward-version")), ("add", "1"));
    let digest = server.version("add", "1").await["digest"].clone();
    assert_eq!(digest, answer.header("x-onward-digest"));
    let graph = server.repository.path().join("add/1/model.onnx");
    let sums = std::process::Command::new("sha256sum").arg(graph).output().unwrap();
    let expected = String::from_utf8(sums.stdout).unwrap();
    assert_eq!(digest, format!("sha256:{}", &expected[..64]));
    let request = server.request(reqwest::Method::GET, "/v2").header("x-request-id", "abc");
    assert_eq!(request.send().await.unwrap().headers()["x-request-id"], "abc");
}

#[tokio::test]
async fn metadata_tells_what_a_model_takes_and_gives() {
    let repository = Repository::of("id", &with_symbolic_and_fixed());
    let server = Server::start(repository.and("id", 3, &with_symbolic_and_fixed())).await;
    let tensor = |name: &str| json!({ "name": name, "datatype": "FP32", "shape": [-1, 3, -1] });
    let expected = json!({
        "name": "id",
        "versions": ["3"],
        "platform": "onnxruntime_onnx",
        "inputs": [tensor("x")],
        "outputs": [tensor("y")],
    });
    assert_eq!(server.get("/v2/models/id").await.ok(), expected);
    assert_eq!(server.get("/v2/models/id/versions/3").await.ok(), expected);
    assert_eq!(server.get("/v2/models").await.ok(), json!({ "models": ["id"] }));
    let ready = json!({ "name": "id", "ready": true });
    assert_eq!(server.get("/v2/models/id/ready").await.ok(), ready);
    assert_eq!(server.get("/v2/models/id/versions/3/ready").await.ok(), ready);
    let gone = server.get("/v2/models/id/versions/1").await;
    gone.refused(404, "unknown_version", &["Request for unknown model"]);
    for path in ["/v2", "/v2/"] {
        let extensions = server.get(path).await.ok()["extensions"].clone();
        let expected = [
            "binary_tensor_data",
            "classification",
            "logging",
            "model_configuration",
            "model_repository",
            "parameters",
            "statistics",
            "trace",
        ];
        assert_eq!(extensions, json!(expected));
    }
}

/// A request that keeps an instance busy for about this many milliseconds.
fn slow(milliseconds: u64) -> Value {
    json!({ "inputs": [
        { "name": "x", "shape": [1], "datatype": "FP32", "data": [0] },
        { "name": "iterations", "shape": [1], "datatype": "INT64", "data": [milliseconds * 1200] },
    ] })
}

#[tokio::test]
async fn overload_is_refused_at_once() {
    let settings = [("inference.instances", "1"), ("inference.queue_capacity", "1")];
    let server = Server::start_with(Repository::of("slow", &slow_by_input()), &settings).await;
    let first = async { server.infer("slow", &slow(1500)).await };
    let told = |inside, waiting| {
        server.until(("slow", "1"), move |report| {
            report["in_flight"] == inside && report["queue_depth"] == waiting
        })
    };
    let second = async {
        told(1, 0).await;
        server.infer("slow", &slow(1)).await
    };
    let third = async {
        told(2, 1).await;
        server.infer("slow", &slow(1)).await
    };
    let (first, second, third) = tokio::join!(first, second, third);
    assert_eq!((first.status, second.status), (200, 200));
    third.refused(429, "overloaded", &["1 requests are waiting"]);
    assert_eq!(third.header("retry-after"), "1");
    assert_eq!(server.version("slow", "1").await["failures"], 1);
}

#[tokio::test]
async fn a_deadline_ends_a_run_that_is_under_way() {
    let settings = [("inference.instances", "1"), ("server.request_timeout", "300ms")];
    let server = Server::start_with(Repository::of("slow", &slow_by_input()), &settings).await;
    let late = server.infer("slow", &slow(10_000)).await;
    late.refused(504, "deadline_exceeded", &["deadline"]);
    let mut impatient = slow(10_000);
    impatient["parameters"] = json!({ "timeout": 1000 });
    server.infer("slow", &impatient).await.refused(504, "deadline_exceeded", &[]);
    // The instance is free again: it was not left to compute an answer that nobody wants.
    assert_eq!(server.infer("slow", &slow(1)).await.status, 200);
}

#[tokio::test]
async fn short_runs_are_inline_until_one_is_long() {
    let settings = [("server.workers", "2")];
    let server = Server::start_with(Repository::of("slow", &slow_by_input()), &settings).await;
    let placement = async || server.version("slow", "1").await["placement"].clone();
    assert_eq!(placement().await, "thread");
    let short = async {
        while placement().await != "inline" {
            assert_eq!(server.infer("slow", &slow(0)).await.status, 200);
        }
    };
    tokio::time::timeout(Duration::from_mins(1), short).await.expect("its runs are short");
    // Nobody can know that of this input.
    let mut endless = slow(60_000);
    endless["parameters"] = json!({ "timeout": 3_000_000 });
    let late = server.infer("slow", &endless);
    let probe = async {
        server.until(("slow", "1"), |report| report["in_flight"] == 1).await;
        assert_eq!(server.get("/v2/health/live").await.status, 200);
        assert_eq!(server.version("slow", "1").await["in_flight"], 1);
    };
    let (late, ()) = tokio::join!(late, probe);
    late.refused(504, "deadline_exceeded", &["deadline"]);
    assert_eq!(placement().await, "thread");
    assert_eq!(server.infer("slow", &slow(0)).await.status, 200);
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_instance() {
    let settings = [("inference.instances", "1")];
    let server = Server::start_with(Repository::of("slow", &slow_by_input()), &settings).await;
    let request = server.request(reqwest::Method::POST, "/v2/models/slow/infer");
    let abandoned = tokio::spawn(request.body(slow(12_000).to_string()).send());
    server.until(("slow", "1"), |report| report["in_flight"] == 1).await;
    abandoned.abort();
    let report = server.until(("slow", "1"), |report| report["in_flight"] == 0).await;
    assert_eq!((&report["requests"], &report["failures"]), (&json!(1), &json!(1)));
    assert_eq!(server.infer("slow", &slow(1)).await.status, 200);
}

#[tokio::test]
async fn a_large_body_goes_both_ways() {
    let dims = [Dim::Symbolic("n")];
    let server = Server::start(Repository::of("id", &identity(Elem::Float, &dims))).await;
    let data: Vec<f32> =
        (0..1_000_000_u32).map(|i| f32::from_bits(i * 1021 % 0x7f00_0000)).collect();
    let answer = server.infer("id", &x(&[data.len()], &data)).await;
    let back: Vec<f32> = serde_json::from_value(answer.output("y")).unwrap();
    assert_eq!(back, data);
}
