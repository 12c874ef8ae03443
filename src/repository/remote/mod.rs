//! A repository in an object store: S3, Google Cloud Storage, Azure, or HTTP with `WebDAV`.
//!
//! What is needed of it is brought to a local tree, laid out as a local repository, which answers from
//! there. Content is kept by its SHA-256, so that nothing is downloaded twice.

mod bare;
mod cache;
mod delivery;
mod download;
mod glance;
mod part;
mod snapshot;
mod store;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStoreScheme};
use tokio::runtime::Handle;
use tracing::warn;
use url::Url;

use super::sightings::{Now, Sight, Sightings};
use super::{digest, local};
use crate::inference::ModelFiles;
use crate::model::{
    AvailableModel, Glance, GoldenSample, ModelName, ModelSettings, ModelSource, SourceError,
    Version, VersionId,
};
use bare::Root;
use cache::Cache;
use delivery::Delivery;
use snapshot::Snapshot;
use store::{Listing, RemoteFile, Store};

/// Downloads of one version at once.
const DOWNLOADS: usize = 4;

/// Where a repository in an object store is, and where it is kept.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Such as `s3://bucket/folder`.
    pub url: Url,
    /// Credentials and the like, by the names that `object_store` knows, such as
    /// `aws_access_key_id`.
    pub options: Vec<(String, String)>,
    /// The local folder for what was downloaded.
    pub cache: PathBuf,
    /// How many bytes it may have, beyond what is being loaded.
    pub cache_size: u64,
}

/// A repository in an object store.
#[derive(Debug, Clone)]
pub struct RemoteRepository {
    store: Store,
    cache: Arc<Cache>,
    sightings: Arc<Sightings>,
}

impl RemoteRepository {
    /// The repository at `options.url`; nothing is asked of it yet. Must be called inside a tokio
    /// runtime, or where one was entered.
    ///
    /// # Errors
    /// [`SourceError`] when the address or the options make no sense, or there is no room for the cache.
    pub fn open(options: &RemoteOptions, runtime: Handle) -> Result<Self, SourceError> {
        // Whoever was first has chosen the same.
        rustls::crypto::ring::default_provider().install_default().ok();
        let RemoteOptions { url, options, cache, cache_size } = options;
        let options = options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let options = Self::client_options(url).into_iter().chain(options);
        let invalid = |error: object_store::Error| SourceError::Invalid {
            what: "the address of the object store".to_owned(),
            problem: error.to_string(),
        };
        let (client, prefix) = object_store::parse_url_opts(url, options).map_err(invalid)?;
        let scheme = ObjectStoreScheme::parse(url).map(|(scheme, _)| scheme);
        let serves_files = matches!(scheme, Ok(ObjectStoreScheme::Http));
        let store = Store { client: Arc::from(client), prefix, runtime, serves_files };
        Self::over(store, (cache, *cache_size))
    }

    /// What holds where nothing else is said: large objects take as long as they take, but silence is an
    /// error, and an address of plain HTTP means it.
    pub(super) fn client_options(url: &Url) -> Vec<(&'static str, &'static str)> {
        let plain = (url.scheme() == "http").then_some(("allow_http", "true"));
        [("timeout", "1day"), ("read_timeout", "30s")].into_iter().chain(plain).collect()
    }

    fn over(store: Store, (folder, size): (&Path, u64)) -> Result<Self, SourceError> {
        let cache = Cache::open(folder, size).map_err(|source| SourceError::Io {
            what: format!("the cache {}", folder.display()),
            source,
        })?;
        Ok(Self { store, cache: Arc::new(cache), sightings: Arc::default() })
    }

    /// The repository below `prefix` in a store of this process.
    #[cfg(test)]
    pub(super) fn in_store(
        (client, prefix): (Arc<dyn object_store::ObjectStore>, object_store::path::Path),
        cache: (&Path, u64),
        runtime: Handle,
    ) -> Result<Self, SourceError> {
        Self::over(Store { client, prefix, runtime, serves_files: false }, cache)
    }

    /// How a model lies in the store.
    fn layout(&self, name: &ModelName) -> Result<Layout, SourceError> {
        let listing = self.store.folder(&self.store.key(&[name.as_str()]))?;
        if listing.is_empty {
            let root = self.at_root(name)?;
            return root.map(Layout::Root).ok_or_else(|| SourceError::UnknownModel(name.clone()));
        }
        self.is_no_object(name)?;
        Ok(Layout::Folder(listing))
    }

    /// The versions of a model, lowest first. An ensemble needs no folder for its only one.
    fn versions(&self, name: &ModelName, layout: &Layout) -> Result<Vec<Version>, SourceError> {
        let versions = layout.versions();
        match layout {
            Layout::Folder(Listing { files, .. }) if versions.is_empty() => {
                let snapshot = Snapshot::new(&self.cache)?;
                self.bring(settings_of(files), (&snapshot, name.as_str()))?;
                snapshot.read(|repository| Ok(repository.model(name)?.versions))
            }
            _ => Ok(versions),
        }
    }

    /// Brings files to a folder of a snapshot.
    fn bring(
        &self,
        files: Vec<RemoteFile>,
        (snapshot, folder): (&Snapshot, &str),
    ) -> Result<(), SourceError> {
        snapshot.folder(folder)?;
        let deliver = |RemoteFile { path, object }| {
            let path = format!("{folder}/{path}");
            let (parent, name) = path.rsplit_once('/').unwrap_or_default();
            let target = snapshot.folder(parent)?.join(name);
            let (store, cache) = (self.store.clone(), Arc::clone(&self.cache));
            Ok(Delivery { store, cache, object, target }.run())
        };
        let deliveries = files.into_iter().map(deliver).collect::<Result<Vec<_>, SourceError>>()?;
        let all = futures_util::stream::iter(deliveries).buffer_unordered(DOWNLOADS);
        self.store.runtime.block_on(all.try_collect())
    }
}

impl ModelSource for RemoteRepository {
    fn list(&self) -> Result<Vec<AvailableModel>, SourceError> {
        let Listing { folders, files, .. } = self.store.folder(&self.store.key(&[]))?;
        let bare = bare::models(&files).map(|name| (name, vec![Version::FIRST]));
        let mut models: BTreeMap<ModelName, Vec<Version>> = bare.collect();
        for name in folders.iter().filter(|name| !name.starts_with('.')) {
            if let Ok(name) = ModelName::new(name) {
                let versions = || self.layout(&name).map(|layout| layout.versions());
                // Where a model is there twice, neither counts; who loads it is told.
                let twice = models.contains_key(&name);
                let versions = if twice { vec![] } else { versions().unwrap_or_default() };
                models.insert(name, versions);
            } else {
                warn!(folder = name, "folder is not a model: bad name");
            }
        }
        let available = |(name, versions)| AvailableModel { name, versions };
        Ok(models.into_iter().map(available).collect())
    }

    fn model(&self, name: &ModelName) -> Result<AvailableModel, SourceError> {
        let layout = self.layout(name)?;
        let versions = self.versions(name, &layout)?;
        if let (Layout::Folder(Listing { files, .. }), true) = (&layout, versions.is_empty()) {
            let mut names = files.iter().map(|file| file.path.as_str());
            if let Some(problem) = local::misplaced(name, &mut names) {
                return Err(SourceError::Invalid { what: name.to_string(), problem });
            }
        }
        Ok(AvailableModel { name: name.clone(), versions })
    }

    fn settings(&self, name: &ModelName) -> Result<ModelSettings, SourceError> {
        let Listing { folders, files, .. } = match self.layout(name)? {
            Layout::Folder(listing) => listing,
            Layout::Root(root) => return self.root_settings(name, root),
        };
        let snapshot = Snapshot::new(&self.cache)?;
        let strange = folders.iter().filter(|name| name.parse::<Version>().is_err());
        for folder in strange.filter(|name| store::is_sound(name)) {
            // Empty, for it is told that they are no versions.
            snapshot.folder(&format!("{name}/{folder}"))?;
        }
        self.bring(files, (&snapshot, name.as_str()))?;
        snapshot.read(|repository| repository.settings(name))
    }

    fn fetch(&self, id: &VersionId) -> Result<ModelFiles, SourceError> {
        let version = id.version.to_string();
        let layout = self.layout(&id.model)?;
        if !self.versions(&id.model, &layout)?.contains(&id.version) {
            return Err(SourceError::UnknownVersion(id.clone()));
        }
        let settings = match layout {
            Layout::Root(root) => return self.root_files(id, root),
            Layout::Folder(listing) => settings_of(&listing.files),
        };
        let files = self.store.below(&self.store.key(&[id.model.as_str(), &version]))?;
        let snapshot = Snapshot::new(&self.cache)?;
        // Only an ensemble is without a graph.
        if !files.iter().any(|file| file.path == "model.onnx") {
            self.bring(settings, (&snapshot, id.model.as_str()))?;
        }
        self.bring(files, (&snapshot, &format!("{}/{version}", id.model)))?;
        let files = snapshot.read(|repository| repository.fetch(id))?;
        Ok(files.kept_by(snapshot))
    }

    fn digest(&self, files: &ModelFiles) -> Result<String, SourceError> {
        let folder = folder_of(files);
        let digest = digest::files(folder, folder).and_then(digest::of_files);
        digest.map_err(|error| unreadable(folder, error))
    }

    fn glance(&self, name: &ModelName) -> Result<Glance, SourceError> {
        let layout = self.layout(name).inspect_err(|_| self.sightings.forget(name))?;
        let look = |objects: &[ObjectMeta], folder: Option<&Key>| {
            let sight = Sight { model: name, sightings: &self.sightings, now: Now::get() };
            glance::of(objects, folder, sight)
        };
        if let Layout::Root(root) = layout {
            return Ok(look(&self.seen_at_root(root)?, None));
        }
        let folder = self.store.key(&[name.as_str()]);
        Ok(look(&self.store.objects(&folder)?, Some(&folder)))
    }

    fn size(&self, files: &ModelFiles) -> Result<u64, SourceError> {
        let folder = folder_of(files);
        let size = digest::files(folder, folder).and_then(|files| digest::size(&files));
        size.map_err(|error| unreadable(folder, error))
    }

    fn samples(&self, id: &VersionId) -> Result<Vec<GoldenSample>, SourceError> {
        let (name, version) = (id.model.as_str(), id.version.to_string());
        if let Layout::Root(_) = self.layout(&id.model)? {
            return Ok(Vec::new());
        }
        let snapshot = Snapshot::new(&self.cache)?;
        for parts in [&[name, "golden"][..], &[name, "golden", &version]] {
            let files = self.store.folder(&self.store.key(parts))?.files;
            self.bring(files, (&snapshot, &parts.join("/")))?;
        }
        snapshot.read(|repository| repository.samples(id))
    }
}

/// How a model lies in a store.
enum Layout {
    /// In a folder, which has this without what its versions have.
    Folder(Listing),
    /// As an object at the root.
    Root(Root),
}

impl Layout {
    /// The versions there are, lowest first.
    fn versions(&self) -> Vec<Version> {
        let Self::Folder(listing) = self else { return vec![Version::FIRST] };
        let numbers = listing.folders.iter().filter_map(|name| name.parse().ok());
        let mut versions: Vec<Version> = numbers.collect();
        versions.sort_unstable();
        versions
    }
}

/// The settings among what lies beside the versions of a model, and what they may name.
fn settings_of(files: &[RemoteFile]) -> Vec<RemoteFile> {
    files.iter().filter(|file| !local::is_graph(&file.path)).cloned().collect()
}

fn folder_of(files: &ModelFiles) -> &Path {
    files.graph.parent().unwrap_or(Path::new(""))
}

fn unreadable(folder: &Path, source: std::io::Error) -> SourceError {
    SourceError::Io { what: folder.display().to_string(), source }
}
