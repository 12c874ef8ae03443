//! Requests before and after they were checked against a model's signature.

use smallvec::SmallVec;

use super::datatype::DataType;
use super::metadata::{Signature, TensorSpec};
use super::tensor::{ShapeText, Tensor, TensorError};

/// Positions in a signature's outputs, which are not on the heap where they are as few as usual.
pub(crate) type Positions = SmallVec<[usize; 4]>;

/// A tensor under the name the caller gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// The input's name.
    pub name: String,
    /// Its value.
    pub tensor: Tensor,
}

/// What a caller asks for, not yet checked against any model.
#[derive(Debug, Clone, Default)]
pub struct InferenceRequest {
    /// The inputs, in any order.
    pub inputs: Vec<NamedTensor>,
    /// The outputs wanted, in the order wanted; empty for all of them in the graph's order.
    pub outputs: Vec<String>,
}

/// Why a request does not fit a model. Always the caller's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The model has no such input.
    #[error("unexpected input '{name}', the model takes {expected}")]
    UnknownInput {
        /// The name given.
        name: String,
        /// The names the model has.
        expected: String,
    },
    /// The same input was given twice.
    #[error("input '{0}' is given more than once")]
    DuplicateInput(String),
    /// A required input was not given.
    #[error("missing input '{name}' of datatype {datatype} and shape {shape}")]
    MissingInput {
        /// The input's name.
        name: String,
        /// Its datatype.
        datatype: DataType,
        /// Its declared shape.
        shape: String,
    },
    /// The input has another datatype than the model declares.
    #[error("input '{name}' must be {expected}, got {actual}")]
    WrongDatatype {
        /// The input's name.
        name: String,
        /// What the model declares.
        expected: DataType,
        /// What was given.
        actual: DataType,
    },
    /// The input's shape does not fit the declared one.
    #[error("input '{name}' must have shape {expected}, got {}", ShapeText(.actual))]
    WrongShape {
        /// The input's name.
        name: String,
        /// What the model declares.
        expected: String,
        /// What was given.
        actual: Vec<usize>,
    },
    /// The input is malformed in itself.
    #[error("input '{name}': {source}")]
    BadTensor {
        /// The input's name.
        name: String,
        /// What is wrong with it.
        source: TensorError,
    },
    /// The model has no such output.
    #[error("unexpected output '{name}', the model gives {expected}")]
    UnknownOutput {
        /// The name asked for.
        name: String,
        /// The names the model has.
        expected: String,
    },
    /// The same output was asked for twice.
    #[error("output '{0}' is asked for more than once")]
    DuplicateOutput(String),
}

impl InputError {
    /// The input that is wrong; `None` where it is none of the model's.
    pub(crate) fn input(&self) -> Option<&str> {
        match self {
            Self::MissingInput { name, .. }
            | Self::WrongDatatype { name, .. }
            | Self::WrongShape { name, .. }
            | Self::BadTensor { name, .. } => Some(name),
            Self::UnknownInput { .. }
            | Self::DuplicateInput(_)
            | Self::UnknownOutput { .. }
            | Self::DuplicateOutput(_) => None,
        }
    }
}

/// A request that fits a signature: the only thing an instance is given to run.
#[derive(Debug, Clone)]
pub struct PreparedRequest {
    inputs: Vec<Option<Tensor>>,
    outputs: Positions,
}

impl PreparedRequest {
    /// Checks `request` against `signature`.
    ///
    /// # Errors
    /// The first [`InputError`] in the order: inputs as given, missing inputs, outputs as given.
    pub fn new(signature: &Signature, request: InferenceRequest) -> Result<Self, InputError> {
        let inputs = place_inputs(signature, request.inputs)?;
        let outputs = place_outputs(signature, &request.outputs)?;
        Ok(Self { inputs, outputs })
    }

    /// Of what was checked before.
    pub(super) fn of_parts(inputs: Vec<Option<Tensor>>, outputs: Positions) -> Self {
        Self { inputs, outputs }
    }

    /// Of all inputs, in bytes.
    pub fn size(&self) -> u64 {
        self.inputs.iter().flatten().map(|tensor| tensor.byte_len() as u64).sum()
    }

    /// How many entries its batch has, where its tensors have one; else one.
    pub(crate) fn entries(&self, is_batched: bool) -> usize {
        let first = self.inputs.iter().flatten().next().filter(|_| is_batched);
        first.and_then(Tensor::rows).unwrap_or(1)
    }

    /// One slot per declared input, in the signature's order; `None` for an optional one left out.
    pub fn inputs(&self) -> &[Option<Tensor>] {
        &self.inputs
    }

    /// [`PreparedRequest::inputs`], to be taken.
    pub fn into_inputs(self) -> Vec<Option<Tensor>> {
        self.inputs
    }

    /// Positions in the signature's outputs, in the order the caller wants them.
    pub fn outputs(&self) -> &[usize] {
        &self.outputs
    }
}

fn place_inputs(
    signature: &Signature,
    given: Vec<NamedTensor>,
) -> Result<Vec<Option<Tensor>>, InputError> {
    let mut placed: Vec<Option<Tensor>> = vec![None; signature.inputs.len()];
    for NamedTensor { name, tensor } in given {
        let Some(position) = signature.input(&name) else {
            return Err(InputError::UnknownInput { name, expected: names(&signature.inputs) });
        };
        check_input(&signature.inputs[position], &tensor)?;
        if placed[position].replace(tensor).is_some() {
            return Err(InputError::DuplicateInput(name));
        }
    }
    let missing =
        signature.inputs.iter().zip(&placed).find(|(spec, slot)| slot.is_none() && !spec.optional);
    match missing {
        Some((spec, _)) => Err(InputError::MissingInput {
            name: spec.name.clone(),
            datatype: spec.datatype,
            shape: spec.shape_text(),
        }),
        None => Ok(placed),
    }
}

fn check_input(spec: &TensorSpec, tensor: &Tensor) -> Result<(), InputError> {
    let name = || spec.name.clone();
    if tensor.datatype() != spec.datatype {
        let (expected, actual) = (spec.datatype, tensor.datatype());
        return Err(InputError::WrongDatatype { name: name(), expected, actual });
    }
    if !spec.admits(tensor.shape()) {
        let (expected, actual) = (spec.shape_text(), tensor.shape().to_vec());
        return Err(InputError::WrongShape { name: name(), expected, actual });
    }
    Ok(())
}

fn place_outputs(signature: &Signature, wanted: &[String]) -> Result<Positions, InputError> {
    if wanted.is_empty() {
        return Ok((0..signature.outputs.len()).collect());
    }
    let mut placed = Positions::with_capacity(wanted.len());
    for name in wanted {
        let Some(position) = signature.output(name) else {
            let expected = names(&signature.outputs);
            return Err(InputError::UnknownOutput { name: name.clone(), expected });
        };
        if placed.contains(&position) {
            return Err(InputError::DuplicateOutput(name.clone()));
        }
        placed.push(position);
    }
    Ok(placed)
}

fn names(specs: &[TensorSpec]) -> String {
    let quoted: Vec<String> = specs.iter().map(|spec| format!("'{}'", spec.name)).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::metadata::Dim;
    use super::*;

    fn signature() -> Signature {
        let spec = |name: &str, optional| TensorSpec {
            name: name.to_owned(),
            datatype: DataType::Fp32,
            shape: Some(vec![Dim::Dynamic("batch".to_owned()), Dim::Fixed(2)]),
            optional,
        };
        Signature {
            inputs: vec![spec("x", false), spec("bias", true)],
            outputs: vec![spec("y", false), spec("z", false)],
        }
    }

    fn request(inputs: &[(&str, &[usize])], outputs: &[&str]) -> InferenceRequest {
        let named = |(name, shape): &(&str, &[usize])| NamedTensor {
            name: (*name).to_owned(),
            tensor: Tensor::zeros(DataType::Fp32, shape.to_vec()).unwrap(),
        };
        InferenceRequest {
            inputs: inputs.iter().map(named).collect(),
            outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[track_caller]
    fn refuses(inputs: &[(&str, &[usize])], outputs: &[&str], message: &str) {
        let error = PreparedRequest::new(&signature(), request(inputs, outputs)).unwrap_err();
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn inputs_are_placed_in_the_graphs_order_and_outputs_in_the_callers() {
        let prepared = PreparedRequest::new(
            &signature(),
            request(&[("bias", &[1, 2]), ("x", &[3, 2])], &["z", "y"]),
        )
        .unwrap();
        let shapes: Vec<_> =
            prepared.inputs().iter().map(|slot| slot.as_ref().unwrap().shape().to_vec()).collect();
        assert_eq!(shapes, [vec![3, 2], vec![1, 2]]);
        assert_eq!(prepared.outputs(), [1, 0]);
    }

    #[test]
    fn an_optional_input_may_be_left_out_and_all_outputs_are_the_default() {
        let prepared = PreparedRequest::new(&signature(), request(&[("x", &[0, 2])], &[])).unwrap();
        assert!(prepared.inputs()[1].is_none());
        assert_eq!(prepared.outputs(), [0, 1]);
    }

    #[test]
    fn every_mistake_is_named() {
        refuses(&[], &[], "missing input 'x' of datatype FP32 and shape [-1,2]");
        refuses(&[("q", &[1, 2])], &[], "unexpected input 'q', the model takes 'x', 'bias'");
        refuses(&[("x", &[1, 2]), ("x", &[1, 2])], &[], "input 'x' is given more than once");
        refuses(&[("x", &[1, 3])], &[], "input 'x' must have shape [-1,2], got [1,3]");
        refuses(&[("x", &[2])], &[], "input 'x' must have shape [-1,2], got [2]");
        refuses(&[("x", &[1, 2])], &["w"], "unexpected output 'w', the model gives 'y', 'z'");
        refuses(&[("x", &[1, 2])], &["y", "y"], "output 'y' is asked for more than once");
    }
}
