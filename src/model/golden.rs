//! Golden samples: requests with the answers that a version has to give.

use super::error::LoadError;
use crate::causes;
use crate::inference::{
    InferenceRequest, Instance, NamedTensor, PreparedRequest, RunControl, Signature, Tensor,
    Tolerance, compare,
};

/// A request, and what has to be answered.
#[derive(Debug, Clone)]
pub struct GoldenSample {
    /// What it is called, such as its file.
    pub name: String,
    /// The inputs.
    pub inputs: Vec<NamedTensor>,
    /// The outputs that are compared.
    pub expected: Vec<NamedTensor>,
    /// How far floating-point numbers may be off.
    pub tolerance: Tolerance,
}

impl GoldenSample {
    /// The request for the outputs that are compared.
    pub(super) fn request(&self) -> InferenceRequest {
        let outputs = self.expected.iter().map(|tensor| tensor.name.clone()).collect();
        InferenceRequest { inputs: self.inputs.clone(), outputs }
    }

    /// What is wrong with an answer, in words.
    pub(super) fn judge<'a>(&self, answer: impl Iterator<Item = &'a Tensor>) -> Result<(), String> {
        for (expected, actual) in self.expected.iter().zip(answer) {
            let difference = compare::difference(&expected.tensor, actual, self.tolerance);
            if let Some(difference) = difference {
                return Err(format!("output '{}': {difference}", expected.name));
            }
        }
        Ok(())
    }
}

/// Lets every instance answer every sample. Cancelling `control` ends the request that is under way.
///
/// # Errors
/// [`LoadError::Golden`] with the first sample that is answered otherwise, or not at all.
pub(super) fn verify(
    signature: &Signature,
    instances: &mut [Box<dyn Instance>],
    (samples, control): (&[GoldenSample], &RunControl),
) -> Result<(), LoadError> {
    for sample in samples {
        let wrong = |problem: String| LoadError::Golden { sample: sample.name.clone(), problem };
        let request = PreparedRequest::new(signature, sample.request())
            .map_err(|error| wrong(error.to_string()))?;
        for instance in instances.iter_mut() {
            let answer = instance.run(&request, control);
            let answer = answer.map_err(|error| wrong(causes::of_error(&error)))?;
            sample.judge(answer.iter()).map_err(wrong)?;
        }
    }
    Ok(())
}
