//! Tensors that are joined along their first dimension, and divided again.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use super::tensor::{Tensor, TensorData, TensorError, element_count};

impl Tensor {
    /// How long it is in the first dimension; `None` for a scalar.
    pub(super) fn rows(&self) -> Option<usize> {
        self.shape.first().copied()
    }

    /// The rows of all `parts`, one after the other. They are of one datatype, and of one shape but for
    /// the first dimension. It copies them once; a single part is not copied.
    ///
    /// # Errors
    /// [`TensorError::ShapeOverflow`].
    pub(super) fn joined(parts: &[Cow<'_, Self>]) -> Result<Self, TensorError> {
        let [first, others @ ..] = parts else { return Err(TensorError::NotFixedSize) };
        if others.is_empty() {
            return Ok(Self::clone(first));
        }
        let mut shape = first.shape.clone();
        shape[0] = parts.iter().filter_map(|part| part.rows()).sum();
        if let TensorData::Strings(_) = first.data {
            let elements = parts.iter().filter_map(|part| part.as_strings()).flatten();
            return Self::from_strings(shape, elements.cloned().collect());
        }
        let mut raw = Vec::with_capacity(parts.iter().map(|part| part.byte_len()).sum());
        parts
            .iter()
            .filter_map(|part| part.as_bytes())
            .for_each(|part| raw.extend_from_slice(part));
        Self::from_bytes(first.datatype, shape, Bytes::from(raw))
    }

    /// Some of its rows, over the same buffer. There are as many as `range` asks for.
    pub(super) fn row_range(&self, range: Range<usize>) -> Self {
        let mut shape = self.shape.clone();
        shape[0] = range.len();
        let width: usize = shape[1..].iter().product();
        let (start, end) = (range.start * width, range.end * width);
        let size = self.datatype.size().unwrap_or(1);
        let data = match &self.data {
            TensorData::Fixed(raw) => TensorData::Fixed(raw.slice(start * size..end * size)),
            TensorData::Strings(elements) => TensorData::Strings(elements[start..end].to_vec()),
        };
        Self { datatype: self.datatype, shape, data }
    }

    /// The tensor in another shape of the same rank: what does not fit is cut off at the end of each
    /// dimension, what is missing is `filler`, which is one element. Not for BYTES, which stay as they are.
    ///
    /// # Errors
    /// [`TensorError::ShapeOverflow`].
    pub(super) fn fitted(&self, shape: &[usize], filler: &[u8]) -> Result<Self, TensorError> {
        let TensorData::Fixed(raw) = &self.data else { return Ok(self.clone()) };
        if self.shape.as_slice() == shape {
            return Ok(self.clone());
        }
        let count = element_count(shape);
        let count = count.filter(|count| count.checked_mul(filler.len()).is_some());
        let overflow = || TensorError::ShapeOverflow { shape: shape.to_vec() };
        let mut fitted = filler.repeat(count.ok_or_else(overflow)?);
        copy((&mut fitted, shape), (raw, &self.shape), filler.len());
        Self::from_bytes(self.datatype, shape.to_vec(), Bytes::from(fitted))
    }
}

/// Copies what two arrays of elements of `size` bytes have in common.
fn copy((to, to_shape): (&mut [u8], &[usize]), (from, shape): (&[u8], &[usize]), size: usize) {
    if to_shape == shape {
        to.copy_from_slice(from);
        return;
    }
    let ([to_length, to_inner @ ..], [length, inner @ ..]) = (to_shape, shape) else { return };
    let widths = [to_inner, inner].map(|inner| size * inner.iter().product::<usize>());
    if widths.contains(&0) {
        return;
    }
    let both = to.chunks_exact_mut(widths[0]).zip(from.chunks_exact(widths[1]));
    for (to, from) in both.take(*to_length.min(length)) {
        copy((to, to_inner), (from, inner), size);
    }
}

#[cfg(test)]
mod tests {
    use super::super::datatype::DataType;
    use super::*;

    fn tensor(shape: &[usize], values: &[i32]) -> Tensor {
        Tensor::from_vec(shape.to_vec(), values.to_vec()).unwrap()
    }

    #[test]
    fn rows_are_joined_and_divided() {
        let (one, two) = (tensor(&[1, 2], &[1, 2]), tensor(&[2, 2], &[3, 4, 5, 6]));
        let joined = Tensor::joined(&[&one, &two].map(Cow::Borrowed)).unwrap();
        assert_eq!(joined, tensor(&[3, 2], &[1, 2, 3, 4, 5, 6]));
        assert_eq!((joined.row_range(0..1), joined.row_range(1..3)), (one.clone(), two));
        assert_eq!(joined.row_range(1..1), tensor(&[0, 2], &[]));
        let alone = Tensor::joined(&[&one].map(Cow::Borrowed)).unwrap();
        let address = |tensor: &Tensor| tensor.as_bytes().unwrap().as_ptr();
        assert_eq!(address(&alone), address(&one));
    }

    #[test]
    fn texts_are_joined_and_divided() {
        let texts = |rows: usize, texts: &[&'static str]| {
            let elements = texts.iter().map(|text| Bytes::from_static(text.as_bytes()));
            Tensor::from_strings(vec![rows, 2], elements.collect()).unwrap()
        };
        let (one, two) = (texts(1, &["a", ""]), texts(2, &["c", "d", "e", "f"]));
        let joined = Tensor::joined(&[&one, &two].map(Cow::Borrowed)).unwrap();
        assert_eq!((joined.row_range(0..1), joined.row_range(1..3)), (one, two));
    }

    #[test]
    fn a_tensor_is_filled_up_and_cut_off() {
        let short = tensor(&[2, 2, 1], &[1, 2, 3, 4]);
        let long = short.fitted(&[2, 3, 2], &7_i32.to_le_bytes()).unwrap();
        assert_eq!(long, tensor(&[2, 3, 2], &[1, 7, 2, 7, 7, 7, 3, 7, 4, 7, 7, 7]));
        assert_eq!(long.fitted(&[2, 2, 1], &[0; 4]).unwrap(), short);
        let empty = tensor(&[2, 0, 1], &[]).fitted(&[2, 1, 1], &1_i32.to_le_bytes()).unwrap();
        assert_eq!(empty, tensor(&[2, 1, 1], &[1, 1]));
        assert_eq!(short.fitted(&[2, 0, 1], &[0; 4]).unwrap(), tensor(&[2, 0, 1], &[]));
        let huge = short.fitted(&[usize::MAX, 2, 2], &[0; 4]).unwrap_err();
        assert!(matches!(huge, TensorError::ShapeOverflow { .. }));
        let texts = Tensor::zeros(DataType::Bytes, vec![1, 1]).unwrap();
        assert_eq!(texts.fitted(&[1, 2], &[]).unwrap(), texts);
    }
}
