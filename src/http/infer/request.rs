//! The body of an inference request: JSON, and after it the bytes of the tensors that say so.
//!
//! It is read in one pass. A tensor's `data` goes from its digits straight into its buffer, if its
//! datatype and shape have come before it, as they usually do; else it is gone back to.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::input;
use crate::http::body::is_blank;
use crate::http::error::ApiError;
use crate::http::wire::parameter;
use crate::inference::NamedTensor;
use crate::json_tensors::{Cursor, JsonError};
use crate::model::ModelName;
use crate::oip::{Inputs, Parameters, Refusal, RequestOptions, WantedOutput};

/// A request as it is taken, with what concerns the exchange over HTTP alone.
#[derive(Debug)]
pub(super) struct Decoded {
    /// To be returned as it is.
    pub(super) id: Option<String>,
    pub(super) options: RequestOptions,
    pub(super) inputs: Inputs,
    pub(super) outputs: Vec<WantedOutput>,
    pub(super) form: Form,
}

/// How the outputs are to be written.
#[derive(Debug, Clone, Default)]
pub(super) struct Form {
    /// Whether each output that is asked for is to come as bytes, in the order asked for.
    binary: Vec<Option<bool>>,
    /// What holds for those that do not say.
    all_binary: bool,
    pub(super) non_finite: NonFinite,
}

impl Form {
    /// All outputs come as bytes, or none.
    pub(super) fn all(is_binary: bool) -> Self {
        Self { all_binary: is_binary, ..Self::default() }
    }

    /// Whether the output at this place is to come as bytes.
    pub(super) fn is_binary(&self, place: usize) -> bool {
        self.binary.get(place).copied().flatten().unwrap_or(self.all_binary)
    }
}

/// What becomes of numbers that JSON has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum NonFinite {
    /// They are the strings `NaN`, `Infinity` and `-Infinity`, which can be sent back.
    #[default]
    Words,
    /// They are null, as most libraries write them.
    Null,
    /// An answer with one of them is refused.
    Refuse,
}

impl Decoded {
    /// Reads a body for a model, of which the JSON has `header` bytes; all of it where that is `None`.
    ///
    /// # Errors
    /// The first thing that is wrong with it, named.
    pub(super) fn read(
        mut body: Bytes,
        header: Option<usize>,
        model: &ModelName,
    ) -> Result<Self, ApiError> {
        if header == Some(0) {
            let form = Form::all(true);
            let (inputs, outputs) = (Inputs::Raw(body), Vec::new());
            return Ok(Self {
                id: None,
                options: RequestOptions::default(),
                inputs,
                outputs,
                form,
            });
        }
        if header.is_none() && is_blank(&body) {
            return Err(ApiError::EmptyBody);
        }
        let json = body.split_to(header.unwrap_or(body.len()));
        let mut reading = Reading::new(model, body);
        let mut cursor = if header.is_some() { Cursor::of_part(&json) } else { Cursor::new(&json) };
        cursor.object("", |cursor, key| reading.field(cursor, key))?;
        cursor.end()?;
        reading.finished()
    }
}

/// A body that is being read.
struct Reading<'a> {
    model: &'a ModelName,
    /// The bytes of tensors, in the order of the inputs.
    tail: Bytes,
    id: Option<String>,
    parameters: Option<Parameters>,
    inputs: Option<Vec<NamedTensor>>,
    outputs: Option<Vec<Output>>,
}

/// An output as it is asked for.
struct Output {
    wanted: WantedOutput,
    is_binary: Option<bool>,
}

impl<'a> Reading<'a> {
    fn new(model: &'a ModelName, tail: Bytes) -> Self {
        Self { model, tail, id: None, parameters: None, inputs: None, outputs: None }
    }

    fn field(&mut self, cursor: &mut Cursor<'_>, key: &str) -> Result<(), ApiError> {
        match key {
            "id" => set(&mut self.id, key, cursor.value(key)?),
            "parameters" => set(&mut self.parameters, key, parameters(cursor, key)?),
            "inputs" => {
                let inputs = self.inputs(cursor)?;
                set(&mut self.inputs, key, Some(inputs))
            }
            "outputs" => set(&mut self.outputs, key, Some(outputs(cursor)?)),
            _ => Ok(cursor.skip()?),
        }
    }

    fn inputs(&mut self, cursor: &mut Cursor<'_>) -> Result<Vec<NamedTensor>, ApiError> {
        let mut inputs = Vec::new();
        cursor.array("inputs", |cursor, index| {
            inputs.push(input::read(cursor, index, (self.model, &mut self.tail))?);
            Ok::<_, ApiError>(())
        })?;
        Ok(inputs)
    }

    fn finished(self) -> Result<Decoded, ApiError> {
        let missing = || JsonError::unexpected("", "missing field `inputs`");
        let inputs = self.inputs.ok_or_else(missing)?;
        if !self.tail.is_empty() {
            let (model, extra) = (self.model, self.tail.len());
            let text = format!(
                "unexpected additional input data for model '{model}': {extra} bytes are left after \
                 all inputs"
            );
            return Err(Refusal::invalid(text).into());
        }
        let parameters = self.parameters.unwrap_or_default();
        let options = parameters.of_request()?;
        let all_binary = parameters.bool("binary_data_output")?.unwrap_or(false);
        let non_finite = non_finite(&parameters)?;
        let asked = self.outputs.unwrap_or_default();
        let binary = asked.iter().map(|output| output.is_binary).collect();
        Ok(Decoded {
            id: self.id,
            options,
            inputs: Inputs::Tensors(inputs),
            outputs: asked.into_iter().map(|output| output.wanted).collect(),
            form: Form { binary, all_binary, non_finite },
        })
    }
}

/// Takes what is said of a field, once.
pub(super) fn set<T>(
    slot: &mut Option<T>,
    path: impl fmt::Display,
    value: Option<T>,
) -> Result<(), ApiError> {
    match value {
        Some(_) if slot.is_some() => {
            Err(JsonError::unexpected(path.to_string(), "it is given more than once").into())
        }
        None => Ok(()),
        value => {
            *slot = value;
            Ok(())
        }
    }
}

fn outputs(cursor: &mut Cursor<'_>) -> Result<Vec<Output>, ApiError> {
    let mut outputs = Vec::new();
    cursor.array("outputs", |cursor, index| {
        let (mut name, mut given) = (None, None);
        let path = format!("outputs[{index}]");
        cursor.object(&path, |cursor, key| {
            let field = format!("{path}.{key}");
            match key {
                "name" => set(&mut name, &field, Some(cursor.value::<String>(&field)?)),
                "parameters" => set(&mut given, &field, parameters(cursor, &field)?),
                _ => Ok(cursor.skip()?),
            }
        })?;
        let missing = || JsonError::unexpected(path.clone(), "missing field `name`");
        outputs.push(output(name.ok_or_else(missing)?, &given.unwrap_or_default())?);
        Ok::<_, ApiError>(())
    })?;
    Ok(outputs)
}

fn output(name: String, parameters: &Parameters) -> Result<Output, Refusal> {
    let is_binary = parameters.bool("binary_data").map_err(|refusal| refusal.of_output(&name))?;
    Ok(Output { wanted: WantedOutput::new(name, parameters)?, is_binary })
}

fn non_finite(parameters: &Parameters) -> Result<NonFinite, Refusal> {
    match parameters.text("non_finite_numbers")? {
        None | Some("string") => Ok(NonFinite::Words),
        Some("null") => Ok(NonFinite::Null),
        Some("error") => Ok(NonFinite::Refuse),
        Some(other) => {
            let text = "parameter 'non_finite_numbers' is string, null or error";
            Err(Refusal::invalid(format!("{text}, got {other:?}")))
        }
    }
}

/// An object of parameters; `None` for null.
pub(super) fn parameters(
    cursor: &mut Cursor<'_>,
    path: impl fmt::Display,
) -> Result<Option<Parameters>, JsonError> {
    let given: Option<Map<String, Value>> = cursor.value(path)?;
    let parameter = |(name, value)| (name, parameter(value));
    Ok(given.map(|given| Parameters(given.into_iter().map(parameter).collect::<BTreeMap<_, _>>())))
}
