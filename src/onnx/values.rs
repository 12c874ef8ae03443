//! Tensors to and from ONNX Runtime's values.

use std::fmt::Debug;

use half::{bf16, f16};
use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef};

use super::strings;
use crate::inference::{DataType, Element, RunError, Tensor};

/// Lends a tensor's buffer to ONNX Runtime, without a copy except for BYTES.
pub(super) fn to_ort(tensor: &Tensor) -> ort::Result<SessionInputValue<'_>> {
    match tensor.datatype() {
        DataType::Bool => view::<bool>(tensor),
        DataType::Uint8 => view::<u8>(tensor),
        DataType::Uint16 => view::<u16>(tensor),
        DataType::Uint32 => view::<u32>(tensor),
        DataType::Uint64 => view::<u64>(tensor),
        DataType::Int8 => view::<i8>(tensor),
        DataType::Int16 => view::<i16>(tensor),
        DataType::Int32 => view::<i32>(tensor),
        DataType::Int64 => view::<i64>(tensor),
        DataType::Fp16 => view::<f16>(tensor),
        DataType::Bf16 => view::<bf16>(tensor),
        DataType::Fp32 => view::<f32>(tensor),
        DataType::Fp64 => view::<f64>(tensor),
        DataType::Bytes => {
            let elements = tensor.as_strings().expect("BYTES tensors hold strings");
            strings::to_ort(tensor.shape(), elements).map(SessionInputValue::from)
        }
    }
}

fn view<T>(tensor: &Tensor) -> ort::Result<SessionInputValue<'_>>
where
    T: Element + PrimitiveTensorElementType + Clone + Debug,
{
    let data = tensor.as_slice::<T>().expect("the datatype was matched");
    let value = TensorRef::from_array_view((tensor.shape().to_vec(), data))?;
    Ok(value.into())
}

/// Copies a value out of ONNX Runtime's memory, which would otherwise stay pinned.
pub(super) fn from_ort(value: &DynValue) -> Result<Tensor, RunError> {
    let element = value.dtype().tensor_type();
    let element = element.ok_or_else(|| unexpected(&value.dtype()))?;
    match element {
        TensorElementType::Bool => copy::<bool>(value),
        TensorElementType::Uint8 => copy::<u8>(value),
        TensorElementType::Uint16 => copy::<u16>(value),
        TensorElementType::Uint32 => copy::<u32>(value),
        TensorElementType::Uint64 => copy::<u64>(value),
        TensorElementType::Int8 => copy::<i8>(value),
        TensorElementType::Int16 => copy::<i16>(value),
        TensorElementType::Int32 => copy::<i32>(value),
        TensorElementType::Int64 => copy::<i64>(value),
        TensorElementType::Float16 => copy::<f16>(value),
        TensorElementType::Bfloat16 => copy::<bf16>(value),
        TensorElementType::Float32 => copy::<f32>(value),
        TensorElementType::Float64 => copy::<f64>(value),
        TensorElementType::String => strings::from_ort(value),
        other => Err(unexpected(&other)),
    }
}

fn copy<T>(value: &DynValue) -> Result<Tensor, RunError>
where
    T: Element + PrimitiveTensorElementType,
{
    let (shape, data) =
        value.try_extract_tensor::<T>().map_err(|error| RunError::Engine(error.to_string()))?;
    Tensor::from_vec(dims(shape)?, data.to_vec())
        .map_err(|error| RunError::Engine(error.to_string()))
}

/// An actual value's dimensions, which are never negative.
pub(super) fn dims(shape: &[i64]) -> Result<Vec<usize>, RunError> {
    let dims: Result<_, _> = shape.iter().map(|size| usize::try_from(*size)).collect();
    dims.map_err(|_| RunError::Engine(format!("it gave an output of shape {shape:?}")))
}

fn unexpected(what: &dyn std::fmt::Display) -> RunError {
    RunError::Engine(format!("it gave an output of type {what}"))
}
