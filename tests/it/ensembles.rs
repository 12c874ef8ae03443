//! Ensembles: models that are made of others, over every protocol and through every change.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::grpc::proto::{ModelConfigRequest, ModelMetadataRequest};
use crate::support::grpc::{self, floats};
use crate::support::onnx::{
    Dim, Elem, Graph, Node, add_constant, failing_unless_zero, identity, slow_by_input,
    two_inputs_two_outputs,
};
use crate::support::{Answer, Repository, Server, x};

/// `add` by 1 and then `more` by 10, both in a second version that adds twice as much, and the ensemble
/// `sum` of both in two versions.
fn repository() -> Repository {
    let one = "version_policy: { specific: [1] }\n";
    let repository = Repository::of("add", &add_constant(1.0))
        .and("add", 2, &add_constant(2.0))
        .and("more", 1, &add_constant(10.0))
        .and("more", 2, &add_constant(20.0))
        .with_settings("add", one)
        .with_settings("more", one);
    // A folder of a version may have anything in it.
    repository.write("sum/1/README.md", b"one");
    repository.write("sum/2/README.md", b"two");
    repository.settings("sum", &format!("{one}{SUM}"));
    repository
}

const SUM: &str = "
ensemble:
  steps:
    - model: add
      outputs: {y: middle}
    - model: more
      inputs: {x: middle}
";

/// Settings under which nothing is loaded that nobody asks for.
const EXPLICIT: [(&str, &str); 1] = [("models.mode", "explicit")];

async fn load(server: &Server, model: &str) -> Answer {
    server.post(&format!("/v2/repository/models/{model}/load"), &json!({})).await
}

async fn change(server: &Server, model: &str, what: &str, body: Value) -> Answer {
    server.post(&format!("/lifecycle/models/{model}/{what}"), &body).await
}

fn zeros() -> Value {
    x(&[1, 4], &[0.0; 4])
}

/// What the model adds to zeros.
async fn adds(server: &Server, model: &str) -> Value {
    server.infer(model, &zeros()).await.output("y")[0].clone()
}

#[tokio::test]
async fn it_is_one_model_over_every_protocol() {
    let server = Server::start_with(repository(), &[("server.grpc_listen", "127.0.0.1:0")]).await;
    let answer = server.infer("sum", &x(&[2, 4], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])).await;
    let sums: Vec<f64> = (11..19).map(f64::from).collect();
    assert_eq!(answer.output("y"), json!(sums));
    assert_eq!((answer.header("x-onward-model"), answer.header("x-onward-version")), ("sum", "1"));
    let digest = answer.header("x-onward-digest").to_owned();
    let mut binary = zeros();
    binary["parameters"] = json!({ "binary_data_output": true });
    let answer = server.infer("sum", &binary).await;
    let length: usize = answer.header("inference-header-content-length").parse().unwrap();
    assert_eq!(answer.body[length..], floats(&[11.0; 4]));
    let rows = json!({ "instances": [[0.0, 0.0, 0.0, 0.0]] });
    let predicted = server.post("/v1/models/sum:predict", &rows).await.ok();
    assert_eq!(predicted["predictions"], json!([[11.0, 11.0, 11.0, 11.0]]));
    let mut client = server.grpc().await;
    let answer = client.model_infer(grpc::x("sum", &[1, 4], &[0.0; 4])).await.unwrap();
    assert_eq!(answer.into_inner().raw_output_contents, [floats(&[11.0; 4])]);
    let metadata = server.get("/v2/models/sum").await.ok();
    let tensor = |name: &str| json!([{ "name": name, "datatype": "FP32", "shape": [-1, 4] }]);
    assert_eq!((&metadata["inputs"], &metadata["outputs"]), (&tensor("x"), &tensor("y")));
    assert_eq!(metadata["platform"], "ensemble");
    let request = ModelMetadataRequest { name: "sum".to_owned(), version: String::new() };
    let told = client.model_metadata(request).await.unwrap().into_inner();
    assert_eq!((told.platform.as_str(), told.inputs[0].name.as_str()), ("ensemble", "x"));
    let report = server.version("sum", "1").await;
    assert_eq!(report["digest"], format!("sha256:{}", digest.trim_start_matches("sha256:")));
    let steps = report["steps"].as_array().unwrap();
    assert_eq!((&steps[0]["model"], &steps[0]["version"]), (&json!("add"), &json!("1")));
    assert_eq!(steps[1]["inputs"], json!({ "x": "middle" }));
    let step = server.version("add", "1").await;
    assert_eq!((&step["digest"], &step["held_by"]), (&steps[0]["digest"], &json!(["sum/1"])));
    assert_eq!(step["requests"], 4, "the warm-up is nobody's request");
    assert_eq!(server.stop().await, 0);
}

#[tokio::test]
async fn it_tells_how_it_is_set_up_and_what_it_has_done() {
    let server = Server::start_with(repository(), &[("server.grpc_listen", "127.0.0.1:0")]).await;
    server.infer("sum", &x(&[3, 4], &[0.0; 12])).await.ok();
    server.infer("sum", &x(&[3, 5], &[0.0; 15])).await.refused(400, "invalid_request", &["'x'"]);
    let config = server.get("/v2/models/sum/config").await.ok();
    assert_eq!((&config["platform"], &config["backend"]), (&json!("ensemble"), &json!("")));
    assert_eq!(config["instance_group"], json!([]));
    let steps = json!([
        { "model_name": "add", "model_version": 1, "input_map": { "x": "x" },
          "output_map": { "y": "middle" } },
        { "model_name": "more", "model_version": 1, "input_map": { "x": "middle" },
          "output_map": { "y": "y" } },
    ]);
    assert_eq!(config["ensemble_scheduling"]["step"], steps);
    let request = ModelConfigRequest { name: "sum".to_owned(), version: String::new() };
    let told = server.grpc().await.model_config(request).await.unwrap().into_inner();
    let told = told.config.unwrap();
    let step = &told.ensemble_scheduling.unwrap().step[1];
    assert_eq!((step.model_name.as_str(), step.model_version), ("more", 1));
    assert_eq!((step.input_map["x"].as_str(), told.platform.as_str()), ("middle", "ensemble"));
    let stats = async |model: &str| {
        server.get(&format!("/v2/models/{model}/stats")).await.ok()["model_stats"][0].clone()
    };
    let own = stats("sum").await;
    let counts = |stats: &Value| {
        let inferences = stats["inference_stats"].clone();
        let count = |what: &str| inferences[what]["count"].as_u64().unwrap();
        (stats["inference_count"].as_u64().unwrap(), count("success"), count("fail"))
    };
    assert_eq!((counts(&own), &own["execution_count"]), ((3, 1, 1), &json!(1)));
    assert_eq!(counts(&stats("add").await), (3, 1, 0), "a step counts what comes to it");
    assert_eq!(own["batch_stats"][0]["batch_size"], 3);
}

#[tokio::test]
async fn what_it_loads_goes_with_it() {
    let server = Server::start_with(repository(), &EXPLICIT).await;
    load(&server, "sum").await;
    assert_eq!(adds(&server, "sum").await, 11.0);
    assert_eq!(adds(&server, "add").await, 1.0, "a step is a model like any other");
    let report = change(&server, "sum", "unload", json!({})).await.ok();
    assert_eq!(report["drained"], true);
    for model in ["add", "more"] {
        server.until((model, "1"), |report| report["state"] == "UNLOADED").await;
    }
    server.infer("add", &zeros()).await.refused(404, "model_not_loaded", &["'add'"]);
    load(&server, "add").await;
    load(&server, "sum").await;
    change(&server, "sum", "unload", json!({})).await.ok();
    server.until(("more", "1"), |report| report["state"] == "UNLOADED").await;
    assert_eq!(adds(&server, "add").await, 1.0, "it was asked for");
}

#[tokio::test]
async fn it_goes_back_to_what_it_was_and_is_verified_as_a_whole() {
    let server = Server::start(repository()).await;
    change(&server, "add", "swap", json!({ "to": 2 })).await.ok();
    let tensor = |name: &str, data: [f64; 4]| json!({ "name": name, "shape": [1, 4], "datatype": "FP32", "data": data });
    let sample = json!({ "inputs": [tensor("x", [0.0; 4])], "outputs": [tensor("y", [11.0; 4])] });
    server.repository.write("sum/golden/2/zeros.json", sample.to_string().as_bytes());
    let refused = change(&server, "sum", "swap", json!({ "to": 2 })).await;
    refused.refused(409, "verification_failed", &["zeros.json", "expected 11, got 12"]);
    assert_eq!(adds(&server, "sum").await, 11.0);
    let swap = json!({ "to": 2, "verify": false, "keep_previous": "1h" });
    change(&server, "sum", "swap", swap).await.ok();
    assert_eq!((adds(&server, "sum").await, adds(&server, "add").await), (json!(12.0), json!(2.0)));
    change(&server, "sum", "rollback", json!({ "keep_previous": false })).await.ok();
    assert_eq!(adds(&server, "sum").await, 11.0, "with what it had");
    server.until(("sum", "2"), |report| report["state"] == "UNLOADED").await;
    let report = server.version("add", "1").await;
    assert_eq!((&report["state"], &report["held_by"]), (&json!("READY"), &json!(["sum/1"])));
}

/// Asks `model` from many sides until `work` has ended; how often each answer came, and that none failed.
async fn under_load(server: &Server, model: &str, work: impl Future<Output = ()>) -> BTreeSet<u32> {
    let (done, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let client = async || {
        let mut seen = BTreeSet::new();
        while !done.load(Ordering::SeqCst) {
            let answer = server.infer(model, &zeros()).await;
            let sums = answer.output("y");
            assert_eq!(sums, json!([sums[0], sums[0], sums[0], sums[0]]));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
            seen.insert(sums[0].as_f64().unwrap() as u32);
            answered.fetch_add(1, Ordering::SeqCst);
        }
        seen
    };
    let working = async {
        work.await;
        done.store(true, Ordering::SeqCst);
    };
    let (seen, ()) = tokio::join!(join_all((0..8).map(|_| client())), working);
    assert!(answered.load(Ordering::SeqCst) > 0);
    seen.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_swapped_as_one_unit_under_load() {
    let server = Server::start(repository()).await;
    let swapping = async {
        for round in 0..20 {
            let to = json!({ "to": 2 - round % 2, "keep_previous": false });
            // One after the other, so that a request for what serves would see every mixture.
            change(&server, "add", "swap", to.clone()).await.ok();
            change(&server, "more", "swap", to.clone()).await.ok();
            change(&server, "sum", "swap", to).await.ok();
            let expected = if round % 2 == 0 { 22.0 } else { 11.0 };
            assert_eq!(adds(&server, "sum").await, expected);
        }
    };
    let seen = under_load(&server, "sum", swapping).await;
    assert_eq!(seen, BTreeSet::from([11, 22]), "no request saw one version of each");
    for model in ["add", "more"] {
        server.until((model, "2"), |report| report["state"] == "UNLOADED").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_its_steps_by_themselves_is_nothing_to_it() {
    let server = Server::start(repository()).await;
    let changing = async {
        for round in 0..10 {
            let to = json!({ "to": 2 - round % 2, "keep_previous": false });
            change(&server, "add", "swap", to).await.ok();
            let unloaded = change(&server, "more", "unload", json!({})).await.ok();
            // The first life is the ensemble's, all others are nobody's.
            assert_eq!(unloaded["drained"], round > 0);
            load(&server, "more").await;
        }
        change(&server, "more", "unload", json!({})).await.ok();
        change(&server, "add", "unload", json!({})).await.ok();
        server.infer("more", &zeros()).await.refused(404, "model_not_loaded", &["'more'"]);
    };
    let seen = under_load(&server, "sum", changing).await;
    assert_eq!(seen, BTreeSet::from([11]));
    assert_eq!(change(&server, "sum", "unload", json!({})).await.ok()["drained"], true);
    for model in ["add", "more"] {
        server.until((model, "1"), |report| report["state"] == "UNLOADED").await;
    }
}

#[tokio::test]
async fn independent_steps_and_several_tensors_come_together() {
    let repository = repository().and("pairs", 1, &two_inputs_two_outputs()).and(
        "join",
        1,
        &Graph::new("join")
            .input("l", Elem::Float, &[Dim::Symbolic("n"), Dim::Fixed(2)])
            .input("r", Elem::Float, &[Dim::Symbolic("n"), Dim::Fixed(2)])
            .output("joined", Elem::Float, &[Dim::Symbolic("n"), Dim::Fixed(2)])
            .node(&Node::new("Add", &["l", "r"], &["joined"]))
            .into_model(),
    );
    // Written backwards; `count` comes through, and one output of a step is nobody's.
    let text = "
ensemble:
  inputs: [left, right, count]
  outputs: [joined, count_out]
  steps:
    - {model: join, inputs: {l: doubled, r: other}}
    - {model: pairs, inputs: {a: left, b: count}, outputs: {sum: doubled, b_out: count_out}}
    - {model: pairs, version: 1, inputs: {a: right, b: count}, outputs: {sum: other}}
";
    repository.settings("tree", text);
    let server = Server::start(repository).await;
    let tensor = |name: &str, datatype: &str, shape: &[usize], data: Value| json!({ "name": name, "datatype": datatype, "shape": shape, "data": data });
    let mut body = json!({ "inputs": [
        tensor("count", "INT64", &[1], json!([7])),
        tensor("left", "FP32", &[1, 2], json!([1, 2])),
        tensor("right", "FP32", &[1, 2], json!([10, 20])),
    ] });
    let answer = server.infer("tree", &body).await;
    assert_eq!(answer.output("joined"), json!([22.0, 44.0]));
    assert_eq!(answer.output("count_out"), json!([7]));
    let names: Vec<Value> = answer.ok()["outputs"].as_array().unwrap().clone();
    assert_eq!((&names[0]["name"], &names[1]["name"]), (&json!("joined"), &json!("count_out")));
    body["outputs"] = json!([{ "name": "count_out" }]);
    server.infer("tree", &body).await.ok();
    let join = server.version("join", "1").await;
    assert_eq!(join["requests"], 1, "what nobody asks for is not computed");
    let batch = json!({ "inputs": [
        tensor("count", "INT64", &[1], json!([7])),
        tensor("left", "FP32", &[2, 2], json!([1, 2, 3, 4])),
        tensor("right", "FP32", &[3, 2], json!([1, 2, 3, 4, 5, 6])),
    ] });
    let answer = server.infer("tree", &batch).await;
    answer.refused(400, "invalid_request", &["step 1 ('join/1'): the model cannot compute"]);
}

/// Names of ensembles, their settings, and what is told of them.
const MISTAKES: [(&str, &str, &str); 14] = [
    ("no_model", "steps: [{model: nothing}]", "no model 'nothing'"),
    ("no_version", "steps: [{model: add, version: 9}]", "no version 9"),
    ("no_alias", "steps: [{model: add, version: best}]", "alias 'best'"),
    (
        "no_input",
        "steps: [{model: add}, {model: more, inputs: {q: y}}]",
        "step 2 ('more') has no input 'q', its inputs are 'x'",
    ),
    (
        "no_output",
        "steps: [{model: add}, {model: more, outputs: {q: y}}]",
        "step 2 ('more') has no output 'q', its outputs are 'y'",
    ),
    (
        "twice",
        "steps: [{model: add}, {model: more}]",
        "tensor 'y' is given by step 1 ('add') and by step 2 ('more')",
    ),
    (
        "circle",
        "steps: [{model: add, inputs: {x: z}}, {model: more, inputs: {x: y}, outputs: {y: z}}]",
        "tensors go round in a circle: step 1 ('add') gives 'y' to step 2 ('more')",
    ),
    (
        "not_given",
        "inputs: [x], steps: [{model: add}, {model: more, inputs: {x: w}, outputs: {y: z}}]",
        "tensor 'w', which is input 'x' of step 2 ('more'), is given by no step",
    ),
    (
        "no_such_answer",
        "outputs: [w], steps: [{model: add}]",
        "output 'w' of the ensemble is given by no step",
    ),
    (
        "datatype",
        "steps: [{model: add}, {model: whole, inputs: {x: y}, outputs: {y: z}}]",
        "'y' is FP32 [-1,4] as output 'y' of step 1 ('add'), and cannot be INT64 [-1,4]",
    ),
    (
        "rank",
        "steps: [{model: add}, {model: flat, inputs: {x: y}, outputs: {y: z}}]",
        "and cannot be FP32 [-1] as input 'x' of step 2 ('flat')",
    ),
    ("itself", "steps: [{model: itself}]", "steps of each other: itself -> itself"),
    ("bad_step", "steps: [{model: corrupt}]", "step 1 ('corrupt')"),
    ("nothing_at_all", "steps: []", "expected one at least"),
];

#[tokio::test]
async fn each_mistake_is_told_and_the_others_serve() {
    let batch = Dim::Symbolic("n");
    let repository = repository()
        .and("whole", 1, &identity(Elem::Int64, &[batch, Dim::Fixed(4)]))
        .and("flat", 1, &identity(Elem::Float, &[batch]))
        .and("corrupt", 1, b"nonsense");
    for (name, settings, _) in MISTAKES {
        repository.settings(name, &format!("ensemble: {{{settings}}}\n"));
    }
    let server = Server::start(repository).await;
    for (name, _, told) in MISTAKES {
        let report = server.get(&format!("/lifecycle/models/{name}")).await.ok();
        let problem = report["problem"].as_str().unwrap_or_else(|| panic!("{name}: {report}"));
        assert!(problem.contains(told), "{name}: {problem}");
        let loaded = load(&server, name).await;
        assert!(loaded.status >= 400, "{name}");
        let error = loaded.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("failed to load"), "{name}: {error}");
    }
    let report = server.version("twice", "1").await;
    assert_eq!(report["state"], "FAILED");
    assert!(report["reason"].as_str().unwrap().contains("tensor 'y' is given by"), "{report}");
    assert_eq!(adds(&server, "sum").await, 11.0);
}

#[tokio::test]
async fn a_definition_of_tritons_is_served() {
    let repository = repository();
    let config = br#"
name: "tritons"
platform: "ensemble"
max_batch_size: 4
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 4 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "add"
      model_version: -1
      input_map { key: "x" value: "IN" }
      output_map { key: "y" value: "between" }
    },
    {
      model_name: "more"
      model_version: 2
      input_map { key: "x" value: "between" }
      output_map { key: "y" value: "OUT" }
    }
  ]
}
"#;
    repository.write("tritons/config.pbtxt", config);
    std::fs::create_dir(repository.path().join("tritons/1")).unwrap();
    let server = Server::start(repository).await;
    let body = |rows: usize| {
        json!({ "inputs": [
        { "name": "IN", "shape": [rows, 4], "datatype": "FP32", "data": vec![0.0; 4 * rows] },
    ] })
    };
    let answer = server.infer("tritons", &body(2)).await;
    assert_eq!(answer.output("OUT"), json!(vec![21.0; 8]));
    let told = ["batch-size must be <= 4"];
    server.infer("tritons", &body(5)).await.refused(400, "invalid_request", &told);
    let config = server.get("/v2/models/tritons/config").await.ok();
    assert_eq!((&config["max_batch_size"], &config["input"][0]["dims"]), (&json!(4), &json!([4])));
    assert_eq!(server.version("more", "2").await["held_by"], json!(["tritons/1"]));
    assert_eq!(adds(&server, "more").await, 10.0, "what it serves has not changed");
}

#[tokio::test]
async fn a_load_may_bring_a_definition() {
    let server = Server::start_with(repository(), &EXPLICIT).await;
    let config = json!({
        "platform": "ensemble",
        "ensemble_scheduling": { "step": [
            { "model_name": "add", "input_map": { "x": "x" }, "output_map": { "y": "t" } },
            { "model_name": "add", "input_map": { "x": "t" }, "output_map": { "y": "y" } },
        ] },
    });
    let body = json!({ "parameters": { "config": config.to_string() } });
    let loaded = server.post("/v2/repository/models/sum/load", &body).await;
    assert_eq!(loaded.status, 200, "{}", String::from_utf8_lossy(&loaded.body));
    assert_eq!(adds(&server, "sum").await, 2.0);
    // What is told can be sent back.
    load(&server, "sum").await;
    assert_eq!(adds(&server, "sum").await, 11.0);
    let config = server.get("/v2/models/sum/config").await.ok();
    let body = json!({ "parameters": { "config": config.to_string() } });
    let loaded = server.post("/v2/repository/models/sum/load", &body).await;
    assert_eq!(loaded.status, 200, "{}", String::from_utf8_lossy(&loaded.body));
    assert_eq!(adds(&server, "sum").await, 11.0);
}

#[tokio::test]
async fn a_late_request_is_refused_and_its_step_ends() {
    let repository = Repository::of("slow", &slow_by_input()).with_settings(
        "late",
        "ensemble: {steps: [{model: slow, outputs: {y: t}}, {model: slow, inputs: {x: t}}]}\n",
    );
    let settings = [("inference.instances", "1"), ("inference.queue_capacity", "1")];
    let server = Server::start_with(repository, &settings).await;
    let body = |iterations: u32, timeout: u64| {
        json!({ "parameters": { "timeout": timeout }, "inputs": [
            { "name": "x", "shape": [1], "datatype": "FP32", "data": [0] },
            { "name": "iterations", "shape": [1], "datatype": "INT64", "data": [iterations] },
        ] })
    };
    let (minute, endless) = (60_000_000, 16_000_000);
    assert_eq!(server.infer("late", &body(3, minute)).await.output("y"), json!([6.0]));
    let late = server.infer("late", &body(endless, 200_000)).await;
    late.refused(504, "deadline_exceeded", &["step 1 ('slow/1')", "the deadline passed"]);
    // The run was ended, or this one would wait for it.
    let (quick, minute_long) = (body(1, minute), body(endless, 5_000_000));
    assert_eq!(server.infer("late", &quick).await.output("y"), json!([2.0]));
    let crowd = join_all((0..4).map(|_| server.infer("late", &minute_long))).await;
    let crowded = crowd.iter().find(|answer| answer.status == 429).expect("one place to wait");
    crowded.refused(429, "overloaded", &["step 1 ('slow/1'): the model is overloaded"]);
    assert!(crowded.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_step_that_cannot_compute_is_named() {
    let repository = repository().and("picky", 1, &failing_unless_zero()).with_settings(
        "row",
        "ensemble: {steps: [{model: add, outputs: {y: t}}, {model: picky, inputs: {x: t}}]}\n\
         warm_up: off\n",
    );
    let server = Server::start(repository).await;
    let refused = server.infer("row", &zeros()).await;
    refused.refused(400, "invalid_request", &["step 2 ('picky/1'): the model cannot compute"]);
    assert_eq!(server.infer("row", &x(&[1, 4], &[-1.0; 4])).await.output("y"), json!(vec![0.0; 4]));
}
