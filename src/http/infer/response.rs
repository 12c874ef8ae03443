//! An inference answer: JSON, after it the bytes of the outputs that were asked for so, and the headers by
//! which it can be traced.

use std::fmt::Display;
use std::str;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use half::{bf16, f16};
use serde::ser::{Serialize, SerializeSeq, Serializer};

use super::HEADER_LENGTH;
use super::compression::Coding;
use super::parts::Parts;
use super::request::{Form, NonFinite};
use crate::http::error::ApiError;
use crate::http::heavy::HeavyWork;
use crate::http::wire::JSON;
use crate::inference::{DataType, Element, NamedTensor, Tensor};
use crate::json_tensors::word;
use crate::model::{Traced, Version, VersionId};
use crate::oip::{Refusal, Reply, raw};

const MODEL: HeaderName = HeaderName::from_static("x-onward-model");
const VERSION: HeaderName = HeaderName::from_static("x-onward-version");
const DIGEST: HeaderName = HeaderName::from_static("x-onward-digest");
const CACHE: HeaderName = HeaderName::from_static("x-onward-cache");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// More headers than an answer has.
const HEADERS: usize = 12;

/// About how many bytes of JSON an element takes.
const ELEMENT_TEXT: usize = 12;

/// Outputs of fewer bytes in all are copied behind the JSON, so that they are sent in one go.
const COPIED: usize = 32 * 1024;

#[derive(serde::Serialize)]
struct Header<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    model_name: &'a str,
    model_version: Text<Version>,
    outputs: Vec<Output<'a>>,
}

#[derive(serde::Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(flatten)]
    content: Content<'a>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Content<'a> {
    Data(Data<'a>),
    Parameters { binary_data_size: usize },
}

/// A string that is not made before it is written.
struct Text<T>(T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Flat, in row-major order.
struct Data<'a>(&'a Tensor, NonFinite);

/// What an answer is written for.
pub(super) struct Wanted {
    pub(super) id: Option<String>,
    pub(super) form: Form,
    pub(super) coding: Option<Coding>,
}

/// Writes an answer.
///
/// # Errors
/// When an output has what JSON cannot carry, as it was asked for.
pub(super) async fn write(
    heavy: &HeavyWork,
    reply: Reply,
    wanted: Wanted,
) -> Result<Response, ApiError> {
    let mut headers = trace(&reply);
    let size = reply.outputs.iter().enumerate().map(|(place, output)| {
        if wanted.form.is_binary(place) { 0 } else { text_size(&output.tensor) }
    });
    let coded = if wanted.coding.is_some() { reply.outputs.iter().map(bytes).sum() } else { 0 };
    let size = size.sum::<usize>() + coded;
    let write = move || written(reply.version.id(), &reply.outputs, (wanted, size));
    let written = heavy.run(size, write).await?;
    written.describe(&mut headers);
    let mut response = Response::new(Body::new(written.parts));
    *response.headers_mut() = headers;
    Ok(response)
}

/// A body that is ready to be sent.
struct Written {
    parts: Parts,
    /// How long the JSON is, where bytes come after it.
    header: Option<usize>,
    coding: Option<Coding>,
}

impl Written {
    fn describe(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, if self.header.is_some() { OCTETS } else { JSON });
        if let Some(length) = self.header {
            headers.insert(HEADER_LENGTH, HeaderValue::from(length));
        }
        if let Some(coding) = self.coding {
            coding.describe(headers);
        }
    }
}

/// What is sent of outputs that are all to come as bytes, or none.
///
/// # Errors
/// As [`write`].
pub(in crate::http) fn encode(
    version: &VersionId,
    outputs: &[NamedTensor],
    is_binary: bool,
) -> Result<Vec<Bytes>, ApiError> {
    let texts = outputs.iter().map(|output| text_size(&output.tensor));
    let size = if is_binary { 0 } else { texts.sum() };
    let wanted = Wanted { id: None, form: Form::all(is_binary), coding: None };
    let written = written(version, outputs, (wanted, size))?;
    Ok(written.parts.iter().cloned().collect())
}

fn written(
    version: &VersionId,
    tensors: &[NamedTensor],
    (wanted, size): (Wanted, usize),
) -> Result<Written, ApiError> {
    let Wanted { id, form, coding } = wanted;
    let mut tail = Vec::new();
    let mut outputs = Vec::with_capacity(tensors.len());
    for (place, NamedTensor { name, tensor }) in tensors.iter().enumerate() {
        let content = if form.is_binary(place) {
            let bytes = raw::write(tensor);
            let binary_data_size = bytes.len();
            tail.push(bytes);
            Content::Parameters { binary_data_size }
        } else {
            check(name, tensor, form.non_finite)?;
            Content::Data(Data(tensor, form.non_finite))
        };
        let (datatype, shape) = (tensor.datatype().name(), tensor.shape());
        outputs.push(Output { name, datatype, shape, content });
    }
    let (model_name, model_version) = (version.model.as_str(), Text(version.version));
    let header = Header { id, model_name, model_version, outputs };
    let bytes: usize = tail.iter().map(Bytes::len).sum();
    let copied = if bytes <= COPIED { bytes } else { 0 };
    let mut text = BytesMut::with_capacity(size + copied + 256).writer();
    serde_json::to_writer(&mut text, &header).expect("every element was checked to be writable");
    let mut text = text.into_inner();
    let header = (!tail.is_empty()).then_some(text.len());
    if bytes <= COPIED {
        tail.drain(..).for_each(|bytes| text.extend_from_slice(&bytes));
    }
    let parts = Parts::new(std::iter::once(text.freeze()).chain(tail));
    let (parts, coding) = match coding {
        Some(coding) if Coding::is_worth(parts.len()) => (coding.encode(&parts), Some(coding)),
        _ => (parts, None),
    };
    Ok(Written { parts, header, coding })
}

/// # Errors
/// What JSON cannot carry.
fn check(name: &str, tensor: &Tensor, non_finite: NonFinite) -> Result<(), ApiError> {
    let is_text = |element: &Bytes| str::from_utf8(element).is_ok();
    if !tensor.as_strings().unwrap_or_default().iter().all(is_text) {
        let text = format!(
            "output '{name}' has bytes that are not UTF-8, which JSON cannot carry; ask for it with \
             \"binary_data\": true"
        );
        return Err(ApiError::unsupported(text));
    }
    if non_finite == NonFinite::Refuse && has_non_finite(tensor) {
        let text =
            format!("output '{name}' has a number that is not finite, which was to be refused");
        return Err(Refusal::unsupported(text).into());
    }
    Ok(())
}

fn has_non_finite(tensor: &Tensor) -> bool {
    fn any<T: Element>(tensor: &Tensor, is_finite: fn(&T) -> bool) -> bool {
        tensor.as_slice::<T>().is_some_and(|values| !values.iter().all(is_finite))
    }
    match tensor.datatype() {
        DataType::Fp16 => any::<f16>(tensor, |value| value.is_finite()),
        DataType::Bf16 => any::<bf16>(tensor, |value| value.is_finite()),
        DataType::Fp32 => any::<f32>(tensor, |value| value.is_finite()),
        DataType::Fp64 => any::<f64>(tensor, |value| value.is_finite()),
        _ => false,
    }
}

/// The headers by which a prediction can be traced, with room for those that come later.
pub(in crate::http) fn trace(reply: &Reply) -> HeaderMap {
    let Traced { model, version, digest } = reply.version.traced();
    let mut headers = HeaderMap::with_capacity(HEADERS);
    for (name, text) in [(MODEL, model), (VERSION, version), (DIGEST, digest)] {
        let value = HeaderValue::from_maybe_shared(text.clone());
        headers.insert(name, value.expect("visible ASCII is a header value"));
    }
    if let Some(lookup) = reply.cache {
        headers.insert(CACHE, HeaderValue::from_static(lookup.name()));
    }
    headers
}

/// About how long the JSON of a tensor is.
pub(in crate::http) fn text_size(tensor: &Tensor) -> usize {
    match tensor.as_strings() {
        Some(elements) => elements.iter().map(|element| element.len() + 3).sum(),
        None => tensor.shape().iter().product::<usize>() * ELEMENT_TEXT,
    }
}

/// How many bytes a tensor has.
fn bytes(NamedTensor { tensor, .. }: &NamedTensor) -> usize {
    tensor.as_bytes().map_or_else(|| text_size(tensor), Bytes::len)
}

impl Data<'_> {
    fn elements<T: Element>(&self) -> &[T] {
        self.0.as_slice().expect("the datatype was looked at")
    }
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_null = self.1 == NonFinite::Null;
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
            DataType::Fp16 => {
                floats(serializer, (self.elements::<f16>(), is_null), |value| value.to_f32())
            }
            DataType::Bf16 => {
                floats(serializer, (self.elements::<bf16>(), is_null), |value| value.to_f32())
            }
            DataType::Fp32 => floats(serializer, (self.elements::<f32>(), is_null), |value| *value),
            DataType::Fp64 => floats(serializer, (self.elements::<f64>(), is_null), |value| *value),
            DataType::Bytes => {
                let elements = self.0.as_strings().unwrap_or_default().iter();
                serializer.collect_seq(elements.map(|element| String::from_utf8_lossy(element)))
            }
        }
    }
}

/// Writes each number with the fewest digits that mean it; what JSON has no number for as a word, or as
/// null.
fn floats<S: Serializer, T, F: Serialize + Into<f64> + Copy>(
    serializer: S,
    (values, is_null): (&[T], bool),
    number: impl Fn(&T) -> F,
) -> Result<S::Ok, S::Error> {
    let mut sequence = serializer.serialize_seq(Some(values.len()))?;
    for value in values {
        let number = number(value);
        match word(number.into()) {
            Some(word) if !is_null => sequence.serialize_element(word)?,
            // Without a word, or where none is wanted: `serde_json` writes null for what is not finite.
            _ => sequence.serialize_element(&number)?,
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
        let data = Data(&tensor, NonFinite::Words);
        assert_eq!(serde_json::to_string(&data).unwrap(), expected);
    }

    #[test]
    fn elements_are_written_exactly() {
        check(vec![true, false], "[true,false]");
        check(vec![u64::MAX], "[18446744073709551615]");
        check(vec![0.1_f32, -0.0, 1e30], "[0.1,-0.0,1e+30]");
        check(vec![0.1_f64, f64::MIN_POSITIVE], "[0.1,2.2250738585072014e-308]");
        check(vec![f16::from_f32(0.5)], "[0.5]");
        let not_finite = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        check(not_finite.clone(), r#"["NaN","Infinity","-Infinity"]"#);
        let tensor = Tensor::from_vec(vec![3], not_finite).unwrap();
        let null = Data(&tensor, NonFinite::Null);
        assert_eq!(serde_json::to_string(&null).unwrap(), "[null,null,null]");
        assert!(has_non_finite(&tensor));
    }
}
