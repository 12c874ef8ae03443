//! What was downloaded, by its SHA-256.
//!
//! `blobs/<sha256>` has the content, `known/<key>` tells which content an object had at one moment,
//! `parts/<key>` is what there is so far of an object that is being downloaded, and `tree/` is laid out
//! as a repository, of links to the blobs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use object_store::ObjectMeta;
use sha2::{Digest, Sha256};

use crate::repository::digest;

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    size: u64,
}

impl Cache {
    pub(super) fn open(folder: &Path, size: u64) -> io::Result<Self> {
        for part in ["blobs", "known", "parts", "tree"] {
            fs::create_dir_all(folder.join(part))?;
        }
        Ok(Self { folder: folder.canonicalize()?, size })
    }

    pub(super) fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs").join(digest)
    }

    /// A name for an object as it is now: another content has another name.
    pub(super) fn name(object: &ObjectMeta) -> String {
        let tag = object.e_tag.as_deref().unwrap_or_default();
        let version = object.version.as_deref().unwrap_or_default();
        let (modified, size) = (object.last_modified.timestamp_millis(), object.size);
        let text = format!("{}\n{tag}\n{version}\n{modified}\n{size}", object.location);
        digest::hex(&Sha256::digest(text))
    }

    /// The content of an object, if it was downloaded before and is still what it was. What is not is
    /// thrown away.
    pub(super) fn known(&self, object: &ObjectMeta) -> Option<PathBuf> {
        let known = self.folder.join("known").join(Self::name(object));
        let expected = fs::read_to_string(&known).ok()?;
        let blob = self.blob(&expected);
        let found = digest::of_file(&blob).ok();
        if found.as_deref() == Some(expected.as_str()) {
            touch(&blob);
            return Some(blob);
        }
        for bad in [&known, &blob] {
            fs::remove_file(bad).ok();
        }
        None
    }

    /// Where the download of an object goes on.
    pub(super) fn part(&self, object: &ObjectMeta) -> PathBuf {
        self.folder.join("parts").join(Self::name(object))
    }

    /// Takes a complete download in.
    pub(super) fn take_in(&self, object: &ObjectMeta) -> io::Result<PathBuf> {
        let part = self.part(object);
        let found = digest::of_file(&part)?;
        let blob = self.blob(&found);
        fs::rename(&part, &blob)?;
        let known = self.folder.join("known").join(Self::name(object));
        let fresh = known.with_extension("new");
        File::create(&fresh)?.write_all(found.as_bytes())?;
        fs::rename(&fresh, &known)?;
        Ok(blob)
    }

    /// Makes a folder of the tree of these files, and what else of files it has of its own.
    pub(super) fn lay_out(folder: &Path, files: &[(String, PathBuf)]) -> io::Result<()> {
        clear(folder, files)?;
        for (path, blob) in files {
            let target = folder.join(path);
            fs::create_dir_all(target.parent().unwrap_or(folder))?;
            fs::remove_file(&target).or_else(unless_absent)?;
            fs::hard_link(blob, &target)?;
        }
        fs::create_dir_all(folder)
    }

    /// Removes the content that was unused for longest, until the rest is as large as it may be.
    pub(super) fn shrink(&self) {
        let entries = fs::read_dir(self.folder.join("blobs")).into_iter().flatten();
        let mut blobs: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let (path, metadata) =
                    (entry.as_ref().ok()?.path(), entry.as_ref().ok()?.metadata().ok()?);
                Some((metadata.modified().ok()?, metadata.len(), path))
            })
            .collect();
        blobs.sort();
        let mut sum: u64 = blobs.iter().map(|(_, size, _)| size).sum();
        for (_, size, blob) in blobs {
            if sum <= self.size {
                return;
            }
            // What the tree links to stays readable.
            if fs::remove_file(blob).is_ok() {
                sum -= size;
            }
        }
    }
}

/// Removes the files of a folder that are not among `files`; folders stay where others fill them.
fn clear(folder: &Path, files: &[(String, PathBuf)]) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let is_wanted = |name: &str| files.iter().any(|(path, _)| path == name);
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() && !is_wanted(&name) {
            fs::remove_file(entry.path())?;
        } else if name == "golden" {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn touch(path: &Path) {
    // Only a hint for what was unused for longest.
    File::options()
        .append(true)
        .open(path)
        .and_then(|file| file.set_modified(SystemTime::now()))
        .ok();
}

fn unless_absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
