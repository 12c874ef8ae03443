//! String tensors, byte for byte.
//!
//! `ort` takes and gives only UTF-8 without NUL bytes, the protocol any bytes; so this goes to the
//! C interface, which counts lengths.
#![expect(unsafe_code, reason = "the safe interface loses bytes")]

use bytes::Bytes;

use super::raw::{Value, checked};

/// Copies the elements into a new string tensor.
pub(super) fn to_ort(dims: &[i64], elements: &[Bytes]) -> ort::Result<Value<'static>> {
    let tensor = Value::strings(dims)?;
    for (index, element) in elements.iter().enumerate() {
        fill(&tensor, index, element)?;
    }
    Ok(tensor)
}

fn fill(tensor: &Value<'static>, index: usize, element: &[u8]) -> ort::Result<()> {
    let mut buffer = std::ptr::null_mut();
    // SAFETY: the tensor is a string tensor that only the caller knows of; the runtime checks the index
    // and resizes the element to the length, whose buffer it gives.
    checked(unsafe {
        (ort::api().GetResizedStringTensorElementBuffer)(
            tensor.ptr(),
            index,
            element.len(),
            &raw mut buffer,
        )
    })?;
    // SAFETY: the buffer has element.len() bytes that only this function knows of.
    unsafe { std::ptr::copy_nonoverlapping(element.as_ptr(), buffer.cast(), element.len()) };
    Ok(())
}

/// Copies the elements, of which there are so many, out of a string tensor.
pub(super) fn from_ort(value: &Value<'_>, count: usize) -> ort::Result<Vec<Bytes>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut length = 0;
    // SAFETY: the value is a string tensor that is alive, the out pointer is valid for a write.
    checked(unsafe { (ort::api().GetStringTensorDataLength)(value.ptr(), &raw mut length) })?;
    let mut joined = vec![0_u8; length];
    let mut offsets = vec![0_usize; count];
    // SAFETY: both buffers are as long as said, and the runtime checks both lengths.
    checked(unsafe {
        (ort::api().GetStringTensorContent)(
            value.ptr(),
            joined.as_mut_ptr().cast(),
            joined.len(),
            offsets.as_mut_ptr(),
            offsets.len(),
        )
    })?;
    let joined = Bytes::from(joined);
    let ends = offsets.iter().skip(1).copied().chain([length]);
    Ok(offsets.iter().zip(ends).map(|(start, end)| joined.slice(*start..end)).collect())
}
