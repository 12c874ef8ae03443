//! Tensors as raw bytes: little-endian elements one after the other; of BYTES, each element after its
//! length in four bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::inference::{DataType, Shape, Tensor, TensorError};

/// Why bytes are not a tensor of the datatype and shape given with them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RawError {
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// There are too few bytes for the length of a BYTES element.
    #[error(
        "element {index} of its data has no length: that takes 4 bytes, but only {left} are left"
    )]
    NoLength { index: usize, left: usize },
    /// A BYTES element is longer than what there is.
    #[error(
        "element {index} of its data has {length} bytes by its length, but only {left} are left"
    )]
    CutOff { index: usize, length: usize, left: usize },
}

/// Takes bytes as a tensor. Those of numbers are used in place where they are aligned.
///
/// # Errors
/// [`RawError`].
pub(crate) fn read(
    datatype: DataType,
    shape: impl Into<Shape>,
    raw: Bytes,
) -> Result<Tensor, RawError> {
    if datatype != DataType::Bytes {
        return Ok(Tensor::from_bytes(datatype, shape, raw)?);
    }
    Ok(Tensor::from_strings(shape, strings(raw)?)?)
}

fn strings(mut raw: Bytes) -> Result<Vec<Bytes>, RawError> {
    let mut elements = Vec::new();
    while !raw.is_empty() {
        let index = elements.len();
        if raw.len() < 4 {
            return Err(RawError::NoLength { index, left: raw.len() });
        }
        let length = raw.get_u32_le() as usize;
        if length > raw.len() {
            return Err(RawError::CutOff { index, length, left: raw.len() });
        }
        elements.push(raw.split_to(length));
    }
    Ok(elements)
}

/// A tensor's bytes; those of numbers are not copied.
pub(crate) fn write(tensor: &Tensor) -> Bytes {
    if let Some(raw) = tensor.as_bytes() {
        return raw.clone();
    }
    let elements = tensor.as_strings().unwrap_or_default();
    let mut raw = BytesMut::with_capacity(elements.iter().map(|element| element.len() + 4).sum());
    for element in elements {
        raw.put_u32_le(u32::try_from(element.len()).expect("no string has 4 GiB"));
        raw.put_slice(element);
    }
    raw.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_as_they_were() {
        let elements: Vec<Bytes> = ["", "a", "\0\u{ff}"].map(Bytes::from).to_vec();
        let tensor = Tensor::from_strings(vec![3], elements).unwrap();
        let raw = write(&tensor);
        assert_eq!(&raw[..9], b"\0\0\0\0\x01\0\0\0a");
        assert_eq!(read(DataType::Bytes, vec![3], raw).unwrap(), tensor);
    }

    #[test]
    fn what_is_cut_off_is_named() {
        let read = |raw: &'static [u8]| {
            read(DataType::Bytes, vec![1], Bytes::from_static(raw)).unwrap_err().to_string()
        };
        assert!(read(b"\x01\0\0").contains("element 0"));
        assert!(read(b"\0\0\0\0\xff\xff\xff\xffab").contains("element 1"));
        assert_eq!(read(b""), "shape [1] needs 1 elements, got 0");
    }
}
