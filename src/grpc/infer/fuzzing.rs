//! Messages of inference, fuzzed: what is read comes back when it is written, raw and in fields.

use bytes::Bytes;
use prost::Message;

use super::request;
use crate::grpc::codec;
use crate::grpc::proto::model_infer_request::InferInputTensor;
use crate::grpc::proto::{InferTensorContents, ModelInferRequest};
use crate::inference::{self, DataType, Element, NamedTensor, Tensor};
use crate::oip::{Inputs, raw};

/// A message with a request.
pub fn grpc_infer(message: &[u8]) {
    let message = codec::read::<ModelInferRequest>(Bytes::copy_from_slice(message));
    let Ok(message) = message else { return };
    let again = ModelInferRequest::decode(message.encode_to_vec().as_slice());
    assert_eq!(again.map(|again| again.encode_to_vec()), Ok(message.encode_to_vec()));
    let Some(inputs) = read(message) else { return };
    inference::fuzzing::check(&inputs);
    comes_back(&inputs, true);
    comes_back(&inputs, false);
}

fn read(message: ModelInferRequest) -> Option<Vec<NamedTensor>> {
    match request::read(message).ok()?.inputs {
        Inputs::Tensors(tensors) => Some(tensors),
        Inputs::Raw(_) => None,
    }
}

/// What is written is read as what it was.
fn comes_back(inputs: &[NamedTensor], is_raw: bool) {
    let raw_only =
        |input: &NamedTensor| matches!(input.tensor.datatype(), DataType::Fp16 | DataType::Bf16);
    if !is_raw && inputs.iter().any(raw_only) {
        return;
    }
    let back = read(written(inputs, is_raw)).expect("it was written");
    assert_eq!(written(&back, true), written(inputs, true));
}

fn written(inputs: &[NamedTensor], is_raw: bool) -> ModelInferRequest {
    let raw = inputs.iter().map(|input| raw::write(&input.tensor));
    ModelInferRequest {
        model_name: "m".to_owned(),
        inputs: inputs.iter().map(|input| described(input, is_raw)).collect(),
        raw_input_contents: if is_raw { raw.collect() } else { Vec::new() },
        ..ModelInferRequest::default()
    }
}

fn described(NamedTensor { name, tensor }: &NamedTensor, is_raw: bool) -> InferInputTensor {
    let size = |size: &usize| i64::try_from(*size).expect("it was read as one");
    InferInputTensor {
        name: name.clone(),
        datatype: tensor.datatype().name().to_owned(),
        shape: tensor.shape().iter().map(size).collect(),
        contents: (!is_raw).then(|| contents(tensor)),
        ..InferInputTensor::default()
    }
}

/// The elements in the field of their datatype.
fn contents(tensor: &Tensor) -> InferTensorContents {
    let none = InferTensorContents::default;
    match tensor.datatype() {
        DataType::Bool => InferTensorContents { bool_contents: elements(tensor), ..none() },
        DataType::Uint8 => InferTensorContents { uint_contents: wide::<u8, _>(tensor), ..none() },
        DataType::Uint16 => InferTensorContents { uint_contents: wide::<u16, _>(tensor), ..none() },
        DataType::Uint32 => InferTensorContents { uint_contents: elements(tensor), ..none() },
        DataType::Uint64 => InferTensorContents { uint64_contents: elements(tensor), ..none() },
        DataType::Int8 => InferTensorContents { int_contents: wide::<i8, _>(tensor), ..none() },
        DataType::Int16 => InferTensorContents { int_contents: wide::<i16, _>(tensor), ..none() },
        DataType::Int32 => InferTensorContents { int_contents: elements(tensor), ..none() },
        DataType::Int64 => InferTensorContents { int64_contents: elements(tensor), ..none() },
        DataType::Fp32 => InferTensorContents { fp32_contents: elements(tensor), ..none() },
        DataType::Fp64 => InferTensorContents { fp64_contents: elements(tensor), ..none() },
        DataType::Bytes => {
            let elements = tensor.as_strings().unwrap_or_default().to_vec();
            InferTensorContents { bytes_contents: elements, ..none() }
        }
        DataType::Fp16 | DataType::Bf16 => none(),
    }
}

fn elements<T: Element + Copy>(tensor: &Tensor) -> Vec<T> {
    wide::<T, T>(tensor)
}

fn wide<T: Element + Copy + Into<W>, W>(tensor: &Tensor) -> Vec<W> {
    let elements = tensor.as_slice::<T>().expect("the datatype was looked at");
    elements.iter().map(|element| (*element).into()).collect()
}
