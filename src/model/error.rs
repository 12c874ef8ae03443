//! Why a lookup, a load or a change was refused.

use std::sync::Arc;

use super::ensemble::EnsembleError;
use super::ledger::NoRoom;
use super::loader::SourceError;
use super::names::{AliasName, ModelName, NameError, Version, VersionId};
use super::state::StateKind;
use super::traffic::WeightsError;
use crate::inference::BackendError;

/// Why no version can take a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The name itself is impossible.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No such model was ever loaded, nor is one in the repository.
    #[error("Request for unknown model: '{0}' is not found")]
    UnknownModel(String),
    /// The model is there, this version of it is not.
    #[error("Request for unknown model: '{model}' version {version} is not found")]
    UnknownVersion {
        /// The model.
        model: String,
        /// The version.
        version: Version,
    },
    /// The model is there, but has no such alias.
    #[error("Request for unknown model: '{model}' has no alias '{alias}'")]
    UnknownAlias {
        /// The model.
        model: String,
        /// The alias.
        alias: AliasName,
    },
    /// As many requests wait for the model to be loaded as may.
    #[error("model '{model}' is overloaded: too many requests wait until it is loaded")]
    Crowded {
        /// The model.
        model: String,
    },
    /// The deadline passed before the model was loaded.
    #[error("the deadline passed before model '{model}' was loaded")]
    Late {
        /// The model.
        model: String,
    },
    /// The model or version is there, but does not serve.
    #[error("Request for unavailable model: '{model}'{} is {state}{}", of_version(*.version), because(.reason))]
    NotServing {
        /// The model.
        model: String,
        /// The version asked for, if one was.
        version: Option<Version>,
        /// The state it is in; UNLOADED when it was never loaded.
        state: StateKind,
        /// Why it failed; empty otherwise.
        reason: String,
    },
}

fn of_version(version: Option<Version>) -> String {
    version.map(|version| format!(" version {version}")).unwrap_or_default()
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

/// Why a version could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The source could not give its files.
    #[error("its files could not be fetched")]
    Source(#[from] SourceError),
    /// The engine could not read it.
    #[error("the engine cannot open it")]
    Backend(#[from] BackendError),
    /// Its files were replaced in the meantime.
    #[error("its files changed while it was loaded")]
    Changed,
    /// It takes or gives something else than the version that it is to take the place of.
    #[error(
        "it cannot take the place of version {with}: {}; say that it may by 'allow_incompatible'",
        differences.join("; ")
    )]
    Incompatible {
        /// The version that serves.
        with: Version,
        /// What differs.
        differences: Vec<String>,
    },
    /// It is not what was declared of it.
    #[error("it is not as declared: {0}")]
    Declared(String),
    /// Its steps do not make the ensemble that it is to be.
    #[error("it is no ensemble")]
    Ensemble(#[from] EnsembleError),
    /// A step of the ensemble cannot be had.
    #[error("{step} of the ensemble cannot be had{}", because(.problem))]
    Step {
        /// The step: its number and its model.
        step: String,
        /// What is wrong; empty where its load has failed.
        problem: String,
        /// Why its load has failed.
        source: Option<Arc<ChangeError>>,
    },
    /// Its settings ask for batches that its graph does not allow.
    #[error("its requests cannot be batched as 'batching' says: {0}")]
    Batching(String),
    /// Whoever asked for it has given it up.
    #[error("it was cancelled")]
    Cancelled,
    /// It took longer than a load may take.
    #[error("loading it took longer than {}", humantime::format_duration(*.0))]
    TimedOut(std::time::Duration),
    /// It did not answer its warm-up.
    #[error("its warm-up failed: {0}")]
    WarmUp(String),
    /// It answers a golden sample otherwise than it has to.
    #[error("it does not answer the golden sample {sample} as it has to: {problem}")]
    Golden {
        /// The sample.
        sample: String,
        /// What is wrong with its answer.
        problem: String,
    },
    /// It does not fit into the memory that models may have.
    #[error(
        "it would take about {} bytes of memory, {} of {} are taken: unload something, raise \
         models.memory_budget, or swap with the strategy 'resource'",
        .0.needed, .0.used, .0.budget
    )]
    NoRoom(NoRoom),
    /// The system gave it no thread.
    #[error("its threads could not be started")]
    Threads(#[source] std::io::Error),
    /// The code that loads it panicked.
    #[error("loading it panicked: {0}")]
    Panicked(String),
    /// The server is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl LoadError {
    /// Whether the same load may succeed in a moment, though nobody has done anything about it.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Source(source) => source.may_pass(),
            Self::Step { source, .. } => source.as_ref().is_some_and(|source| source.may_pass()),
            Self::Changed | Self::Threads(_) => true,
            _ => false,
        }
    }
}

/// Why a change to a model was refused or failed. What served before still serves.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The repository could not answer for the model.
    #[error("failed to load '{model}'")]
    Source {
        /// The model.
        model: ModelName,
        /// What the repository said.
        source: SourceError,
    },
    /// The repository could not be read at all.
    #[error("the repository cannot be read")]
    Repository(#[source] LoadError),
    /// The scan for the model could not run.
    #[error("failed to load '{model}'")]
    Scan {
        /// The model.
        model: ModelName,
        /// Why.
        source: LoadError,
    },
    /// The repository has the model, but no version that its policy selects.
    #[error("failed to load '{0}': it has no version to serve")]
    NoVersions(ModelName),
    /// What is to be loaded is being written.
    #[error(
        "failed to load '{model}': version {version} is being written, it is loaded when it was left alone"
    )]
    Unsettled {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
    },
    /// A version could not be made ready.
    #[error("failed to load '{id}'")]
    Load {
        /// The version.
        id: VersionId,
        /// Why.
        source: LoadError,
    },
    /// The model was never loaded.
    #[error("Request for unknown model: '{0}' is not found")]
    UnknownModel(ModelName),
    /// The model serves nothing that could be changed.
    #[error("model '{0}' is not loaded")]
    NotLoaded(ModelName),
    /// The version serves already.
    #[error("model '{model}' is at version {version} already", model = .0.model, version = .0.version)]
    AlreadyCurrent(VersionId),
    /// The model has no such alias.
    #[error("model '{model}' has no alias '{alias}'")]
    UnknownAlias {
        /// The model.
        model: ModelName,
        /// The alias.
        alias: AliasName,
    },
    /// The version does not serve.
    #[error("version {version} of model '{model}' is not loaded, load it first", version = .0.version, model = .0.model)]
    VersionNotLoaded(VersionId),
    /// Something needs the version.
    #[error("version {version} of model '{model}' is needed by {by}", version = .id.version, model = .id.model, by = .by.join(" and "))]
    InUse {
        /// The version.
        id: VersionId,
        /// What needs it.
        by: Vec<String>,
    },
    /// Somebody holds a lease of the model.
    #[error("model '{model}' is leased by {}", by.join(", "))]
    Leased {
        /// The model.
        model: ModelName,
        /// Who holds a lease.
        by: Vec<String>,
    },
    /// There are as many leases of the model as there may be.
    #[error("model '{0}' has as many leases as it may have")]
    TooManyLeases(ModelName),
    /// There is no such lease.
    #[error("there is no lease '{0}', or it has ended")]
    UnknownLease(String),
    /// No other version was current before.
    #[error("model '{0}' has no version before the current one to go back to")]
    NothingBefore(ModelName),
    /// The version's files are others than those that it served from.
    #[error(
        "the files of version {version} of model '{model}' are not those that it served from \
         before; say that they may be by 'allow_changed'",
        version = .0.version, model = .0.model
    )]
    ChangedSince(VersionId),
    /// Weights cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The model was changed since the caller looked.
    #[error("model '{model}' is at generation {generation}, not at {expected}")]
    Generation {
        /// The model.
        model: ModelName,
        /// What the caller knows.
        expected: u64,
        /// What it is.
        generation: u64,
    },
    /// The new version did not prove itself; the version before answers again.
    #[error("version {version} of model '{model}' was rolled back: {reason}", version = .id.version, model = .id.model)]
    RolledBack {
        /// The new version.
        id: VersionId,
        /// Why, in figures.
        reason: String,
    },
    /// The version has no golden samples.
    #[error("version {version} of model '{model}' has no golden samples to be verified by", version = .0.version, model = .0.model)]
    NoSamples(VersionId),
    /// The version answers a golden sample otherwise than it has to.
    #[error("version {version} of model '{model}' does not answer the golden sample {sample} as it has to: {problem}", version = .id.version, model = .id.model)]
    Unlike {
        /// The version.
        id: VersionId,
        /// The sample.
        sample: String,
        /// What is wrong with its answer.
        problem: String,
    },
    /// The new version could not be loaded where the old one had gone, and then the old one neither.
    #[error(
        "model '{model}' serves nothing, for the version before could not be loaded again after the \
         new one had failed ({})",
        crate::causes::of_error(no_way_back.as_ref())
    )]
    NothingServes {
        /// The model.
        model: ModelName,
        /// Why the new version could not be loaded.
        #[source]
        failure: Box<ChangeError>,
        /// Why the old one could not be loaded again.
        no_way_back: Box<ChangeError>,
    },
    /// A plan makes no sense.
    #[error("{0}")]
    Plan(String),
    /// The key was used for something else before.
    #[error("the idempotency key '{0}' was used for another request before")]
    KeyReused(String),
    /// Whoever asked for it has given it up.
    #[error("the operation was cancelled")]
    Cancelled,
    /// The code that changes it panicked.
    #[error("the change could not be made because of a bug in the server")]
    Panicked(String),
    /// Another change of the same model is under way.
    #[error("another change of model '{model}' is under way{}", .trial.as_ref().map_or_else(String::new, |id| {
        format!(": operation {id} tries a version out; wait for it, cancel it, or roll back")
    }))]
    Busy {
        /// The model.
        model: ModelName,
        /// The operation that tries a version out, where that is the change.
        trial: Option<String>,
    },
    /// The server is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl ChangeError {
    /// Whether another version of the model might be loaded instead.
    pub(super) fn is_of_the_version(&self) -> bool {
        match self {
            Self::Source { .. } | Self::NoVersions(_) | Self::Unsettled { .. } => true,
            Self::Load { source, .. } => !matches!(
                source,
                LoadError::NoRoom(_) | LoadError::Cancelled | LoadError::ShuttingDown
            ),
            _ => false,
        }
    }

    /// Whether a failure may be of the moment.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Repository(_) => true,
            Self::Source { source, .. } => source.may_pass(),
            Self::Load { source, .. } | Self::Scan { source, .. } => match source {
                // What an ensemble lacks may come.
                LoadError::TimedOut(_) | LoadError::NoRoom(_) | LoadError::Step { .. } => true,
                source => source.may_pass(),
            },
            _ => false,
        }
    }

    /// Whether somebody is writing the version, or one of its steps.
    pub(super) fn is_unsettled(&self) -> bool {
        match self {
            Self::Unsettled { .. } => true,
            Self::Load { source: LoadError::Step { source, .. }, .. } => {
                source.as_ref().is_some_and(|source| source.is_unsettled())
            }
            _ => false,
        }
    }

    /// Whether there was no room for a version.
    pub(super) fn is_no_room(&self) -> bool {
        matches!(self, Self::Load { source: LoadError::NoRoom(_), .. })
    }
}
