//! What the server stands on, as resources. Whoever reads the repository or has a model of the engine is
//! counted as a user, and neither is cleaned up under its users.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use url::Url;

use crate::causes;
use crate::config::{ModelsConfig, OnnxRuntimeConfig};
use crate::inference::{
    Backend, BackendError, Instance, ModelFiles, OpenOptions, OpenedModel, PreparedRequest,
    RunControl, RunError, Signature, Tensor,
};
use crate::lifecycle::{EventBus, Resource, ResourceHandle, ResourceRef, ResourceType};
use crate::metrics::Metrics;
use crate::model::{
    AvailableModel, Glance, GoldenSample, Hints, ModelName, ModelSettings, ModelSource,
    SourceError, VersionId,
};
use crate::onnx::{OnnxBackend, OnnxRuntime};
use crate::repository::{LocalRepository, RemoteOptions, RemoteRepository};

/// An engine that is in use for as long as there is a model of it.
pub(super) struct ManagedBackend {
    engine: ResourceHandle<OnnxBackend>,
}

/// A model or an instance, with the engine that it needs.
struct Using<T> {
    used: T,
    engine: Arc<ResourceRef<OnnxBackend>>,
}

/// Why there is no repository.
#[derive(Debug, thiserror::Error)]
#[error("the model repository, the setting models.repository, cannot be opened")]
struct NotOpened(#[source] SourceError);

/// The task that keeps the counters of `/metrics`, from the first event on.
pub(super) fn metrics(metrics: &Arc<Metrics>, events: &EventBus) -> Resource<JoinHandle<()>> {
    let (metrics, events) = (Arc::clone(metrics), events.clone());
    let init = move || {
        let (metrics, stream) = (Arc::clone(&metrics), events.subscribe_after(0));
        let counting = tokio::spawn(async move { metrics.count_events(stream).await });
        ready(Ok::<_, Infallible>(counting))
    };
    let exporter = Resource::new("metrics", init).lasting().not_critical();
    let exporter = exporter.check(|counting| {
        let ended = counting.is_finished();
        ready(if ended { Err("events are no longer counted".to_owned()) } else { Ok(()) })
    });
    exporter.clean(|counting| {
        counting.abort();
        ready(Ok::<_, Infallible>(()))
    })
}

/// What runs models, without a cache.
pub(super) fn backend(runtime: OnnxRuntime, config: &OnnxRuntimeConfig) -> OnnxBackend {
    let providers = config.execution_providers.given().cloned().unwrap_or_default();
    OnnxBackend::new(runtime).with_execution_providers(providers)
}

/// The engine of this process, which cannot be ended and begun anew.
pub(super) fn engine(runtime: OnnxRuntime, config: &OnnxRuntimeConfig) -> Resource<OnnxBackend> {
    let mut backend = backend(runtime, config);
    if let Some(folder) = &config.cache {
        backend = backend.with_cache(folder.clone(), config.cache_size.get());
    }
    let init = move || ready(Ok::<_, Infallible>(backend.clone()));
    Resource::new("onnxruntime", init).lasting()
}

/// Where models come from.
type Source = Box<dyn ModelSource>;

/// Where the repository is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Folder(PathBuf),
    Remote(RemoteOptions),
}

impl Place {
    /// The setting's text as a place: an address of an object store where it is one, else a folder.
    ///
    /// # Errors
    /// [`PlaceError`] for an address that cannot be one of a repository.
    pub(super) fn new(
        models: &ModelsConfig,
        environment: Vec<(String, String)>,
    ) -> Result<Self, PlaceError> {
        let Some(text) = models.store() else {
            return Ok(Self::Folder(models.repository.clone()));
        };
        let url = Url::parse(text).map_err(PlaceError::Url)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(PlaceError::Credentials);
        }
        let (cache, cache_size) = (models.cache.clone(), models.cache_size.get());
        Ok(Self::Remote(RemoteOptions { url, options: environment, cache, cache_size }))
    }

    /// The repository that is there. Blocks.
    ///
    /// # Errors
    /// [`SourceError`].
    pub(super) fn open(&self, runtime: &Handle) -> Result<Source, SourceError> {
        Ok(match self {
            Self::Folder(folder) => Box::new(LocalRepository::open(folder)?),
            Self::Remote(options) => Box::new(RemoteRepository::open(options, runtime.clone())?),
        })
    }

    /// The folder whose file system has to have room.
    pub(super) fn folder(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder,
            Self::Remote(options) => folder_of(&options.cache),
        }
    }
}

/// The folder that `path` is in, also where that is the one that the process is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

/// Why an address is none of a repository.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It is none at all.
    #[error("models.repository is no address")]
    Url(#[source] url::ParseError),
    /// It has credentials in it, which would be shown.
    #[error(
        "models.repository has a user or a password in it: credentials come from the environment, \
         such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    Credentials,
}

/// The models. What is loaded is served without them, so the check is not critical.
pub(super) fn repository(place: &Place) -> Resource<Source> {
    let runtime = Handle::current();
    let kind = ResourceType::blocking(move |place: Place| place.open(&runtime).map_err(NotOpened));
    let kind = match place {
        Place::Folder(_) => kind.check_blocking(|repository: &Source| {
            repository.list().map(drop).map_err(|error| causes::of_error(&error))
        }),
        // Whether a store can be reached is told by loads: asking every few seconds would cost.
        Place::Remote(_) => kind,
    };
    kind.resource("repository", place.clone()).not_critical()
}

/// A repository that is in use while it is read, and opened anew where it was cleaned up.
pub(super) struct ManagedRepository {
    repository: ResourceHandle<Source>,
    runtime: Handle,
}

impl ManagedBackend {
    pub(super) fn new(engine: ResourceHandle<OnnxBackend>) -> Self {
        Self { engine }
    }
}

impl Backend for ManagedBackend {
    fn platform(&self) -> &'static str {
        OnnxBackend::PLATFORM
    }

    fn open(
        &self,
        files: &ModelFiles,
        options: OpenOptions,
    ) -> Result<Box<dyn OpenedModel>, BackendError> {
        let engine = self.engine.try_get().ok_or_else(|| {
            BackendError::Unavailable(format!("the engine is {}", self.engine.report().state))
        })?;
        let used = engine.open(files, options)?;
        Ok(Box::new(Using { used, engine: Arc::new(engine) }))
    }

    fn copies(
        &self,
        files: &ModelFiles,
        options: &OpenOptions,
        instances: NonZeroUsize,
    ) -> NonZeroUsize {
        self.engine.try_get().map_or(instances, |engine| engine.copies(files, options, instances))
    }

    fn released(&self) {
        if let Some(engine) = self.engine.try_get() {
            engine.released();
        }
    }
}

impl OpenedModel for Using<Box<dyn OpenedModel>> {
    fn signature(&self) -> &Signature {
        self.used.signature()
    }

    fn instantiate(&mut self) -> Result<Box<dyn Instance>, BackendError> {
        let used = self.used.instantiate()?;
        Ok(Box::new(Using { used, engine: Arc::clone(&self.engine) }))
    }
}

impl Instance for Using<Box<dyn Instance>> {
    fn run(
        &mut self,
        request: &PreparedRequest,
        control: &RunControl,
    ) -> Result<Vec<Tensor>, RunError> {
        self.used.run(request, control)
    }
}

impl ManagedRepository {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(repository: ResourceHandle<Source>) -> Self {
        Self { repository, runtime: Handle::current() }
    }

    /// The repository, opened if it is not. Blocks, as every call of a source may.
    fn opened(&self) -> Result<ResourceRef<Source>, SourceError> {
        if let Some(repository) = self.repository.try_get() {
            return Ok(repository);
        }
        self.runtime.block_on(self.repository.get()).map_err(|refusal| SourceError::Io {
            what: "the model repository".to_owned(),
            // It is set up anew, after a pause.
            source: io::Error::new(io::ErrorKind::NotConnected, refusal),
        })
    }
}

impl ModelSource for ManagedRepository {
    fn list(&self) -> Result<Vec<AvailableModel>, SourceError> {
        self.opened()?.list()
    }

    fn model(&self, name: &ModelName) -> Result<AvailableModel, SourceError> {
        self.opened()?.model(name)
    }

    fn settings(&self, name: &ModelName) -> Result<ModelSettings, SourceError> {
        self.opened()?.settings(name)
    }

    fn fetch(&self, id: &VersionId) -> Result<ModelFiles, SourceError> {
        self.opened()?.fetch(id)
    }

    fn digest(&self, files: &ModelFiles) -> Result<String, SourceError> {
        self.opened()?.digest(files)
    }

    fn glance(&self, name: &ModelName) -> Result<Glance, SourceError> {
        self.opened()?.glance(name)
    }

    fn hints(&self) -> Result<Option<Hints>, SourceError> {
        self.opened()?.hints()
    }

    fn size(&self, files: &ModelFiles) -> Result<u64, SourceError> {
        self.opened()?.size(files)
    }

    fn samples(&self, id: &VersionId) -> Result<Vec<GoldenSample>, SourceError> {
        self.opened()?.samples(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_is_in_a_folder_too() {
        let check = |path: &str, expected: &str| {
            assert_eq!(folder_of(Path::new(path)), Path::new(expected));
        };
        check("/var/cache/onward/models", "/var/cache/onward");
        check("caches/onward", "caches");
        check("onward-cache", ".");
    }
}
