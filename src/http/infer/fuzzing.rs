//! The bodies of inference, fuzzed: what is read is what is there, and comes back when it is written.

use std::str;

use bytes::Bytes;
use serde::Serialize;
use serde::de::IgnoredAny;

use super::compression::{Coding, DecodeError};
use super::decode;
use super::parts::Parts;
use crate::http::codec;
use crate::inference::fuzzing::SIGNATURES;
use crate::inference::{self, DataType, NamedTensor};
use crate::json_tensors::fuzzing::{Fields, check, is_json, items};
use crate::model::ModelName;
use crate::oip::{Inputs, only_input, raw};

/// The most bytes that a compressed body may have when that is undone.
const LIMIT: usize = 64 * 1024;

/// A body of JSON.
pub fn infer_json(body: &[u8]) {
    let Ok(inputs) = read(body, None) else { return };
    assert!(is_json(body), "it is no JSON");
    checked(body, &inputs);
}

/// A body of JSON and the bytes of tensors; of bytes alone where the JSON has none. The length of the JSON
/// comes first, in two bytes.
pub fn infer_binary(data: &[u8]) {
    let Some((length, body)) = data.split_first_chunk() else { return };
    let length = usize::from(u16::from_le_bytes(*length));
    if length == 0 {
        return raw_body(body);
    }
    let Ok(inputs) = read(body, Some(length)) else { return };
    let (json, tail) = body.split_at(length);
    assert!(is_json(json), "it is no JSON");
    let Some(written) = checked(json, &inputs) else { return };
    let binary = inputs.iter().zip(written).filter(|(_, written)| written.get("data").is_none());
    let bytes: Vec<Bytes> = binary.map(|(input, _)| raw::write(&input.tensor)).collect();
    assert_eq!(bytes.concat(), tail, "every byte belongs to a tensor");
}

/// Bytes that are the only input of a model.
fn raw_body(body: &[u8]) {
    let (model, body) = (ModelName::new("m").expect("it is a name"), Bytes::copy_from_slice(body));
    assert!(matches!(decode(body.clone(), Some(0), &model), Ok(Inputs::Raw(raw)) if raw == body));
    for signature in SIGNATURES.iter() {
        let Ok(input) = only_input(&model, signature, body.clone()) else { continue };
        let spec = &signature.inputs[0];
        assert!(spec.admits(input.tensor.shape()), "{input:?}");
        let text = input.tensor.as_strings().map(<[Bytes]>::concat);
        assert_eq!(text.unwrap_or_else(|| raw::write(&input.tensor).to_vec()), body);
        inference::fuzzing::check(&[input]);
    }
}

fn read(body: &[u8], header: Option<usize>) -> Result<Vec<NamedTensor>, String> {
    codec::decode(Bytes::copy_from_slice(body), header)
}

/// Holds inputs against the JSON that they were read from; its inputs, where all of it is text.
fn checked<'a>(json: &'a [u8], inputs: &[NamedTensor]) -> Option<Vec<Fields<'a>>> {
    inference::fuzzing::check(inputs);
    comes_back(inputs);
    // Nobody looks at the text of what is not wanted.
    let body = Fields::of(str::from_utf8(json).ok()?).expect("it was read");
    let written = items(body.get("inputs").expect("it was read")).expect("it was read");
    let written: Vec<Fields<'_>> =
        written.into_iter().map(|input| Fields::of(input).expect("it was read")).collect();
    assert_eq!(written.len(), inputs.len());
    inputs.iter().zip(&written).for_each(|(input, written)| says(written, input));
    if written.iter().all(|input| input.get("data").is_some()) {
        in_any_order(&written, inputs);
    }
    Some(written)
}

/// Holds an input against what is written of it.
#[track_caller]
fn says(written: &Fields<'_>, input: &NamedTensor) {
    let field = |key| written.get(key).expect("it was read");
    let (name, datatype): (String, String) = (text(field("name")), text(field("datatype")));
    let shape: Vec<usize> = serde_json::from_str(field("shape")).expect("it was read");
    let tensor = &input.tensor;
    assert_eq!((&name, datatype.as_str()), (&input.name, tensor.datatype().name()));
    assert_eq!(shape, tensor.shape());
    if let Some(data) = written.get("data") {
        check(tensor, [data]);
    }
}

fn text(json: &str) -> String {
    serde_json::from_str(json).expect("it was read")
}

/// The order of an input's fields means nothing.
#[track_caller]
fn in_any_order(written: &[Fields<'_>], inputs: &[NamedTensor]) {
    #[derive(Serialize)]
    struct Body<'a> {
        inputs: Vec<Fields<'a>>,
    }
    let mut body = Body { inputs: written.to_vec() };
    for is_backwards in [false, true] {
        for Fields(fields) in &mut body.inputs {
            fields.sort_by(|(one, _), (other, _)| one.cmp(other));
            if is_backwards {
                fields.reverse();
            }
        }
        let body = serde_json::to_vec(&body).expect("it is text");
        assert_eq!(printed(&read(&body, None).expect("it was read before")), printed(inputs));
    }
}

/// What is written is read as what it was: bit by bit from bytes, and from JSON to the same JSON.
#[track_caller]
fn comes_back(inputs: &[NamedTensor]) {
    let body = request(inputs, true).expect("everything can be bytes");
    let mut values = serde_json::Deserializer::from_slice(&body).into_iter::<IgnoredAny>();
    assert!(matches!(values.next(), Some(Ok(_))));
    let back = read(&body, Some(values.byte_offset())).expect("it was written");
    assert_eq!(printed(&back), printed(inputs));
    let Ok(body) = request(inputs, false) else {
        let has_bytes = |input: &NamedTensor| input.tensor.datatype() == DataType::Bytes;
        return assert!(inputs.iter().any(has_bytes), "numbers can be JSON");
    };
    let back = read(&body, None).expect("it was written");
    assert_eq!(request(&back, false).as_ref(), Ok(&body));
}

/// Tensors as they can be compared, whatever numbers they have.
fn printed(tensors: &[NamedTensor]) -> Vec<(&str, DataType, &[usize], Bytes)> {
    let tensors = tensors.iter().map(|NamedTensor { name, tensor }| {
        (name.as_str(), tensor.datatype(), tensor.shape(), raw::write(tensor))
    });
    tensors.collect()
}

/// An answer with these tensors, as a request with them.
fn request(tensors: &[NamedTensor], is_binary: bool) -> Result<Vec<u8>, String> {
    const OUTPUTS: &[u8] = b"\"outputs\":[";
    let answer = codec::encode(tensors, is_binary)?.concat();
    let place = answer.windows(OUTPUTS.len()).position(|text| text == OUTPUTS);
    let (before, after) = answer.split_at(place.expect("an answer has outputs"));
    Ok([before, b"\"inputs\":[", &after[OUTPUTS.len()..]].concat())
}

/// A body that says that it is compressed, or one that is going to be. What is to be done, and with which
/// coding, comes first, in one byte.
pub fn body_coding(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else { return };
    let coding = [Coding::Gzip, Coding::Deflate, Coding::Zstd][usize::from(choice % 3)];
    if choice >= 128 {
        compressed(coding, body);
    } else {
        plain(coding, body, usize::from(choice));
    }
}

/// No limit is passed, and a limit is all that a larger one changes.
fn compressed(coding: Coding, body: &[u8]) {
    let read = coding.decode(body, LIMIT);
    match &read {
        Ok(plain) => {
            assert!(plain.len() <= LIMIT);
            assert_eq!(coding.decode(body, plain.len()).as_ref(), Ok(plain));
            if let Some(less) = plain.len().checked_sub(1) {
                assert_eq!(coding.decode(body, less), Err(DecodeError::TooLarge));
            }
        }
        Err(DecodeError::TooLarge) => {
            assert_eq!(coding.decode(body, LIMIT / 2), Err(DecodeError::TooLarge));
        }
        Err(DecodeError::Damaged(_)) => {}
    }
}

/// What is compressed comes back, all of it or none.
fn plain(coding: Coding, body: &[u8], cut: usize) {
    let body = Bytes::copy_from_slice(body);
    let encoded = coding.encode(&Parts::new([body.clone()]));
    let encoded: Vec<u8> = encoded.iter().flatten().copied().collect();
    assert_eq!(coding.decode(&encoded, body.len()).as_ref(), Ok(&body));
    let cut = &encoded[..(encoded.len() - 1).min(cut + 1)];
    assert!(matches!(coding.decode(cut, LIMIT), Err(DecodeError::Damaged(_))), "{cut:?}");
    let twice = coding.decode(&encoded.repeat(2), 2 * body.len());
    assert!(twice.is_err() || twice == Ok(body.repeat(2).into()), "what comes after is lost");
    let more = [&encoded[..], b"more"].concat();
    assert!(coding.decode(&more, LIMIT).is_err(), "what comes after is lost");
}
