//! An input of a request: its tensor, from JSON or from the bytes after it.

use std::borrow::Cow;
use std::fmt;
use std::num::TryFromIntError;

use bytes::Bytes;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use super::request::{parameters, set};
use crate::http::error::ApiError;
use crate::inference::{DataType, NamedTensor, Shape, Tensor, UnknownDataType};
use crate::json_tensors::{self, Cursor, DataError, JsonError};
use crate::model::ModelName;
use crate::oip::{Parameters, Refusal, raw, shape};

/// Reads the input at this index, for a model. Its bytes are the first of the `tail`, where it has no data in JSON.
///
/// # Errors
/// The first thing that is wrong with it, named.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    index: usize,
    (model, tail): (&ModelName, &mut Bytes),
) -> Result<NamedTensor, ApiError> {
    let mut input = Input::new(index);
    cursor.object(input.path, |cursor, key| input.field(cursor, key))?;
    input.finished(model, tail)
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
