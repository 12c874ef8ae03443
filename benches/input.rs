//! One input of a request, whatever carries it.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use serde::Serialize;
use serde_json::{Value, json};

/// A name and a tensor.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) name: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data,
}

/// The elements in row-major order.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Data {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

impl Input {
    pub(crate) const fn datatype(&self) -> &'static str {
        match self.data {
            Data::Floats(_) => "FP32",
            Data::Integers(_) => "INT64",
        }
    }

    /// Name, shape and datatype.
    pub(crate) fn described(&self) -> Value {
        json!({ "name": self.name, "shape": self.shape, "datatype": self.datatype() })
    }

    /// The elements in little-endian order.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::Floats(floats) => floats.iter().flat_map(|one| one.to_le_bytes()).collect(),
            Data::Integers(integers) => integers.iter().flat_map(|one| one.to_le_bytes()).collect(),
        }
    }
}

/// The body of a request with these inputs. Numbers have the digits that single precision needs, which no
/// [`Value`] has.
pub(crate) fn json_body(inputs: &[Input]) -> Vec<u8> {
    let written = inputs.iter().map(|input| Written {
        name: input.name,
        shape: &input.shape,
        datatype: input.datatype(),
        data: &input.data,
    });
    let body = Request { inputs: written.collect() };
    serde_json::to_vec(&body).expect("numbers and names can be written")
}

#[derive(Serialize)]
struct Request<'a> {
    inputs: Vec<Written<'a>>,
}

#[derive(Serialize)]
struct Written<'a> {
    name: &'a str,
    shape: &'a [usize],
    datatype: &'a str,
    data: &'a Data,
}
