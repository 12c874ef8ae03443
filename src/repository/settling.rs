//! Whether somebody is still copying a model.
//!
//! What is being written changes its times; what was renamed into place has been changed, as a file,
//! later than its content was. So a rename counts at once, and anything else once it was left alone.
//! Where both may have happened at the same moment of the file system's clock, a rename counts if it was
//! noticed.

use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::watching::Renames;
use super::{bare, manifest};
use crate::model::{Glance, Version};

/// How it is told that a model is complete.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signs<'a> {
    /// How long something has to be left alone.
    pub(super) stable: Duration,
    pub(super) renames: &'a Renames,
}

/// Looks at every file of a model in a folder. It has settled when each of its versions has: by a
/// manifest, by having been left alone, or by having been renamed into place, itself or with the whole
/// model.
pub(super) fn of_folder(folder: &Path, signs: Signs<'_>) -> io::Result<Glance> {
    let mut look = Look::new(signs);
    let own = fs::metadata(folder)?;
    let (mut newest, mut versions, mut settled) = (Duration::ZERO, 0, true);
    for path in entries(folder)? {
        let Some(metadata) = look.at(&path)? else { continue };
        newest = newest.max(changed(&metadata));
        if !metadata.is_dir() {
            continue;
        }
        let last = look.below(&path)?;
        newest = newest.max(last);
        if is_version(&path) {
            versions += 1;
            let named = look.placed(&path, &metadata).max(look.placed(folder, &own));
            let rests = named > Some(last) && last > Duration::ZERO;
            let is_alone = look.is_alone(last.max(changed(&metadata)));
            settled &= rests || is_alone || path.join(manifest::NAME).exists();
        }
    }
    // Without a version, one is about to come.
    let is_done = versions > 0
        || look.placed(folder, &own) > Some(newest)
        || look.is_alone(changed(&own).max(newest));
    Ok(look.glance(settled && is_done))
}

/// Looks at a model that is a file, at what its graph refers to, and at its settings.
pub(super) fn of_files(graph: &Path, settings: &Path, signs: Signs<'_>) -> io::Result<Glance> {
    let mut look = Look::new(signs);
    let Some(own) = look.at(graph)? else { return Ok(look.glance(false)) };
    let mut settled = look.rests(graph, &own);
    // Nothing else may be opened: that of a pipe would wait for its other end.
    let references = own.is_file().then(|| bare::references(graph).unwrap_or_default());
    for name in references.unwrap_or_default() {
        let path = graph.with_file_name("").join(&name);
        settled &= match look.at(&path)? {
            Some(metadata) => look.rests(&path, &metadata),
            // It may be next. Where it does not come, the load tells so.
            None => look.is_alone(changed(&own)),
        };
    }
    look.at(settings)?;
    Ok(look.glance(settled))
}

/// What is seen of a model.
struct Look<'a> {
    signs: Signs<'a>,
    now: Duration,
    stamp: String,
    /// Whether something went while it was looked at.
    is_moving: bool,
}

impl<'a> Look<'a> {
    fn new(signs: Signs<'a>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { signs, now, stamp: String::new(), is_moving: false }
    }

    fn glance(self, settled: bool) -> Glance {
        Glance { settled: settled && !self.is_moving, unsettled: Vec::new(), stamp: self.stamp }
    }

    /// Notes an entry, of a link what it leads to; `None` where there is nothing.
    fn at(&mut self, path: &Path) -> io::Result<Option<Metadata>> {
        let Some(metadata) = found(fs::metadata(path))? else {
            // A link to nowhere is told by the load.
            return found(fs::symlink_metadata(path))
                .inspect(|link| self.note(path, link.as_ref()));
        };
        if !metadata.is_dir() {
            self.note(path, Some(&metadata));
        }
        Ok(Some(metadata))
    }

    fn note(&mut self, path: &Path, metadata: Option<&Metadata>) {
        let path = path.display();
        let Some(metadata) = metadata else {
            return writeln!(self.stamp, "{path} -").expect("a string takes every text");
        };
        let (size, changed, inode) = (metadata.len(), changed(metadata), metadata.ino());
        writeln!(self.stamp, "{path} {size} {changed:?} {inode}")
            .expect("a string takes every text");
    }

    /// Notes everything below a folder; when the last of it was changed.
    fn below(&mut self, folder: &Path) -> io::Result<Duration> {
        let mut newest = Duration::ZERO;
        for path in found(entries(folder))?.unwrap_or_default() {
            let Some(metadata) = self.at(&path)? else {
                self.is_moving = true;
                continue;
            };
            newest = newest.max(changed(&metadata));
            if metadata.is_dir() {
                newest = newest.max(self.below(&path)?);
            }
        }
        Ok(newest)
    }

    /// Whether nothing was changed since that moment, for long enough.
    fn is_alone(&self, last: Duration) -> bool {
        self.now.saturating_sub(last) >= self.signs.stable
    }

    /// Whether a file is complete, as far as that can be told of one.
    fn rests(&self, path: &Path, file: &Metadata) -> bool {
        let was_placed = self.placed(path, file).is_some() && file.len() > 0;
        was_placed || self.is_alone(changed(file))
    }

    /// When an entry was renamed or linked, if that was after its content was written. What was
    /// noticed is after everything of its moment.
    fn placed(&self, path: &Path, metadata: &Metadata) -> Option<Duration> {
        let (changed, written) = (changed(metadata), written(metadata));
        if self.signs.renames.has(path, metadata) {
            return Some(changed + Duration::from_nanos(1));
        }
        Some(changed).filter(|changed| *changed > written)
    }
}

fn is_version(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.parse::<Version>().is_ok())
}

/// When an entry was written, renamed or linked last.
pub(super) fn changed(metadata: &Metadata) -> Duration {
    moment(metadata.ctime(), metadata.ctime_nsec())
}

/// When an entry's content was written last; of a folder, when an entry came or went.
fn written(metadata: &Metadata) -> Duration {
    moment(metadata.mtime(), metadata.mtime_nsec())
}

fn moment(seconds: i64, nanoseconds: i64) -> Duration {
    let seconds = Duration::from_secs(seconds.try_into().unwrap_or_default());
    seconds + Duration::from_nanos(nanoseconds.try_into().unwrap_or_default())
}

/// What is in a folder, by name.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::external_data::onnx::{add_constant, add_external};

    const HOUR: Duration = Duration::from_hours(1);

    /// A folder for a model.
    struct Model(tempfile::TempDir, Renames);

    impl Model {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap(), Renames::default())
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn put(&self, path: &str, content: impl AsRef<[u8]>) {
            fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
            fs::write(self.at(path), content).unwrap();
        }

        /// Renames it, at another time than that of its last change.
        fn rename(&self, from: &str, to: &str) {
            // The clock of file systems may stand still for some milliseconds.
            let at = |path| fs::metadata(self.at(path)).unwrap();
            let before = changed(&at(from));
            fs::rename(self.at(from), self.at(to)).unwrap();
            while changed(&at(to)) <= before.max(written(&at(to))) {
                fs::rename(self.at(to), self.at(from)).unwrap();
                fs::rename(self.at(from), self.at(to)).unwrap();
            }
        }

        fn folder(&self, stable: Duration) -> Glance {
            self.folder_at("", stable)
        }

        fn folder_at(&self, path: &str, stable: Duration) -> Glance {
            of_folder(&self.at(path), Signs { stable, renames: &self.1 }).unwrap()
        }

        fn file(&self, stable: Duration) -> Glance {
            let (graph, settings) = (self.at("m.onnx"), self.at("m.model.yaml"));
            of_files(&graph, &settings, Signs { stable, renames: &self.1 }).unwrap()
        }

        /// Tells of a rename.
        fn notice(&self, path: &str) {
            self.1.remember(&self.at(path), changed(&fs::metadata(self.at(path)).unwrap()));
        }
    }

    #[test]
    fn what_is_being_copied_has_not_settled() {
        let model = Model::new();
        assert!(!model.folder(HOUR).settled, "no version is there yet");
        fs::create_dir(model.at("1")).unwrap();
        assert!(!model.folder(HOUR).settled, "nothing is in it yet");
        model.put("1/model.onnx", "abc");
        assert!(!model.folder(HOUR).settled, "it may go on");
        model.put("1/other", "");
        fs::remove_file(model.at("1/other")).unwrap();
        assert!(!model.folder(HOUR).settled, "a folder that changes was not named");
        assert!(model.folder(Duration::ZERO).settled, "left alone for long enough");
        model.put("1/manifest.json", "{}");
        assert!(model.folder(HOUR).settled, "the manifest is held against it by the load");
    }

    #[test]
    fn what_is_renamed_into_place_has_settled_at_once() {
        let model = Model::new();
        model.put(".1/model.onnx", "abc");
        model.rename(".1", "1");
        let before = model.folder(HOUR);
        assert!(before.settled);
        model.put("1/model.onnx", "abcd");
        let after = model.folder(HOUR);
        assert!(!after.settled && after.stamp != before.stamp, "written into after it was named");
    }

    #[test]
    fn a_whole_model_that_is_renamed_into_place_has_settled_at_once() {
        let root = Model::new();
        root.put(".m/1/model.onnx", "abc");
        root.put(".m/2/model.onnx", "abc");
        root.rename(".m", "m");
        let glance = || root.folder_at("m", HOUR);
        assert!(glance().settled);
        root.put("m/2/weights.bin", "");
        assert!(!glance().settled, "written into after it was named");
    }

    #[test]
    fn a_rename_that_was_noticed_may_be_of_the_moment_of_the_last_change() {
        let model = Model::new();
        // By its times alone, what was just written may be what was just renamed.
        model.put("m.onnx", add_constant(1.0));
        model.put("1/model.onnx", "abc");
        model.put("1/other", "");
        fs::remove_file(model.at("1/other")).unwrap();
        assert!(!model.folder(HOUR).settled && !model.file(HOUR).settled);
        model.notice("m.onnx");
        model.notice("1");
        assert!(model.folder(HOUR).settled && model.file(HOUR).settled);
        model.rename("m.onnx", "other");
        model.rename("1", ".1");
        model.put("m.onnx", add_constant(2.0));
        model.put("1/model.onnx", "abcd");
        assert!(!model.folder(HOUR).settled && !model.file(HOUR).settled, "others, not renamed");
    }

    #[test]
    fn what_is_no_version_is_noticed_and_not_waited_for() {
        let model = Model::new();
        model.put(".1/model.onnx", "abc");
        model.rename(".1", "1");
        let mut before = model.folder(HOUR).stamp;
        for (path, content) in [("model.yaml", "a"), ("model.yaml", "ab"), ("golden/1/a.json", "")]
        {
            model.put(path, content);
            let after = model.folder(HOUR);
            assert!(after.settled && after.stamp != before, "{path}");
            before = after.stamp;
        }
    }

    #[test]
    fn a_file_has_settled_when_it_was_renamed_or_left_alone() {
        let model = Model::new();
        model.put("m.onnx", add_constant(1.0));
        assert!(!model.file(HOUR).settled, "it may go on");
        assert!(model.file(Duration::ZERO).settled, "left alone for long enough");
        model.put("new", add_constant(2.0));
        let before = model.file(HOUR).stamp;
        model.rename("new", "m.onnx");
        let after = model.file(HOUR);
        assert!(after.settled && after.stamp != before);
        model.put("m.onnx", "");
        assert!(!model.file(HOUR).settled, "written into after it was named");
        model.put("none", "");
        model.rename("none", "m.onnx");
        assert!(!model.file(HOUR).settled, "it is about to be filled");
    }

    #[test]
    fn a_file_waits_for_what_it_refers_to() {
        let model = Model::new();
        model.put("new", add_external("weights.bin"));
        model.rename("new", "m.onnx");
        let mut before = model.file(HOUR);
        assert!(!before.settled, "its weights are not there yet");
        assert!(model.file(Duration::ZERO).settled, "they do not come");
        model.put("weights.bin", "w");
        let after = model.file(HOUR);
        assert!(!after.settled && after.stamp != before.stamp, "they are being copied");
        model.put("other", "w");
        model.rename("other", "weights.bin");
        before = model.file(HOUR);
        assert!(before.settled);
        model.put("m.model.yaml", "lazy: true");
        let after = model.file(HOUR);
        assert!(after.settled && after.stamp != before.stamp);
        model.put("unrelated.bin", "w");
        assert_eq!(model.file(HOUR), after);
    }

    #[test]
    fn links_to_nowhere_are_left_to_the_load() {
        let model = Model::new();
        std::os::unix::fs::symlink("nowhere", model.at("m.onnx")).unwrap();
        fs::create_dir(model.at("1")).unwrap();
        std::os::unix::fs::symlink("nowhere", model.at("1/model.onnx")).unwrap();
        assert!(model.file(Duration::ZERO).settled);
        assert!(model.folder(Duration::ZERO).settled);
        fs::remove_file(model.at("m.onnx")).unwrap();
        assert!(!model.file(Duration::ZERO).settled, "it has gone");
    }
}
