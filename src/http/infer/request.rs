//! The body of an inference request: JSON, and after it the bytes of the tensors that say so.
//!
//! It is read in one pass. A tensor's `data` goes from its digits straight into its buffer, if its
//! datatype and shape have come before it, as they usually do; else it is gone back to.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::TryFromIntError;

use bytes::Bytes;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::http::body::is_blank;
use crate::http::error::ApiError;
use crate::http::wire::parameter;
use crate::inference::{DataType, NamedTensor, Shape, Tensor, UnknownDataType};
use crate::json_tensors::{self, Cursor, DataError, JsonError};
use crate::model::ModelName;
use crate::oip::{Inputs, Parameters, Refusal, RequestOptions, WantedOutput, raw, shape};

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
            let mut input = Input::new(index);
            cursor.object(input.path, |cursor, key| input.field(cursor, key))?;
            inputs.push(input.finished(self.model, &mut self.tail)?);
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
fn set<T>(slot: &mut Option<T>, path: impl fmt::Display, value: Option<T>) -> Result<(), ApiError> {
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

/// Where an input stands, as it is told.
#[derive(Clone, Copy)]
struct InputPath(usize);

impl fmt::Display for InputPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inputs[{}]", self.0)
    }
}

/// A field of it.
struct Field<'a>(InputPath, &'a str);

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// An input that is being read.
struct Input<'a> {
    path: InputPath,
    name: Option<String>,
    shape: Option<Shape>,
    datatype: Option<Cow<'a, str>>,
    parameters: Option<Parameters>,
    data: Option<Data<'a>>,
}

enum Data<'a> {
    Read(Tensor),
    /// It begins there, and came before its datatype and shape.
    Later(Cursor<'a>),
}

impl<'a> Input<'a> {
    fn new(index: usize) -> Self {
        let path = InputPath(index);
        Self { path, name: None, shape: None, datatype: None, parameters: None, data: None }
    }

    fn field(&mut self, cursor: &mut Cursor<'a>, key: &str) -> Result<(), ApiError> {
        let path = Field(self.path, key);
        match key {
            "name" => set(&mut self.name, &path, Some(cursor.text(&path)?.into_owned())),
            "shape" => {
                let shape = match cursor.plain_sizes() {
                    Some(shape) => shape,
                    None => self.dimensions(&cursor.value::<Vec<Dimension>>(&path)?)?,
                };
                set(&mut self.shape, &path, Some(shape))
            }
            "datatype" => set(&mut self.datatype, &path, Some(cursor.text(&path)?)),
            "parameters" => set(&mut self.parameters, &path, parameters(cursor, &path)?),
            "data" => {
                let datatype = self.datatype.as_deref().and_then(DataType::from_name);
                let data = if let (Some(datatype), Some(shape)) = (datatype, &self.shape) {
                    let tensor = json_tensors::read(datatype, shape.clone(), cursor);
                    Data::Read(tensor.map_err(|error| self.wrong(error))?)
                } else {
                    let here = cursor.clone();
                    cursor.pass_over()?;
                    Data::Later(here)
                };
                set(&mut self.data, &path, Some(data))
            }
            _ => Ok(cursor.skip()?),
        }
    }

    fn dimensions(&self, given: &[Dimension]) -> Result<Shape, Refusal> {
        shape::read(given).map_err(|problem| self.invalid(&problem))
    }

    /// What is wrong with its data.
    fn wrong(&self, error: DataError) -> ApiError {
        match error {
            DataError::Json(error) => error.into(),
            other => self.invalid(&other.to_string()).into(),
        }
    }

    fn invalid(&self, problem: &str) -> Refusal {
        Refusal::invalid(match &self.name {
            Some(name) => format!("input '{name}': {problem}"),
            None => format!("input '{}': {problem}", self.path),
        })
    }

    /// The tensor, whose bytes are taken from the tail where it has no data in JSON.
    fn finished(mut self, model: &ModelName, tail: &mut Bytes) -> Result<NamedTensor, ApiError> {
        let (shape, data) = (self.shape.take(), self.data.take());
        let missing = |field: &str| {
            JsonError::unexpected(self.path.to_string(), format!("missing field `{field}`"))
        };
        let name = self.name.as_deref().ok_or_else(|| missing("name"))?;
        let shape = shape.ok_or_else(|| missing("shape"))?;
        let datatype = self.datatype.as_deref().ok_or_else(|| missing("datatype"))?;
        let unknown = |unknown: UnknownDataType| self.invalid(&unknown.to_string());
        let datatype = datatype.parse::<DataType>().map_err(unknown)?;
        let none = Parameters::default();
        let parameters = self.parameters.as_ref().unwrap_or(&none);
        parameters.is_not_shared(|| format!("input '{name}'"))?;
        let size = parameters.count("binary_data_size", "a number of bytes");
        let size = size.map_err(|refusal| refusal.of_input(name))?;
        let tensor = match (data, size) {
            (Some(Data::Read(tensor)), None) => tensor,
            (Some(Data::Later(mut cursor)), None) => {
                let tensor = json_tensors::read(datatype, shape, &mut cursor);
                tensor.map_err(|error| self.wrong(error))?
            }
            (None, Some(size)) => {
                let bytes = take(tail, size).map_err(|missing| too_few(name, missing, model))?;
                let tensor = raw::read(datatype, shape, bytes);
                tensor.map_err(|error| self.invalid(&error.to_string()))?
            }
            (Some(_), Some(_)) => {
                let problem = "give its 'data' or 'binary_data_size', not both";
                return Err(self.invalid(problem).into());
            }
            (None, None) => {
                let problem = "it has neither 'data' nor the parameter 'binary_data_size'";
                return Err(self.invalid(problem).into());
            }
        };
        let name = self.name.unwrap_or_default();
        Ok(NamedTensor { name, tensor })
    }
}

/// The first bytes of the tail; how many are missing where it has not as many.
fn take(tail: &mut Bytes, size: u64) -> Result<Bytes, u64> {
    match usize::try_from(size) {
        Ok(size) if size <= tail.len() => Ok(tail.split_to(size)),
        _ => Err(size - tail.len() as u64),
    }
}

/// The text is Triton's.
fn too_few(input: &str, missing: u64, model: &ModelName) -> Refusal {
    Refusal::invalid(format!(
        "unexpected size for input '{input}', expecting {missing} additional bytes for model \
         '{model}'"
    ))
}

/// A number in a shape, which may be negative.
#[derive(Clone, Copy)]
struct Dimension(i128);

impl From<Dimension> for i128 {
    fn from(Dimension(dim): Dimension) -> Self {
        dim
    }
}

impl TryFrom<Dimension> for usize {
    type Error = TryFromIntError;

    fn try_from(Dimension(dim): Dimension) -> Result<Self, TryFromIntError> {
        dim.try_into()
    }
}

impl<'de> Deserialize<'de> for Dimension {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_i64(DimensionVisitor)
    }
}

struct DimensionVisitor;

impl Visitor<'_> for DimensionVisitor {
    type Value = Dimension;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a dimension, which is a whole number, 0 or more")
    }

    fn visit_i64<E>(self, dim: i64) -> Result<Dimension, E> {
        Ok(Dimension(dim.into()))
    }

    fn visit_u64<E>(self, dim: u64) -> Result<Dimension, E> {
        Ok(Dimension(dim.into()))
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
fn parameters(
    cursor: &mut Cursor<'_>,
    path: impl fmt::Display,
) -> Result<Option<Parameters>, JsonError> {
    let given: Option<Map<String, Value>> = cursor.value(path)?;
    let parameter = |(name, value)| (name, parameter(value));
    Ok(given.map(|given| Parameters(given.into_iter().map(parameter).collect::<BTreeMap<_, _>>())))
}
