//! What a server would make of a repository, without one.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::assembly::{AssemblyError, manager_options};
use super::managed::{Place, backend};
use super::reload::store_options;
use crate::causes;
use crate::config::{Config, ModelsConfig};
use crate::inference::{BatchingReport, Signature, TensorSpec};
use crate::lifecycle::{Deadline, EventBus, HealthRegistry};
use crate::model::{
    AvailableModel, ManagerParts, ModelLifecycleManager, ModelName, ModelReport, ModelSource,
    SourceError, Version, VersionId, VersionReport,
};
use crate::onnx::OnnxRuntime;

/// Why nothing could be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// What the server itself could not be put together for.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    /// The repository cannot be read.
    #[error("the model repository, the setting models.repository, cannot be opened")]
    Source(#[from] SourceError),
    /// It has no model of that name.
    #[error("the model repository has no model '{0}'")]
    NoModel(ModelName),
    /// There is no folder for what comes from elsewhere.
    #[error("the folder for temporary files cannot be used")]
    Scratch(#[source] io::Error),
    /// The work on it panicked.
    #[error("reading the repository panicked")]
    Panicked,
}

/// What would become of one model.
#[derive(Debug)]
pub struct CheckedModel {
    /// Its name.
    pub name: ModelName,
    /// Why it would not be loaded; `None` where it would be.
    pub problem: Option<String>,
    /// What its settings ask for and is not honoured.
    pub warnings: Vec<String>,
    /// The versions that would be loaded, lowest first, and those that failed.
    pub loaded: Vec<CheckedVersion>,
    /// The versions that are there, and that its version policy does not select.
    pub others: Vec<Version>,
    /// What would serve it better, in words.
    pub advice: Vec<String>,
}

/// A version that was loaded, or that could not be.
#[derive(Debug)]
pub struct CheckedVersion {
    /// What the load came to.
    pub report: VersionReport,
    /// What it takes and gives, where it was loaded.
    pub signature: Option<Signature>,
    /// The golden samples that it has answered.
    pub samples: usize,
}

/// Loads and warms each model of the configuration's repository, or this one, as a server would, one at a
/// time, and unloads it again. Nothing is listened on, and nothing is left behind. `environment` has the
/// credentials of object stores.
///
/// Not cancel safe: a load that is under way goes on to its end.
///
/// # Errors
/// [`CheckError`]; what is wrong with a model is in what is told of it.
pub async fn check(
    (config, environment): (&Config, &[(OsString, OsString)]),
    runtime: OnnxRuntime,
    only: Option<&ModelName>,
) -> Result<Vec<CheckedModel>, CheckError> {
    // What comes from an object store is not for the cache of a server.
    let scratch = TempDir::new().map_err(CheckError::Scratch)?;
    let models = ModelsConfig { cache: scratch.path().join("cache"), ..config.models.clone() };
    let place = Place::new(&models, store_options(environment)).map_err(AssemblyError::Place)?;
    let runtime_of = Handle::current();
    let opened = blocking(move || place.open(&runtime_of)).await??;
    let source: Arc<dyn ModelSource> = Arc::from(opened);
    let listed = Arc::clone(&source);
    let mut available = blocking(move || listed.list()).await??;
    if let Some(only) = only {
        available.retain(|model| model.name == *only);
        if available.is_empty() {
            return Err(CheckError::NoModel(only.clone()));
        }
    }
    let checking = Checking { models: manager(config, runtime, &source), source };
    let mut checked = Vec::with_capacity(available.len());
    for model in available {
        checked.push(checking.model(model).await);
    }
    checking.models.shutdown(Deadline::after(config.lifecycle.shutdown_timeout)).await;
    Ok(checked)
}

fn manager(
    config: &Config,
    runtime: OnnxRuntime,
    source: &Arc<dyn ModelSource>,
) -> ModelLifecycleManager {
    let events = EventBus::new(config.events.history.get());
    let lifecycle = &config.lifecycle;
    let health =
        HealthRegistry::new(lifecycle.health_interval, lifecycle.health_timeout, events.clone());
    let parts = ManagerParts {
        source: Arc::clone(source),
        backend: Arc::new(backend(runtime, &config.onnxruntime)),
        observer: Arc::new(()),
        events,
        health,
        desired: None,
    };
    ModelLifecycleManager::new(parts, manager_options(config))
}

struct Checking {
    models: ModelLifecycleManager,
    source: Arc<dyn ModelSource>,
}

impl Checking {
    async fn model(&self, model: AvailableModel) -> CheckedModel {
        let name = model.name;
        let loaded = self.models.load(&name).await;
        let problem = loaded.err().map(|error| causes::of_error(&*error));
        let report = self.models.report(name.as_str());
        let mut versions = Vec::new();
        let (reports, warnings) = report.map(parts).unwrap_or_default();
        for report in reports {
            versions.push(self.version(&name, report).await);
        }
        let is_there = |version: &Version| {
            versions.iter().any(|checked: &CheckedVersion| checked.report.version == *version)
        };
        let others = model.versions.into_iter().filter(|version| !is_there(version));
        // What was not looked at is not what its policy has left out.
        let others = if versions.is_empty() { Vec::new() } else { others.collect() };
        let advice = versions.iter().flat_map(advice).collect();
        // Where it was not loaded there is nothing to unload.
        self.models.unload(&name).await.ok();
        CheckedModel { name, problem, warnings, loaded: versions, others, advice }
    }

    async fn version(&self, name: &ModelName, report: VersionReport) -> CheckedVersion {
        let id = VersionId { model: name.clone(), version: report.version };
        let handle = self.models.acquire(name.as_str(), Some(report.version)).ok();
        let signature = handle.map(|handle| handle.signature().clone());
        let source = Arc::clone(&self.source);
        let samples = blocking(move || source.samples(&id)).await;
        let samples = samples.ok().and_then(Result::ok).map_or(0, |samples| samples.len());
        CheckedVersion { report, signature, samples }
    }
}

fn parts(report: ModelReport) -> (Vec<VersionReport>, Vec<String>) {
    (report.versions, report.warnings)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CheckError> {
    spawn_blocking(work).await.map_err(|_| CheckError::Panicked)
}

/// What would serve a version better.
fn advice(checked: &CheckedVersion) -> Vec<String> {
    let Some(signature) = &checked.signature else { return Vec::new() };
    let version = checked.report.version;
    let samples = (checked.samples == 0).then(|| {
        format!(
            "version {version} has no golden samples: with some under golden/, a version that answers \
             otherwise never serves"
        )
    });
    let serving = checked.report.serving.as_ref();
    let own = serving.filter(|serving| serving.steps.is_empty());
    let batching = own.and_then(|serving| match &serving.batching {
        BatchingReport::Off { reason } => {
            Some(format!("requests of version {version} do not share runs: {reason}"))
        }
        BatchingReport::On { .. } => None,
    });
    let rankless = |spec: &&TensorSpec| spec.shape.is_none();
    let rankless = signature.inputs.iter().filter(rankless).map(|spec| {
        let name = &spec.name;
        format!("input '{name}' of version {version} declares no rank: what fits it is told by the engine alone")
    });
    samples.into_iter().chain(batching).chain(rankless).collect()
}
