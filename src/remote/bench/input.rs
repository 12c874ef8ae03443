//! A request that a model takes, made of what it says that it takes.

use std::str::FromStr;

use bytes::Bytes;
use serde_json::{Value, json};

use super::Plan;
use crate::remote::show::text;

/// The most elements of a request.
const LARGEST: usize = 1 << 26;

/// The shape of an input: `x=1,3,224,224`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::remote) struct Shape {
    input: String,
    dims: Vec<usize>,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("expected an input and its shape, such as x=1,3,224,224, got '{text}'");
        let (input, dims) = text.split_once('=').ok_or_else(wrong)?;
        let dims: Result<_, _> = dims.split(',').map(str::parse).collect();
        Ok(Self { input: input.to_owned(), dims: dims.map_err(|_| wrong())? })
    }
}

/// What each request has.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) form: Form,
    /// In words.
    pub(super) told: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// So many bytes of JSON, and then those of the tensors.
    Binary {
        header: usize,
    },
}

/// An input as it is going to be sent.
struct Input {
    name: String,
    datatype: String,
    dims: Vec<usize>,
}

/// A request with the inputs that the model's metadata has, of zeros and ones.
///
/// # Errors
/// What is not known of them.
pub(super) fn generated(metadata: &Value, plan: &Plan) -> Result<Body, String> {
    let inputs = metadata["inputs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let inputs: Result<Vec<Input>, String> =
        inputs.iter().map(|input| Input::of(input, plan)).collect();
    let inputs = inputs?;
    let is_known = |shape: &&Shape| inputs.iter().any(|input| input.name == shape.input);
    if let Some(unknown) = plan.shapes.iter().find(|shape| !is_known(shape)) {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        let (input, names) = (&unknown.input, names.join(", "));
        return Err(format!("the model has no input '{input}' but these: {names}"));
    }
    bounded(&inputs)?;
    let told: Vec<String> = inputs.iter().map(Input::told).collect();
    let told = told.join(", ");
    if plan.as_json {
        let inputs: Vec<Value> = inputs.iter().map(Input::json).collect();
        let body = json!({ "inputs": inputs }).to_string();
        return Ok(Body { bytes: body.into(), form: Form::Json, told: format!("{told} as JSON") });
    }
    let raw: Result<Vec<Vec<u8>>, String> = inputs.iter().map(Input::raw).collect();
    let raw = raw?;
    let described = inputs.iter().zip(&raw).map(|(input, raw)| input.described(raw.len()));
    let described: Vec<Value> = described.collect();
    let parameters = json!({ "binary_data_output": true });
    let header = json!({ "inputs": described, "parameters": parameters }).to_string();
    let bytes = [header.as_bytes(), &raw.concat()].concat();
    let form = Form::Binary { header: header.len() };
    Ok(Body { bytes: bytes.into(), form, told: format!("{told} as bytes") })
}

/// Whether they are few enough to be made.
fn bounded(inputs: &[Input]) -> Result<(), String> {
    let count = |input: &Input| {
        let mut dims = input.dims.iter();
        dims.try_fold(1_usize, |count, dim| count.checked_mul(*dim))
    };
    let all = inputs.iter().try_fold(0_usize, |sum, input| sum.checked_add(count(input)?));
    match all {
        Some(count) if count <= LARGEST => Ok(()),
        _ => {
            Err(format!("its inputs would have more than {LARGEST} elements: give smaller shapes"))
        }
    }
}

impl Input {
    fn of(metadata: &Value, plan: &Plan) -> Result<Self, String> {
        let name = text(metadata, "/name").to_owned();
        let datatype = text(metadata, "/datatype").to_owned();
        if let Some(shape) = plan.shapes.iter().find(|shape| shape.input == name) {
            return Ok(Self { name, datatype, dims: shape.dims.clone() });
        }
        let declared = metadata["shape"].as_array().map(Vec::as_slice).unwrap_or_default();
        let size = |(place, dim): (usize, &Value)| match dim.as_i64() {
            Some(size) if size >= 0 => Ok(usize::try_from(size).unwrap_or(usize::MAX)),
            // The first one that is free is that of the batch.
            _ if place == 0 => Ok(plan.batch.get()),
            _ => Err(format!(
                "dimension {place} of input '{name}' is free: give its shape, such as --shape {name}=1,64"
            )),
        };
        let dims: Result<_, _> = declared.iter().enumerate().map(size).collect();
        Ok(Self { dims: dims?, name, datatype })
    }

    fn count(&self) -> usize {
        self.dims.iter().product()
    }

    fn told(&self) -> String {
        format!("{} {} {:?}", self.name, self.datatype, self.dims)
    }

    /// Ones in the place of every other element, which every type has and few models refuse.
    fn ones(&self) -> impl Iterator<Item = bool> {
        (0..self.count()).map(|place| place % 2 == 1)
    }

    fn json(&self) -> Value {
        let element = |one: bool| match self.datatype.as_str() {
            "BOOL" => json!(one),
            "BYTES" => json!(if one { "1" } else { "0" }),
            "FP16" | "BF16" | "FP32" | "FP64" => json!(if one { 0.5 } else { 0.25 }),
            _ => json!(u8::from(one)),
        };
        let data: Vec<Value> = self.ones().map(element).collect();
        json!({ "name": self.name, "datatype": self.datatype, "shape": self.dims, "data": data })
    }

    fn described(&self, bytes: usize) -> Value {
        let parameters = json!({ "binary_data_size": bytes });
        json!({
            "name": self.name,
            "datatype": self.datatype,
            "shape": self.dims,
            "parameters": parameters,
        })
    }

    /// The bytes of its elements.
    fn raw(&self) -> Result<Vec<u8>, String> {
        let pair: [&[u8]; 2] = match self.datatype.as_str() {
            "BOOL" | "INT8" | "UINT8" => [&[0], &[1]],
            "INT16" | "UINT16" => [&[0; 2], &[1, 0]],
            "INT32" | "UINT32" => [&[0; 4], &[1, 0, 0, 0]],
            "INT64" | "UINT64" => [&[0; 8], &[1, 0, 0, 0, 0, 0, 0, 0]],
            "FP16" => [&[0, 0x34], &[0, 0x38]],
            "BF16" => [&[0x80, 0x3e], &[0, 0x3f]],
            "FP32" => [&[0, 0, 0x80, 0x3e], &[0, 0, 0, 0x3f]],
            "FP64" => [&[0, 0, 0, 0, 0, 0, 0xd0, 0x3f], &[0, 0, 0, 0, 0, 0, 0xe0, 0x3f]],
            "BYTES" => [&[1, 0, 0, 0, b'0'], &[1, 0, 0, 0, b'1']],
            other => return Err(format!("input '{}' has the datatype '{other}'", self.name)),
        };
        Ok(self.ones().flat_map(|one| pair[usize::from(one)]).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use super::*;

    fn plan(shapes: &[&str], as_json: bool) -> Plan {
        Plan {
            model: "m".to_owned(),
            version: None,
            connections: NonZeroUsize::MIN,
            duration: Duration::ZERO,
            batch: NonZeroUsize::new(2).unwrap(),
            shapes: shapes.iter().map(|shape| shape.parse().unwrap()).collect(),
            as_json,
            body: None,
        }
    }

    fn metadata(datatype: &str, shape: &[i64]) -> Value {
        json!({ "inputs": [{ "name": "x", "datatype": datatype, "shape": shape }] })
    }

    #[test]
    fn a_batch_fills_the_first_dimension_and_others_are_asked_for() {
        let body = generated(&metadata("FP32", &[-1, 3]), &plan(&[], false)).unwrap();
        let Form::Binary { header } = body.form else { panic!("it is binary") };
        assert_eq!(body.bytes.len() - header, 2 * 3 * 4);
        assert_eq!(body.told, "x FP32 [2, 3] as bytes");
        let free = metadata("INT64", &[-1, -1]);
        let problem = generated(&free, &plan(&[], false)).unwrap_err();
        assert!(problem.contains("--shape x=1,64"), "{problem}");
        let body = generated(&free, &plan(&["x=1,4"], true)).unwrap();
        let sent: Value = serde_json::from_slice(&body.bytes).unwrap();
        assert_eq!(sent["inputs"][0]["data"], json!([0, 1, 0, 1]));
        let problem = generated(&free, &plan(&["y=1", "x=1,1"], true)).unwrap_err();
        assert!(problem.contains("no input 'y' but these: x"), "{problem}");
        for huge in ["x=18446744073709551615,2", "x=1000000,1000000"] {
            assert!(generated(&free, &plan(&[huge], false)).is_err(), "{huge}");
        }
        assert!("x".parse::<Shape>().is_err() && "x=a".parse::<Shape>().is_err());
    }

    #[test]
    fn every_datatype_is_as_large_as_it_is() {
        for (datatype, size) in [("BOOL", 1), ("FP16", 2), ("BF16", 2), ("FP64", 8), ("BYTES", 5)] {
            let body = generated(&metadata(datatype, &[4]), &plan(&[], false)).unwrap();
            let Form::Binary { header } = body.form else { panic!("it is binary") };
            assert_eq!(body.bytes.len() - header, 4 * size, "{datatype}");
        }
        assert!(generated(&metadata("COMPLEX64", &[4]), &plan(&[], false)).is_err());
    }
}
