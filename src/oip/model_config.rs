//! How a model is set up, in the words of Triton's model configuration.

use super::refusal::Refusal;
use crate::inference::{DataType, Dim, Signature, TensorSpec};
use crate::model::{
    ModelLifecycleManager, ModelName, StepReport, VersionHandle, VersionPolicy, VersionRef, Wanted,
};

/// The only backend there is.
const BACKEND: &str = "onnxruntime";

/// The graph's file in a version's folder.
const FILE: &str = "model.onnx";

/// A model's configuration: what it was set up with, and what its graph tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ModelConfig {
    pub(crate) name: String,
    pub(crate) platform: &'static str,
    /// Empty for an ensemble, as are the file and the instances.
    pub(crate) backend: &'static str,
    pub(crate) file: &'static str,
    pub(crate) version_policy: VersionPolicy,
    /// Zero where it takes no batches, or nobody has said so and an input would have no dimension left;
    /// the largest number there is where nobody has set a bound.
    pub(crate) max_batch_size: i32,
    pub(crate) inputs: Vec<ConfigTensor>,
    pub(crate) outputs: Vec<ConfigTensor>,
    pub(crate) instances: i32,
    /// Whether answers are kept for requests that come again.
    pub(crate) response_cache: bool,
    /// What an ensemble is made of.
    pub(crate) steps: Vec<StepReport>,
}

/// An input or an output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigTensor {
    pub(crate) name: String,
    pub(crate) datatype: DataType,
    /// Without the dimension of the batch, where there is one; -1 for any size.
    pub(crate) dims: Vec<i64>,
    /// Whether a request may leave it out.
    pub(crate) optional: bool,
    /// The name of the file with what its places mean; empty where there is none.
    pub(crate) label_file: String,
}

impl ModelConfig {
    /// # Errors
    /// As [`ModelLifecycleManager::acquire`].
    pub(crate) fn of(
        models: &ModelLifecycleManager,
        model: &ModelName,
        version: Option<&VersionRef>,
    ) -> Result<Self, Refusal> {
        let handle = models.acquire(model.as_str(), Wanted::new(version, None))?;
        Ok(Self::of_version(&handle))
    }

    fn of_version(handle: &VersionHandle) -> Self {
        let (signature, settings) = (handle.signature(), handle.settings());
        let most = settings.max_batch_size.map(|most| i32::try_from(most).unwrap_or(i32::MAX));
        // A configuration has no inputs without dimensions: clients cannot make them.
        let is_batched = handle.is_batched() && (most.is_some() || has_rows(signature));
        let tensor = |spec: &TensorSpec| ConfigTensor::new(spec, is_batched);
        let labelled = |spec: &TensorSpec| {
            let labels = settings.labels.get(&spec.name);
            let label_file = labels.and_then(|labels| labels.file.clone()).unwrap_or_default();
            ConfigTensor { label_file, ..tensor(spec) }
        };
        let steps = handle.steps();
        let (backend, file) = if steps.is_empty() { (BACKEND, FILE) } else { ("", "") };
        Self {
            name: handle.id().model.to_string(),
            platform: handle.platform(),
            backend,
            file,
            version_policy: settings.version_policy.clone(),
            max_batch_size: if is_batched { most.unwrap_or(i32::MAX) } else { 0 },
            inputs: signature.inputs.iter().map(tensor).collect(),
            outputs: signature.outputs.iter().map(labelled).collect(),
            instances: i32::try_from(handle.instances()).unwrap_or(i32::MAX),
            response_cache: settings.response_cache,
            steps,
        }
    }
}

/// Whether every input has dimensions beside the first.
fn has_rows(signature: &Signature) -> bool {
    signature.inputs.iter().all(|spec| spec.shape.as_ref().is_none_or(|dims| dims.len() > 1))
}

impl ConfigTensor {
    fn new(spec: &TensorSpec, is_batched: bool) -> Self {
        let mut dims = super::metadata::shape(spec);
        // An input that may be left out can be without the batch.
        let has_batch = matches!(spec.shape.as_deref(), Some([Dim::Dynamic(_), ..]));
        if is_batched && has_batch {
            dims.remove(0);
        }
        let TensorSpec { name, datatype, optional, .. } = spec.clone();
        Self { name, datatype, dims, optional, label_file: String::new() }
    }
}

/// A datatype's name in a configuration.
pub(crate) const fn datatype_name(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "TYPE_BOOL",
        DataType::Uint8 => "TYPE_UINT8",
        DataType::Uint16 => "TYPE_UINT16",
        DataType::Uint32 => "TYPE_UINT32",
        DataType::Uint64 => "TYPE_UINT64",
        DataType::Int8 => "TYPE_INT8",
        DataType::Int16 => "TYPE_INT16",
        DataType::Int32 => "TYPE_INT32",
        DataType::Int64 => "TYPE_INT64",
        DataType::Fp16 => "TYPE_FP16",
        DataType::Bf16 => "TYPE_BF16",
        DataType::Fp32 => "TYPE_FP32",
        DataType::Fp64 => "TYPE_FP64",
        DataType::Bytes => "TYPE_STRING",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_is_no_dimension_of_a_configuration() {
        let spec = |shape: Vec<Dim>| TensorSpec {
            name: "x".to_owned(),
            datatype: DataType::Fp32,
            shape: Some(shape),
            optional: false,
        };
        let free = || Dim::Dynamic(String::new());
        let dims = |shape, is_batched| ConfigTensor::new(&spec(shape), is_batched).dims;
        assert_eq!(dims(vec![free(), Dim::Fixed(3), free()], true), [3, -1]);
        assert_eq!(dims(vec![free(), Dim::Fixed(3)], false), [-1, 3]);
        assert_eq!(dims(vec![Dim::Fixed(4)], true), [4]);
        let of = |shapes: [Vec<Dim>; 2]| {
            let [inputs, outputs] = shapes.map(|shape| vec![spec(shape)]);
            has_rows(&Signature { inputs, outputs })
        };
        assert!(of([vec![free(), free()], vec![free()]]));
        assert!(!of([vec![free()], vec![free(), free()]]));
    }
}
