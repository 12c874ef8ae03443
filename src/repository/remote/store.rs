//! What a store has, seen as folders and files.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use object_store::path::{Path as Key, PathPart};
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt as _};
use tokio::runtime::Handle;

use crate::model::SourceError;

/// A folder of a store, and how it is asked.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) client: Arc<dyn ObjectStore>,
    pub(super) prefix: Key,
    pub(super) runtime: Handle,
    /// Whether it is a server of files by `WebDAV`, which may tell what was written by the second alone.
    pub(super) serves_files: bool,
}

/// What stands in a folder itself.
pub(super) struct Listing {
    pub(super) folders: BTreeSet<String>,
    pub(super) files: Vec<RemoteFile>,
    /// Whether there is nothing at all.
    pub(super) is_empty: bool,
}

/// An object as a file.
#[derive(Clone)]
pub(super) struct RemoteFile {
    /// Below the folder that was asked for.
    pub(super) path: String,
    pub(super) object: ObjectMeta,
}

impl Store {
    /// The key of a folder. Names are taken as they are: another client than this one has written them.
    pub(super) fn key(&self, names: &[&str]) -> Key {
        let part =
            |name| PathPart::parse(name).expect("names have no slash and no control character");
        self.prefix.parts().chain(names.iter().copied().map(part)).fold(Key::ROOT, Key::join)
    }

    /// The object with this path below the folder; `None` where there is none.
    pub(super) fn object(&self, path: &str) -> Result<Option<ObjectMeta>, SourceError> {
        let names: Vec<&str> = path.split('/').filter(|name| *name != ".").collect();
        if !names.iter().all(|name| PathPart::parse(name).is_ok()) {
            return Ok(None);
        }
        let key = self.key(&names);
        if self.serves_files {
            // Such servers send a body after a refused HEAD, which is taken for the next answer.
            let (name, folder) = names.split_last().unwrap_or((&"", &[]));
            let mut files = self.folder(&self.key(folder))?.files.into_iter();
            return Ok(files.find(|file| file.path == **name).map(|file| file.object));
        }
        match self.runtime.block_on(self.client.head(&key)) {
            Ok(object) => Ok(Some(object)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unanswered(&key, error)),
        }
    }

    /// What stands in a folder, without what is in the folders there.
    pub(super) fn folder(&self, key: &Key) -> Result<Listing, SourceError> {
        let listed = self.runtime.block_on(self.client.list_with_delimiter(Some(key)));
        let listed = listed.map_err(|error| unanswered(key, error))?;
        let is_empty = listed.common_prefixes.is_empty() && listed.objects.is_empty();
        let folders = listed.common_prefixes.iter().filter_map(Key::filename).map(str::to_owned);
        Ok(Listing { folders: folders.collect(), files: files(listed.objects, key), is_empty })
    }

    /// Every file below a folder, however deep.
    pub(super) fn below(&self, key: &Key) -> Result<Vec<RemoteFile>, SourceError> {
        let objects = self.objects(key)?;
        let mut files = files(objects, key);
        // What stands for a folder in some tools is an object of the folder's name.
        let folders: BTreeSet<String> = files.iter().flat_map(|file| parents(&file.path)).collect();
        files.retain(|file| !folders.contains(&file.path));
        Ok(files)
    }

    /// Every object below a folder, by key.
    pub(super) fn objects(&self, key: &Key) -> Result<Vec<ObjectMeta>, SourceError> {
        let listing = async {
            match self.client.list(Some(key)).try_collect::<Vec<_>>().await {
                // WebDAV servers may refuse to list a tree at once. Apache does, unless it is told otherwise.
                Err(Error::PermissionDenied { .. }) => self.walk(key).await,
                listed => listed,
            }
        };
        let listed = self.runtime.block_on(listing);
        let mut objects = listed.map_err(|error| unanswered(key, error))?;
        objects.sort_by(|one, other| one.location.cmp(&other.location));
        Ok(objects)
    }

    async fn walk(&self, key: &Key) -> object_store::Result<Vec<ObjectMeta>> {
        let (mut objects, mut folders) = (Vec::new(), vec![key.clone()]);
        while let Some(folder) = folders.pop() {
            let listed = self.client.list_with_delimiter(Some(&folder)).await?;
            objects.extend(listed.objects);
            folders.extend(listed.common_prefixes);
        }
        Ok(objects)
    }

    /// Whether a later state of an object could be taken for this one: it was written a moment ago, and
    /// the store does not tell moments apart.
    pub(super) fn is_vague(&self, object: &ObjectMeta) -> bool {
        const MOMENT: Duration = Duration::from_secs(5);
        self.serves_files && age(object) < MOMENT
    }
}

/// How long ago an object was written; zero where that is yet to come.
pub(super) fn age(object: &ObjectMeta) -> Duration {
    let written = SystemTime::from(object.last_modified);
    SystemTime::now().duration_since(written).unwrap_or_default()
}

/// The objects whose key can be a path below a folder.
fn files(objects: Vec<ObjectMeta>, folder: &Key) -> Vec<RemoteFile> {
    let file = |object: ObjectMeta| {
        let parts = object.location.prefix_match(folder)?;
        let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
        let path = parts.join("/");
        (!parts.is_empty() && parts.iter().all(|part| is_sound(part)))
            .then_some(RemoteFile { path, object })
    };
    objects.into_iter().filter_map(file).collect()
}

/// Hidden files belong to no model, here as in a local folder. `..` is one of them.
pub(super) fn is_sound(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.')
}

/// `a` and `a/b` for `a/b/c`.
fn parents(path: &str) -> impl Iterator<Item = String> {
    path.match_indices('/').map(|(at, _)| path[..at].to_owned())
}

fn unanswered(key: &Key, error: Error) -> SourceError {
    failed(key, (kind(&error), error))
}

/// What an error of the store is like. But for a question that makes no sense, it may be answered in a
/// moment: connections come back, and so do rights that somebody gives, which no object tells.
pub(super) fn kind(error: &Error) -> ErrorKind {
    match error {
        Error::NotSupported { .. } | Error::NotImplemented { .. } => ErrorKind::Unsupported,
        Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => {
            ErrorKind::InvalidInput
        }
        _ => ErrorKind::NotConnected,
    }
}

/// An error of the store, whose text has neither credentials nor signed addresses.
pub(super) fn failed(
    key: &Key,
    (kind, error): (ErrorKind, impl Into<Box<dyn std::error::Error + Send + Sync>>),
) -> SourceError {
    let source = io::Error::new(kind, error);
    SourceError::Io { what: format!("{key} of the object store"), source }
}
