//! What was downloaded, by its SHA-256, in a folder that several processes may use.
//!
//! `blobs/<sha256>` has the content, `known/<name>` tells which content an object had at one moment,
//! `parts/<name>` is what there is so far of an object that is being downloaded, and `trees/` is where
//! versions are laid out, of links to the blobs. Content comes and goes by links and renames, so that
//! nobody sees half of it, and what was linked stays whatever becomes of the blob.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use object_store::ObjectMeta;
use sha2::{Digest, Sha256};

use super::part::{Part, remove_unless_locked};
use super::snapshot::Trees;
use crate::hex::hex;
use crate::model::SourceError;
use crate::repository::digest;

/// How long a part is kept that nobody goes on with.
const OLDEST_PART: Duration = Duration::from_hours(7 * 24);

/// How long it is kept in mind what an object is that nobody asks for.
const OLDEST_KNOWLEDGE: Duration = Duration::from_hours(30 * 24);

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    size: u64,
    trees: Trees,
    /// Whether there may be more than there should be.
    grown: AtomicBool,
    looking: Mutex<()>,
}

impl Cache {
    /// The cache in a folder, which is made where there is none. `size` is what it may have in bytes
    /// besides what is in use.
    pub(super) fn open(folder: &Path, size: u64) -> io::Result<Self> {
        for part in ["blobs", "known", "parts", "trees"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let folder = folder.canonicalize()?;
        let trees = Trees::claim(&folder.join("trees"))?;
        let (grown, looking) = (AtomicBool::new(true), Mutex::default());
        let cache = Self { folder, size, trees, grown, looking };
        cache.shrink();
        Ok(cache)
    }

    pub(super) fn trees(&self) -> &Trees {
        &self.trees
    }

    /// That there is no room for something, or no permission.
    pub(super) fn unwritable(&self, what: &str, source: io::Error) -> SourceError {
        SourceError::Io { what: format!("{what} in the cache {}", self.folder.display()), source }
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs").join(digest)
    }

    fn knowledge(&self, object: &ObjectMeta) -> PathBuf {
        self.folder.join("known").join(Self::name(object))
    }

    /// A name for an object as it is now: another content has another name.
    pub(super) fn name(object: &ObjectMeta) -> String {
        let tag = object.e_tag.as_deref().unwrap_or_default();
        let version = object.version.as_deref().unwrap_or_default();
        let (modified, size) = (object.last_modified.timestamp_millis(), object.size);
        let text = format!("{}\n{tag}\n{version}\n{modified}\n{size}", object.location);
        hex(&Sha256::digest(text))
    }

    /// The content of an object as it is now, if it is here.
    pub(super) fn content(&self, object: &ObjectMeta) -> Option<PathBuf> {
        let blob = self.blob(&digest_in(&self.knowledge(object))?);
        blob.exists().then_some(blob)
    }

    /// Makes `target` the content of an object, if it was downloaded before and is still what it was.
    /// What is not is thrown away.
    pub(super) fn place(&self, object: &ObjectMeta, target: &Path) -> io::Result<bool> {
        let knowledge = self.knowledge(object);
        let Some(expected) = digest_in(&knowledge) else { return Ok(false) };
        let blob = self.blob(&expected);
        match link(&blob, target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            linked => linked?,
        }
        // Linked first: from here on it cannot be taken away.
        if digest::of_file(target).is_ok_and(|found| found == expected) {
            touch(&blob);
            touch(&knowledge);
            return Ok(true);
        }
        fs::remove_file(target)?;
        for bad in [&knowledge, &blob] {
            fs::remove_file(bad).ok();
        }
        Ok(false)
    }

    /// How much there is of a download.
    pub(super) fn progress(&self, object: &ObjectMeta) -> u64 {
        fs::metadata(self.part_path(object)).map_or(0, |metadata| metadata.len())
    }

    fn part_path(&self, object: &ObjectMeta) -> PathBuf {
        self.folder.join("parts").join(Self::name(object))
    }

    /// Where the download of an object goes on; `None` while another is at it.
    pub(super) fn part(&self, object: &ObjectMeta) -> io::Result<Option<Part>> {
        let part = Part::take(self.part_path(object))?;
        self.grown.fetch_or(part.is_some(), Ordering::SeqCst);
        Ok(part)
    }

    /// Takes a complete download in, as `target` and for later; its SHA-256.
    pub(super) fn take_in(&self, part: &Part, target: &Path) -> io::Result<String> {
        let digest = digest::of_file(part.path())?;
        link(part.path(), target)?;
        fs::rename(part.path(), self.blob(&digest))?;
        self.grown.store(true, Ordering::SeqCst);
        Ok(digest)
    }

    /// Keeps in mind which content an object has.
    pub(super) fn remember(&self, object: &ObjectMeta, digest: &str) -> io::Result<()> {
        let fresh = self.trees.unused();
        fs::write(&fresh, digest)?;
        fs::rename(&fresh, self.knowledge(object))
    }

    /// Removes what was unused for longest, until the rest is as large as it may be, and what nobody will
    /// need. What is in use is left, and does not count.
    pub(super) fn shrink(&self) {
        // Whoever lets go of something while another looks has to look after that one.
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.grown.swap(false, Ordering::SeqCst) {
            return;
        }
        let (linked, blobs): (Vec<_>, Vec<_>) =
            self.files("blobs").partition(|(_, metadata)| metadata.nlink() > 1);
        // They will count.
        self.grown.fetch_or(!linked.is_empty(), Ordering::SeqCst);
        let (old, parts): (Vec<_>, Vec<_>) =
            self.files("parts").partition(|(_, metadata)| is_unused_for(OLDEST_PART, metadata));
        for (path, _) in old {
            remove_unless_locked(&path);
        }
        self.limit(blobs.into_iter().chain(parts));
        self.forget();
    }

    /// Removes what was unused for longest of these, until they are as large as they may be.
    fn limit(&self, files: impl Iterator<Item = (PathBuf, Metadata)>) {
        let idle = |(path, metadata): (PathBuf, Metadata)| {
            Some((metadata.modified().ok()?, metadata.len(), path))
        };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = files.filter_map(idle).collect();
        files.sort();
        let mut sum: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in files {
            if sum <= self.size {
                return;
            }
            if remove_unless_locked(&path) {
                sum -= size;
            }
        }
    }

    /// Removes what is known of content that is gone, or of objects that nobody asks for.
    fn forget(&self) {
        for (path, metadata) in self.files("known") {
            let is_there = digest_in(&path).is_some_and(|digest| self.blob(&digest).exists());
            if !is_there || is_unused_for(OLDEST_KNOWLEDGE, &metadata) {
                // Another process may have been first.
                fs::remove_file(path).ok();
            }
        }
    }

    fn files(&self, folder: &str) -> impl Iterator<Item = (PathBuf, Metadata)> {
        let entries = fs::read_dir(self.folder.join(folder)).into_iter().flatten();
        entries.filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.path(), entry.metadata().ok()?))
        })
    }
}

/// The digest that a file has as its text, unless it has another text.
fn digest_in(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then_some(text)
}

fn is_unused_for(time: Duration, metadata: &Metadata) -> bool {
    let used = metadata.modified().ok();
    used.and_then(|used| used.elapsed().ok()).is_some_and(|unused| unused > time)
}

/// Links a file, or copies it: not every file system has links, or as many as are wanted.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::copy(from, to).map(drop),
    })
}

fn touch(path: &Path) {
    // Only a hint for what was unused for longest.
    File::options()
        .append(true)
        .open(path)
        .and_then(|file| file.set_modified(SystemTime::now()))
        .ok();
}
