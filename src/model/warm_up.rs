//! The generated warm-up: what proves that every instance answers.

use std::time::Instant;

use tracing::info;

use super::error::LoadError;
use super::loader::{ModelSettings, WarmUp};
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
pub(super) const LARGEST: usize = 256 << 20;

const ADVICE: &str = "set 'warm_up: off' in model.yaml if no generated input fits the model";

/// What a generated request is filled with: zeros, or ones for a model that divides by its input or takes
/// it for a size.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fill {
    Zeros,
    Ones,
}

/// The request that every instance has answered: the size of free dimensions, and the fill.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain {
    pub(super) size: usize,
    pub(super) fill: Fill,
}

/// Lets every instance answer requests of zeros, or else of ones: one of the smallest size that the model
/// answers, then one for each batch size that is set, within the budget. Sizes whose request would take more than
/// [`LARGEST`] are not tried. Cancelling `control` ends the request that is under way. Gives what was
/// answered first; `None` where the settings ask for nothing.
///
/// # Errors
/// [`LoadError::WarmUp`] with the failure of the smallest size, or of a batch.
pub(super) fn warm_up(
    signature: &Signature,
    instances: &mut [Box<dyn Instance>],
    (settings, control): (&ModelSettings, &RunControl),
) -> Result<Option<Plain>, LoadError> {
    if settings.warm_up == WarmUp::Off {
        return Ok(None);
    }
    let began = Instant::now();
    let plain = smallest(signature, instances, control)?;
    let Plain { size, fill } = plain;
    for batch in settings.warm_up_batches.iter().map(|batch| batch.get()) {
        let fits = bytes(signature, (size, batch)).is_some_and(|bytes| bytes <= LARGEST);
        let late = settings.warm_up_budget.is_some_and(|budget| began.elapsed() >= budget);
        if !fits || late {
            let reason = if late { "the budget is spent" } else { "it would take too much memory" };
            info!(batch, reason, "warm-up leaves a batch out");
            continue;
        }
        let request = generated(signature, (size, batch), fill)?;
        let mut instances = instances.iter_mut().map(Box::as_mut);
        instances
            .try_for_each(|instance| answer(instance, (signature, &request), control))
            .map_err(|failure| {
                LoadError::WarmUp(format!("batch of {batch}: {failure}; {ADVICE}"))
            })?;
    }
    Ok(Some(plain))
}

/// The smallest size that every instance answers, and what with.
fn smallest(
    signature: &Signature,
    instances: &mut [Box<dyn Instance>],
    control: &RunControl,
) -> Result<Plain, LoadError> {
    let mut first_failure = None;
    let fills = fills(signature);
    let tries = sizes(signature).iter().flat_map(|size| fills.iter().map(|fill| (*size, *fill)));
    for (size, fill) in tries {
        let request = generated(signature, (size, size), fill)?;
        let mut instances = instances.iter_mut().map(Box::as_mut);
        match instances.try_for_each(|instance| answer(instance, (signature, &request), control)) {
            Ok(()) => return Ok(Plain { size, fill }),
            Err(failure) => first_failure.get_or_insert(failure),
        };
    }
    let too_large = || format!("its smallest input takes more than {} MiB", LARGEST >> 20);
    let failure = first_failure.unwrap_or_else(too_large);
    Err(LoadError::WarmUp(format!("{failure}; {ADVICE}")))
}

/// The fills worth a try: a model without inputs is asked the same with either.
fn fills(signature: &Signature) -> &'static [Fill] {
    let is_asked = required(signature).next().is_some();
    if is_asked { &[Fill::Zeros, Fill::Ones] } else { &[Fill::Zeros] }
}

/// The sizes worth a try, smallest first.
fn sizes(signature: &Signature) -> &'static [usize] {
    let dynamic = signature.inputs.iter().any(is_dynamic);
    let candidates = if dynamic { &SIZES[..] } else { &SIZES[..1] };
    let fits =
        |size: &usize| bytes(signature, (*size, *size)).is_some_and(|bytes| bytes <= LARGEST);
    let fitting = candidates.iter().take_while(|size| fits(size)).count();
    &candidates[..fitting]
}

fn answer(
    instance: &mut dyn Instance,
    (signature, request): (&Signature, &PreparedRequest),
    control: &RunControl,
) -> Result<(), String> {
    let outputs = instance.run(request, control).map_err(|error| causes::of_error(&error))?;
    let outputs = request.outputs().iter().copied().zip(&outputs);
    signature.check_outputs(outputs).map_err(|error| error.to_string())
}

fn is_dynamic(spec: &TensorSpec) -> bool {
    let dynamic = |dim: &Dim| matches!(dim, Dim::Dynamic(_));
    spec.shape.as_ref().is_none_or(|dims| dims.iter().any(dynamic))
}

pub(super) fn required(signature: &Signature) -> impl Iterator<Item = &TensorSpec> {
    signature.inputs.iter().filter(|spec| !spec.optional)
}

/// The declared shape with `batch` for a first dimension that is free, and `size` for every other.
pub(super) fn shape(spec: &TensorSpec, (size, batch): (usize, usize)) -> Vec<usize> {
    let dims = spec.shape.as_deref().unwrap_or_default().iter().enumerate();
    dims.map(|(place, dim)| match dim {
        Dim::Fixed(fixed) => *fixed,
        Dim::Dynamic(_) if place == 0 => batch,
        Dim::Dynamic(_) => size,
    })
    .collect()
}

/// What the inputs of a request of this size take; `None` when that is beyond counting.
pub(super) fn bytes(signature: &Signature, size: (usize, usize)) -> Option<usize> {
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

fn generated(
    signature: &Signature,
    size: (usize, usize),
    fill: Fill,
) -> Result<PreparedRequest, LoadError> {
    let tensor = match fill {
        Fill::Zeros => Tensor::zeros,
        Fill::Ones => Tensor::ones,
    };
    let inputs = required(signature)
        .map(|spec| {
            let tensor = tensor(spec.datatype, shape(spec, size))
                .map_err(|error| LoadError::WarmUp(error.to_string()))?;
            Ok(NamedTensor { name: spec.name.clone(), tensor })
        })
        .collect::<Result<Vec<_>, LoadError>>()?;
    let request = InferenceRequest { inputs, outputs: Vec::new() };
    PreparedRequest::new(signature, request).map_err(|error| LoadError::WarmUp(error.to_string()))
}
