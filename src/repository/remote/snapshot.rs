//! Folders laid out for one reader each, which nobody changes until he is done.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cache::Cache;
use super::part::try_lock;
use crate::model::SourceError;
use crate::repository::local::LocalRepository;

/// The folder of one process, or of one of several repositories in it, for its snapshots. The lock on the
/// file beside it tells others that it is in use.
#[derive(Debug)]
pub(super) struct Trees {
    folder: PathBuf,
    next: AtomicU64,
    _lock: File,
}

impl Trees {
    /// Takes the first folder that nobody has, and empties those of processes that have ended.
    pub(super) fn claim(below: &Path) -> io::Result<Self> {
        let mut own = None;
        for number in 0_u32.. {
            let (folder, lock) =
                (below.join(number.to_string()), below.join(format!("{number}.lock")));
            if own.is_some() && !lock.exists() {
                break;
            }
            let lock = File::options().create(true).append(true).open(lock)?;
            if !try_lock(&lock)? {
                continue;
            }
            remove(&folder)?;
            if own.is_none() {
                fs::create_dir(&folder)?;
                own = Some(Self { folder, next: AtomicU64::new(0), _lock: lock });
            }
        }
        own.ok_or_else(|| io::Error::other("too many processes use this cache"))
    }

    /// A path where nothing is, and nobody else puts anything.
    pub(super) fn unused(&self) -> PathBuf {
        self.folder.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

/// A repository of what somebody has asked for, on local disk. It is removed when it is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Snapshot {
    folder: PathBuf,
    cache: Arc<Cache>,
}

impl Snapshot {
    /// One with nothing in it.
    pub(super) fn new(cache: &Arc<Cache>) -> Result<Self, SourceError> {
        let folder = cache.trees().unused();
        fs::create_dir(&folder).map_err(|error| cache.unwritable("trees", error))?;
        Ok(Self { folder, cache: Arc::clone(cache) })
    }

    /// The folder with this path below it, made where it is not there yet.
    pub(super) fn folder(&self, path: &str) -> Result<PathBuf, SourceError> {
        let folder = self.folder.join(path);
        fs::create_dir_all(&folder).map_err(|error| self.cache.unwritable(path, error))?;
        Ok(folder)
    }

    /// What a local repository here gives. Its errors name what is in the store, not what is here.
    pub(super) fn read<T>(
        &self,
        question: impl FnOnce(&LocalRepository) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let repository = LocalRepository::open(&self.folder)?;
        question(&repository).map_err(|error| match error {
            SourceError::Invalid { what, problem } => {
                SourceError::Invalid { what: self.in_store(what), problem }
            }
            SourceError::Io { what, source } => {
                SourceError::Io { what: self.in_store(what), source }
            }
            unknown => unknown,
        })
    }

    fn in_store(&self, what: String) -> String {
        let path = Path::new(&what).strip_prefix(&self.folder);
        let named = path.map(|path| format!("{} of the object store", path.display()));
        named.unwrap_or(what)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // Whoever claims the folder next removes what could not be removed now.
        remove(&self.folder).ok();
        self.cache.shrink();
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    fs::remove_dir_all(folder).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}
