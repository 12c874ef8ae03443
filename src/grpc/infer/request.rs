//! A request, from its message to what the core takes.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::contents;
use crate::grpc::calls::target;
use crate::grpc::proto::infer_parameter::ParameterChoice;
use crate::grpc::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::grpc::proto::{InferParameter, ModelInferRequest};
use crate::inference::{DataType, NamedTensor, UnknownDataType};
use crate::model::Protocol;
use crate::oip::{Call, Inputs, Parameter, Parameters, Refusal, WantedOutput, raw, shape};

/// # Errors
/// The first thing that is wrong with it, named.
pub(super) fn read(request: ModelInferRequest) -> Result<Call, Refusal> {
    let ModelInferRequest { id, model_name, model_version, parameters, inputs, outputs, .. } =
        request;
    let raw = request.raw_input_contents;
    let (model, version) = target(&model_name, &model_version)?;
    let options = read_parameters(parameters)?.of_request()?;
    let tensors = if raw.is_empty() {
        inputs.into_iter().map(|input| tensor(input, None)).collect::<Result<_, _>>()?
    } else {
        raw_tensors(&model_name, inputs, raw)?
    };
    let outputs = outputs.into_iter().map(output).collect::<Result<_, _>>()?;
    let id = (!id.is_empty()).then(|| id.into());
    let (protocol, inputs) = (Protocol::Grpc, Inputs::Tensors(tensors));
    Ok(Call { protocol, id, trail: None, model, version, options, inputs, outputs })
}

fn raw_tensors(
    model: &str,
    inputs: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
) -> Result<Vec<NamedTensor>, Refusal> {
    let has_contents = |input: &&InferInputTensor| {
        input.contents.as_ref().is_some_and(|given| !contents::is_empty(given))
    };
    if let Some(input) = inputs.iter().find(has_contents) {
        let text = format!(
            "contents field must not be specified when using raw_input_contents for '{}' for model \
             '{model}'",
            input.name
        );
        return Err(Refusal::invalid(text));
    }
    match (inputs.get(raw.len()), raw.len().checked_sub(inputs.len())) {
        (Some(input), _) => {
            let text = format!(
                "input '{}' has no entry in raw_input_contents, which has {} for {} inputs",
                input.name,
                raw.len(),
                inputs.len()
            );
            Err(Refusal::invalid(text))
        }
        (None, Some(extra)) if extra > 0 => {
            let text = format!(
                "unexpected additional input data for model '{model}': raw_input_contents has {} \
                 entries for {} inputs",
                raw.len(),
                inputs.len()
            );
            Err(Refusal::invalid(text))
        }
        _ => inputs.into_iter().zip(raw).map(|(input, raw)| tensor(input, Some(raw))).collect(),
    }
}

fn tensor(input: InferInputTensor, raw: Option<Bytes>) -> Result<NamedTensor, Refusal> {
    let InferInputTensor { name, datatype, shape, parameters, contents } = input;
    let invalid = |problem: &str| Refusal::invalid(format!("input '{name}': {problem}"));
    read_parameters(parameters)?.is_not_shared(|| format!("input '{name}'"))?;
    let unknown = |unknown: UnknownDataType| invalid(&unknown.to_string());
    let datatype = datatype.parse::<DataType>().map_err(unknown)?;
    let dims = shape::read(&shape).map_err(|problem| invalid(&problem))?;
    let tensor = match raw {
        Some(raw) => raw::read(datatype, dims, raw).map_err(|error| invalid(&error.to_string()))?,
        None => contents::read(datatype, dims, contents.unwrap_or_default())
            .map_err(|error| invalid(&error.to_string()))?,
    };
    Ok(NamedTensor { name, tensor })
}

fn output(output: InferRequestedOutputTensor) -> Result<WantedOutput, Refusal> {
    WantedOutput::new(output.name, &read_parameters(output.parameters)?)
}

/// # Errors
/// A parameter without a value.
fn read_parameters(given: BTreeMap<String, InferParameter>) -> Result<Parameters, Refusal> {
    let parameter = |(name, parameter): (String, InferParameter)| {
        let value = match parameter.parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => Parameter::Bool(value),
            Some(ParameterChoice::Int64Param(value)) => Parameter::Int(value),
            Some(ParameterChoice::StringParam(text)) => Parameter::Text(text),
            Some(ParameterChoice::DoubleParam(value)) => Parameter::Double(value),
            Some(ParameterChoice::Uint64Param(value)) => Parameter::Uint(value),
            None => return Err(Refusal::invalid(format!("parameter '{name}' has no value"))),
        };
        Ok((name, value))
    };
    Ok(Parameters(given.into_iter().map(parameter).collect::<Result<_, _>>()?))
}
