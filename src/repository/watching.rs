//! Notice of changes in a local folder, by the operating system.

use std::collections::VecDeque;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::settling::changed;
use crate::model::{Hinter, Hints};

/// How many renames are remembered. They matter for some seconds.
const REMEMBERED: usize = 256;

/// How deep below the root renames are remembered: models, and their versions.
const DEPTH: usize = 2;

/// Watches a folder from the first time that somebody asks for hints.
#[derive(Debug, Default)]
pub(super) struct Watching {
    watched: Mutex<Option<Watched>>,
    renames: Arc<Renames>,
}

/// A folder that is watched. The system's notice ends when this is dropped.
#[derive(Debug)]
struct Watched {
    folder: Identity,
    watcher: RecommendedWatcher,
    hinter: Hinter,
}

/// Which folder it is, whatever its path leads to later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

/// The last entries that were renamed into place, with the time of it.
#[derive(Debug, Default)]
pub(super) struct Renames(Mutex<VecDeque<(PathBuf, Duration)>>);

impl Watching {
    /// Hints of changes below `root` from now on. Folders that are not watched yet, because their notice
    /// came too late, are from now on too.
    pub(super) fn hints(&self, root: &Path) -> io::Result<Hints> {
        let folder = Identity::of(root)?;
        let mut watched = self.watched();
        if watched.as_ref().is_none_or(|watched| watched.folder != folder) {
            *watched = None;
            *watched = Some(Watched::new(root, folder, &self.renames).map_err(io::Error::other)?);
        }
        let watched = watched.as_mut().expect("it was made where there was none");
        watched.watcher.watch(root, RecursiveMode::Recursive).map_err(io::Error::other)?;
        Ok(watched.hinter.hints())
    }

    /// Ends the hints where another folder, or none, has taken the place of the one that is watched.
    pub(super) fn check(&self, root: &Path) {
        // Who renews the watch meanwhile finds out.
        let Ok(mut watched) = self.watched.try_lock() else { return };
        let is_other = |watched: &mut Watched| Identity::of(root).ok() != Some(watched.folder);
        drop(watched.take_if(is_other));
    }

    /// What was renamed into place while it was watched.
    pub(super) fn renames(&self) -> &Renames {
        &self.renames
    }

    fn watched(&self) -> MutexGuard<'_, Option<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn new(root: &Path, folder: Identity, renames: &Arc<Renames>) -> notify::Result<Self> {
        let hinter = Hinter::default();
        let (told, root, renames) = (hinter.clone(), root.to_owned(), Arc::clone(renames));
        let tell = move |event: notify::Result<Event>| {
            // What could not be told may have been anything.
            let Ok(event) = event else { return told.hint() };
            if matters(&root, &event) {
                renames.note(&root, &event);
                told.hint();
            }
        };
        // What a link leads to outside is not served, and what it leads to inside is watched as such.
        let config = Config::default().with_follow_symlinks(false);
        Ok(Self { folder, watcher: RecommendedWatcher::new(tell, config)?, hinter })
    }
}

impl Identity {
    fn of(folder: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(folder)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// Whether an event tells of something that may have to be served otherwise.
fn matters(root: &Path, event: &Event) -> bool {
    let is_change = match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        // Who writes a large file would hint all the time. Linux tells its end too.
        EventKind::Modify(ModifyKind::Data(_)) => !cfg!(target_os = "linux"),
        _ => true,
    };
    let is_open = |path: &PathBuf| !is_hidden(path.parent().unwrap_or(root), root);
    is_change && (event.paths.is_empty() || event.paths.iter().any(is_open))
}

/// Whether a folder, or one that it is in, is hidden. Nothing in it is looked at.
fn is_hidden(folder: &Path, root: &Path) -> bool {
    let below = folder.strip_prefix(root).unwrap_or(Path::new(""));
    below.iter().any(|part| part.as_encoded_bytes().starts_with(b"."))
}

impl Renames {
    fn note(&self, root: &Path, event: &Event) {
        if !matches!(event.kind, EventKind::Modify(ModifyKind::Name(_))) {
            return;
        }
        for path in &event.paths {
            let depth = path.strip_prefix(root).map_or(0, |below| below.iter().count());
            // Where it comes from, there is nothing any more.
            let Ok(metadata) = fs::metadata(path) else { continue };
            if (1..=DEPTH).contains(&depth) {
                self.remember(path, changed(&metadata));
            }
        }
    }

    pub(super) fn remember(&self, path: &Path, at: Duration) {
        let mut known = self.known();
        known.retain(|(other, _)| other != path);
        known.truncate(REMEMBERED - 1);
        known.push_front((path.to_owned(), at));
    }

    /// Whether the last change of an entry was that it was renamed into place.
    pub(super) fn has(&self, path: &Path, metadata: &Metadata) -> bool {
        self.known().iter().any(|(other, at)| other == path && *at == changed(metadata))
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<(PathBuf, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{
        CreateKind, DataChange, Flag, MetadataKind, ModifyKind, RemoveKind, RenameMode,
    };
    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn events_matter_by_their_kind_and_place() {
        use EventKind as E;
        let check = |kind, path: &str, expected| {
            let event = Event::new(kind).add_path(PathBuf::from(path));
            assert_eq!(matters(Path::new("/.r"), &event), expected, "{event:?}");
        };
        let created = E::Create(CreateKind::File);
        check(created, "/.r/m/1/model.onnx", true);
        check(created, "/.r/.new", true);
        check(created, "/.r/.new/model.onnx", false);
        check(created, "/.r/m/.1/weights/w.bin", false);
        check(E::Remove(RemoveKind::Folder), "/.r", true);
        check(E::Modify(ModifyKind::Name(RenameMode::To)), "/.r/..data", true);
        check(E::Modify(ModifyKind::Metadata(MetadataKind::Any)), "/.r/m.onnx", true);
        check(E::Access(AccessKind::Close(AccessMode::Write)), "/.r/m.onnx", true);
        check(E::Access(AccessKind::Close(AccessMode::Read)), "/.r/m.onnx", false);
        check(E::Access(AccessKind::Open(AccessMode::Any)), "/.r/m.onnx", false);
        let written = E::Modify(ModifyKind::Data(DataChange::Any));
        check(written, "/.r/m.onnx", !cfg!(target_os = "linux"));
        let moved = Event::new(E::Modify(ModifyKind::Name(RenameMode::Both)));
        let moved = moved.add_path("/.r/.new/1".into()).add_path("/.r/m/1".into());
        assert!(matters(Path::new("/.r"), &moved));
        let overflow = Event::new(E::Other).set_flag(Flag::Rescan);
        assert!(matters(Path::new("/.r"), &overflow));
    }

    #[test]
    fn so_many_renames_are_remembered_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = fs::metadata(folder.path()).unwrap();
        let renames = Renames::default();
        let known = |name: usize| renames.has(Path::new(&name.to_string()), &metadata);
        for name in 0..=REMEMBERED {
            renames.remember(Path::new(&name.to_string()), changed(&metadata));
        }
        assert!(!known(0) && known(1) && known(REMEMBERED));
        renames.remember(Path::new("1"), Duration::ZERO);
        assert!(!known(1) && known(2), "it has been changed since");
    }

    /// A folder with a model that is watched.
    struct Fixture {
        root: TempDir,
        watching: Watching,
        hints: Hints,
    }

    impl Fixture {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            for folder in ["m/1", "m/.2", ".hidden"] {
                fs::create_dir_all(root.path().join(folder)).unwrap();
                fs::write(root.path().join(folder).join("model.onnx"), "graph").unwrap();
            }
            let watching = Watching::default();
            let hints = watching.hints(root.path()).unwrap();
            Self { root, watching, hints }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.root.path().join(path)
        }

        /// The next hint.
        async fn heard(&mut self) -> bool {
            let heard = timeout(Duration::from_secs(20), self.hints.heard()).await;
            heard.expect("the system tells of changes")
        }
    }

    #[tokio::test]
    async fn changes_are_told() {
        let changes: [fn(&Fixture); 7] = [
            |fixture| fs::write(fixture.at("m/1/model.onnx"), "another").unwrap(),
            |fixture| fs::write(fixture.at("m/1/weights.bin"), "w").unwrap(),
            |fixture| fs::write(fixture.at("bare.onnx"), "graph").unwrap(),
            |fixture| fs::rename(fixture.at("m/.2"), fixture.at("m/2")).unwrap(),
            |fixture| fs::create_dir(fixture.at("n")).unwrap(),
            |fixture| fs::remove_file(fixture.at("m/1/model.onnx")).unwrap(),
            |fixture| fs::remove_dir_all(fixture.at("m")).unwrap(),
        ];
        for change in changes {
            let mut fixture = Fixture::new();
            change(&fixture);
            assert!(fixture.heard().await);
        }
    }

    #[tokio::test]
    async fn what_is_renamed_into_place_is_known_until_it_changes() {
        let mut fixture = Fixture::new();
        fs::rename(fixture.at(".hidden/model.onnx"), fixture.at("bare.onnx")).unwrap();
        fs::rename(fixture.at("m/.2"), fixture.at("m/2")).unwrap();
        for path in ["bare.onnx", "m/2"] {
            let path = fixture.at(path);
            let metadata = fs::metadata(&path).unwrap();
            while !fixture.watching.renames().has(&path, &metadata) {
                assert!(fixture.heard().await);
            }
        }
        let (path, before) = (fixture.at("m/2"), fs::metadata(fixture.at("m/2")).unwrap());
        // The clock of file systems may stand still for some milliseconds.
        while changed(&fs::metadata(&path).unwrap()) == changed(&before) {
            fs::write(path.join("weights.bin"), "w").unwrap();
            fs::remove_file(path.join("weights.bin")).unwrap();
        }
        assert!(!fixture.watching.renames().has(&path, &fs::metadata(&path).unwrap()));
    }

    #[tokio::test]
    async fn folders_that_come_are_watched_at_the_latest_when_hints_are_asked_for_again() {
        let mut fixture = Fixture::new();
        fs::create_dir_all(fixture.at("n/1")).unwrap();
        assert!(fixture.heard().await);
        fixture.hints = fixture.watching.hints(fixture.root.path()).unwrap();
        fs::write(fixture.at("n/1/model.onnx"), "graph").unwrap();
        assert!(fixture.heard().await);
    }

    #[tokio::test]
    async fn a_folder_that_gives_its_place_to_another_is_watched_no_longer() {
        let mut fixture = Fixture::new();
        let (parent, root) = (tempfile::tempdir().unwrap(), fixture.root.path().to_owned());
        fixture.watching.check(&root);
        fs::rename(&root, parent.path().join("before")).unwrap();
        fixture.watching.check(&root);
        while fixture.heard().await {}
        assert!(fixture.watching.hints(&root).is_err());
        fs::create_dir(&root).unwrap();
        fixture.hints = fixture.watching.hints(&root).unwrap();
        fs::write(fixture.at("bare.onnx"), "graph").unwrap();
        assert!(fixture.heard().await);
    }

    #[tokio::test]
    async fn hints_end_with_the_watch() {
        let Fixture { root, watching, mut hints } = Fixture::new();
        drop(watching);
        let ended = async { while hints.heard().await {} };
        timeout(Duration::from_secs(20), ended).await.expect("they end");
        drop(root);
    }
}
