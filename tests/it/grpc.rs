//! gRPC, by a client that is generated from the same files.

use serde_json::json;
use tonic::{Code, Request};

use crate::support::grpc::health::health_client::HealthClient;
use crate::support::grpc::health::{HealthCheckRequest, HealthCheckResponse};
use crate::support::grpc::proto::infer_parameter::ParameterChoice;
use crate::support::grpc::proto::model_infer_request::InferRequestedOutputTensor;
use crate::support::grpc::proto::{
    InferBatchStatistics, InferParameter, InferTensorContents, ModelConfigRequest,
    ModelInferRequest, ModelMetadataRequest, ModelReadyRequest, ModelStatistics,
    ModelStatisticsRequest, RepositoryIndexRequest, RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest, ServerLiveRequest, ServerMetadataRequest, ServerReadyRequest,
    StatisticDuration,
};
use crate::support::grpc::{Client, channel, connect, floats, raw, refused, x};
use crate::support::onnx::{
    Dim, Elem, add_constant, identity, two_inputs_two_outputs, with_symbolic_and_fixed,
};
use crate::support::{Repository, Server};

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

fn wanted(name: &str) -> InferRequestedOutputTensor {
    InferRequestedOutputTensor { name: name.to_owned(), ..InferRequestedOutputTensor::default() }
}

/// A name, a datatype, elements in their field where they have one, and as bytes.
type Case = (Elem, &'static str, Option<InferTensorContents>, Vec<u8>);

fn bytes<const N: usize>(values: &[[u8; N]]) -> Vec<u8> {
    values.concat()
}

/// Contents with one field.
fn contents(fill: impl FnOnce(&mut InferTensorContents)) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    fill(&mut contents);
    contents
}

fn whole_numbers() -> Vec<Case> {
    let ints = |values: [i32; 2]| Some(contents(|it| it.int_contents = values.to_vec()));
    let uints = |values: [u32; 2]| Some(contents(|it| it.uint_contents = values.to_vec()));
    let int64s = [i64::MIN, 7];
    let uint64s = [1, u64::MAX];
    vec![
        (Elem::Uint8, "UINT8", uints([0, 255]), vec![0, 255]),
        (Elem::Uint16, "UINT16", uints([1, 65535]), bytes(&[1_u16, 65535].map(u16::to_le_bytes))),
        (Elem::Uint32, "UINT32", uints([1, u32::MAX]), bytes(&[1, u32::MAX].map(u32::to_le_bytes))),
        (
            Elem::Uint64,
            "UINT64",
            Some(contents(|it| it.uint64_contents = uint64s.to_vec())),
            bytes(&uint64s.map(u64::to_le_bytes)),
        ),
        (Elem::Int8, "INT8", ints([-128, 127]), vec![128, 127]),
        (Elem::Int16, "INT16", ints([-32768, 7]), bytes(&[-32768_i16, 7].map(i16::to_le_bytes))),
        (Elem::Int32, "INT32", ints([i32::MIN, 7]), bytes(&[i32::MIN, 7].map(i32::to_le_bytes))),
        (
            Elem::Int64,
            "INT64",
            Some(contents(|it| it.int64_contents = int64s.to_vec())),
            bytes(&int64s.map(i64::to_le_bytes)),
        ),
    ]
}

fn other_elements() -> Vec<Case> {
    let (singles, doubles) = ([0.1, f32::INFINITY], [0.1_f64, 5e-324]);
    let texts = vec![b"a\xff".to_vec().into(), Vec::new().into()];
    vec![
        (Elem::Bool, "BOOL", Some(contents(|it| it.bool_contents = vec![true, false])), vec![1, 0]),
        (Elem::Float16, "FP16", None, vec![0x00, 0x38, 0x00, 0xfc]),
        (Elem::BFloat16, "BF16", None, vec![0x00, 0x3f, 0x80, 0x7f]),
        (
            Elem::Float,
            "FP32",
            Some(contents(|it| it.fp32_contents = singles.to_vec())),
            floats(&singles),
        ),
        (
            Elem::Double,
            "FP64",
            Some(contents(|it| it.fp64_contents = doubles.to_vec())),
            bytes(&doubles.map(f64::to_le_bytes)),
        ),
        (
            Elem::String,
            "BYTES",
            Some(contents(|it| it.bytes_contents = texts)),
            b"\x02\0\0\0a\xff\0\0\0\0".to_vec(),
        ),
    ]
}

#[tokio::test]
async fn every_datatype_comes_back_as_it_was_sent() {
    let cases = [whole_numbers(), other_elements()].concat();
    assert_eq!(cases.len(), Elem::ALL.len());
    let repository = Repository::empty();
    for (elem, datatype, ..) in &cases {
        repository.put(&format!("id-{datatype}"), 1, &identity(*elem, &[Dim::Symbolic("n")]));
    }
    let server = Server::start(repository).await;
    let mut client = server.grpc().await;
    for (_, datatype, contents, bytes) in cases {
        let model = format!("id-{datatype}");
        let in_bytes = raw(&model, &[("x", datatype, &[2], &bytes)]);
        let mut typed = ModelInferRequest { raw_input_contents: Vec::new(), ..in_bytes.clone() };
        let has_field = contents.is_some();
        typed.inputs[0].contents = contents;
        for request in std::iter::once(in_bytes).chain(has_field.then_some(typed)) {
            let answer = client.model_infer(request).await.unwrap().into_inner();
            let (name, version) = (answer.model_name.as_str(), answer.model_version.as_str());
            assert_eq!((name, version), (model.as_str(), "1"));
            let [output] = answer.outputs.as_slice() else { panic!("{answer:?}") };
            let told = (output.name.as_str(), output.datatype.as_str(), output.shape.as_slice());
            assert_eq!(told, ("y", datatype, &[2][..]));
            assert_eq!(
                (&output.contents, answer.raw_output_contents),
                (&None, vec![bytes.clone().into()])
            );
        }
    }
}

#[tokio::test]
async fn outputs_come_in_the_order_asked_for_and_the_id_comes_back() {
    let server = Server::start(Repository::of("pair", &two_inputs_two_outputs())).await;
    let (a, b) = (floats(&[1.0, 2.0]), 7_i64.to_le_bytes());
    let mut request = raw("pair", &[("b", "INT64", &[1], &b), ("a", "FP32", &[1, 2], &a)]);
    request.id = "mine".to_owned();
    request.parameters.insert("colour".to_owned(), parameter(ParameterChoice::BoolParam(true)));
    // On both ports.
    for mut client in [server.grpc().await, connect(server.address).await] {
        let asked = |outputs: &[&str]| ModelInferRequest {
            outputs: outputs.iter().map(|name| wanted(name)).collect(),
            ..request.clone()
        };
        for (outputs, expected) in [
            (&[][..], vec!["sum", "b_out"]),
            (&["b_out", "sum"], vec!["b_out", "sum"]),
            (&["sum"], vec!["sum"]),
        ] {
            let answer = client.model_infer(asked(outputs)).await.unwrap();
            let digest = answer.metadata().get("x-onward-digest").unwrap().to_str().unwrap();
            assert!(digest.starts_with("sha256:"), "{digest}");
            let answer = answer.into_inner();
            let names: Vec<&str> =
                answer.outputs.iter().map(|output| output.name.as_str()).collect();
            assert_eq!((answer.id.as_str(), names), ("mine", expected));
            assert_eq!(answer.raw_output_contents.len(), answer.outputs.len());
        }
    }
}

#[tokio::test]
async fn an_output_can_be_classified() {
    let repository = Repository::of("add", &add_constant(1.0));
    let server = Server::start(repository).await;
    let mut request = x("add", &[1, 4], &[0.0, 5.0, 2.0, 3.0]);
    let mut output = wanted("y");
    let two = parameter(ParameterChoice::Int64Param(2));
    output.parameters.insert("classification".to_owned(), two);
    request.outputs = vec![output];
    let answer = server.grpc().await.model_infer(request).await.unwrap().into_inner();
    let told = (answer.outputs[0].datatype.as_str(), answer.outputs[0].shape.as_slice());
    assert_eq!(told, ("BYTES", &[1, 2][..]));
    let text = String::from_utf8(answer.raw_output_contents[0].to_vec()).unwrap();
    assert!(text.contains("6.000000:1") && text.contains("4.000000:3"), "{text:?}");
}

#[tokio::test]
async fn the_server_and_its_models_tell_what_they_are() {
    let repository = Repository::of("id", &with_symbolic_and_fixed());
    let server = Server::start(repository.and("id", 3, &with_symbolic_and_fixed())).await;
    let mut client = server.grpc().await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let told = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    let rest = server.get("/v2").await.ok();
    let expected =
        json!({ "name": told.name, "version": told.version, "extensions": told.extensions });
    assert_eq!(rest, expected);
    for version in ["", "3"] {
        let request = ModelMetadataRequest { name: "id".to_owned(), version: version.to_owned() };
        let model = client.model_metadata(request).await.unwrap().into_inner();
        assert_eq!(
            (model.versions, model.platform.as_str()),
            (vec!["3".to_owned()], "onnxruntime_onnx")
        );
        let tensor = &model.inputs[0];
        let told = (tensor.name.as_str(), tensor.datatype.as_str(), tensor.shape.as_slice());
        assert_eq!(told, ("x", "FP32", &[-1, 3, -1][..]));
        assert_eq!(model.outputs[0].name, "y");
    }
    for (name, version, expected) in
        [("id", "", true), ("id", "3", true), ("id", "9", false), ("no", "", false)]
    {
        let request = ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
        let ready = client.model_ready(request).await.unwrap().into_inner().ready;
        assert_eq!(ready, expected, "{name} {version}");
    }
    let unknown = ModelMetadataRequest { name: "no".to_owned(), version: String::new() };
    let unknown = client.model_metadata(unknown).await.unwrap_err();
    refused(&unknown, (Code::NotFound, "unknown_model"), &["Request for unknown model"]);
    let version = ModelMetadataRequest { name: "id".to_owned(), version: "01".to_owned() };
    let version = client.model_metadata(version).await.unwrap_err();
    let text = "failed to get model version from specified version string '01'";
    refused(&version, (Code::InvalidArgument, "invalid_name"), &[text]);
}

#[tokio::test]
async fn models_are_loaded_and_unloaded() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let mut client = server.grpc().await;
    let index = async |client: &mut Client, ready| {
        let request = RepositoryIndexRequest { ready, ..RepositoryIndexRequest::default() };
        let models = client.repository_index(request).await.unwrap().into_inner().models;
        let told = models
            .into_iter()
            .map(|model| format!("{} {} {}", model.name, model.version, model.state));
        told.collect::<Vec<_>>()
    };
    assert_eq!(index(&mut client, true).await, ["add 1 READY"]);
    let model_name = "add".to_owned();
    let unload =
        RepositoryModelUnloadRequest { model_name: model_name.clone(), ..Default::default() };
    client.repository_model_unload(unload).await.unwrap();
    assert_eq!(index(&mut client, true).await, [""; 0]);
    assert_eq!(index(&mut client, false).await, ["add 1 UNAVAILABLE"]);
    let gone = client.model_infer(x("add", &[1, 4], &[0.0; 4])).await.unwrap_err();
    refused(&gone, (Code::NotFound, "model_not_loaded"), &["add"]);
    let load = RepositoryModelLoadRequest { model_name, ..Default::default() };
    client.repository_model_load(load).await.unwrap();
    client.model_infer(x("add", &[1, 4], &[0.0; 4])).await.unwrap();
    let load = RepositoryModelLoadRequest { model_name: "no".to_owned(), ..Default::default() };
    let unknown = client.repository_model_load(load).await.unwrap_err();
    refused(&unknown, (Code::NotFound, "unknown_model"), &["no"]);
}

#[tokio::test]
async fn health_follows_readiness() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    let mut client = HealthClient::new(channel(server.grpc_address().await).await);
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let (serving, not_serving) =
        (HealthCheckResponse { status: 1 }, HealthCheckResponse { status: 2 });
    for service in ["", "inference.GRPCInferenceService"] {
        assert_eq!(client.check(ask(service)).await.unwrap().into_inner(), serving);
    }
    let unknown = client.check(ask("other")).await.unwrap_err();
    refused(&unknown, (Code::NotFound, "not_found"), &["other"]);
    let mut watched = client.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap(), Some(serving));
    server.post("/lifecycle/drain", &json!({ "reason": "maintenance" })).await.ok();
    assert_eq!(watched.message().await.unwrap(), Some(not_serving));
    server.post("/lifecycle/resume", &json!({})).await;
    assert_eq!(watched.message().await.unwrap(), Some(serving));
    let mut unknown = client.watch(ask("other")).await.unwrap().into_inner();
    assert_eq!(unknown.message().await.unwrap(), Some(HealthCheckResponse { status: 3 }));
    server.process.signal("TERM");
    assert_eq!(watched.message().await.unwrap(), Some(not_serving));
    refused(&watched.message().await.unwrap_err(), (Code::Unavailable, "shutting_down"), &[]);
}

#[tokio::test]
async fn a_model_tells_how_it_is_set_up_over_both_interfaces() {
    let repository = Repository::of("id", &with_symbolic_and_fixed());
    let settings = "version_policy: all\ninstances: 2\n";
    let server = Server::start(repository.with_settings("id", settings)).await;
    let mut client = server.grpc().await;
    for (version, path) in [("", "/v2/models/id/config"), ("1", "/v2/models/id/versions/1/config")]
    {
        let request = ModelConfigRequest { name: "id".to_owned(), version: version.to_owned() };
        let config = client.model_config(request).await.unwrap().into_inner().config.unwrap();
        let told = (config.name.as_str(), config.platform.as_str(), config.backend.as_str());
        assert_eq!(told, ("id", "onnxruntime_onnx", "onnxruntime"));
        assert_eq!((config.max_batch_size, config.instance_group[0].count), (i32::MAX, 2));
        assert_eq!(
            (config.input[0].dims.as_slice(), config.input[0].data_type),
            (&[3, -1][..], 11)
        );
        let rest = server.get(path).await.ok();
        assert_eq!(rest["name"], config.name);
        assert_eq!(rest["max_batch_size"], config.max_batch_size);
        assert_eq!(rest["version_policy"], json!({ "all": {} }));
        assert_eq!(rest["instance_group"][0]["count"], 2);
        let tensor =
            json!({ "name": "x", "data_type": "TYPE_FP32", "dims": [3, -1], "optional": false });
        assert_eq!(rest["input"], json!([tensor]));
        assert_eq!(
            rest["output"],
            json!([{ "name": "y", "data_type": "TYPE_FP32", "dims": [3, -1] }])
        );
    }
    let unknown = ModelConfigRequest { name: "no".to_owned(), version: String::new() };
    let unknown = client.model_config(unknown).await.unwrap_err();
    refused(&unknown, (Code::NotFound, "unknown_model"), &["no"]);
    server.get("/v2/models/no/config").await.refused(404, "unknown_model", &["no"]);
}

/// What has been spent on requests with batches of three and of one, and on one that was refused.
fn spent_on_two_and_a_mistake(told: &ModelStatistics) {
    let spent = told.inference_stats.unwrap();
    let (success, infer) = (spent.success.unwrap(), spent.compute_infer.unwrap());
    assert_eq!((success.count, spent.fail.unwrap().count, infer.count), (2, 1, 2));
    let (input, output) = (spent.compute_input.unwrap(), spent.compute_output.unwrap());
    assert_eq!((input.count, output.count), (2, 2));
    assert!(input.ns > 0 && infer.ns > 0 && output.ns > 0);
    assert!(success.ns >= input.ns + infer.ns + output.ns);
    let sizes: Vec<u64> = told.batch_stats.iter().map(|batch| batch.batch_size).collect();
    assert_eq!(sizes, [1, 3]);
    let of = |step: fn(&InferBatchStatistics) -> Option<StatisticDuration>| {
        let steps: Vec<_> = told.batch_stats.iter().map(|batch| step(batch).unwrap()).collect();
        assert!(steps.iter().all(|step| step.count == 1));
        steps.iter().map(|step| step.ns).sum::<u64>()
    };
    assert_eq!(of(|batch| batch.compute_input), input.ns);
    assert_eq!(of(|batch| batch.compute_infer), infer.ns);
    assert_eq!(of(|batch| batch.compute_output), output.ns);
    assert!(told.response_stats.is_empty());
}

#[tokio::test]
async fn what_models_have_done_is_told_over_both_interfaces() {
    let repository = Repository::of("add", &add_constant(1.0)).and("idle", 1, &add_constant(1.0));
    let server = Server::start(repository).await;
    let mut client = server.grpc().await;
    client.model_infer(x("add", &[3, 4], &[0.0; 12])).await.unwrap();
    client.model_infer(x("add", &[1, 4], &[0.0; 4])).await.unwrap();
    client.model_infer(x("add", &[1, 3], &[0.0; 3])).await.unwrap_err();
    for version in ["", "1"] {
        let request =
            ModelStatisticsRequest { name: "add".to_owned(), version: version.to_owned() };
        let told = client.model_statistics(request).await.unwrap().into_inner().model_stats;
        let [told] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((told.name.as_str(), told.version.as_str()), ("add", "1"));
        assert!(told.last_inference > 1_700_000_000_000);
        assert_eq!((told.inference_count, told.execution_count), (4, 2));
        spent_on_two_and_a_mistake(told);
    }
    let rest = server.get("/v2/models/add/stats").await.ok();
    assert_eq!(rest, server.get("/v2/models/add/versions/1/stats").await.ok());
    let item = &rest["model_stats"][0];
    assert_eq!((&item["inference_count"], &item["execution_count"]), (&json!(4), &json!(2)));
    assert_eq!(item["inference_stats"]["fail"]["count"], 1);
    assert_eq!(item["batch_stats"][1]["batch_size"], 3);
    assert_eq!(item["batch_stats"][1]["compute_infer"]["count"], 1);
    assert!(item["inference_stats"]["compute_input"]["ns"].as_u64() > Some(0));
    let idle = &server.get("/v2/models/idle/stats").await.ok()["model_stats"][0];
    assert_eq!((&idle["batch_stats"], &idle["response_stats"]), (&json!([]), &json!({})));
    let all = server.get("/v2/models/stats").await.ok();
    let names: Vec<&str> = all["model_stats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["add", "idle"]);
    let everything = ModelStatisticsRequest::default();
    let told = client.model_statistics(everything).await.unwrap().into_inner().model_stats;
    assert_eq!(told.len(), 2);
    server.get("/v2/models/no/stats").await.refused(404, "unknown_model", &["no"]);
    let unknown = ModelStatisticsRequest { name: "no".to_owned(), version: String::new() };
    let unknown = client.model_statistics(unknown).await.unwrap_err();
    refused(&unknown, (Code::NotFound, "unknown_model"), &["no"]);
}

#[tokio::test]
async fn every_call_has_an_id() {
    let settings = [("telemetry.access_log", "true")];
    let server = Server::start_with(Repository::of("add", &add_constant(1.0)), &settings).await;
    let mut client = server.grpc().await;
    let infer = async |client: &mut Client, given: Option<&str>, of_message: &str| {
        let message =
            ModelInferRequest { id: of_message.to_owned(), ..x("add", &[1, 4], &[0.0; 4]) };
        let mut request = Request::new(message);
        given.map(|id| request.metadata_mut().insert("x-request-id", id.parse().unwrap()));
        let answer = client.model_infer(request).await.unwrap();
        answer.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(infer(&mut client, Some("a-1"), "of-message").await, "a-1");
    assert_eq!(infer(&mut client, None, "of-message").await, "of-message");
    assert_eq!(infer(&mut client, Some("two words"), "a message").await.len(), 18);
    for id in ["a-1", "of-message"] {
        server.process.logged(&["onward::access", &format!("\"request_id\":\"{id}\"")]).await;
    }
    let failed = client.model_infer(x("nothing", &[1, 4], &[0.0; 4])).await.unwrap_err();
    let made = failed.metadata().get("x-request-id").unwrap().to_str().unwrap();
    server.process.logged(&["onward::access", "unknown_model", made]).await;
    let live = client.server_live(ServerLiveRequest {}).await.unwrap();
    assert!(live.metadata().contains_key("x-request-id"));
}
