//! The answer to a request to predict, in the form that it came in.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::request::Form;
use crate::http::error::ApiError;
use crate::http::heavy::HeavyWork;
use crate::http::infer;
use crate::http::wire::JSON;
use crate::inference::NamedTensor;
use crate::json_tensors::Nested;
use crate::oip::{Refusal, Reply};

/// An output whose name ends so is of bytes that are no text, as in TensorFlow Serving.
const BINARY: &str = "_bytes";

/// Writes an answer.
///
/// # Errors
/// Where it has not one row for each of the instances.
pub(super) async fn write(
    heavy: &HeavyWork,
    reply: Reply,
    form: Form,
) -> Result<Response, ApiError> {
    if let Form::Rows(count) = form {
        reply.outputs.iter().try_for_each(|output| has_rows(output, count))?;
    }
    let headers = infer::trace(&reply);
    let size = reply.outputs.iter().map(|output| infer::text_size(&output.tensor)).sum();
    let text = heavy.run(size, move || text(&reply.outputs, form)).await;
    Ok((headers, [(CONTENT_TYPE, JSON)], text).into_response())
}

fn has_rows(output: &NamedTensor, count: usize) -> Result<(), Refusal> {
    let shape = output.tensor.shape();
    if shape.first() == Some(&count) {
        return Ok(());
    }
    let name = &output.name;
    let text = format!(
        "output '{name}' has the shape {shape:?}, and not one row for each of {count} instances; ask \
         by 'inputs'"
    );
    Err(Refusal::unsupported(text))
}

pub(super) fn text(outputs: &[NamedTensor], form: Form) -> Vec<u8> {
    serde_json::to_vec(&Body { outputs, form }).expect("every element can be written")
}

struct Body<'a> {
    outputs: &'a [NamedTensor],
    form: Form,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut body = serializer.serialize_map(Some(1))?;
        match self.form {
            Form::Rows(count) => body.serialize_entry("predictions", &Rows(self.outputs, count))?,
            Form::Columns => body.serialize_entry("outputs", &Value(self.outputs, None))?,
        }
        body.end()
    }
}

/// So many rows of the outputs.
struct Rows<'a>(&'a [NamedTensor], usize);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.1))?;
        for row in 0..self.1 {
            rows.serialize_element(&Value(self.0, Some(row)))?;
        }
        rows.end()
    }
}

/// The outputs, or a row of them: the value alone of one, an object by their names of several.
struct Value<'a>(&'a [NamedTensor], Option<usize>);

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            [only] => nested(only, self.1).serialize(serializer),
            several => {
                let mut object = serializer.serialize_map(Some(several.len()))?;
                for output in several {
                    object.serialize_entry(&output.name, &nested(output, self.1))?;
                }
                object.end()
            }
        }
    }
}

fn nested(NamedTensor { name, tensor }: &NamedTensor, row: Option<usize>) -> Nested<'_> {
    Nested { tensor, row, is_binary: name.ends_with(BINARY) }
}
