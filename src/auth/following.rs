//! Files that are read anew when they change.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use super::digest::Digest;
use super::guard::Guard;
use crate::settled::{self, LOOK, Settled};

/// What was found at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Content(Digest),
    Nothing(io::ErrorKind),
}

/// A file, and what was found there.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) path: PathBuf,
    found: Settled<Found>,
}

impl Followed {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn begin(path: PathBuf) -> io::Result<(Self, Vec<u8>)> {
        let content = settled::read(&path)?;
        let found = Settled::begin(Found::Content(Digest::of(&content)));
        Ok((Self { path, found }, content))
    }

    /// What has come in the place of what was taken. Something that is being written is not taken before
    /// it has stayed the same for a while, unless `at_once`.
    pub(super) fn look(&mut self, at_once: bool) -> Option<io::Result<Vec<u8>>> {
        let read = settled::read(&self.path);
        let found = match &read {
            Ok(content) => Found::Content(Digest::of(content)),
            Err(error) => Found::Nothing(error.kind()),
        };
        self.found.look(&found, at_once).then_some(read)
    }
}

/// Looks at the files of a guard again and again, until it is dropped.
#[derive(Debug)]
pub struct Following(JoinHandle<()>);

impl Following {
    /// Begins. Must be called inside a tokio runtime.
    pub fn start(guard: &Arc<Guard>) -> Self {
        let guard = Arc::clone(guard);
        Self(tokio::spawn(async move {
            let mut looks = interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                let looking = Arc::clone(&guard);
                // A panic in it is told by its hook; the next look is taken all the same.
                spawn_blocking(move || looking.look()).await.ok();
            }
        }))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_is_taken_once_it_stays_the_same() {
        let home = TempDir::new().unwrap();
        let path = home.path().join("keys.yaml");
        fs::write(&path, "a").unwrap();
        let (mut followed, content) = Followed::begin(path.clone()).unwrap();
        assert_eq!(content, b"a");
        assert!(followed.look(false).is_none() && followed.look(false).is_none());
        fs::write(&path, "b").unwrap();
        assert!(followed.look(false).is_none());
        fs::write(&path, "bc").unwrap();
        assert!(followed.look(false).is_none());
        assert_eq!(followed.look(false).unwrap().unwrap(), b"bc");
        assert!(followed.look(false).is_none());
        fs::remove_file(&path).unwrap();
        assert!(followed.look(false).is_none());
        assert_eq!(followed.look(false).unwrap().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(followed.look(false).is_none(), "it is told once");
        fs::write(&path, "d").unwrap();
        assert_eq!(followed.look(true).unwrap().unwrap(), b"d");
    }
}
