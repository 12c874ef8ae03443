//! Tensors to and from ONNX Runtime's values.

use bytes::Bytes;
use ort::memory::MemoryInfo;
use ort::sys::ONNXTensorElementDataType as Element;

use super::raw::{Description, Dims, Value};
use super::strings;
use crate::inference::{DataType, RunError, Shape, Tensor};

/// Lends a tensor's buffer to ONNX Runtime, without a copy except for BYTES.
pub(super) fn to_ort<'a>(tensor: &'a Tensor, memory: &MemoryInfo<'_>) -> ort::Result<Value<'a>> {
    let sizes = tensor.shape().iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX));
    let dims: Dims = sizes.collect();
    match tensor.as_bytes() {
        Some(data) => Value::over(data, (element(tensor.datatype()), &dims), memory),
        None => strings::to_ort(&dims, tensor.as_strings().expect("it has bytes or strings")),
    }
}

/// A value that has to be of this datatype as a tensor, with its `content` where that is no BYTES.
pub(super) fn from_ort(
    value: Value<'static>,
    datatype: DataType,
    content: impl FnOnce(Value<'static>) -> ort::Result<Bytes>,
) -> Result<Tensor, RunError> {
    let engine = |error: ort::Error| RunError::Engine(error.to_string());
    let Description { element: actual, dims } = value.describe().map_err(engine)?;
    if actual != element(datatype) as i32 {
        return Err(RunError::Engine(format!("it gave an output of type {actual}")));
    }
    let shape = shape(&dims)?;
    let tensor = if datatype == DataType::Bytes {
        let elements = strings::from_ort(&value, shape.iter().product()).map_err(engine)?;
        Tensor::from_strings(shape, elements)
    } else {
        Tensor::from_bytes(datatype, shape, content(value).map_err(engine)?)
    };
    tensor.map_err(|error| RunError::Engine(error.to_string()))
}

/// An actual value's dimensions, which are never negative.
fn shape(dims: &[i64]) -> Result<Shape, RunError> {
    let sizes: Result<_, _> = dims.iter().map(|size| usize::try_from(*size)).collect();
    sizes.map_err(|_| RunError::Engine(format!("it gave an output of shape {dims:?}")))
}

const fn element(datatype: DataType) -> Element {
    match datatype {
        DataType::Bool => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DataType::Uint8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DataType::Uint16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DataType::Uint32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DataType::Uint64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DataType::Int8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DataType::Int16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DataType::Int32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DataType::Int64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DataType::Fp16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DataType::Bf16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DataType::Fp32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DataType::Fp64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DataType::Bytes => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}
