//! A tensor's `data`: numbers in JSON, flat or nested as its shape says, in row-major order. Each number
//! goes from its digits straight into a buffer of its own type.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use half::{bf16, f16};
use serde::Deserialize;
use serde::de::IgnoredAny;
use smallvec::SmallVec;

use super::cursor::{Cursor, JsonError};
use super::element::{JsonElement, WORDS};
use crate::inference::{DataType, Shape, Tensor, TensorError};

/// Longer tokens are cut short in messages.
const TOKEN_SHOWN: usize = 40;

/// Why `data` is not a tensor of the datatype and shape given beside it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DataError {
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("its data must be an array")]
    NotAnArray,
    #[error("its data is nested deeper than its shape")]
    TooDeep,
    #[error("its data is nested deeper than {most} dimensions")]
    Deepest { most: usize },
    #[error("its data is no rectangle: at element {index} it is nested otherwise than before")]
    Unlike { index: usize },
    #[error(
        "its data is no rectangle: dimension {dimension} has {expected} entries at first, but {actual} before element {index}"
    )]
    Uneven { dimension: usize, expected: usize, actual: usize, index: usize },
    #[error("its data is ragged: at element {index} it does not nest as its shape does")]
    Ragged { index: usize },
    #[error(
        "its data is ragged: dimension {dimension} has {expected} entries by its shape, but {actual} before element {index}"
    )]
    RaggedRow { dimension: usize, expected: usize, actual: usize, index: usize },
    #[error("element {index} of its data must be {} ({datatype}), got {token}", .datatype.values())]
    Element { index: usize, datatype: DataType, token: String },
    #[error("element {index} of its data is a text that is not UTF-8")]
    NotUtf8 { index: usize },
    #[error(
        "element {index} of its data is {word}, which JSON has not: write it in quotes, \"{word}\""
    )]
    Bare { index: usize, word: &'static str },
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Reads `data`, which comes next.
///
/// # Errors
/// [`DataError`].
pub(crate) fn read(
    datatype: DataType,
    shape: impl Into<Shape>,
    cursor: &mut Cursor<'_>,
) -> Result<Tensor, DataError> {
    let shape = shape.into();
    match datatype {
        DataType::Bool => fixed::<bool>(shape, cursor),
        DataType::Uint8 => fixed::<u8>(shape, cursor),
        DataType::Uint16 => fixed::<u16>(shape, cursor),
        DataType::Uint32 => fixed::<u32>(shape, cursor),
        DataType::Uint64 => fixed::<u64>(shape, cursor),
        DataType::Int8 => fixed::<i8>(shape, cursor),
        DataType::Int16 => fixed::<i16>(shape, cursor),
        DataType::Int32 => fixed::<i32>(shape, cursor),
        DataType::Int64 => fixed::<i64>(shape, cursor),
        DataType::Fp16 => fixed::<f16>(shape, cursor),
        DataType::Bf16 => fixed::<bf16>(shape, cursor),
        DataType::Fp32 => fixed::<f32>(shape, cursor),
        DataType::Fp64 => fixed::<f64>(shape, cursor),
        DataType::Bytes => {
            let texts = elements(DataType::Bytes, &shape, cursor, text)?;
            Ok(Tensor::from_strings(shape, texts)?)
        }
    }
}

fn fixed<T: JsonElement>(shape: Shape, cursor: &mut Cursor<'_>) -> Result<Tensor, DataError> {
    let values = elements(T::DATATYPE, &shape, cursor, T::read)?;
    Ok(Tensor::from_vec(shape, values)?)
}

/// The text that the rest begins with, or the bytes that are there in base64, and the length of that; `None`
/// where it is neither.
pub(super) fn bytes(rest: &[u8]) -> Option<(Bytes, usize)> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Encoded<'a> {
        #[serde(borrow)]
        b64: Cow<'a, str>,
    }
    if rest.first() != Some(&b'{') {
        return text(rest);
    }
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<Encoded<'_>>();
    let Encoded { b64 } = values.next()?.ok()?;
    Some((STANDARD.decode(b64.as_bytes()).ok()?.into(), values.byte_offset()))
}

/// The text that the rest begins with, unescaped, and its length there; `None` where that is none.
fn text(rest: &[u8]) -> Option<(Bytes, usize)> {
    let inside = rest.strip_prefix(b"\"")?;
    let plain = inside.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
    if inside[plain] == b'"' {
        str::from_utf8(&inside[..plain]).ok()?;
        return Some((Bytes::copy_from_slice(&inside[..plain]), plain + 2));
    }
    let mut texts = serde_json::Deserializer::from_slice(rest).into_iter::<String>();
    let text = texts.next()?.ok()?;
    Some((Bytes::from(text), texts.byte_offset()))
}

fn elements<T>(
    datatype: DataType,
    shape: &[usize],
    cursor: &mut Cursor<'_>,
    read: impl Fn(&[u8]) -> Option<(T, usize)>,
) -> Result<Vec<T>, DataError> {
    // Two bytes an element at least, so that a shape alone never makes a large buffer.
    let announced = shape.iter().try_fold(1_usize, |count, dim| count.checked_mul(*dim));
    let most = cursor.rest().len() / 2 + 1;
    let mut values = Vec::with_capacity(announced.unwrap_or(most).min(most));
    let mut nesting = Nesting { shape, open: SmallVec::new(), nested: false };
    loop {
        // A value is to come.
        if cursor.take(b'[') {
            nesting.open(values.len())?;
            if cursor.peek() != Some(b']') {
                continue;
            }
        } else {
            if cursor.peek().is_none() {
                return Err(cursor.syntax("EOF while parsing a value").into());
            }
            let before = values.len();
            nesting.begin_elements(before)?;
            let is_alone = nesting.open.is_empty();
            row((datatype, is_alone), cursor, &mut values, &read)?;
            nesting.end_elements(values.len() - before);
        }
        // A value has come.
        while !nesting.open.is_empty() && cursor.take(b']') {
            nesting.close(values.len())?;
        }
        if nesting.open.is_empty() {
            return Ok(values);
        }
        if !cursor.take(b',') {
            return Err(cursor.syntax("expected ',' or ']'").into());
        }
    }
}

/// Reads elements up to what is none: a bracket, or the end of the array. One that stands without
/// brackets is alone.
pub(super) fn row<T>(
    (datatype, is_alone): (DataType, bool),
    cursor: &mut Cursor<'_>,
    values: &mut Vec<T>,
    read: &impl Fn(&[u8]) -> Option<(T, usize)>,
) -> Result<(), DataError> {
    loop {
        if cursor.peek().is_none() {
            return Err(cursor.syntax("EOF while parsing a value").into());
        }
        let Some((value, length)) = read(cursor.rest()) else {
            return Err(bad(values.len(), datatype, cursor));
        };
        values.push(value);
        cursor.at += length;
        let here = cursor.clone();
        if is_alone || !cursor.take(b',') || cursor.peek() == Some(b'[') {
            *cursor = here;
            return Ok(());
        }
    }
}

/// What is told of a token that is no element.
fn bad(index: usize, datatype: DataType, cursor: &Cursor<'_>) -> DataError {
    // Many libraries write them so.
    if let Some(word) = WORDS.into_iter().find(|word| cursor.rest().starts_with(word.as_bytes())) {
        return DataError::Bare { index, word };
    }
    let mut after = cursor.clone();
    if let Err(error) = after.value::<IgnoredAny>("") {
        return error.into();
    }
    let rest = cursor.rest();
    let Ok(token) = str::from_utf8(&rest[..rest.len() - after.rest().len()]) else {
        return DataError::NotUtf8 { index };
    };
    let mut shown: String = token.chars().take(TOKEN_SHOWN).collect();
    if shown.len() < token.len() {
        shown.push('…');
    }
    DataError::Element { index, datatype, token: shown }
}

/// Checks that the brackets nest as the shape says, or not at all.
struct Nesting<'a> {
    shape: &'a [usize],
    /// For each open bracket, how many entries it has so far.
    open: SmallVec<[usize; 4]>,
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

    /// Elements come, the first of which has this index.
    fn begin_elements(&mut self, index: usize) -> Result<(), DataError> {
        // A tensor without dimensions may stand without brackets.
        if self.open.is_empty() && !self.shape.is_empty() {
            return Err(DataError::NotAnArray);
        }
        if self.nested && self.open.len() != self.shape.len() {
            return Err(DataError::Ragged { index });
        }
        Ok(())
    }

    /// So many have come.
    fn end_elements(&mut self, count: usize) {
        if let Some(entries) = self.open.last_mut() {
            *entries += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn int32(shape: &[usize], data: &str) -> Result<Vec<i32>, DataError> {
        let mut cursor = Cursor::new(data.as_bytes());
        let tensor = read(DataType::Int32, shape.to_vec(), &mut cursor)?;
        cursor.end()?;
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
        assert_eq!(int32(&[1], "[{\"a\":[1]}]"), bad(0, "{\"a\":[1]}"));
        assert_eq!(int32(&[1], "{\"a\":1}"), Err(DataError::NotAnArray));
        for word in ["NaN", "Infinity", "-Infinity"] {
            let bare = Err(DataError::Bare { index: 1, word });
            assert_eq!(int32(&[2], &format!("[1, {word}]")), bare);
        }
    }

    #[test]
    fn texts_are_unescaped() {
        let texts = |data: &str| {
            let tensor = read(DataType::Bytes, vec![3], &mut Cursor::new(data.as_bytes()))?;
            Ok::<_, DataError>(tensor.as_strings().unwrap().to_vec())
        };
        let read = texts(r#"["a\"]\\", "\u00fc\ud83d\ude00", ""]"#).unwrap();
        assert_eq!(read, ["a\"]\\".as_bytes(), "ü😀".as_bytes(), b""]);
        assert!(texts("[\"a\", \"b\n\", \"c\"]").is_err());
        assert!(texts(r#"["a", 1, "b"]"#).is_err());
        assert!(texts(r#"["a", "\ud800", "b"]"#).is_err());
        let mut cursor = Cursor::new(b"[\"a\", \"\xff\", \"b\"]");
        let refused = super::read(DataType::Bytes, vec![3], &mut cursor).unwrap_err();
        assert_eq!(refused, DataError::NotUtf8 { index: 1 });
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        let syntax = |text: &str, problem: &str, column| {
            let problem = problem.to_owned();
            let error = JsonError::Syntax { part: None, problem, place: (1, column) };
            assert_eq!(int32(&[2], text), Err(error.into()), "{text}");
        };
        syntax("", "EOF while parsing a value", 1);
        syntax("[1", "EOF where expected ',' or ']'", 3);
        syntax("[1,", "EOF while parsing a value", 4);
        syntax("[1 2]", "expected ',' or ']'", 4);
        syntax("[1,,2]", "expected value", 4);
        syntax("[1,2,]", "expected value", 6);
        syntax("[01,2]", "invalid number", 3);
        syntax("[1,2]]", "trailing characters", 6);
        assert!(int32(&[2], "[[1],[2]").is_err());
        assert!(int32(&[2, 1], "[[1],]").is_err());
        assert!(int32(&[2, 1], "[[1][2]]").is_err());
    }

    proptest! {
        /// What is written by others is read here, whatever stands between.
        #[test]
        fn any_nesting_is_read(
            rows in prop::collection::vec(prop::collection::vec(any::<i32>(), 3), 0..5),
            space in "[ \n\r\t]{0,3}",
        ) {
            let nested = serde_json::to_string(&rows).unwrap();
            let flat: Vec<i32> = rows.iter().flatten().copied().collect();
            for text in [nested, serde_json::to_string(&flat).unwrap()] {
                let text = text.replace(',', &format!("{space},{space}")).replace(']', &format!("{space}]"));
                prop_assert_eq!(int32(&[rows.len(), 3], &text), Ok(flat.clone()));
            }
        }
    }
}
