//! String tensors, byte for byte.
//!
//! `ort` takes and gives only UTF-8 without NUL bytes, the protocol any bytes; so this goes to the
//! C interface, which counts lengths.
#![expect(unsafe_code, reason = "the safe interface loses bytes")]

use bytes::Bytes;
use ort::memory::Allocator;
use ort::value::{DynTensor, DynValue, Shape, TensorElementType};
use ort::{AsPointer, Error};

use super::values::dims;
use crate::inference::{RunError, Tensor};

/// Copies the elements into a new string tensor.
pub(super) fn to_ort(shape: &[usize], elements: &[Bytes]) -> ort::Result<DynTensor> {
    let dims = shape.iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX));
    let allocator = Allocator::default();
    let mut tensor = DynTensor::new(&allocator, TensorElementType::String, Shape::new(dims))?;
    for (index, element) in elements.iter().enumerate() {
        fill(&mut tensor, index, element)?;
    }
    Ok(tensor)
}

fn fill(tensor: &mut DynTensor, index: usize, element: &[u8]) -> ort::Result<()> {
    let mut buffer = std::ptr::null_mut();
    // SAFETY: the tensor is a string tensor owned here; the runtime checks the index and resizes
    // the element to the length, whose buffer it gives.
    let status = unsafe {
        (ort::api().GetResizedStringTensorElementBuffer)(
            tensor.ptr_mut(),
            index,
            element.len(),
            &raw mut buffer,
        )
    };
    // SAFETY: the status comes from the call above and is given up here.
    unsafe { Error::result_from_status(status) }?;
    // SAFETY: the buffer has element.len() bytes that only this function knows of.
    unsafe { std::ptr::copy_nonoverlapping(element.as_ptr(), buffer.cast(), element.len()) };
    Ok(())
}

/// Copies the elements out of a string tensor.
pub(super) fn from_ort(value: &DynValue) -> Result<Tensor, RunError> {
    let shape = value.dtype().tensor_shape().map(|shape| dims(shape));
    let shape = shape.unwrap_or_else(|| Ok(Vec::new()))?;
    let elements = contents(value, shape.iter().product())
        .map_err(|error| RunError::Engine(error.to_string()))?;
    Tensor::from_strings(shape, elements).map_err(|error| RunError::Engine(error.to_string()))
}

fn contents(value: &DynValue, count: usize) -> ort::Result<Vec<Bytes>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut length = 0;
    // SAFETY: the value is a string tensor that is alive, the out pointer is valid for a write.
    let status = unsafe { (ort::api().GetStringTensorDataLength)(value.ptr(), &raw mut length) };
    // SAFETY: the status comes from the call above and is given up here.
    unsafe { Error::result_from_status(status) }?;
    let mut joined = vec![0_u8; length];
    let mut offsets = vec![0_usize; count];
    // SAFETY: both buffers are as long as said, and the runtime checks both lengths.
    let status = unsafe {
        (ort::api().GetStringTensorContent)(
            value.ptr(),
            joined.as_mut_ptr().cast(),
            joined.len(),
            offsets.as_mut_ptr(),
            offsets.len(),
        )
    };
    // SAFETY: as above.
    unsafe { Error::result_from_status(status) }?;
    let joined = Bytes::from(joined);
    let ends = offsets.iter().skip(1).copied().chain([length]);
    Ok(offsets.iter().zip(ends).map(|(start, end)| joined.slice(*start..end)).collect())
}
