//! A repository in an object store: S3, Google Cloud Storage, Azure, or HTTP with `WebDAV`.
//!
//! What is needed of it is brought to a local tree, laid out as a local repository, which answers from
//! there. Content is kept by its SHA-256, so that nothing is downloaded twice.

mod bare;
mod cache;
mod download;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore};
use tokio::runtime::Handle;
use tracing::warn;
use url::Url;

use super::local::LocalRepository;
use crate::inference::ModelFiles;
use crate::model::{
    AvailableModel, Glance, GoldenSample, ModelName, ModelSettings, ModelSource, SourceError,
    Version, VersionId,
};
use bare::Root;
use cache::Cache;

/// How long a store must have been left alone to be followed.
const SETTLING: Duration = Duration::from_secs(5);

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
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    cache: Arc<Cache>,
    tree: LocalRepository,
    runtime: Handle,
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
        let (store, prefix) = object_store::parse_url_opts(url, options)
            .map_err(|error| failed("the object store", error))?;
        Self::over((Arc::from(store), prefix), (cache, *cache_size), runtime)
    }

    /// The repository below `prefix` in a store.
    pub(super) fn over(
        (store, prefix): (Arc<dyn ObjectStore>, Key),
        (folder, size): (&Path, u64),
        runtime: Handle,
    ) -> Result<Self, SourceError> {
        let cache = Cache::open(folder, size).map_err(|error| unwritable(folder, error))?;
        let tree = LocalRepository::open(&cache.tree())?;
        Ok(Self { store, prefix, cache: Arc::new(cache), tree, runtime })
    }

    /// The names of the folders below a key, and the objects beside them.
    fn folders(&self, below: &Key) -> Result<(BTreeSet<String>, Vec<ObjectMeta>), SourceError> {
        let listed = self.runtime.block_on(self.store.list_with_delimiter(Some(below)));
        let listed = listed.map_err(|error| failed(below.as_ref(), error))?;
        let names = listed.common_prefixes.iter().filter_map(|key| key.filename());
        Ok((names.map(str::to_owned).collect(), listed.objects))
    }

    fn key(&self, parts: &[&str]) -> Key {
        let parts = parts.iter().map(|part| object_store::path::PathPart::from(*part));
        self.prefix.parts().chain(parts).collect()
    }

    /// How a model lies in the store.
    fn layout(&self, name: &ModelName) -> Result<Layout, SourceError> {
        let (names, objects) = self.folders(&self.key(&[name.as_str()]))?;
        if names.is_empty() && objects.is_empty() {
            let root = self.at_root(name)?;
            return root.map(Layout::Root).ok_or_else(|| SourceError::UnknownModel(name.clone()));
        }
        let mut versions: Vec<Version> =
            names.iter().filter_map(|name| name.parse().ok()).collect();
        versions.sort_unstable();
        Ok(Layout::Folder(versions))
    }

    /// Makes a folder of the tree what the store has below a key, and nothing else.
    fn sync(
        &self,
        below: &Key,
        folder: &Path,
        wanted: fn(&str) -> bool,
    ) -> Result<usize, SourceError> {
        let objects = self.runtime.block_on(self.store.list(Some(below)).try_collect::<Vec<_>>());
        let objects = objects.map_err(|error| failed(below.as_ref(), error))?;
        let files = objects.into_iter().filter_map(|object| {
            let parts = object.location.prefix_match(below)?;
            let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
            let path = parts.join("/");
            (is_sound(&parts) && wanted(&path)).then_some((path, object))
        });
        let files: Vec<(String, ObjectMeta)> = files.collect();
        let fetched =
            futures_util::stream::iter(files.into_iter().map(|(path, object)| async move {
                download::fetch(self.store.as_ref(), &self.cache, &object)
                    .await
                    .map(|blob| (path, blob))
            }));
        let blobs = fetched.buffer_unordered(DOWNLOADS).try_collect::<Vec<(String, PathBuf)>>();
        let blobs = self.runtime.block_on(blobs)?;
        let count = blobs.len();
        Cache::lay_out(folder, &blobs).map_err(|error| unwritable(folder, error))?;
        Ok(count)
    }

    fn folder(&self, name: &ModelName) -> PathBuf {
        self.cache.tree().join(name.as_str())
    }
}

impl ModelSource for RemoteRepository {
    fn list(&self) -> Result<Vec<AvailableModel>, SourceError> {
        let (names, objects) = self.folders(&self.prefix)?;
        let bare = bare::models(&objects).map(|name| (name, vec![Version::FIRST]));
        let mut models: BTreeMap<ModelName, Vec<Version>> = bare.collect();
        for name in names.iter().filter(|name| !name.starts_with('.')) {
            if let Ok(name) = ModelName::new(name) {
                let versions = || self.layout(&name).map(Layout::versions).unwrap_or_default();
                // Where a model is there twice, neither counts; who loads it is told.
                let versions = if models.contains_key(&name) { vec![] } else { versions() };
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
        if matches!(layout, Layout::Folder(_)) {
            self.is_no_object(name)?;
        }
        Ok(AvailableModel { name: name.clone(), versions: layout.versions() })
    }

    fn settings(&self, name: &ModelName) -> Result<ModelSettings, SourceError> {
        if let Layout::Root(root) = self.layout(name)? {
            self.bring_settings(name, &root)?;
            return self.tree.settings(name);
        }
        // Beside the versions: settings, files of labels, golden samples.
        let beside = |path: &str| {
            let first = path.split('/').next().unwrap_or_default();
            path == first || first == "golden"
        };
        let folder = self.folder(name);
        self.sync(&self.key(&[name.as_str()]), &folder, beside)?;
        self.tree.settings(name)
    }

    fn fetch(&self, id: &VersionId) -> Result<ModelFiles, SourceError> {
        let version = id.version.to_string();
        let key = self.key(&[id.model.as_str(), &version]);
        let layout = self.layout(&id.model)?;
        if !layout.has(id.version) {
            return Err(SourceError::UnknownVersion(id.clone()));
        }
        let folder = self.folder(&id.model).join(&version);
        // Nothing of what was there before may be taken for a part of it.
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(unwritable(&folder, error));
            }
            _ => {}
        }
        match layout {
            Layout::Folder(_) => self.sync(&key, &folder, |_| true).map(drop)?,
            Layout::Root(root) => self.bring_version(&id.model, &root)?,
        }
        self.cache.shrink();
        self.tree.fetch(id)
    }

    fn digest(&self, files: &ModelFiles) -> Result<String, SourceError> {
        self.tree.digest(files)
    }

    /// By the objects' own times: one that was written a moment ago may have others to follow, unless
    /// there is a manifest, which is written last.
    fn glance(&self, name: &ModelName) -> Result<Glance, SourceError> {
        let key = self.key(&[name.as_str()]);
        let objects = self.runtime.block_on(self.store.list(Some(&key)).try_collect::<Vec<_>>());
        let mut objects = objects.map_err(|error| failed(key.as_ref(), error))?;
        if objects.is_empty() {
            let root = self.at_root(name)?;
            let root = root.ok_or_else(|| SourceError::UnknownModel(name.clone()))?;
            objects = self.seen_at_root(name, root)?;
        }
        objects.sort_by(|one, other| one.location.cmp(&other.location));
        let stamp = objects.iter().map(Cache::name).collect();
        let newest = objects.iter().map(|object| object.last_modified.timestamp_millis()).max();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let age = newest.map_or(0, |newest| now.saturating_sub(newest.unsigned_abs().into()));
        Ok(Glance { settled: age >= SETTLING.as_millis(), stamp })
    }

    fn size(&self, files: &ModelFiles) -> Result<u64, SourceError> {
        self.tree.size(files)
    }

    fn samples(&self, id: &VersionId) -> Result<Vec<GoldenSample>, SourceError> {
        self.tree.samples(id)
    }
}

/// How a model lies in a store.
enum Layout {
    /// Below a key of its own, with these versions.
    Folder(Vec<Version>),
    /// As an object, which is its only version.
    Root(Root),
}

impl Layout {
    fn versions(self) -> Vec<Version> {
        match self {
            Self::Folder(versions) => versions,
            Self::Root(_) => vec![Version::FIRST],
        }
    }

    fn has(&self, version: Version) -> bool {
        match self {
            Self::Folder(versions) => versions.contains(&version),
            Self::Root(_) => version == Version::FIRST,
        }
    }
}

/// Whether a key's parts can be a path below a folder.
fn is_sound(parts: &[String]) -> bool {
    let sound = |part: &String| {
        !part.is_empty() && !part.starts_with('.') && !part.contains(['/', '\\', '\0'])
    };
    !parts.is_empty() && parts.iter().all(sound)
}

/// An error of the store, whose text has neither credentials nor signed addresses.
pub(super) fn failed(what: &str, error: object_store::Error) -> SourceError {
    SourceError::Io { what: format!("{what} of the object store"), source: io::Error::other(error) }
}

fn unwritable(folder: &Path, source: io::Error) -> SourceError {
    SourceError::Io { what: folder.display().to_string(), source }
}
