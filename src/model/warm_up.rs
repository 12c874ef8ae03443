//! The generated warm-up: what proves that every instance answers.

use super::error::LoadError;
use crate::causes;
use crate::inference::{
    Dim, InferenceRequest, Instance, NamedTensor, PreparedRequest, RunControl, Signature, Tensor,
    TensorSpec,
};

/// Sizes tried for dynamic dimensions: a graph may need more than one of something, such as a
/// convolution wider than its input.
const SIZES: [usize; 5] = [1, 2, 8, 64, 224];

/// The most memory that the inputs of one generated request may take: far above what a real request
/// takes, far below what would hurt the models that serve.
const LARGEST: usize = 256 << 20;

const ADVICE: &str = "set 'warm_up: off' in model.yaml if no generated input fits the model";

/// Lets every instance answer one request of zeros, of the smallest size that the model answers.
/// Sizes whose request would take more than [`LARGEST`] are not tried. Cancelling `control` ends the
/// request that is under way.
///
/// # Errors
/// [`LoadError::WarmUp`] with the failure of the smallest size.
pub(super) fn warm_up(
    signature: &Signature,
    instances: &mut [Box<dyn Instance>],
    control: &RunControl,
) -> Result<(), LoadError> {
    let mut first_failure = None;
    for size in sizes(signature) {
        let request = generated(signature, *size)?;
        let mut instances = instances.iter_mut().map(Box::as_mut);
        match instances.try_for_each(|instance| answer(instance, &request, control)) {
            Ok(()) => return Ok(()),
            Err(failure) => first_failure.get_or_insert(failure),
        };
    }
    let too_large = || format!("its smallest input takes more than {} MiB", LARGEST >> 20);
    let failure = first_failure.unwrap_or_else(too_large);
    Err(LoadError::WarmUp(format!("{failure}; {ADVICE}")))
}

/// The sizes worth a try, smallest first.
fn sizes(signature: &Signature) -> &'static [usize] {
    let dynamic = signature.inputs.iter().any(is_dynamic);
    let candidates = if dynamic { &SIZES[..] } else { &SIZES[..1] };
    let fits = |size: &usize| bytes(signature, *size).is_some_and(|bytes| bytes <= LARGEST);
    let fitting = candidates.iter().take_while(|size| fits(size)).count();
    &candidates[..fitting]
}

fn answer(
    instance: &mut dyn Instance,
    request: &PreparedRequest,
    control: &RunControl,
) -> Result<(), String> {
    instance.run(request, control).map(drop).map_err(|error| causes::of_error(&error))
}

fn is_dynamic(spec: &TensorSpec) -> bool {
    let dynamic = |dim: &Dim| matches!(dim, Dim::Dynamic(_));
    spec.shape.as_ref().is_none_or(|dims| dims.iter().any(dynamic))
}

fn required(signature: &Signature) -> impl Iterator<Item = &TensorSpec> {
    signature.inputs.iter().filter(|spec| !spec.optional)
}

fn shape(spec: &TensorSpec, size: usize) -> Vec<usize> {
    let dims = spec.shape.as_deref().unwrap_or_default().iter();
    dims.map(|dim| match dim {
        Dim::Fixed(fixed) => *fixed,
        Dim::Dynamic(_) => size,
    })
    .collect()
}

/// What the inputs of a request of this size take; `None` when that is beyond counting.
fn bytes(signature: &Signature, size: usize) -> Option<usize> {
    required(signature).try_fold(0_usize, |sum, spec| {
        let shape = shape(spec, size);
        if shape.contains(&0) {
            return Some(sum);
        }
        // An element of BYTES is empty, but has a place in a list of them.
        let element = spec.datatype.size().unwrap_or(size_of::<bytes::Bytes>());
        let bytes = shape.iter().try_fold(element, |product, dim| product.checked_mul(*dim))?;
        sum.checked_add(bytes)
    })
}

fn generated(signature: &Signature, size: usize) -> Result<PreparedRequest, LoadError> {
    let inputs = required(signature)
        .map(|spec| {
            let tensor = Tensor::zeros(spec.datatype, shape(spec, size))
                .map_err(|error| LoadError::WarmUp(error.to_string()))?;
            Ok(NamedTensor { name: spec.name.clone(), tensor })
        })
        .collect::<Result<Vec<_>, LoadError>>()?;
    let request = InferenceRequest { inputs, outputs: Vec::new() };
    PreparedRequest::new(signature, request).map_err(|error| LoadError::WarmUp(error.to_string()))
}
