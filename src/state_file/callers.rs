//! What the callers of a model know, as the state file has it.

use serde::{Deserialize, Serialize};

use crate::inference::{DataType, Dim, Signature, TensorSpec};
use crate::model::{Callers, Version};

#[derive(Serialize, Deserialize)]
pub(super) struct CallersForm {
    version: u64,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

#[derive(Serialize, Deserialize)]
struct Tensor {
    name: String,
    datatype: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    shape: Option<Vec<Size>>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    optional: bool,
}

/// A size, or the name of a free one.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Size {
    Fixed(usize),
    Free(String),
}

impl From<&Callers> for CallersForm {
    fn from(callers: &Callers) -> Self {
        let Callers { version, signature } = callers;
        let tensors = |specs: &[TensorSpec]| specs.iter().map(Tensor::from).collect();
        Self {
            version: version.number(),
            inputs: tensors(&signature.inputs),
            outputs: tensors(&signature.outputs),
        }
    }
}

impl CallersForm {
    pub(super) fn callers(self) -> Result<Callers, String> {
        let signature = Signature { inputs: specs(self.inputs)?, outputs: specs(self.outputs)? };
        let version = Version::new(self.version).ok_or("versions begin at 1")?;
        Ok(Callers { version, signature })
    }
}

fn specs(tensors: Vec<Tensor>) -> Result<Vec<TensorSpec>, String> {
    tensors.into_iter().map(Tensor::spec).collect()
}

impl From<&TensorSpec> for Tensor {
    fn from(spec: &TensorSpec) -> Self {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => Size::Fixed(*size),
            Dim::Dynamic(name) => Size::Free(name.clone()),
        };
        Self {
            name: spec.name.clone(),
            datatype: spec.datatype.name().to_owned(),
            shape: spec.shape.as_ref().map(|dims| dims.iter().map(size).collect()),
            optional: spec.optional,
        }
    }
}

impl Tensor {
    fn spec(self) -> Result<TensorSpec, String> {
        let Self { name, datatype, shape, optional } = self;
        let unknown = || format!("there is no datatype '{datatype}'");
        let datatype = DataType::from_name(&datatype).ok_or_else(unknown)?;
        let dim = |size| match size {
            Size::Fixed(size) => Dim::Fixed(size),
            Size::Free(name) => Dim::Dynamic(name),
        };
        let shape = shape.map(|sizes| sizes.into_iter().map(dim).collect());
        Ok(TensorSpec { name, datatype, shape, optional })
    }
}
