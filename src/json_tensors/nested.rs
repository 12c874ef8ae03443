//! Tensors as nested arrays, one array for each entry of a dimension.

use std::str;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use half::{bf16, f16};
use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

use super::element::word;
use crate::inference::{DataType, Element, Tensor};

/// A tensor, or one of its rows, which is an element alone where there is no dimension left. What JSON has
/// no number for is a word; bytes that are no text are `{"b64": ...}`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nested<'a> {
    pub(crate) tensor: &'a Tensor,
    /// One entry of its first dimension; all of them where that is `None`.
    pub(crate) row: Option<usize>,
    /// Whether all bytes are `{"b64": ...}`.
    pub(crate) is_binary: bool,
}

impl Serialize for Nested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.tensor.datatype() {
            DataType::Bool => self.plain::<bool, S>(serializer),
            DataType::Uint8 => self.plain::<u8, S>(serializer),
            DataType::Uint16 => self.plain::<u16, S>(serializer),
            DataType::Uint32 => self.plain::<u32, S>(serializer),
            DataType::Uint64 => self.plain::<u64, S>(serializer),
            DataType::Int8 => self.plain::<i8, S>(serializer),
            DataType::Int16 => self.plain::<i16, S>(serializer),
            DataType::Int32 => self.plain::<i32, S>(serializer),
            DataType::Int64 => self.plain::<i64, S>(serializer),
            DataType::Fp16 => self.numbers(serializer, |value: &f16| Float(value.to_f32())),
            DataType::Bf16 => self.numbers(serializer, |value: &bf16| Float(value.to_f32())),
            DataType::Fp32 => self.numbers(serializer, |value: &f32| Float(*value)),
            DataType::Fp64 => self.numbers(serializer, |value: &f64| Float(*value)),
            DataType::Bytes => {
                let elements = self.tensor.as_strings().unwrap_or_default();
                self.entries(serializer, elements, &|element| Text(element, self.is_binary))
            }
        }
    }
}

impl Nested<'_> {
    fn plain<T: Element + Serialize + Copy, S: Serializer>(
        &self,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        self.numbers(serializer, |value: &T| *value)
    }

    fn numbers<T: Element, W: Serialize, S: Serializer>(
        &self,
        serializer: S,
        written: impl Fn(&T) -> W,
    ) -> Result<S::Ok, S::Error> {
        let elements = self.tensor.as_slice::<T>().expect("the datatype was looked at");
        self.entries(serializer, elements, &written)
    }

    fn entries<'e, T, W: Serialize, S: Serializer>(
        &self,
        serializer: S,
        elements: &'e [T],
        written: &impl Fn(&'e T) -> W,
    ) -> Result<S::Ok, S::Error> {
        let shape = self.tensor.shape();
        let Some(row) = self.row else {
            return Entries { dims: shape, elements, written }.serialize(serializer);
        };
        let dims = &shape[1..];
        let size: usize = dims.iter().product();
        let elements = &elements[row * size..(row + 1) * size];
        Entries { dims, elements, written }.serialize(serializer)
    }
}

/// The elements of so many dimensions.
struct Entries<'d, 'e, 'w, T, F> {
    dims: &'d [usize],
    elements: &'e [T],
    written: &'w F,
}

impl<'e, T, W: Serialize, F: Fn(&'e T) -> W> Serialize for Entries<'_, 'e, '_, T, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some((count, dims)) = self.dims.split_first() else {
            return (self.written)(&self.elements[0]).serialize(serializer);
        };
        if dims.is_empty() {
            return serializer.collect_seq(self.elements.iter().map(self.written));
        }
        let size: usize = dims.iter().product();
        let mut sequence = serializer.serialize_seq(Some(*count))?;
        for entry in 0..*count {
            let elements = &self.elements[entry * size..(entry + 1) * size];
            sequence.serialize_element(&Entries { dims, elements, written: self.written })?;
        }
        sequence.end()
    }
}

/// A number that JSON may not have.
struct Float<T>(T);

impl<T: Serialize + Into<f64> + Copy> Serialize for Float<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match word(self.0.into()) {
            Some(word) => serializer.serialize_str(word),
            None => self.0.serialize(serializer),
        }
    }
}

/// Bytes, and whether they are never written as a text.
struct Text<'a>(&'a Bytes, bool);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(self.0) {
            Ok(text) if !self.1 => serializer.serialize_str(text),
            _ => {
                let mut object = serializer.serialize_map(Some(1))?;
                object.serialize_entry("b64", &STANDARD.encode(self.0))?;
                object.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tensor: &Tensor, row: Option<usize>, expected: &str) {
        let nested = Nested { tensor, row, is_binary: false };
        assert_eq!(serde_json::to_string(&nested).unwrap(), expected);
    }

    #[test]
    fn tensors_are_nested_as_their_shape_says() {
        let tensor = Tensor::from_vec(vec![2, 3], vec![1_i64, 2, 3, 4, 5, 6]).unwrap();
        check(&tensor, None, "[[1,2,3],[4,5,6]]");
        check(&tensor, Some(1), "[4,5,6]");
        let numbers = vec![0.1_f32, f32::NAN, f32::NEG_INFINITY];
        let numbers = Tensor::from_vec(vec![3], numbers).unwrap();
        check(&numbers, None, r#"[0.1,"NaN","-Infinity"]"#);
        check(&numbers, Some(0), "0.1");
        check(&Tensor::from_vec(vec![], vec![true]).unwrap(), None, "true");
        check(&Tensor::from_vec(vec![2, 0], Vec::<u8>::new()).unwrap(), None, "[[],[]]");
        check(&Tensor::from_vec(vec![0, 2], Vec::<u8>::new()).unwrap(), None, "[]");
        let half = Tensor::from_vec(vec![1], vec![f16::from_f32(0.5)]).unwrap();
        check(&half, None, "[0.5]");
    }

    #[test]
    fn bytes_that_are_no_text_are_in_base_64() {
        let elements = vec![Bytes::from("ü"), Bytes::from_static(b"\xff")];
        let tensor = Tensor::from_strings(vec![2], elements).unwrap();
        check(&tensor, None, r#"["ü",{"b64":"/w=="}]"#);
        let nested = Nested { tensor: &tensor, row: Some(0), is_binary: true };
        assert_eq!(serde_json::to_string(&nested).unwrap(), r#"{"b64":"w7w="}"#);
    }
}
