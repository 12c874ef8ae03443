//! Requests that share a run.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::onnx::{Attribute, Dim, Elem, Graph, Node, Tensor, mlp, slow};
use crate::support::{Repository, Server};

const BATCH: Dim<'static> = Dim::Symbolic("batch");
const LENGTH: Dim<'static> = Dim::Symbolic("length");

/// Waits for more than there is, so that what is asked at once shares runs.
const PATIENT: &str = "instances: 1\nbatching: {max_size: 8, max_delay: 50ms}\n";

/// `r` = the sums of `x`, FP32 `[batch, length]`, along an axis.
fn sums(axis: i64) -> Graph {
    Graph::new("sums")
        .input("x", Elem::Float, &[BATCH, LENGTH])
        .initializer("axes", &Tensor::int64s(&[1], &[axis]))
        .node(&Node::new("ReduceSum", &["x", "axes"], &["r"]))
}

/// `y` = `x` less the sum of its column: its first dimension is no batch.
fn mixed() -> Vec<u8> {
    sums(0)
        .output("y", Elem::Float, &[BATCH, LENGTH])
        .node(&Node::new("Sub", &["x", "r"], &["y"]))
        .into_model()
}

/// `y` = the sum of each row, FP32 `[batch, 1]`, and `z` = `x`.
fn by_row() -> Vec<u8> {
    sums(1)
        .output("y", Elem::Float, &[BATCH, Dim::Fixed(1)])
        .output("z", Elem::Float, &[BATCH, LENGTH])
        .node(&Node::new("Identity", &["r"], &["y"]))
        .node(&Node::new("Identity", &["x"], &["z"]))
        .into_model()
}

/// `y` = the first row of `x`, FP32 `[one, length]`, of which no rule tells how many rows it has.
fn first_row() -> Vec<u8> {
    let cast = Node::new("Cast", &["one"], &["chosen"]).attribute("to", &Attribute::Int(9));
    let chosen = Node::new("Compress", &["x", "chosen"], &["y"]);
    Graph::new("first_row")
        .input("x", Elem::Float, &[BATCH, LENGTH])
        .output("y", Elem::Float, &[Dim::Symbolic("one"), LENGTH])
        .initializer("one", &Tensor::int64s(&[1], &[1]))
        .node(&cast)
        .node(&chosen.attribute("axis", &Attribute::Int(0)))
        .into_model()
}

/// `y` = `x` less `x`.
fn alike() -> Vec<u8> {
    let pair = [BATCH, LENGTH];
    let graph = Graph::new("alike").input("x", Elem::Float, &pair).output("y", Elem::Float, &pair);
    graph.node(&Node::new("Sub", &["x", "x"], &["y"])).into_model()
}

fn rows(shape: [usize; 2], first: f32) -> Value {
    let count = u16::try_from(shape[0] * shape[1]).unwrap();
    let data: Vec<f32> = (0..count).map(|place| first + f32::from(place) / 8.0).collect();
    json!({ "inputs": [{ "name": "x", "shape": shape, "datatype": "FP32", "data": data }] })
}

async fn batching(server: &Server, model: &str) -> Value {
    server.version(model, "1").await["batching"].clone()
}

async fn executions(server: &Server, model: &str) -> (u64, u64) {
    let stats = server.get(&format!("/v2/models/{model}/stats")).await.ok();
    let stats = &stats["model_stats"][0];
    let count = |name: &str| stats[name].as_u64().unwrap();
    (count("inference_count"), count("execution_count"))
}

#[tokio::test]
async fn concurrent_requests_share_runs_and_are_answered_as_alone() {
    let repository = Repository::of("mlp", &mlp(16, 32, 4)).with_settings("mlp", PATIENT);
    let server = Server::start(repository.and("alone", 1, &mlp(16, 32, 4))).await;
    let on = json!({ "state": "on", "max_size": 8, "size": 8 });
    assert_eq!(batching(&server, "mlp").await, on);
    assert_eq!(batching(&server, "alone").await["state"], "on");
    let requests: Vec<Value> = (0..40_u8)
        .map(|number| rows([1 + usize::from(number % 3), 16], f32::from(number)))
        .collect();
    let answers = join_all(requests.iter().map(|request| server.infer("mlp", request))).await;
    for (request, answer) in requests.iter().zip(answers) {
        let alone = server.infer("alone", request).await.output("y");
        let together = answer.output("y");
        let values = |output: &Value| serde_json::from_value::<Vec<f64>>(output.clone()).unwrap();
        assert_eq!(values(&alone).len(), values(&together).len());
        for (one, other) in values(&alone).iter().zip(values(&together)) {
            assert!((one - other).abs() < 1e-5 * one.abs().max(1.0), "{alone} {together}");
        }
    }
    let (inferences, executions) = executions(&server, "mlp").await;
    assert_eq!(inferences, (0..40).map(|number| 1 + number % 3).sum::<u64>());
    assert!(executions < 20, "40 requests share {executions} runs");
}

#[tokio::test]
async fn what_is_no_batch_is_found_out_and_told() {
    let repository = Repository::of("mixed", &mixed())
        .and("first", 1, &first_row())
        .and("fixed", 1, &slow(1))
        .and("alike", 1, &alike())
        .and("off", 1, &mlp(4, 4, 4))
        .with_settings("off", "batching: off\n")
        .and("unasked", 1, &mlp(4, 4, 4))
        .with_settings("unasked", "warm_up: off\n")
        .and("trusted", 1, &mlp(4, 4, 4))
        .with_settings("trusted", "warm_up: off\nbatching: on\n");
    let server = Server::start(repository).await;
    for (model, told) in [
        ("mixed", "its output 'y' is another one in a batch: "),
        ("first", "it answers a batch of 4 with 1 entries in an output"),
        ("fixed", "the first dimension of input 'x' is not free, its shape is [1]"),
        ("alike", "generated inputs are all answered alike"),
        ("off", "it is switched off"),
        ("unasked", "its warm-up is off, so that nothing was compared"),
    ] {
        let batching = batching(&server, model).await;
        assert_eq!(batching["state"], "off");
        assert!(batching["reason"].as_str().unwrap().starts_with(told), "{batching}");
    }
    assert_eq!(batching(&server, "trusted").await["state"], "on");
    // It is served all the same, each request alone.
    let requests = [rows([1, 2], 1.0), rows([2, 2], 5.0)];
    let answers = join_all(requests.iter().map(|request| server.infer("mixed", request))).await;
    assert_eq!(answers[0].output("y"), json!([0.0, 0.0]));
    assert_eq!(answers[1].output("y"), json!([-5.25, -5.375, -5.0, -5.125]));
}

#[tokio::test]
async fn requests_of_other_lengths_are_filled_up_and_their_answers_cut_back() {
    let padded = "instances: 1\nbatching: {max_delay: 50ms, pad: {x: 0}}\n";
    let repository = Repository::of("sum", &by_row())
        .with_settings("sum", padded)
        .and("wrong", 1, &by_row())
        .with_settings("wrong", "batching: {pad: {x: 1}}\n");
    let server = Server::start(repository).await;
    let told = batching(&server, "wrong").await;
    assert_eq!(told["state"], "off", "what is filled up counts: {told}");
    assert_eq!(batching(&server, "sum").await["state"], "on");
    let requests: Vec<Value> = (1..=12).map(|length| rows([1, length], 1.0)).collect();
    let answers = join_all(requests.iter().map(|request| server.infer("sum", request))).await;
    for (request, answer) in requests.iter().zip(answers) {
        let given = &request["inputs"][0];
        let sum: f64 = given["data"].as_array().unwrap().iter().filter_map(Value::as_f64).sum();
        assert_eq!(answer.output("y"), json!([sum]));
        assert_eq!(answer.output("z"), given["data"]);
    }
    let (inferences, executions) = executions(&server, "sum").await;
    assert!(inferences == 12 && executions < 6, "12 requests share {executions} runs");
}

#[tokio::test]
async fn what_cannot_be_filled_up_fails_the_load_with_the_reason() {
    let repository = Repository::of("mlp", &mlp(4, 4, 4))
        .with_settings("mlp", "batching: {pad: {x: 0}}\n")
        .and("other", 1, &by_row())
        .with_settings("other", "batching: {pad: {w: 0}}\n");
    let server = Server::start(repository).await;
    for (model, told) in [
        ("mlp", "input 'x' has no free dimension but the first"),
        ("other", "there is no input 'w'"),
    ] {
        let load = server.post(&format!("/lifecycle/models/{model}/load"), &json!({})).await;
        load.refused(400, "load_failed", &["cannot be batched as 'batching' says", told]);
    }
}

/// `y` = `x`, FP32 `[batch, length]`, which the graph declares to be four long.
fn declared_four() -> Vec<u8> {
    Graph::new("declared_four")
        .input("x", Elem::Float, &[BATCH, LENGTH])
        .output("y", Elem::Float, &[BATCH, Dim::Fixed(4)])
        .initializer("zero", &Tensor::floats(&[1], &[0.0]))
        .node(&Node::new("Add", &["x", "zero"], &["y"]))
        .into_model()
}

#[tokio::test]
async fn an_output_of_another_shape_than_declared_is_an_error_of_its_request() {
    let repository = Repository::of("four", &declared_four());
    let server = Server::start(repository.with_settings("four", "warm_up: off\n")).await;
    let bodies = [rows([1, 4], 1.0), rows([1, 3], 1.0), rows([2, 4], 1.0)];
    let answers = join_all(bodies.iter().map(|body| server.infer("four", body))).await;
    answers[1].refused(500, "internal", &[]);
    for place in [0, 2] {
        assert_eq!(answers[place].output("y"), bodies[place]["inputs"][0]["data"]);
    }
}

#[tokio::test]
async fn what_is_no_number_stays_with_its_request() {
    let repository = Repository::of("sum", &by_row()).with_settings("sum", PATIENT);
    let server = Server::start(repository).await;
    let mut bodies = vec![rows([1, 4], 1.0); 3];
    bodies[1]["inputs"][0]["data"] = json!(["NaN", 1.0, "Infinity", 2.0]);
    let answers = join_all(bodies.iter().map(|body| server.infer("sum", body))).await;
    assert_eq!(answers[1].output("y"), json!(["NaN"]));
    assert_eq!(answers[1].output("z"), bodies[1]["inputs"][0]["data"]);
    for place in [0, 2] {
        assert_eq!(answers[place].output("y"), json!([4.75]));
    }
    let (inferences, executions) = executions(&server, "sum").await;
    assert!(inferences == 3 && executions < 3, "3 requests share {executions} runs");
}
