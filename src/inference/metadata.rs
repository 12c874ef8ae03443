//! What a model takes and gives: read from its graph, never from configuration.

use std::fmt;

use super::backend::RunError;
use super::datatype::DataType;
use super::tensor::{ShapeText, Tensor};

/// One dimension of a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// Exactly this many.
    Fixed(usize),
    /// Any number, zero included; the name the graph gives it may be empty.
    Dynamic(String),
}

impl Dim {
    fn admits(&self, actual: usize) -> bool {
        match self {
            Self::Fixed(expected) => *expected == actual,
            Self::Dynamic(_) => true,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Dynamic(_) => f.write_str("-1"),
        }
    }
}

/// One declared input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name in the graph.
    pub name: String,
    /// Its datatype.
    pub datatype: DataType,
    /// Its dimensions, outermost first; `None` where the graph does not declare a rank.
    pub shape: Option<Vec<Dim>>,
    /// Whether a request may leave it out (an input for which the graph carries a default).
    pub optional: bool,
}

impl TensorSpec {
    /// Whether a tensor of shape `actual` fits the declared one.
    pub fn admits(&self, actual: &[usize]) -> bool {
        self.admits_from(0, actual)
    }

    /// Whether its first dimension is free, as that of a batch is.
    pub fn is_batched(&self) -> bool {
        matches!(self.shape.as_deref(), Some([Dim::Dynamic(_), ..]))
    }

    /// Whether it fits but for the first dimensions.
    fn admits_from(&self, skipped: usize, actual: &[usize]) -> bool {
        self.shape.as_ref().is_none_or(|dims| {
            let both = dims.iter().zip(actual).skip(skipped);
            dims.len() == actual.len() && both.into_iter().all(|(dim, size)| dim.admits(*size))
        })
    }

    /// The declared shape as the protocol writes it: `[-1,64]`, or `any` without a declared rank.
    pub fn shape_text(&self) -> String {
        let Some(dims) = &self.shape else {
            return "any".to_owned();
        };
        let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
        format!("[{}]", dims.join(","))
    }
}

/// The inputs and outputs of a model, in the graph's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signature {
    /// What a request may carry.
    pub inputs: Vec<TensorSpec>,
    /// What an answer may carry.
    pub outputs: Vec<TensorSpec>,
}

impl Signature {
    /// Whether everything it takes and gives has a first dimension that is free, as that of a batch is.
    pub fn is_batched(&self) -> bool {
        self.inputs
            .iter()
            .filter(|input| !input.optional)
            .chain(&self.outputs)
            .all(TensorSpec::is_batched)
    }

    /// Whether outputs, each with its position, are of the shapes that the graph declares. Where the first
    /// dimension of all inputs is free, that of an output is not looked at: many a graph has been exported
    /// with a batch of one in its outputs, and gives more.
    ///
    /// # Errors
    /// [`RunError::Engine`] with the first that is not: the model is not what it says.
    pub fn check_outputs<'a>(
        &self,
        outputs: impl Iterator<Item = (usize, &'a Tensor)>,
    ) -> Result<(), RunError> {
        let required = self.inputs.iter().filter(|input| !input.optional);
        let skipped = usize::from(
            required.clone().count() > 0 && required.clone().all(TensorSpec::is_batched),
        );
        for (position, tensor) in outputs {
            let spec = &self.outputs[position];
            if !spec.admits_from(skipped, tensor.shape()) {
                let (name, declared) = (&spec.name, spec.shape_text());
                let given = ShapeText(tensor.shape());
                return Err(RunError::Engine(format!(
                    "its output '{name}' has the shape {given}, and not {declared} as it declares"
                )));
            }
        }
        Ok(())
    }

    /// The position of the input called `name`.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|spec| spec.name == name)
    }

    /// The position of the output called `name`.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|spec| spec.name == name)
    }
}
