//! An answer, from what the core gives to its message.

use crate::grpc::proto::ModelInferResponse;
use crate::grpc::proto::model_infer_response::InferOutputTensor;
use crate::inference::{NamedTensor, Tensor};
use crate::oip::{Reply, raw};

/// All outputs are raw, as Triton's are.
pub(super) fn write(reply: &Reply, id: String) -> ModelInferResponse {
    let version = reply.version.id();
    ModelInferResponse {
        model_name: version.model.to_string(),
        model_version: version.version.to_string(),
        id,
        outputs: reply.outputs.iter().map(described).collect(),
        raw_output_contents: reply
            .outputs
            .iter()
            .map(|output| raw::write(&output.tensor))
            .collect(),
        ..ModelInferResponse::default()
    }
}

fn described(NamedTensor { name, tensor }: &NamedTensor) -> InferOutputTensor {
    InferOutputTensor {
        name: name.clone(),
        datatype: tensor.datatype().name().to_owned(),
        shape: shape(tensor),
        ..InferOutputTensor::default()
    }
}

fn shape(tensor: &Tensor) -> Vec<i64> {
    let size = |size: &usize| i64::try_from(*size).expect("a tensor's size fits in 63 bits");
    tensor.shape().iter().map(size).collect()
}
