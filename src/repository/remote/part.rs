//! What there is so far of an object that is being downloaded.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that one downloads into at a time, of all processes. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    path: PathBuf,
}

impl Part {
    /// The part, with what was there before; `None` while another has it.
    pub(super) fn take(path: PathBuf) -> io::Result<Option<Self>> {
        let file = File::options().create(true).append(true).open(&path)?;
        let is_ours = try_lock(&file)? && is_at(&file, &path);
        Ok(is_ours.then_some(Self { file, path }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Where what comes next is appended.
    pub(super) fn end(&self) -> io::Result<tokio::fs::File> {
        Ok(tokio::fs::File::from_std(self.file.try_clone()?))
    }

    /// Throws away what is there.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)
    }

    /// Removes it, if there is nothing in it.
    pub(super) fn tidy(self) {
        if self.length().is_ok_and(|length| length == 0) {
            // It is in nobody's way.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Removes a file that nobody has locked; whether it is gone.
pub(super) fn remove_unless_locked(path: &Path) -> bool {
    let file = File::options().append(true).open(path);
    let free = file.and_then(|file| Ok(try_lock(&file)?.then_some(file)));
    // The lock is held until it is gone.
    free.is_ok_and(|free| free.is_some_and(|_held| fs::remove_file(path).is_ok()))
}

/// Locks a file for this process and within it; false where somebody else has.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the path still leads to the file: who had the lock before may have taken it away.
fn is_at(file: &File, path: &Path) -> bool {
    let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (here, there) = (file.metadata().map(inode), fs::metadata(path).map(inode));
    matches!((here, there), (Ok(here), Ok(there)) if here == there)
}
