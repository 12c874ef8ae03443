//! Whether the requests for a version share runs: what was asked for, and whether its graph allows it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::error::LoadError;
use super::invariance::{Check, Doubt};
use super::loader::ModelSettings;
use super::warm_up::Plain;
use crate::inference::{BatchOptions, Instance, Padding, RunControl, Signature, TensorSpec};

/// The most that an instance may be asked to wait for more.
pub const LONGEST_DELAY: Duration = Duration::from_mins(1);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BatchingMode {
    /// Batches for a version that was seen to answer them as it answers single requests.
    #[default]
    Auto,
    /// The same, also for one of which that could not be seen.
    On,
    /// None.
    Off,
}

/// How requests for a model share runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchingSettings {
    /// Whether they do.
    pub mode: BatchingMode,
    /// The most entries that a batch is made of; the server's default where `None`.
    pub max_size: Option<NonZeroUsize>,
    /// How long an instance waits for more.
    pub max_delay: Duration,
    /// What inputs of different lengths are filled up with, by their names.
    pub pad: BTreeMap<String, PadValue>,
}

/// A number that inputs are filled up with.
#[derive(Debug, Clone, Copy)]
pub struct PadValue(pub f64);

impl PartialEq for PadValue {
    fn eq(&self, other: &Self) -> bool {
        self.0.total_cmp(&other.0).is_eq()
    }
}

impl Eq for PadValue {}

/// How requests for a version with this signature share runs; or else why they do not. Blocks while
/// `instance` answers. `warmed_by` is what it has answered before, if anything.
///
/// # Errors
/// [`LoadError::Batching`] where the settings do not fit the signature.
pub(super) fn agree(
    signature: &Signature,
    instance: &mut dyn Instance,
    (settings, most): (&ModelSettings, NonZeroUsize),
    (warmed_by, control): (Option<Plain>, &RunControl),
) -> Result<Result<BatchOptions, String>, LoadError> {
    let BatchingSettings { mode, max_size, max_delay, pad } = &settings.batching;
    let values = pad.iter().map(|(name, value)| (name.clone(), value.0)).collect();
    let padding = Padding::new(signature, &values).map_err(LoadError::Batching)?;
    let most = max_size.unwrap_or(most).get();
    let most = settings.max_batch_size.map_or(most, |bound| most.min(bound as usize));
    if let Some(reason) = obstacle(signature, (*mode, most)) {
        return Ok(Err(reason));
    }
    let Some(max_entries) = NonZeroUsize::new(most) else {
        return Ok(Err("its batches may have no entries".to_owned()));
    };
    let doubt = match warmed_by {
        Some(plain) => Check { signature, padding: &padding, control }.run(instance, plain),
        None => Err(Doubt::Unseen("its warm-up is off, so that nothing was compared".to_owned())),
    };
    Ok(match doubt {
        Err(Doubt::Differs(reason)) => Err(reason),
        Err(Doubt::Unseen(reason)) if *mode != BatchingMode::On => Err(reason),
        _ => Ok(BatchOptions {
            max_entries,
            max_delay: *max_delay,
            padding,
            without_entries: without_entries(signature),
        }),
    })
}

/// Inputs that may be left out, and have no free first dimension.
fn without_entries(signature: &Signature) -> Vec<usize> {
    let inputs = signature.inputs.iter().enumerate();
    inputs.filter(|(_, spec)| spec.optional && !spec.is_batched()).map(|(place, _)| place).collect()
}

/// What stands against batches, whatever the model answers.
fn obstacle(signature: &Signature, (mode, most): (BatchingMode, usize)) -> Option<String> {
    if mode == BatchingMode::Off {
        return Some("it is switched off".to_owned());
    }
    if most < 2 {
        return Some(format!("batches may have {most} entries at most"));
    }
    let fixed = |specs: &[TensorSpec]| {
        specs.iter().find(|spec| !spec.optional && !spec.is_batched()).cloned()
    };
    let told = |kind: &str, spec: TensorSpec| {
        let (name, shape) = (&spec.name, spec.shape_text());
        format!("the first dimension of {kind} '{name}' is not free, its shape is {shape}")
    };
    if signature.inputs.iter().all(|input| input.optional) {
        return Some("it has no inputs that are required".to_owned());
    }
    fixed(&signature.inputs)
        .map(|spec| told("input", spec))
        .or_else(|| fixed(&signature.outputs).map(|spec| told("output", spec)))
}
