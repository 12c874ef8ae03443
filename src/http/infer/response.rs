//! The JSON of an inference answer, and the headers by which it can be traced.

use std::fmt::Write as _;
use std::str;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use half::{bf16, f16};
use serde::ser::{Serialize, SerializeSeq, Serializer};

use crate::http::error::ApiError;
use crate::http::heavy::HeavyWork;
use crate::http::wire::JSON;
use crate::inference::{DataType, Element, Tensor};
use crate::json_tensors::word;
use crate::model::{Answer, VersionHandle};

const MODEL: HeaderName = HeaderName::from_static("x-onward-model");
const VERSION: HeaderName = HeaderName::from_static("x-onward-version");
const DIGEST: HeaderName = HeaderName::from_static("x-onward-digest");

/// About how many bytes of JSON an element takes.
const ELEMENT_TEXT: usize = 12;

#[derive(serde::Serialize)]
struct Body {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    model_name: String,
    model_version: String,
    outputs: Vec<Output>,
}

#[derive(serde::Serialize)]
struct Output {
    name: String,
    datatype: &'static str,
    shape: Vec<usize>,
    data: Data,
}

/// Flat, in row-major order.
struct Data(Tensor);

/// Writes an answer.
///
/// # Errors
/// When a BYTES output has an element that is not UTF-8: JSON cannot carry it.
pub(super) async fn write(
    heavy: &HeavyWork,
    id: Option<String>,
    version: &VersionHandle,
    answer: Answer,
) -> Result<Response, ApiError> {
    let headers = [
        (CONTENT_TYPE, JSON),
        (MODEL, value(&visible(version.id().model.as_str()))),
        (VERSION, value(&version.id().version.to_string())),
        (DIGEST, value(&format!("sha256:{}", version.digest()))),
    ];
    let outputs = answer.outputs.into_iter();
    let named = outputs.map(|(position, tensor)| {
        output(version.signature().outputs[position].name.clone(), tensor)
    });
    let body = Body {
        id,
        model_name: version.id().model.to_string(),
        model_version: version.id().version.to_string(),
        outputs: named.collect::<Result<_, _>>()?,
    };
    let size = body.outputs.iter().map(|output| output.data.text_size()).sum();
    let write = move || {
        let mut text = Vec::with_capacity(size + 256);
        serde_json::to_writer(&mut text, &body).expect("every element was checked to be writable");
        text
    };
    Ok((headers, heavy.run(size, write).await).into_response())
}

fn output(name: String, tensor: Tensor) -> Result<Output, ApiError> {
    let is_text = |element: &[u8]| str::from_utf8(element).is_ok();
    if !tensor.as_strings().unwrap_or_default().iter().all(|element| is_text(element)) {
        let text = format!("output '{name}' has bytes that are not UTF-8, which JSON cannot carry");
        return Err(ApiError::unsupported(text));
    }
    let (datatype, shape) = (tensor.datatype().name(), tensor.shape().to_vec());
    Ok(Output { name, datatype, shape, data: Data(tensor) })
}

/// The text with everything but visible ASCII percent-encoded, as a header can have it.
fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            visible.push(char::from(byte));
        } else {
            write!(visible, "%{byte:02X}").expect("a string takes every text");
        }
    }
    visible
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("visible ASCII is a header value")
}

impl Data {
    /// About how long its JSON is.
    fn text_size(&self) -> usize {
        match self.0.as_strings() {
            Some(elements) => elements.iter().map(|element| element.len() + 3).sum(),
            None => self.0.shape().iter().product::<usize>() * ELEMENT_TEXT,
        }
    }

    fn elements<T: Element>(&self) -> &[T] {
        self.0.as_slice().expect("the datatype was looked at")
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.datatype() {
            DataType::Bool => serializer.collect_seq(self.elements::<bool>()),
            DataType::Uint8 => serializer.collect_seq(self.elements::<u8>()),
            DataType::Uint16 => serializer.collect_seq(self.elements::<u16>()),
            DataType::Uint32 => serializer.collect_seq(self.elements::<u32>()),
            DataType::Uint64 => serializer.collect_seq(self.elements::<u64>()),
            DataType::Int8 => serializer.collect_seq(self.elements::<i8>()),
            DataType::Int16 => serializer.collect_seq(self.elements::<i16>()),
            DataType::Int32 => serializer.collect_seq(self.elements::<i32>()),
            DataType::Int64 => serializer.collect_seq(self.elements::<i64>()),
            DataType::Fp16 => floats(serializer, self.elements::<f16>(), |value| value.to_f32()),
            DataType::Bf16 => floats(serializer, self.elements::<bf16>(), |value| value.to_f32()),
            DataType::Fp32 => floats(serializer, self.elements::<f32>(), |value| *value),
            DataType::Fp64 => floats(serializer, self.elements::<f64>(), |value| *value),
            DataType::Bytes => {
                let elements = self.0.as_strings().unwrap_or_default().iter();
                serializer.collect_seq(elements.map(|element| String::from_utf8_lossy(element)))
            }
        }
    }
}

/// Writes each number with the fewest digits that mean it, and a word for what JSON has no number.
fn floats<S: Serializer, T, F: Serialize + Into<f64> + Copy>(
    serializer: S,
    values: &[T],
    number: impl Fn(&T) -> F,
) -> Result<S::Ok, S::Error> {
    let mut sequence = serializer.serialize_seq(Some(values.len()))?;
    for value in values {
        let number = number(value);
        match word(number.into()) {
            None => sequence.serialize_element(&number)?,
            Some(word) => sequence.serialize_element(word)?,
        }
    }
    sequence.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: Element>(values: Vec<T>, expected: &str) {
        let tensor = Tensor::from_vec(vec![values.len()], values).unwrap();
        assert_eq!(serde_json::to_string(&Data(tensor)).unwrap(), expected);
    }

    #[test]
    fn elements_are_written_exactly() {
        check(vec![true, false], "[true,false]");
        check(vec![u64::MAX], "[18446744073709551615]");
        check(vec![0.1_f32, -0.0, 1e30], "[0.1,-0.0,1e+30]");
        check(vec![0.1_f64, f64::MIN_POSITIVE], "[0.1,2.2250738585072014e-308]");
        check(vec![f16::from_f32(0.5)], "[0.5]");
        check(
            vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY],
            r#"["NaN","Infinity","-Infinity"]"#,
        );
    }

    #[test]
    fn names_become_header_values() {
        assert_eq!(visible("digits-1.0"), "digits-1.0");
        assert_eq!(visible("a b%ü"), "a%20b%25%C3%BC");
    }
}
