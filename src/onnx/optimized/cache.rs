//! Content on disk under a key, for several processes at once.
//!
//! An entry is a file: the SHA-256 of what follows it, and that. It is written aside and renamed into
//! place, and what is read is checked. Whatever is wrong with one, or with the disk, is as if there were no
//! entry, and is logged once. Who has room for no more lets those go that were unused for longest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tempfile::{Builder, TempDir};
use tracing::{debug, warn};

/// What a file is called that is not complete.
const UNFINISHED: &str = ".new-";

/// After so long nobody goes on with it.
const ABANDONED: Duration = Duration::from_hours(1);

const DIGEST: usize = 32;

/// A folder with entries of so many bytes together.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    size: u64,
    has_failed: AtomicBool,
}

impl Cache {
    pub(super) fn new(folder: PathBuf, size: u64) -> Self {
        Self { folder, size, has_failed: AtomicBool::new(false) }
    }

    /// What is kept under a key.
    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        match read(&self.folder.join(key), self.size) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            found => self.told(found, "an entry of the graph cache cannot be used"),
        }
    }

    /// Keeps something under a key, if it can.
    pub(super) fn put(&self, key: &str, content: &[u8]) {
        let written = self.write(key, content).and_then(|()| self.trim());
        self.told(written, "the graph cache cannot be written to");
    }

    /// A folder for one's own use, on the same file system.
    pub(super) fn scratch(&self) -> Option<TempDir> {
        let made = fs::create_dir_all(&self.folder)
            .and_then(|()| Builder::new().prefix(UNFINISHED).tempdir_in(&self.folder));
        self.told(made, "the graph cache cannot be written to")
    }

    fn write(&self, key: &str, content: &[u8]) -> io::Result<()> {
        if (content.len() + DIGEST) as u64 > self.size {
            return Ok(());
        }
        let mut file = Builder::new().prefix(UNFINISHED).tempfile_in(&self.folder)?;
        file.write_all(&Sha256::digest(content))?;
        file.write_all(content)?;
        file.persist(self.folder.join(key)).map(drop).map_err(|error| error.error)
    }

    /// Removes what is too much, and what was left behind.
    fn trim(&self) -> io::Result<()> {
        let (mut entries, now) = (Vec::new(), SystemTime::now());
        for entry in fs::read_dir(&self.folder)? {
            let (path, known) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            let used = known.modified()?;
            if is_unfinished(&path) {
                let is_abandoned = now.duration_since(used).is_ok_and(|age| age > ABANDONED);
                if is_abandoned {
                    remove(&path)?;
                }
            } else {
                entries.push((used, known.len(), path));
            }
        }
        entries.sort_unstable();
        let mut total: u64 = entries.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in entries {
            if total <= self.size {
                break;
            }
            remove(&path)?;
            total -= size;
        }
        Ok(())
    }

    fn told<T>(&self, result: io::Result<T>, what: &str) -> Option<T> {
        let folder = self.folder.display();
        match &result {
            Err(error) if self.has_failed.swap(true, Ordering::Relaxed) => {
                debug!(%folder, %error, "{what}");
            }
            Err(error) => warn!(%folder, %error, "{what}, and models are loaded without it"),
            Ok(_) => {}
        }
        result.ok()
    }
}

fn read(path: &Path, size: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).open(path)?;
    let mut content = Vec::new();
    (&file).take(size).read_to_end(&mut content)?;
    let digest: Vec<u8> = content.drain(..DIGEST.min(content.len())).collect();
    if Sha256::digest(&content)[..] != digest {
        remove(path)?;
        return Err(io::Error::new(ErrorKind::InvalidData, "it was damaged"));
    }
    mark_used(&file);
    Ok(content)
}

/// Best effort: whose file it is may be another's.
fn mark_used(file: &File) {
    file.set_modified(SystemTime::now()).ok();
}

fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes()))
}

/// Removes a file or a folder, unless another process was faster.
fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(size: u64) -> (TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("graphs"), size);
        drop(cache.scratch().unwrap());
        (folder, cache)
    }

    fn names(cache: &Cache) -> Vec<String> {
        let entries = fs::read_dir(&cache.folder).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
        let mut names: Vec<String> = entries.map(|entry| name(entry).unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_put_is_had_by_another_process() {
        let (_folder, cache) = cache(1 << 20);
        assert_eq!(cache.get("key"), None);
        cache.put("key", b"content");
        let other = Cache::new(cache.folder.clone(), 1 << 20);
        assert_eq!(other.get("key").as_deref(), Some(&b"content"[..]));
        assert!(!cache.has_failed.load(Ordering::Relaxed));
    }

    #[test]
    fn what_was_damaged_is_not_had_and_goes() {
        let (_folder, cache) = cache(1 << 20);
        for damage in [&b""[..], b"short", &[0; 40]] {
            cache.put("key", b"content");
            fs::write(cache.folder.join("key"), damage).unwrap();
            assert_eq!(cache.get("key"), None);
            assert_eq!(names(&cache), [""; 0]);
        }
        cache.put("key", b"content");
        let mut content = fs::read(cache.folder.join("key")).unwrap();
        *content.last_mut().unwrap() ^= 1;
        fs::write(cache.folder.join("key"), content).unwrap();
        assert_eq!(cache.get("key"), None);
    }

    #[test]
    fn what_was_unused_for_longest_goes() {
        let (_folder, cache) = cache(300);
        let at = |key: &str, seconds| {
            let file = File::options().write(true).open(cache.folder.join(key)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        for (key, second) in [("a", 1), ("b", 2)] {
            cache.put(key, &[0; 100]);
            at(key, second);
        }
        assert!(cache.get("a").is_some());
        cache.put("c", &[0; 100]);
        assert_eq!(names(&cache), ["a", "c"]);
        cache.put("huge", &[0; 300]);
        assert_eq!(names(&cache), ["a", "c"], "it would not fit");
    }

    #[test]
    fn what_was_left_behind_goes_after_a_while() {
        let (_folder, cache) = cache(1 << 20);
        for name in [".new-old", ".new-young"] {
            fs::write(cache.folder.join(name), b"half").unwrap();
        }
        let old = File::options().write(true).open(cache.folder.join(".new-old")).unwrap();
        old.set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        cache.put("key", b"content");
        assert_eq!(names(&cache), [".new-young", "key"]);
    }

    #[test]
    fn a_disk_that_cannot_be_written_to_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        let cache = Cache::new(file, 1 << 20);
        assert!(cache.scratch().is_none());
        cache.put("key", b"content");
        assert_eq!(cache.get("key"), None);
        assert!(cache.has_failed.load(Ordering::Relaxed));
    }
}
