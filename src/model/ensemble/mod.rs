//! Ensembles: models that are made of others, whose tensors go from step to step.
//!
//! A version of an ensemble pins a version of each of its steps when it is loaded, and has them until it
//! goes. So every request runs through one set of versions, and what becomes of a step's model
//! meanwhile changes nothing of it.

mod opened;
mod pinned;
mod plan;
mod run;
mod steps;
mod waits;

use std::collections::BTreeMap;

use super::names::{ModelName, VersionRef};

pub(super) use opened::OpenedEnsemble;
pub(super) use pinned::{Ensemble, Pinned};
pub use plan::EnsembleError;
pub(super) use steps::Along;
pub(super) use waits::Waits;

/// The protocol's platform name of ensembles.
pub(super) const PLATFORM: &str = "ensemble";

/// What an ensemble is made of. Tensors have names of the ensemble's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EnsembleDefinition {
    /// The tensors that a request gives; those that no step gives where `None`.
    pub inputs: Option<Vec<String>>,
    /// The tensors that are answered; those that no step takes where `None`.
    pub outputs: Option<Vec<String>>,
    /// The steps, in any order: a step runs as soon as there is what it takes.
    pub steps: Vec<StepDefinition>,
}

/// A step of an ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepDefinition {
    /// Its model.
    pub model: ModelName,
    /// Its version; what its model serves when the ensemble is loaded where `None`.
    pub version: Option<VersionRef>,
    /// The tensors that its inputs take, by their names. One that is required and not among them takes
    /// the tensor of its name.
    pub inputs: BTreeMap<String, String>,
    /// The tensors that its outputs give, by their names; all of them those of their names where `None`.
    pub outputs: Option<BTreeMap<String, String>>,
}

impl StepDefinition {
    /// Whether it wants the same version of the same model.
    fn is_same(&self, other: &Self) -> bool {
        self.model == other.model && self.version == other.version
    }
}

impl EnsembleDefinition {
    /// The models of its steps, each once.
    pub(super) fn models(&self) -> Vec<ModelName> {
        let mut models: Vec<_> = self.steps.iter().map(|step| step.model.clone()).collect();
        models.sort_unstable();
        models.dedup();
        models
    }
}
