//! An ensemble with the versions of its steps.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::super::hold::Hold;
use super::super::loader::ModelSettings;
use super::super::names::{ModelName, VersionId};
use super::super::report::StepReport;
use super::EnsembleDefinition;
use super::plan::{EnsembleError, MOST_STEPS, Plan};
use crate::hex::hex;
use crate::inference::{RunCounts, Signature};

/// A version of an ensemble, and the versions that its requests run through.
#[derive(Debug)]
pub(in super::super) struct Ensemble {
    pub(in super::super) definition: EnsembleDefinition,
    /// The digest of its own files.
    pub(in super::super) files: String,
    /// The runs that gave answers.
    pub(in super::super) runs: Arc<RunCounts>,
    /// Whether the first dimension of its tensors is that of a batch.
    pub(super) is_batched: bool,
    pub(super) plan: Plan,
    /// In the order of the definition.
    pub(super) steps: Vec<Hold>,
}

/// The versions that an ensemble takes, in the order of its definition.
#[derive(Debug)]
pub(in super::super) struct Pinned(pub(super) Vec<Hold>);

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(steps) = self;
        for (number, hold) in steps.iter().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            write!(f, "{separator}{}", hold.serving().id)?;
        }
        Ok(())
    }
}

impl Pinned {
    /// The ensemble that these make.
    ///
    /// # Errors
    /// [`EnsembleError`] where the steps do not fit together.
    pub(in super::super) fn planned(
        self,
        files: &str,
        (definition, settings): (&EnsembleDefinition, &ModelSettings),
    ) -> Result<Ensemble, EnsembleError> {
        let Self(steps) = self;
        let count = steps.iter().map(count).sum();
        if count > MOST_STEPS {
            return Err(EnsembleError::TooManySteps(count));
        }
        let signature = |hold: &Hold| hold.serving().signature.clone();
        let signatures: Vec<Signature> = steps.iter().map(signature).collect();
        let plan = Plan::new(definition, &signatures)?;
        let is_batched = settings.is_batched(&plan.signature);
        let (definition, files) = (definition.clone(), files.to_owned());
        let runs = Arc::default();
        Ok(Ensemble { definition, files, runs, is_batched, plan, steps })
    }
}

impl Ensemble {
    /// What it takes and gives.
    pub(in super::super) fn signature(&self) -> &Signature {
        &self.plan.signature
    }

    /// SHA-256 over its own files, its definition and the digests of its steps, in lower-case
    /// hexadecimal.
    pub(in super::super) fn digest(&self) -> String {
        let mut text = format!("files {}\n", self.files);
        let EnsembleDefinition { inputs, outputs, steps } = &self.definition;
        write!(text, "inputs {inputs:?}\noutputs {outputs:?}\n").expect(FITS);
        for (step, hold) in steps.iter().zip(&self.steps) {
            let (id, digest) = (&hold.serving().id, &hold.serving().digest);
            writeln!(text, "step {id} {digest} {:?} {:?}", step.inputs, step.outputs).expect(FITS);
        }
        hex(&Sha256::digest(text))
    }

    /// Lets the versions of its steps go; no request may be inside.
    pub(in super::super) fn let_go(&self) {
        self.steps.iter().for_each(Hold::end);
    }

    /// The versions of its steps, in the order of its definition.
    pub(in super::super) fn steps(&self) -> impl Iterator<Item = &Hold> {
        self.steps.iter()
    }

    /// Whether a model is among its steps, or theirs.
    pub(super) fn goes_through(&self, model: &ModelName) -> bool {
        self.steps.iter().any(|hold| {
            let serving = hold.serving();
            let inner = serving.runner.ensemble();
            serving.id.model == *model || inner.is_some_and(|inner| inner.goes_through(model))
        })
    }

    /// Its steps as they are told.
    pub(in super::super) fn report(&self) -> Vec<StepReport> {
        let told = self.plan.steps.iter().zip(&self.steps).map(|(planned, hold)| {
            let name = |tensor: &usize| self.plan.names[*tensor].clone();
            let named = |ends: &[(String, usize)]| {
                ends.iter().map(|(own, tensor)| (own.clone(), name(tensor))).collect()
            };
            let VersionId { model, version } = hold.serving().id.clone();
            StepReport {
                model,
                version,
                digest: hold.serving().digest.clone(),
                inputs: named(&planned.inputs),
                outputs: named(&planned.outputs),
            }
        });
        told.collect()
    }
}

/// How many steps there are in one, itself included.
fn count(hold: &Hold) -> usize {
    let inner = hold.serving().runner.ensemble();
    1 + inner.map_or(0, |inner| inner.steps.iter().map(count).sum())
}

const FITS: &str = "a string takes every text";
