//! Tensors: a datatype, a shape and one shared, aligned buffer.

use std::fmt;

use bytes::Bytes;
use half::{bf16, f16};
use smallvec::SmallVec;

use super::datatype::{DataType, Element};

/// Why a tensor could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The product of the dimensions, or its size in bytes, does not fit in memory's address range.
    #[error("shape {} has too many elements", ShapeText(.shape))]
    ShapeOverflow {
        /// The shape as given.
        shape: Vec<usize>,
    },
    /// The data holds another number of elements than the shape says.
    #[error("shape {} needs {expected} elements, got {actual}", ShapeText(.shape))]
    ElementCount {
        /// The shape as given.
        shape: Vec<usize>,
        /// The product of its dimensions.
        expected: usize,
        /// Elements in the data.
        actual: usize,
    },
    /// The raw buffer holds another number of bytes than the shape and datatype say.
    #[error("{datatype} of shape {} needs {expected} bytes, got {actual}", ShapeText(.shape))]
    ByteLength {
        /// The datatype as given.
        datatype: DataType,
        /// The shape as given.
        shape: Vec<usize>,
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        actual: usize,
    },
    /// A BOOL byte that is neither 0 nor 1.
    #[error("element {index} of its data must be 0 or 1 (BOOL), got {byte}")]
    BoolValue {
        /// Which element it is, from zero.
        index: usize,
        /// What it is.
        byte: u8,
    },
    /// Raw numeric bytes were given for BYTES, whose elements have no fixed size.
    #[error("BYTES elements have no fixed size")]
    NotFixedSize,
}

/// Prints a shape as the protocol writes it: `[1,3]`.
pub(super) struct ShapeText<'a>(pub(super) &'a [usize]);

impl fmt::Display for ShapeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (position, dim) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "," };
            write!(f, "{separator}{dim}")?;
        }
        f.write_str("]")
    }
}

/// The dimensions of a tensor, which are not on the heap where they are as few as usual.
pub type Shape = SmallVec<[usize; 4]>;

/// An immutable tensor in row-major order. Cloning shares the buffer.
///
/// Invariants: the element count equals the product of the shape; a fixed-size buffer is aligned for
/// its datatype; BOOL bytes are 0 or 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub(super) datatype: DataType,
    pub(super) shape: Shape,
    pub(super) data: TensorData,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum TensorData {
    Fixed(Bytes),
    Strings(Vec<Bytes>),
}

impl Tensor {
    /// Takes `values` as the tensor's buffer, without a copy.
    ///
    /// # Errors
    /// [`TensorError::ShapeOverflow`] and [`TensorError::ElementCount`].
    pub fn from_vec<T: Element>(
        shape: impl Into<Shape>,
        values: Vec<T>,
    ) -> Result<Self, TensorError> {
        let shape = shape.into();
        check_count(&shape, values.len())?;
        let data = TensorData::Fixed(Bytes::from_owner(Owned(values)));
        Ok(Self { datatype: T::DATATYPE, shape, data })
    }

    /// Takes raw little-endian elements. The buffer is used in place when it is aligned for
    /// `datatype`, and copied once otherwise.
    ///
    /// # Errors
    /// Every variant of [`TensorError`] except [`TensorError::ElementCount`].
    pub fn from_bytes(
        datatype: DataType,
        shape: impl Into<Shape>,
        raw: Bytes,
    ) -> Result<Self, TensorError> {
        let shape = shape.into();
        let size = datatype.size().ok_or(TensorError::NotFixedSize)?;
        let expected = element_count(&shape)
            .and_then(|count| count.checked_mul(size))
            .ok_or_else(|| TensorError::ShapeOverflow { shape: shape.to_vec() })?;
        if raw.len() != expected {
            let actual = raw.len();
            let shape = shape.into_vec();
            return Err(TensorError::ByteLength { datatype, shape, expected, actual });
        }
        if datatype == DataType::Bool
            && let Some(index) = raw.iter().position(|byte| *byte > 1)
        {
            return Err(TensorError::BoolValue { index, byte: raw[index] });
        }
        Ok(Self { datatype, shape, data: TensorData::Fixed(aligned(raw, size)) })
    }

    /// A BYTES tensor of the given elements.
    ///
    /// # Errors
    /// [`TensorError::ShapeOverflow`] and [`TensorError::ElementCount`].
    pub fn from_strings(
        shape: impl Into<Shape>,
        elements: Vec<Bytes>,
    ) -> Result<Self, TensorError> {
        let shape = shape.into();
        check_count(&shape, elements.len())?;
        Ok(Self { datatype: DataType::Bytes, shape, data: TensorData::Strings(elements) })
    }

    /// The smallest valid stand-in: zeros, or empty strings.
    ///
    /// # Errors
    /// [`TensorError::ShapeOverflow`].
    pub fn zeros(datatype: DataType, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let shape = shape.into();
        let overflow = || TensorError::ShapeOverflow { shape: shape.to_vec() };
        let count = element_count(&shape).ok_or_else(overflow)?;
        let Some(size) = datatype.size() else {
            return Self::from_strings(shape, vec![Bytes::new(); count]);
        };
        let bytes = count.checked_mul(size).ok_or_else(overflow)?;
        Self::from_bytes(datatype, shape, zeroed(bytes))
    }

    /// Ones, or the text `1`: what a model takes that divides by its input, or reads numbers in it.
    ///
    /// # Errors
    /// [`TensorError::ShapeOverflow`].
    pub fn ones(datatype: DataType, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let shape = shape.into();
        let overflow = || TensorError::ShapeOverflow { shape: shape.to_vec() };
        let count = element_count(&shape).ok_or_else(overflow)?;
        let one = one(datatype);
        if datatype == DataType::Bytes {
            return Self::from_strings(shape, vec![Bytes::from(one); count]);
        }
        count.checked_mul(one.len()).ok_or_else(overflow)?;
        Self::from_bytes(datatype, shape, Bytes::from(one.repeat(count)))
    }

    /// The datatype of every element.
    pub fn datatype(&self) -> DataType {
        self.datatype
    }

    /// The dimensions; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements as a typed slice; `None` when `T` is not this tensor's datatype.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        match &self.data {
            TensorData::Fixed(raw) if T::DATATYPE == self.datatype => {
                bytemuck::checked::try_cast_slice(raw).ok()
            }
            _ => None,
        }
    }

    /// The raw little-endian buffer; `None` for BYTES.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match &self.data {
            TensorData::Fixed(raw) => Some(raw),
            TensorData::Strings(_) => None,
        }
    }

    /// How many bytes its elements have, those of a BYTES tensor without their lengths.
    pub fn byte_len(&self) -> usize {
        match &self.data {
            TensorData::Fixed(raw) => raw.len(),
            TensorData::Strings(elements) => elements.iter().map(Bytes::len).sum(),
        }
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn footprint(&self) -> usize {
        let elements = self.as_strings().map_or(0, size_of_val);
        self.byte_len() + elements + size_of_val(self.shape.as_slice()) + size_of::<Self>()
    }

    /// The same in memory of its own, which keeps nothing else.
    pub(crate) fn detached(&self) -> Self {
        let data = match &self.data {
            TensorData::Fixed(raw) => TensorData::Fixed(copied(raw)),
            TensorData::Strings(elements) => {
                let own = elements.iter().map(|element| Bytes::copy_from_slice(element));
                TensorData::Strings(own.collect())
            }
        };
        Self { datatype: self.datatype, shape: self.shape.clone(), data }
    }

    /// The elements of a BYTES tensor; `None` for every other datatype.
    pub fn as_strings(&self) -> Option<&[Bytes]> {
        match &self.data {
            TensorData::Fixed(_) => None,
            TensorData::Strings(elements) => Some(elements),
        }
    }
}

/// The number of elements; `None` where it, or what it would be without dimensions of zero, is beyond
/// what engines count with.
pub(super) fn element_count(shape: &[usize]) -> Option<usize> {
    let sizes = shape.iter().filter(|dim| **dim != 0);
    let product = sizes.copied().try_fold(1_usize, usize::checked_mul)?;
    i64::try_from(product).ok()?;
    Some(if shape.contains(&0) { 0 } else { product })
}

fn check_count(shape: &[usize], actual: usize) -> Result<(), TensorError> {
    let owned = || shape.to_vec();
    let expected =
        element_count(shape).ok_or_else(|| TensorError::ShapeOverflow { shape: owned() })?;
    if expected == actual {
        Ok(())
    } else {
        Err(TensorError::ElementCount { shape: owned(), expected, actual })
    }
}

/// Lends a vector's memory to [`Bytes`]; keeps the alignment of `T`.
struct Owned<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The element that is one, little-endian.
fn one(datatype: DataType) -> Vec<u8> {
    match datatype {
        DataType::Fp16 => f16::ONE.to_le_bytes().to_vec(),
        DataType::Bf16 => bf16::ONE.to_le_bytes().to_vec(),
        DataType::Fp32 => 1_f32.to_le_bytes().to_vec(),
        DataType::Fp64 => 1_f64.to_le_bytes().to_vec(),
        DataType::Bytes => b"1".to_vec(),
        whole => {
            let rest = whole.size().map_or(0, |size| size - 1);
            std::iter::once(1).chain(std::iter::repeat_n(0, rest)).collect()
        }
    }
}

/// `length` zero bytes, aligned for the widest element.
fn zeroed(length: usize) -> Bytes {
    Bytes::from_owner(Owned(vec![0_u64; length.div_ceil(8)])).slice(..length)
}

fn aligned(raw: Bytes, alignment: usize) -> Bytes {
    if raw.as_ptr().align_offset(alignment) == 0 {
        return raw;
    }
    copied(&raw)
}

/// The bytes in a buffer of their own, which is aligned for every datatype.
fn copied(raw: &[u8]) -> Bytes {
    let mut words = vec![0_u64; raw.len().div_ceil(8)];
    bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..raw.len()].copy_from_slice(raw);
    Bytes::from_owner(Owned(words)).slice(..raw.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_becomes_the_buffer_without_a_copy() {
        let values = vec![1.5_f32, -2.0, 3.25];
        let address = values.as_ptr();
        let tensor = Tensor::from_vec(vec![3], values).unwrap();
        assert_eq!(tensor.as_slice::<f32>().unwrap().as_ptr(), address);
        assert_eq!(tensor.as_slice::<i32>(), None);
    }

    #[test]
    fn unaligned_bytes_are_copied_to_an_aligned_buffer() {
        let bytes: Vec<u8> = std::iter::once(0).chain(7.0_f64.to_le_bytes()).collect();
        for offset in 0..8 {
            let mut padded = vec![0; offset];
            padded.extend_from_slice(&bytes[1..]);
            let raw = Bytes::from(padded).slice(offset..);
            let tensor = Tensor::from_bytes(DataType::Fp64, vec![1], raw).unwrap();
            assert_eq!(tensor.as_slice::<f64>(), Some(&[7.0][..]), "offset {offset}");
        }
    }

    #[test]
    fn counts_lengths_and_bools_are_checked() {
        let count = Tensor::from_vec(vec![2, 2], vec![1_u8; 3]).unwrap_err();
        assert_eq!(count.to_string(), "shape [2,2] needs 4 elements, got 3");
        let short = Tensor::from_bytes(DataType::Fp32, vec![2], Bytes::from_static(&[0; 7]));
        assert_eq!(short.unwrap_err().to_string(), "FP32 of shape [2] needs 8 bytes, got 7");
        let bad = Tensor::from_bytes(DataType::Bool, vec![2], Bytes::from_static(&[1, 7]));
        assert_eq!(bad.unwrap_err(), TensorError::BoolValue { index: 1, byte: 7 });
        let huge = Tensor::zeros(DataType::Fp32, vec![usize::MAX, 2]).unwrap_err();
        assert!(matches!(huge, TensorError::ShapeOverflow { .. }));
    }

    #[test]
    fn a_zero_dimension_makes_an_empty_tensor_unless_the_others_are_beyond_counting() {
        let tensor = Tensor::from_vec::<f32>(vec![1 << 40, 0, 1 << 20], vec![]).unwrap();
        assert_eq!(tensor.as_slice::<f32>(), Some(&[][..]));
        for shape in [vec![1 << 40, 1 << 40, 0], vec![1 << 63, 0, 1], vec![usize::MAX, 0]] {
            let refused = Tensor::from_vec::<f32>(shape.clone(), vec![]);
            assert_eq!(refused, Err(TensorError::ShapeOverflow { shape }));
        }
    }

    #[test]
    fn ones_are_one_in_every_datatype() {
        #[track_caller]
        fn check<T: Element + PartialEq + fmt::Debug>(one: T) {
            let ones = Tensor::ones(T::DATATYPE, vec![2]).unwrap();
            assert_eq!(ones.as_slice::<T>(), Some(&[one, one][..]));
        }
        check(true);
        check(1_u8);
        check(1_u16);
        check(1_u32);
        check(1_u64);
        check(1_i8);
        check(1_i16);
        check(1_i32);
        check(1_i64);
        check(f16::ONE);
        check(bf16::ONE);
        check(1_f32);
        check(1_f64);
        let texts = Tensor::ones(DataType::Bytes, vec![1, 2]).unwrap();
        assert_eq!(texts.as_strings(), Some(&[Bytes::from("1"), Bytes::from("1")][..]));
        let huge = Tensor::ones(DataType::Fp64, vec![usize::MAX]).unwrap_err();
        assert!(matches!(huge, TensorError::ShapeOverflow { .. }));
    }
}
