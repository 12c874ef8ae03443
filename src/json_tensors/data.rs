//! A tensor's `data`: numbers in JSON, flat or nested as its shape says, in row-major order.
//!
//! The text has been through a JSON parser already, so every token and bracket is sound. It is read
//! once more here because only now the datatype is known: each number goes from its digits straight
//! into a buffer of its own type.

use std::borrow::Cow;

use bytes::Bytes;

use super::element::JsonElement;
use crate::inference::{DataType, Tensor, TensorError};
use half::{bf16, f16};

/// Longer tokens are cut short in messages.
const TOKEN_SHOWN: usize = 40;

/// Why `data` is not a tensor of the datatype and shape given beside it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DataError {
    #[error("its data must be an array")]
    NotAnArray,
    #[error("its data is nested deeper than its shape")]
    TooDeep,
    #[error("its data is ragged: at element {index} it does not nest as its shape does")]
    Ragged { index: usize },
    #[error(
        "its data is ragged: dimension {dimension} has {expected} entries by its shape, but {actual} before element {index}"
    )]
    RaggedRow { dimension: usize, expected: usize, actual: usize, index: usize },
    #[error("element {index} of its data is no {datatype}: {token}")]
    Element { index: usize, datatype: DataType, token: String },
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Reads `data`.
///
/// # Errors
/// [`DataError`].
pub(crate) fn read(datatype: DataType, shape: Vec<usize>, data: &str) -> Result<Tensor, DataError> {
    match datatype {
        DataType::Bool => numbers::<bool>(shape, data),
        DataType::Uint8 => numbers::<u8>(shape, data),
        DataType::Uint16 => numbers::<u16>(shape, data),
        DataType::Uint32 => numbers::<u32>(shape, data),
        DataType::Uint64 => numbers::<u64>(shape, data),
        DataType::Int8 => numbers::<i8>(shape, data),
        DataType::Int16 => numbers::<i16>(shape, data),
        DataType::Int32 => numbers::<i32>(shape, data),
        DataType::Int64 => numbers::<i64>(shape, data),
        DataType::Fp16 => numbers::<f16>(shape, data),
        DataType::Bf16 => numbers::<bf16>(shape, data),
        DataType::Fp32 => numbers::<f32>(shape, data),
        DataType::Fp64 => numbers::<f64>(shape, data),
        DataType::Bytes => {
            let texts = elements(DataType::Bytes, &shape, data, text)?;
            Ok(Tensor::from_strings(shape, texts)?)
        }
    }
}

fn numbers<T: JsonElement>(shape: Vec<usize>, data: &str) -> Result<Tensor, DataError> {
    let values = elements(T::DATATYPE, &shape, data, T::from_token)?;
    Ok(Tensor::from_vec(shape, values)?)
}

/// A JSON string, unescaped.
fn text(token: &str) -> Option<Bytes> {
    if !token.starts_with('"') {
        return None;
    }
    let text: Cow<'_, str> = serde_json::from_str(token).ok()?;
    Some(Bytes::from(text.into_owned()))
}

fn elements<T>(
    datatype: DataType,
    shape: &[usize],
    data: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, DataError> {
    // Two bytes an element at least, so that a shape alone never makes a large buffer.
    let announced = shape.iter().try_fold(1_usize, |count, dim| count.checked_mul(*dim));
    let most = data.len() / 2 + 1;
    let mut values = Vec::with_capacity(announced.unwrap_or(most).min(most));
    let mut nesting = Nesting { shape, open: Vec::with_capacity(shape.len()), nested: false };
    let mut rest = data;
    while let Some((token, after)) = next_token(rest) {
        let index = values.len();
        match token {
            "[" => nesting.open(index)?,
            "]" => nesting.close(index)?,
            "," => {}
            _ => {
                nesting.element(index)?;
                let value = read(token).ok_or_else(|| bad(index, datatype, token))?;
                values.push(value);
            }
        }
        rest = after;
    }
    Ok(values)
}

fn bad(index: usize, datatype: DataType, token: &str) -> DataError {
    let mut shown: String = token.chars().take(TOKEN_SHOWN).collect();
    if shown.len() < token.len() {
        shown.push('…');
    }
    DataError::Element { index, datatype, token: shown }
}

/// The next bracket, comma, string or bare word, and what comes after it.
fn next_token(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_ascii_start();
    let bytes = text.as_bytes();
    let end = match bytes.first()? {
        b'[' | b']' | b',' => 1,
        b'"' => string_end(bytes),
        // An object is refused as a whole, so its end does not matter.
        b'{' => bytes.len(),
        _ => bytes.iter().position(|byte| ends_word(*byte)).unwrap_or(bytes.len()),
    };
    Some(text.split_at(end))
}

fn ends_word(byte: u8) -> bool {
    matches!(byte, b',' | b']' | b' ' | b'\n' | b'\r' | b'\t')
}

/// The index after a string's closing quote; `bytes` begins with the opening one.
fn string_end(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Checks that the brackets nest as the shape says, or not at all.
struct Nesting<'a> {
    shape: &'a [usize],
    /// For each open bracket, how many entries it has so far.
    open: Vec<usize>,
    /// Whether a bracket was opened inside another.
    nested: bool,
}

impl Nesting<'_> {
    fn open(&mut self, index: usize) -> Result<(), DataError> {
        if self.open.len() >= self.shape.len().max(1) {
            return Err(DataError::TooDeep);
        }
        if let Some(entries) = self.open.last_mut() {
            if *entries > 0 && !self.nested {
                return Err(DataError::Ragged { index });
            }
            *entries += 1;
            self.nested = true;
        }
        self.open.push(0);
        Ok(())
    }

    fn close(&mut self, index: usize) -> Result<(), DataError> {
        let actual = self.open.pop().unwrap_or_default();
        let dimension = self.open.len();
        match self.shape.get(dimension) {
            Some(expected) if self.nested && *expected != actual => {
                let expected = *expected;
                Err(DataError::RaggedRow { dimension, expected, actual, index })
            }
            _ => Ok(()),
        }
    }

    fn element(&mut self, index: usize) -> Result<(), DataError> {
        let depth = self.open.len();
        match self.open.last_mut() {
            Some(entries) => *entries += 1,
            // A tensor without dimensions may stand without brackets.
            None if self.shape.is_empty() => {}
            None => return Err(DataError::NotAnArray),
        }
        if self.nested && depth != self.shape.len() {
            return Err(DataError::Ragged { index });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn int32(shape: &[usize], data: &str) -> Result<Vec<i32>, DataError> {
        serde_json::from_str::<&serde_json::value::RawValue>(data)
            .expect("the test's JSON is valid");
        let tensor = read(DataType::Int32, shape.to_vec(), data)?;
        assert_eq!(tensor.shape(), shape);
        Ok(tensor.as_slice::<i32>().unwrap().to_vec())
    }

    #[test]
    fn flat_and_nested_data_mean_the_same() {
        let expected = Ok(vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(int32(&[2, 3], "[1,2,3,4,5,6]"), expected);
        assert_eq!(int32(&[2, 3], " [ [1, 2,3] ,\n[4,5,6]\t] "), expected);
        assert_eq!(int32(&[1, 2, 3], "[[[1,2,3],[4,5,6]]]"), expected);
        assert_eq!(int32(&[], "7"), Ok(vec![7]));
        assert_eq!(int32(&[], "[7]"), Ok(vec![7]));
        assert_eq!(int32(&[0], "[]"), Ok(vec![]));
        assert_eq!(int32(&[0, 3], "[]"), Ok(vec![]));
        assert_eq!(int32(&[2, 0], "[[],[]]"), Ok(vec![]));
        assert_eq!(int32(&[2, 0], "[]"), Ok(vec![]));
    }

    #[test]
    fn what_does_not_nest_as_the_shape_says_is_refused() {
        let ragged = |index| Err(DataError::Ragged { index });
        let row = |dimension, expected, actual, index| {
            Err(DataError::RaggedRow { dimension, expected, actual, index })
        };
        assert_eq!(int32(&[2, 2], "[[1,2],[3]]"), row(1, 2, 1, 3));
        assert_eq!(int32(&[2, 2], "[[1,2]]"), row(0, 2, 1, 2));
        assert_eq!(int32(&[2, 2], "[[1,2],3,4]"), ragged(2));
        assert_eq!(int32(&[2, 2], "[1,[2],3]"), ragged(1));
        assert_eq!(int32(&[2, 2, 1], "[[1,2],[3,4]]"), ragged(0));
        assert_eq!(int32(&[4], "[[1,2],[3,4]]"), Err(DataError::TooDeep));
        assert_eq!(
            int32(&[1], &format!("{}1{}", "[".repeat(100), "]".repeat(100))),
            Err(DataError::TooDeep)
        );
        assert_eq!(int32(&[1], "1"), Err(DataError::NotAnArray));
        assert!(matches!(int32(&[3], "[1,2]"), Err(DataError::Tensor(_))));
        assert!(matches!(int32(&[1 << 62], "[1,2]"), Err(DataError::Tensor(_))));
        assert!(matches!(int32(&[1 << 62, 8], "[1,2]"), Err(DataError::Tensor(_))));
    }

    #[test]
    fn what_is_no_element_is_named() {
        let bad = |index, token: &str| {
            let token = token.to_owned();
            Err(DataError::Element { index, datatype: DataType::Int32, token })
        };
        assert_eq!(int32(&[2], "[1,2.5]"), bad(1, "2.5"));
        assert_eq!(int32(&[2], "[1,null]"), bad(1, "null"));
        assert_eq!(int32(&[2], "[1,\"]\"]"), bad(1, "\"]\""));
        assert_eq!(int32(&[2], "[2147483648,1]"), bad(0, "2147483648"));
        assert_eq!(int32(&[1], "[{\"a\":[1]}]"), bad(0, "{\"a\":[1]}]"));
        assert_eq!(int32(&[1], "{\"a\":1}"), Err(DataError::NotAnArray));
    }

    #[test]
    fn texts_are_unescaped() {
        let read = |data: &str| {
            let tensor = read(DataType::Bytes, vec![3], data)?;
            Ok::<_, DataError>(tensor.as_strings().unwrap().to_vec())
        };
        let texts = read(r#"["a\"]\\", "\u00fc\ud83d\ude00", ""]"#).unwrap();
        assert_eq!(texts, ["a\"]\\".as_bytes(), "ü😀".as_bytes(), b""]);
        assert!(read(r#"["a", 1, "b"]"#).is_err());
        assert!(read(r#"["a", "\ud800", "b"]"#).is_err());
    }
}
