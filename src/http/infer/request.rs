//! The JSON of an inference request, and what it means to the core.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::http::body::{self, Object};
use crate::http::error::ApiError;
use crate::inference::{DataType, InferenceRequest, NamedTensor, Tensor};
use crate::json_tensors;

type Parameters = Map<String, Value>;

#[derive(Deserialize)]
struct Body<'a> {
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    inputs: Vec<Object<Input<'a>>>,
    #[serde(borrow, default)]
    outputs: Vec<Object<Output<'a>>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: Vec<usize>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    parameters: Parameters,
}

/// A request as the core takes it, with what concerns the exchange alone.
#[derive(Debug)]
pub(super) struct Decoded {
    /// To be returned as it is.
    pub(super) id: Option<String>,
    pub(super) request: InferenceRequest,
    /// How long the caller is ready to wait.
    pub(super) timeout: Option<Duration>,
    /// What the caller wants to be recognised by.
    pub(super) routing_key: Option<String>,
}

impl Decoded {
    /// Reads a body.
    ///
    /// # Errors
    /// The first thing that is wrong with it, named.
    pub(super) fn read(text: &[u8]) -> Result<Self, ApiError> {
        let body: Body<'_> = body::parse(text)?;
        check_parameters(&body.parameters)?;
        let timeout = timeout(&body.parameters)?;
        let routing_key = routing_key(&body.parameters)?;
        let inputs =
            body.inputs.into_iter().map(|Object(input)| tensor(input)).collect::<Result<_, _>>()?;
        let outputs = body
            .outputs
            .into_iter()
            .map(|Object(output)| wanted(output))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            id: body.id,
            request: InferenceRequest { inputs, outputs },
            timeout,
            routing_key,
        })
    }
}

/// What a request for binary tensors is told.
pub(super) fn binary_is_unsupported() -> ApiError {
    ApiError::unsupported("binary tensor data is not supported, send and ask for tensors as JSON")
}

fn tensor(input: Input<'_>) -> Result<NamedTensor, ApiError> {
    let name = input.name.into_owned();
    let wrong = |problem: String| ApiError::bad_request(format!("input '{name}': {problem}"));
    let datatype = DataType::from_name(&input.datatype)
        .ok_or_else(|| wrong(format!("unknown datatype '{}'", input.datatype)))?;
    let elsewhere = ["binary_data_size", "shared_memory_region"];
    let elsewhere = elsewhere.into_iter().find(|key| input.parameters.contains_key(*key));
    let data = match (input.data, elsewhere) {
        (Some(data), None) => data.get(),
        (None, Some("binary_data_size")) => return Err(binary_is_unsupported()),
        (None, Some(other)) => {
            return Err(ApiError::unsupported(format!(
                "input '{name}': '{other}' is not supported"
            )));
        }
        (Some(_), Some(key)) => {
            return Err(wrong(format!("give its 'data' or '{key}', not both")));
        }
        (None, None) => return Err(wrong("it has no 'data'".to_owned())),
    };
    let tensor: Tensor = json_tensors::read(datatype, input.shape, data)
        .map_err(|error| wrong(error.to_string()))?;
    Ok(NamedTensor { name, tensor })
}

fn wanted(output: Output<'_>) -> Result<String, ApiError> {
    let Output { name, parameters } = output;
    if is_true(&parameters, "binary_data") {
        return Err(binary_is_unsupported());
    }
    let unknown = ["classification", "shared_memory_region"];
    match unknown.into_iter().find(|key| parameters.contains_key(*key)) {
        Some(key) => {
            Err(ApiError::unsupported(format!("output '{name}': '{key}' is not supported")))
        }
        None => Ok(name.into_owned()),
    }
}

/// Refuses what is reserved and what is not done; whatever else there is may be the caller's own.
fn check_parameters(parameters: &Parameters) -> Result<(), ApiError> {
    if let Some(key) = parameters.keys().find(|key| key.starts_with("triton_")) {
        let text = format!("parameter '{key}' is reserved: names that begin with 'triton_' are");
        return Err(ApiError::bad_request(text));
    }
    if let Some(key) = parameters.keys().find(|key| key.starts_with("sequence_")) {
        let text = format!("parameter '{key}': models with state are not supported");
        return Err(ApiError::unsupported(text));
    }
    if is_true(parameters, "binary_data_output") { Err(binary_is_unsupported()) } else { Ok(()) }
}

/// The parameter `timeout`, in microseconds; zero is none, as in Triton.
fn timeout(parameters: &Parameters) -> Result<Option<Duration>, ApiError> {
    let Some(given) = parameters.get("timeout") else {
        return Ok(None);
    };
    let micros = given.as_u64().ok_or_else(|| {
        let text = format!("parameter 'timeout' is a number of microseconds, got {given}");
        ApiError::bad_request(text)
    })?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}

/// The parameter `routing_key`.
fn routing_key(parameters: &Parameters) -> Result<Option<String>, ApiError> {
    match parameters.get("routing_key") {
        None => Ok(None),
        Some(Value::String(key)) => Ok(Some(key.clone())),
        Some(other) => {
            let text = format!("parameter 'routing_key' is a string, got {other}");
            Err(ApiError::bad_request(text))
        }
    }
}

fn is_true(parameters: &Parameters, key: &str) -> bool {
    parameters.get(key) == Some(&Value::Bool(true))
}
