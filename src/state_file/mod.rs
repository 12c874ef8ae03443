//! The desired state in a folder: written as a whole, to disk, and checked when it is read.
//!
//! `desired.json` is the state, `desired.previous.json` the one before. A file that cannot be trusted
//! is set aside as `desired.corrupt-<milliseconds>.json`.

mod callers;
mod form;

#[cfg(any(test, fuzzing))]
pub(crate) use form::fuzzing;

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::{DesiredState, DesiredStore};

/// The folder, which no other process uses at the same time.
#[derive(Debug)]
pub struct StateFolder {
    folder: PathBuf,
    /// Locked as long as this lives.
    _lock: File,
}

/// What was found in the folder.
#[derive(Debug)]
pub struct Found {
    /// The state to go on from; empty where there was none.
    pub state: DesiredState,
    /// What was wrong with files that were set aside, in words; empty where nothing was.
    pub problems: Vec<String>,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read or written.
    #[error("the folder {folder}, the setting models.state, cannot be used")]
    Io {
        /// The folder.
        folder: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("the folder {folder}, the setting models.state, is used by another process")]
    InUse {
        /// The folder.
        folder: String,
    },
}

impl StateFolder {
    /// Opens the folder, which is made if it is not there, and reads what is kept in it.
    ///
    /// # Errors
    /// [`StateError`]. A file that is torn or was changed by hand is none: the state before it is
    /// used.
    pub fn open(folder: &Path) -> Result<(Self, Found), StateError> {
        let told = || folder.display().to_string();
        let failed = |source| StateError::Io { folder: told(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let lock = File::create(folder.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse { folder: told() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let opened = Self { folder: folder.to_owned(), _lock: lock };
        let found = opened.read().map_err(failed)?;
        Ok((opened, found))
    }

    fn current(&self) -> PathBuf {
        self.folder.join("desired.json")
    }

    fn previous(&self) -> PathBuf {
        self.folder.join("desired.previous.json")
    }

    /// The newest state that can be trusted.
    fn read(&self) -> io::Result<Found> {
        let mut problems = Vec::new();
        for path in [self.current(), self.previous()] {
            let text = match fs::read(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match form::read(&text) {
                Ok(state) => return Ok(Found { state, problems }),
                Err(problem) => problems.push(self.set_aside(&path, &problem)?),
            }
        }
        Ok(Found { state: DesiredState::default(), problems })
    }

    /// Keeps a bad file for who wants to look at it; what is to be told of it.
    fn set_aside(&self, path: &Path, problem: &str) -> io::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let aside = self.folder.join(format!("desired.corrupt-{now}.json"));
        // Two of them may come in one millisecond.
        let aside = if aside.exists() { aside.with_extension("json.2") } else { aside };
        fs::rename(path, &aside)?;
        Ok(format!("{} is {problem}; it was set aside as {}", path.display(), aside.display()))
    }
}

impl DesiredStore for StateFolder {
    fn save(&self, state: &DesiredState) -> io::Result<()> {
        let (current, previous) = (self.current(), self.previous());
        let fresh = self.folder.join("desired.json.new");
        let mut file = File::create(&fresh)?;
        file.write_all(form::write(state).as_bytes())?;
        file.sync_all()?;
        if current.exists() {
            // At no moment is there no current file.
            let link = self.folder.join("desired.previous.json.new");
            fs::remove_file(&link).or_else(unless_absent)?;
            fs::hard_link(&current, &link)?;
            fs::rename(&link, &previous)?;
        }
        fs::rename(&fresh, &current)?;
        // A rename is on disk once the folder is.
        File::open(&self.folder)?.sync_all()
    }
}

fn unless_absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DesiredModel, ModelName};

    fn state(models: &[&str]) -> DesiredState {
        let model = |name: &&str| (ModelName::new(name).unwrap(), DesiredModel::default());
        DesiredState { models: models.iter().map(model).collect() }
    }

    fn open(folder: &Path) -> Found {
        StateFolder::open(folder).unwrap().1
    }

    fn saved(folder: &Path, states: &[&[&str]]) {
        let (opened, _) = StateFolder::open(folder).unwrap();
        for models in states {
            opened.save(&state(models)).unwrap();
        }
    }

    #[test]
    fn what_was_saved_last_is_found() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("deep/state");
        assert_eq!(open(&folder).state, DesiredState::default());
        saved(&folder, &[&["a"], &["a", "b"]]);
        let found = open(&folder);
        assert_eq!((found.state, found.problems), (state(&["a", "b"]), vec![]));
    }

    #[test]
    fn a_bad_file_is_set_aside_and_the_one_before_is_used() {
        for (damage, told) in [
            (&b""[..], "no JSON"),
            (b"{\"format\":1,\"sha256\":\"00\",\"models\":{}}", "not what was written"),
            (b"{\"format\":2,\"sha256\":\"00\",\"models\":{}}", "format 2"),
            (b"\0\0\0\0", "no JSON"),
        ] {
            let home = tempfile::tempdir().unwrap();
            saved(home.path(), &[&["a"], &["a", "b"]]);
            fs::write(home.path().join("desired.json"), damage).unwrap();
            let found = open(home.path());
            assert_eq!(found.state, state(&["a"]));
            assert!(found.problems[0].contains(told), "{:?}", found.problems);
            let kept = fs::read_dir(home.path()).unwrap().filter_map(Result::ok);
            let corrupt = |entry: &fs::DirEntry| {
                entry.file_name().to_string_lossy().starts_with("desired.corrupt-")
            };
            assert_eq!(kept.filter(corrupt).count(), 1);
        }
    }

    #[test]
    fn every_torn_prefix_is_noticed() {
        let home = tempfile::tempdir().unwrap();
        saved(home.path(), &[&["a"], &["a", "b"]]);
        let path = home.path().join("desired.json");
        let whole = fs::read(&path).unwrap();
        // The newline at the end says nothing.
        for length in 0..whole.len() - 1 {
            assert!(form::read(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn two_processes_do_not_share_a_folder() {
        let home = tempfile::tempdir().unwrap();
        let first = StateFolder::open(home.path()).unwrap();
        let second = StateFolder::open(home.path()).unwrap_err();
        assert!(matches!(second, StateError::InUse { .. }), "{second:?}");
        drop(first);
        StateFolder::open(home.path()).unwrap();
    }
}
