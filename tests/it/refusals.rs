//! The same mistakes over every way that a request can come: each is refused with the same text, and
//! whoever has made it is answered on.

use serde_json::{Map, Value, json};
use tonic::Code;

use crate::support::connection::Connection;
use crate::support::grpc::proto::infer_parameter::ParameterChoice;
use crate::support::grpc::proto::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use crate::support::grpc::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelStreamInferResponse,
};
use crate::support::grpc::{Client, Stream};
use crate::support::onnx::{
    Dim, Elem, Graph, Node, add_constant, identity, two_inputs_two_outputs, with_symbolic_and_fixed,
};
use crate::support::{Repository, Server};

/// A mistake, and what is said of it.
#[derive(Debug, Clone)]
struct Case {
    model: &'static str,
    version: &'static str,
    inputs: Vec<Tensor>,
    outputs: Vec<Output>,
    parameters: Vec<Parameter>,
    status: (u16, Code, &'static str),
    told: Vec<&'static str>,
    /// Whether it is told of elements in one form and of bytes in another.
    differs: bool,
    /// Whether it is the model's own, and counted as such.
    counted: bool,
}

type Parameter = (&'static str, Value);

#[derive(Debug, Clone)]
struct Tensor {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<i64>,
    data: Data,
    parameters: Vec<Parameter>,
}

#[derive(Debug, Clone)]
struct Output {
    name: &'static str,
    parameters: Vec<Parameter>,
}

#[derive(Debug, Clone)]
enum Data {
    Floats(Vec<f32>),
    Doubles(Vec<f64>),
    Ints(Vec<i64>),
    Texts(Vec<&'static str>),
}

/// Of the model `add`.
fn case(inputs: &[Tensor], told: &[&'static str]) -> Case {
    Case {
        model: "add",
        version: "",
        inputs: inputs.to_vec(),
        outputs: Vec::new(),
        parameters: Vec::new(),
        status: (400, Code::InvalidArgument, "invalid_request"),
        told: told.to_vec(),
        differs: false,
        counted: false,
    }
}

impl Case {
    fn to(self, model: &'static str) -> Self {
        Self { model, ..self }
    }

    fn at(self, version: &'static str) -> Self {
        Self { version, ..self }
    }

    fn wanting(mut self, name: &'static str, parameters: &[Parameter]) -> Self {
        self.outputs.push(Output { name, parameters: parameters.to_vec() });
        self
    }

    fn with(self, name: &'static str, value: Value) -> Self {
        Self { parameters: vec![(name, value)], ..self }
    }

    fn of(self, status: u16, code: Code, name: &'static str) -> Self {
        Self { status: (status, code, name), ..self }
    }

    fn unsupported(self) -> Self {
        self.of(501, Code::Unimplemented, "unsupported")
    }

    fn counted(self) -> Self {
        Self { counted: true, ..self }
    }

    fn differs(self) -> Self {
        Self { differs: true, ..self }
    }
}

/// An FP32 tensor.
fn floats(name: &'static str, shape: &[i64], values: &[f32]) -> Tensor {
    tensor((name, "FP32", shape), Data::Floats(values.to_vec()))
}

fn tensor((name, datatype, shape): (&'static str, &'static str, &[i64]), data: Data) -> Tensor {
    Tensor { name, datatype, shape: shape.to_vec(), data, parameters: Vec::new() }
}

fn x() -> Tensor {
    floats("x", &[1, 4], &[0.0; 4])
}

impl Data {
    fn json(&self) -> Value {
        match self {
            Self::Floats(values) => json!(values),
            Self::Doubles(values) => json!(values),
            Self::Ints(values) => json!(values),
            Self::Texts(values) => json!(values),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Floats(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Doubles(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Ints(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Texts(values) => values.iter().flat_map(|text| prefixed(text)).collect(),
        }
    }

    fn contents(&self) -> InferTensorContents {
        let mut contents = InferTensorContents::default();
        match self {
            Self::Floats(values) => contents.fp32_contents.clone_from(values),
            Self::Doubles(values) => contents.fp64_contents.clone_from(values),
            Self::Ints(values) => contents.int64_contents.clone_from(values),
            Self::Texts(values) => {
                contents.bytes_contents = values.iter().map(|text| (*text).into()).collect();
            }
        }
        contents
    }
}

fn prefixed(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes()].concat()
}

/// What a request over REST says in JSON, with the data of its tensors or how many bytes they have.
fn rest(case: &Case, is_binary: bool) -> Value {
    let inputs = case.inputs.iter().map(|input| {
        let mut parameters = object(&input.parameters);
        let mut body =
            json!({ "name": input.name, "shape": input.shape, "datatype": input.datatype });
        if is_binary {
            parameters.insert("binary_data_size".to_owned(), json!(input.data.bytes().len()));
        } else {
            body["data"] = input.data.json();
        }
        body["parameters"] = Value::Object(parameters);
        body
    });
    let output =
        |output: &Output| json!({ "name": output.name, "parameters": object(&output.parameters) });
    json!({
        "parameters": object(&case.parameters),
        "inputs": inputs.collect::<Vec<_>>(),
        "outputs": case.outputs.iter().map(output).collect::<Vec<_>>(),
    })
}

fn object(parameters: &[Parameter]) -> Map<String, Value> {
    parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// A request over gRPC, with the elements of its tensors in their fields or as bytes.
fn message(case: &Case, is_raw: bool) -> ModelInferRequest {
    let input = |input: &Tensor| InferInputTensor {
        name: input.name.to_owned(),
        datatype: input.datatype.to_owned(),
        shape: input.shape.clone(),
        parameters: choices(&input.parameters),
        contents: (!is_raw).then(|| input.data.contents()),
    };
    let output = |output: &Output| InferRequestedOutputTensor {
        name: output.name.to_owned(),
        parameters: choices(&output.parameters),
    };
    let raw = case.inputs.iter().filter(|_| is_raw).map(|input| input.data.bytes().into());
    ModelInferRequest {
        model_name: case.model.to_owned(),
        model_version: case.version.to_owned(),
        parameters: choices(&case.parameters),
        inputs: case.inputs.iter().map(input).collect(),
        outputs: case.outputs.iter().map(output).collect(),
        raw_input_contents: raw.collect(),
        ..ModelInferRequest::default()
    }
}

fn choices(parameters: &[Parameter]) -> std::collections::BTreeMap<String, InferParameter> {
    let choice = |value: &Value| match value {
        Value::Number(number) => ParameterChoice::Int64Param(number.as_i64().unwrap()),
        Value::String(text) => ParameterChoice::StringParam(text.clone()),
        other => ParameterChoice::BoolParam(other.as_bool().unwrap()),
    };
    let parameter = |value| InferParameter { parameter_choice: Some(choice(value)) };
    parameters.iter().map(|(name, value)| ((*name).to_owned(), parameter(value))).collect()
}

/// A client of each kind, each with one connection to the same server.
struct Clients {
    connection: Connection,
    grpc: Client,
    stream: Stream,
}

impl Clients {
    async fn of(server: &Server) -> Self {
        let connection = Connection::open(server.address).await;
        let mut grpc = server.grpc().await;
        let stream = Stream::open(&mut grpc).await;
        Self { connection, grpc, stream }
    }

    /// Makes the mistake in every way; what it is told.
    async fn refusals(&mut self, case: &Case) -> [String; 5] {
        [
            self.over_rest(case, false).await,
            self.over_rest(case, true).await,
            self.over_grpc(case, false).await,
            self.over_grpc(case, true).await,
            self.over_a_stream(case).await,
        ]
    }

    async fn over_rest(&mut self, case: &Case, is_binary: bool) -> String {
        let version = Some(case.version).filter(|version| !version.is_empty());
        let version = version.map(|version| format!("/versions/{version}")).unwrap_or_default();
        let path = format!("/v2/models/{}{version}/infer", case.model);
        let header = rest(case, is_binary).to_string();
        let length = header.len().to_string();
        let tail: Vec<u8> = if is_binary {
            case.inputs.iter().flat_map(|input| input.data.bytes()).collect()
        } else {
            Vec::new()
        };
        let headers = [("inference-header-content-length", length.as_str())];
        let headers = if is_binary { &headers[..] } else { &[] };
        let body = [header.as_bytes(), &tail].concat();
        let answer = self.connection.post(&path, headers, &body).await;
        let (status, _, code) = case.status;
        answer.refused(status, code, &case.told);
        answer.json()["error"].as_str().unwrap().to_owned()
    }

    async fn over_grpc(&mut self, case: &Case, is_raw: bool) -> String {
        let refusal = self.grpc.model_infer(message(case, is_raw)).await.unwrap_err();
        let (_, code, name) = case.status;
        crate::support::grpc::refused(&refusal, (code, name), &case.told);
        refusal.message().to_owned()
    }

    async fn over_a_stream(&mut self, case: &Case) -> String {
        self.stream.send("bad", message(case, true));
        let ModelStreamInferResponse { error_message, infer_response } = self.stream.answer().await;
        let told = infer_response.unwrap();
        let code = ParameterChoice::StringParam(case.status.2.to_owned());
        assert_eq!(told.parameters["onward-error-code"].parameter_choice, Some(code));
        assert_eq!(told.id, "bad");
        error_message
    }

    /// Asks without a mistake, on the same connections.
    async fn are_answered(&mut self) {
        let good = case(&[x()], &[]);
        let body = rest(&good, false).to_string();
        let answer = self.connection.post("/v2/models/add/infer", &[], body.as_bytes()).await;
        assert_eq!(answer.output("y"), json!([1.0, 1.0, 1.0, 1.0]));
        self.grpc.model_infer(message(&good, true)).await.unwrap();
        self.stream.send("good", message(&good, false));
        assert_eq!(self.stream.answer().await.error_message, "");
    }
}

/// How many requests of all models ended so, by the metrics.
async fn ended(server: &Server, outcome: &str) -> u64 {
    let metrics = String::from_utf8(server.get("/metrics").await.body).unwrap();
    let lines = metrics.lines().filter(|line| {
        line.starts_with("onward_inference_requests_total{")
            && line.contains(&format!("outcome=\"{outcome}\""))
    });
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

async fn server() -> Server {
    let free = [Dim::Symbolic("n")];
    let sum = Graph::new("sum")
        .input("a", Elem::Float, &free)
        .input("b", Elem::Float, &[Dim::Symbolic("m")])
        .output("y", Elem::Float, &free)
        .node(&Node::new("Add", &["a", "b"], &["y"]))
        .into_model();
    let repository = Repository::of("add", &add_constant(1.0))
        .and("pair", 1, &two_inputs_two_outputs())
        .and("texts", 1, &identity(Elem::String, &free))
        .and("cube", 1, &with_symbolic_and_fixed())
        .and("sum", 1, &sum)
        .and("small", 1, &add_constant(1.0))
        .with_settings("small", "max_batch_size: 2\n");
    Server::start(repository).await
}

async fn check(cases: Vec<Case>) {
    let server = server().await;
    let mut clients = Clients::of(&server).await;
    let mut counted = 0;
    for case in cases {
        let told = clients.refusals(&case).await;
        if !case.differs {
            assert!(told.iter().all(|text| *text == told[0]), "{told:#?}");
        }
        counted += if case.counted { 5 } else { 0 };
        assert_eq!(ended(&server, "invalid").await, counted, "{case:?}");
        clients.are_answered().await;
    }
    assert_eq!(ended(&server, "failed").await, 0);
}

#[tokio::test]
async fn inputs_and_outputs_that_the_model_has_not() {
    let q = floats("q", &[1, 4], &[0.0; 4]);
    let b = tensor(("b", "INT64", &[1]), Data::Ints(vec![7]));
    check(vec![
        case(&[], &["missing input 'x' of datatype FP32 and shape [-1,4]"]).counted(),
        case(&[b], &["missing input 'a' of datatype FP32 and shape [-1,2]"]).to("pair").counted(),
        case(&[x(), q.clone()], &["unexpected input 'q', the model takes 'x'"]).counted(),
        case(&[q], &["unexpected input 'q', the model takes 'x'"]).counted(),
        case(&[x(), x()], &["input 'x' is given more than once"]).counted(),
        case(&[x()], &["unexpected output 'z', the model gives 'y'"]).wanting("z", &[]).counted(),
        case(&[x()], &["output 'y' is asked for more than once"])
            .wanting("y", &[])
            .wanting("y", &[])
            .counted(),
        case(&[x()], &["unexpected output '', the model gives 'y'"]).wanting("", &[]).counted(),
    ])
    .await;
}

#[tokio::test]
async fn datatypes_that_do_not_fit() {
    let ints = |datatype| tensor(("x", datatype, &[1, 4]), Data::Ints(vec![0; 4]));
    let doubles = tensor(("x", "FP64", &[1, 4]), Data::Doubles(vec![0.0; 4]));
    let texts = tensor(("x", "BYTES", &[1, 4]), Data::Texts(vec!["0"; 4]));
    let unknown = |datatype| tensor(("x", datatype, &[1, 4]), Data::Floats(vec![0.0; 4]));
    let mut cases = vec![
        case(&[ints("INT64")], &["input 'x' must be FP32, got INT64"]).counted(),
        case(&[doubles], &["input 'x' must be FP32, got FP64"]).counted(),
        case(&[texts], &["input 'x' must be FP32, got BYTES"]).counted(),
        case(&[x()], &["input 'x' must be BYTES, got FP32"]).to("texts").counted(),
    ];
    for datatype in ["FLOAT", "fp32", "", "FP32 ", "STRING", "TYPE_FP32", "\u{fc}\n"] {
        let told = &["input 'x': unknown datatype '", "expected one of BOOL, UINT8,", "BYTES"];
        cases.push(case(&[unknown(datatype)], told));
    }
    check(cases).await;
}

#[tokio::test]
async fn shapes_that_do_not_fit_the_model_or_the_data() {
    let zeros = |shape: &[i64], count: usize| floats("x", shape, &vec![0.0; count]);
    let vector = |name, count: i64| {
        let values = vec![1.0; usize::try_from(count).unwrap()];
        floats(name, &[count], &values)
    };
    let must = "input 'x' must have shape [-1,4], got";
    let huge = 1 << 62;
    check(vec![
        case(&[zeros(&[1, 3], 3)], &[must, "[1,3]"]).counted(),
        case(&[zeros(&[4], 4)], &[must, "[4]"]).counted(),
        case(&[zeros(&[], 1)], &[must, "got []"]).counted(),
        case(&[zeros(&[1, 4, 1], 4)], &[must, "[1,4,1]"]).counted(),
        case(&[zeros(&[4, 0], 0)], &[must, "[4,0]"]).counted(),
        case(&[zeros(&[1, 4], 3)], &["input 'x'", "shape [1,4] needs", "got"]).differs(),
        case(&[zeros(&[1, 4], 5)], &["input 'x'", "shape [1,4] needs", "got"]).differs(),
        case(&[zeros(&[0, 4], 4)], &["input 'x'", "shape [0,4] needs 0", "got"]).differs(),
        case(&[zeros(&[1, 4], 0)], &["input 'x'", "shape [1,4] needs", "got 0"]).differs(),
        case(
            &[zeros(&[-1, 4], 4)],
            &["input 'x': a dimension is a whole number, 0 or more", "[-1,4]"],
        ),
        case(&[zeros(&[1, i64::MIN], 4)], &["input 'x'", "got -9223372036854775808 in the shape"]),
        case(
            &[zeros(&[huge, 4], 4)],
            &["input 'x'", "shape [4611686018427387904,4]", "too many elements"],
        ),
        case(&[zeros(&[i64::MAX, i64::MAX], 4)], &["input 'x'", "too many elements"]),
        case(&[zeros(&[1 << 40, 1 << 40, 0], 0)], &["input 'x'", "too many elements"]),
        case(&[zeros(&[huge, huge, huge, huge, 4], 4)], &["input 'x'", "too many elements"]),
        case(&[zeros(&[1 << 60, 4], 4)], &["input 'x'"]).differs(),
        case(
            &[zeros(&[3, 4], 12)],
            &["batch-size must be <= 2 for 'small'", "'x' has a batch of 3"],
        )
        .to("small")
        .counted(),
        case(&[vector("a", 2), vector("b", 3)], &["the model cannot compute this input"])
            .to("sum")
            .counted(),
    ])
    .await;
}

#[tokio::test]
async fn parameters_that_make_no_sense_or_are_not_done() {
    let sound = || case(&[x()], &["parameter '"]);
    let mut shared = x();
    shared.parameters = vec![("shared_memory_region", json!("r"))];
    let region = [("shared_memory_region", json!("r"))];
    check(vec![
        sound().with("triton_x", json!(1)),
        sound().with("timeout", json!("soon")),
        sound().with("timeout", json!(-1)),
        sound().with("timeout", json!(true)),
        sound().with("priority", json!("high")),
        sound().with("routing_key", json!(7)),
        sound().with("sequence_id", json!(1)).unsupported(),
        sound().with("sequence_start", json!(true)).unsupported(),
        case(&[shared], &["input 'x': 'shared_memory_region' is not supported"]).unsupported(),
        case(&[x()], &["output 'y': 'shared_memory_region' is not supported"])
            .wanting("y", &region)
            .unsupported(),
        case(&[x()], &["output 'y': parameter 'classification' is a number of classes, got -1"])
            .wanting("y", &[("classification", json!(-1))]),
        case(&[x()], &["output 'y'", "got \"all\""])
            .wanting("y", &[("classification", json!("all"))]),
        case(
            &[tensor(("x", "BYTES", &[1]), Data::Texts(vec!["a"]))],
            &["output 'y': an output of BYTES cannot be classified"],
        )
        .to("texts")
        .wanting("y", &[("classification", json!(1))]),
    ])
    .await;
}

#[tokio::test]
async fn models_and_versions_that_are_not_there() {
    let missing = |name| case(&[x()], &["Request for unknown model"]).of(404, Code::NotFound, name);
    let spelled = &["failed to get model version from specified version string"];
    let spelled =
        |version| case(&[x()], spelled).at(version).of(400, Code::InvalidArgument, "invalid_name");
    check(vec![
        missing("unknown_model").to("nope"),
        missing("unknown_version").at("9"),
        case(&[x()], &["'stable'"]).at("stable").of(404, Code::NotFound, "unknown_alias"),
        spelled("0"),
        spelled("01"),
        spelled("-1"),
        spelled("1.0"),
        spelled("18446744073709551616"),
    ])
    .await;
}

/// Nothing is to be computed of dimensions that no elements belong to, however large they are.
#[tokio::test]
async fn tensors_without_elements_cost_nothing() {
    let server = server().await;
    let mut clients = Clients::of(&server).await;
    for classes in [None, Some(("classification", json!(2)))] {
        let parameters: Vec<Parameter> = classes.into_iter().collect();
        let empty = floats("x", &[1 << 60, 3, 0], &[]);
        let request = case(&[empty], &[]).to("cube").wanting("y", &parameters);
        let body = rest(&request, false).to_string();
        let answer = clients.connection.post("/v2/models/cube/infer", &[], body.as_bytes()).await;
        assert_eq!(answer.ok()["outputs"][0]["shape"][0], 1_u64 << 60);
        let answer = clients.grpc.model_infer(message(&request, true)).await.unwrap();
        assert_eq!(answer.into_inner().outputs[0].shape[0], 1 << 60);
    }
    clients.are_answered().await;
}

/// A name that is very long is not sent back as a whole, and what was expected is told all the same.
#[tokio::test]
async fn what_was_expected_is_told_also_of_very_long_names() {
    let server = server().await;
    let mut clients = Clients::of(&server).await;
    let name: &'static str = Box::leak("n".repeat(100_000).into_boxed_str());
    let told = &["unexpected input 'nnnn", "nnnn', the model takes 'x'"];
    let long = case(&[floats(name, &[1, 4], &[0.0; 4])], told);
    for text in clients.refusals(&long).await {
        assert!(text.len() < 5_000, "{}", text.len());
    }
    clients.are_answered().await;
}
