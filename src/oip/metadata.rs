//! What the server and its models are.

use super::refusal::Refusal;
use crate::inference::{Dim, TensorSpec};
use crate::model::{
    ModelLifecycleManager, ModelName, StateKind, Version, VersionHandle, VersionRef, Wanted,
};

/// The server's name.
pub(crate) const SERVER: &str = "onward";

/// The server's version.
pub(crate) const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The protocol's extensions that are served; a client takes this literally.
pub(crate) const EXTENSIONS: [&str; 8] = [
    "binary_tensor_data",
    "classification",
    "logging",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
    "trace",
];

/// A model that answers requests.
#[derive(Debug)]
pub(crate) struct ModelMetadata {
    /// The version that tells what the model takes and gives.
    pub(crate) handle: VersionHandle,
    /// Those that answer requests, lowest first; only the one that was asked for where one was.
    pub(crate) versions: Vec<Version>,
}

impl ModelMetadata {
    /// # Errors
    /// As [`ModelLifecycleManager::acquire`].
    pub(crate) fn of(
        models: &ModelLifecycleManager,
        model: &ModelName,
        version: Option<&VersionRef>,
    ) -> Result<Self, Refusal> {
        let handle = models.acquire(model.as_str(), Wanted::new(version, None))?;
        let held = handle.id().version;
        let versions = match version {
            Some(_) => vec![held],
            None => ready_versions(models, model, held),
        };
        Ok(Self { handle, versions })
    }
}

/// The versions that answer requests, `held` always among them.
fn ready_versions(
    models: &ModelLifecycleManager,
    model: &ModelName,
    held: Version,
) -> Vec<Version> {
    let report = models.report(model.as_str());
    let versions = report.into_iter().flat_map(|report| report.versions);
    let ready = versions.filter(|version| version.state == StateKind::Ready);
    let mut ready: Vec<Version> = ready.map(|version| version.version).chain([held]).collect();
    ready.sort_unstable();
    ready.dedup();
    ready
}

/// A declared shape as the protocol writes it. It has no way to say that a rank is not declared.
pub(crate) fn shape(spec: &TensorSpec) -> Vec<i64> {
    spec.shape.as_deref().unwrap_or_default().iter().map(size).collect()
}

fn size(dim: &Dim) -> i64 {
    match dim {
        Dim::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
        Dim::Dynamic(_) => -1,
    }
}
