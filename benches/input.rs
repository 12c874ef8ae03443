//! One input of a request, whatever carries it.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use serde_json::{Value, json};

/// A name and a tensor.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) name: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data,
}

/// The elements in row-major order.
#[derive(Debug, Clone)]
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

    /// With its elements as JSON.
    pub(crate) fn to_json(&self) -> Value {
        let mut value = self.described();
        value["data"] = match &self.data {
            Data::Floats(floats) => json!(floats),
            Data::Integers(integers) => json!(integers),
        };
        value
    }

    /// The elements in little-endian order.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::Floats(floats) => floats.iter().flat_map(|one| one.to_le_bytes()).collect(),
            Data::Integers(integers) => integers.iter().flat_map(|one| one.to_le_bytes()).collect(),
        }
    }
}
