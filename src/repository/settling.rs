//! Which versions of a model somebody is still copying.
//!
//! What is being written changes its times; what was renamed into place has been changed, as a file,
//! later than its content was. So a rename counts at once, and anything else once it was left alone.
//! Where both may have happened at the same moment of the file system's clock, a rename counts if it was
//! noticed. Whatever the times say, which are not always by the server's clock, what has looked the same
//! before its eyes for long enough is complete.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::local::LARGEST_SETTINGS;
use super::sightings::{Looks, Sight};
use super::watching::Renames;
use super::{bare, golden, manifest};
use crate::model::{Glance, Version};

/// What is read of a model beside its versions.
const SETTINGS: [&str; 2] = ["model.yaml", "config.pbtxt"];

/// How it is told that a model is complete.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signs<'a> {
    /// How long something has to be left alone.
    pub(super) stable: Duration,
    pub(super) renames: &'a Renames,
    pub(super) sight: Sight<'a>,
}

/// Looks at every file of a model in a folder. Each version has settled by itself: by a manifest, by
/// having been left alone, or by having been renamed into place, itself or with the whole model. What is
/// hidden beside the versions, and what is none of the model's, is not looked at.
pub(super) fn of_folder(folder: &Path, signs: Signs<'_>) -> io::Result<Glance> {
    let whole = fs::metadata(folder)?;
    let mut glance = Glance { settled: false, unsettled: Vec::new(), stamp: String::new() };
    let (mut settled, mut watched) = (Vec::new(), Vec::new());
    for (version, path) in versions(folder)? {
        let Some(own) = found(fs::metadata(&path))? else { continue };
        // What is wrong with it is told by the load.
        let mut tree = Tree::of(&path).unwrap_or_else(|error| Tree::unreadable(&error));
        let is_told = signs.is_version_complete((&path, &own), (folder, &whole), &tree);
        if !is_told {
            watched.push(Some(version));
        }
        if is_told || signs.is_still(Some(version), &path, &mut tree) {
            // Of one without a file there is that it is there.
            writeln!(glance.stamp, "{}", path.display()).expect("a string takes every text");
            glance.stamp.push_str(&tree.stamp);
            settled.push(version);
        } else {
            glance.unsettled.push(version);
        }
    }
    glance.unsettled.sort_unstable();
    glance.settled = if settled.is_empty() && glance.unsettled.is_empty() {
        watched.push(None);
        signs.is_empty_complete(folder, &whole)?
    } else {
        !settled.is_empty()
    };
    signs.sight.keep(&watched);
    glance.stamp.push_str(&beside(folder, &settled)?.stamp);
    Ok(glance)
}

/// What stands beside the versions of a model and belongs to it: its settings, the files that they name,
/// and golden samples, but those of versions that somebody is writing.
fn beside(folder: &Path, settled: &[Version]) -> io::Result<Tree> {
    let mut tree = Tree::default();
    let mut names = String::new();
    for settings in SETTINGS.map(|name| folder.join(name)) {
        tree.add(&settings)?;
        names.push_str(&text(&settings));
    }
    for path in entries(folder)? {
        let name = path.file_name().and_then(OsStr::to_str).filter(|name| !SETTINGS.contains(name));
        if name.is_some_and(|name| names.contains(name)) && path.is_file() {
            tree.add(&path)?;
        }
    }
    let golden = folder.join("golden");
    let own = settled.iter().map(|version| golden.join(version.to_string()));
    for folder in own.chain([golden.clone()]) {
        match golden::files(&folder) {
            Ok(files) => files.iter().try_for_each(|file| tree.add(file).map(drop))?,
            // It is told by the load.
            Err(error) => writeln!(tree.stamp, "{error}").expect("a string takes every text"),
        }
    }
    Ok(tree)
}

/// What settings say; nothing where they are not to be read.
fn text(settings: &Path) -> String {
    let is_file =
        fs::metadata(settings).is_ok_and(|it| it.is_file() && it.len() <= LARGEST_SETTINGS);
    let bytes = is_file.then(|| fs::read(settings).unwrap_or_default());
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

/// Looks at a model that is a file, at what its graph refers to, and at its settings.
pub(super) fn of_files(graph: &Path, settings: &Path, signs: Signs<'_>) -> io::Result<Glance> {
    let mut tree = Tree::default();
    let is_told = signs.is_file_complete(graph, &mut tree)?;
    let settled = is_told || signs.is_still(Some(Version::FIRST), graph, &mut tree);
    if is_told {
        signs.sight.keep(&[]);
    }
    if !settled {
        tree = Tree::default();
    }
    tree.add(settings)?;
    let unsettled = if settled { Vec::new() } else { vec![Version::FIRST] };
    Ok(Glance { settled, unsettled, stamp: tree.stamp })
}

/// What is seen of a version, or beside the versions.
#[derive(Default)]
struct Tree {
    /// What changes with every file of it.
    stamp: String,
    /// Hidden files are included: who copies a version file by file may write each under a hidden name
    /// first.
    looks: Looks,
    /// Whether something went while it was looked at.
    is_moving: bool,
}

impl Tree {
    /// What is below a folder. Folders that links lead to are not entered: the load tells of them.
    fn of(folder: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.enter(folder, false)?;
        Ok(tree)
    }

    fn unreadable(error: &io::Error) -> Self {
        Self { stamp: format!("{error}\n"), ..Self::default() }
    }

    fn enter(&mut self, folder: &Path, inside: bool) -> io::Result<()> {
        for path in found(entries(folder))?.unwrap_or_default() {
            let is_hidden = inside || is_hidden(&path);
            let seen = if is_hidden { self.see(&path)? } else { self.add(&path)? };
            self.is_moving |= seen.is_none();
            if seen.is_some_and(|it| it.is_dir()) && !path.is_symlink() {
                self.enter(&path, is_hidden)?;
            }
        }
        Ok(())
    }

    /// Notes an entry, of a link what it leads to; `None` where there is nothing.
    fn add(&mut self, path: &Path) -> io::Result<Option<Metadata>> {
        let seen = self.see(path)?;
        let path = path.display();
        match &seen {
            Some(metadata) if metadata.is_dir() => Ok(()),
            Some(metadata) => {
                let (size, changed, inode) = (metadata.len(), changed(metadata), metadata.ino());
                writeln!(self.stamp, "{path} {size} {changed:?} {inode}")
            }
            None => writeln!(self.stamp, "{path} -"),
        }
        .expect("a string takes every text");
        Ok(seen)
    }

    /// Notes when an entry was changed.
    fn see(&mut self, path: &Path) -> io::Result<Option<Metadata>> {
        let seen = match fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            // Of a link that leads to nothing there is the link. That it does is told by the load.
            Err(error) => match found(fs::symlink_metadata(path))? {
                Some(link) if !link.is_symlink() => return Err(error),
                link => link,
            },
        };
        let changed = seen.as_ref().map_or(Duration::ZERO, changed);
        let is = seen.as_ref().map(|metadata| (metadata.len(), metadata.ino()));
        self.looks.add((path, changed, is), (path, changed));
        Ok(seen)
    }
}

impl Signs<'_> {
    fn is_version_complete(
        &self,
        (path, own): (&Path, &Metadata),
        (folder, whole): (&Path, &Metadata),
        tree: &Tree,
    ) -> bool {
        let named = self.placed(path, own).max(self.placed(folder, whole));
        let newest = tree.looks.newest;
        let rests = named > Some(newest) && newest > Duration::ZERO;
        let is_alone = || self.is_alone(newest.max(changed(own)));
        !tree.is_moving && (rests || is_alone() || manifest::is_met(path))
    }

    /// Whether a graph and what it refers to are complete, all of which is noted.
    fn is_file_complete(&self, graph: &Path, tree: &mut Tree) -> io::Result<bool> {
        let Some(own) = tree.add(graph)? else { return Ok(false) };
        let mut is_complete = self.rests(graph, &own);
        // Nothing else may be opened: that of a pipe would wait for its other end.
        let references = own.is_file().then(|| bare::references(graph).unwrap_or_default());
        for name in references.unwrap_or_default() {
            let path = graph.with_file_name("").join(&name);
            is_complete &= match tree.add(&path)? {
                Some(metadata) => self.rests(&path, &metadata),
                // It may be next. Where it does not come, the load tells so.
                None => self.is_alone(changed(&own)),
            };
        }
        Ok(is_complete)
    }

    /// Whether none of a model's versions is about to come.
    fn is_empty_complete(&self, folder: &Path, whole: &Metadata) -> io::Result<bool> {
        let mut tree = Tree::of(folder)?;
        let newest = tree.looks.newest;
        let is_told =
            self.placed(folder, whole) > Some(newest) || self.is_alone(newest.max(changed(whole)));
        Ok(is_told && !tree.is_moving || self.is_still(None, folder, &mut tree))
    }

    /// Whether nothing has changed for long enough before the server's eyes, whatever the times say.
    fn is_still(&self, version: Option<Version>, path: &Path, tree: &mut Tree) -> bool {
        // What cannot be seen of it any more is so next time.
        tree.see(path).ok();
        !tree.is_moving && self.sight.is_unchanged(version, &tree.looks, self.stable)
    }

    /// Whether nothing was changed since that moment, for long enough.
    fn is_alone(&self, last: Duration) -> bool {
        self.sight.now.wall.saturating_sub(last) >= self.stable
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
        if self.renames.has(path, metadata) {
            return Some(changed + Duration::from_nanos(1));
        }
        Some(changed).filter(|changed| *changed > written)
    }
}

/// The folders of a model's versions.
fn versions(folder: &Path) -> io::Result<Vec<(Version, PathBuf)>> {
    let version = |path: PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str);
        let version = name.and_then(|name| name.parse().ok()).filter(|_| path.is_dir());
        version.map(|version| (version, path))
    };
    Ok(entries(folder)?.into_iter().filter_map(version).collect())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
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
    use super::super::sightings::{Now, Sightings};
    use super::*;
    use crate::external_data::onnx::{add_constant, add_external};
    use crate::model::ModelName;

    const HOUR: Duration = Duration::from_hours(1);

    fn versions(numbers: &[u64]) -> Vec<Version> {
        numbers.iter().map(|number| Version::new(*number).unwrap()).collect()
    }

    /// A folder for a model.
    struct Model(tempfile::TempDir, Renames, Sightings, ModelName);

    impl Model {
        fn new() -> Self {
            let (renames, sightings) = (Renames::default(), Sightings::default());
            Self(tempfile::tempdir().unwrap(), renames, sightings, ModelName::new("m").unwrap())
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn put(&self, path: &str, content: impl AsRef<[u8]>) {
            fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
            fs::write(self.at(path), content).unwrap();
        }

        fn put_manifest(&self, version: u64, files: &[(&str, u64)]) {
            let entry = |(path, size): &(&str, u64)| serde_json::json!({ "path": path, "size": size, "sha256": "" });
            let files: Vec<_> = files.iter().map(entry).collect();
            let manifest = serde_json::json!({ "files": files });
            self.put(&format!("{version}/manifest.json"), manifest.to_string());
        }

        /// Renames it, at another time than that of its last change.
        fn rename(&self, from: &str, to: &str) {
            // The clock of file systems may stand still for some milliseconds.
            let at = |path| fs::metadata(self.at(path)).unwrap();
            let inside = Tree::of(&self.at(from)).unwrap_or_default().looks.newest;
            let before = changed(&at(from)).max(inside);
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
            of_folder(&self.at(path), self.signs(stable, Now::get())).unwrap()
        }

        fn file(&self, stable: Duration) -> Glance {
            self.file_at(self.signs(stable, Now::get()))
        }

        fn file_at(&self, signs: Signs<'_>) -> Glance {
            of_files(&self.at("m.onnx"), &self.at("m.model.yaml"), signs).unwrap()
        }

        fn signs(&self, stable: Duration, now: Now) -> Signs<'_> {
            let sight = Sight { model: &self.3, sightings: &self.2, now };
            Signs { stable, renames: &self.1, sight }
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
        model.put_manifest(1, &[("model.onnx", 4), ("weights.bin", 1)]);
        assert!(!model.folder(HOUR).settled, "not all is there, nor as large as it is to be");
        model.put("1/model.onnx", "abcd");
        model.put("1/weights.bin", "w");
        assert!(model.folder(HOUR).settled, "what is in them is held against it by the load");
        model.put("1/manifest.json", "{}");
        assert!(!model.folder(HOUR).settled, "it lists nothing yet");
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
    fn each_version_settles_by_itself() {
        let model = Model::new();
        model.put(".1/model.onnx", "abc");
        model.rename(".1", "1");
        let before = model.folder(HOUR);
        model.put("3/model.onnx", "abc");
        model.put("2/model.onnx", "abc");
        assert_eq!(model.folder(HOUR), Glance { unsettled: versions(&[2, 3]), ..before.clone() });
        model.put("2/weights.bin", "w");
        model.put("golden/2/a.json", "{}");
        assert_eq!(model.folder(HOUR).stamp, before.stamp, "it is still being written");
        model.put_manifest(2, &[("model.onnx", 3)]);
        let after = model.folder(HOUR);
        assert_eq!((after.settled, &after.unsettled), (true, &versions(&[3])));
        assert!(after.stamp != before.stamp && after.stamp.contains("golden/2/a.json"));
        model.put("1/model.onnx", "abcd");
        let glance = model.folder(HOUR);
        assert_eq!((glance.settled, &glance.unsettled), (true, &versions(&[1, 3])));
        fs::remove_dir_all(model.at("2")).unwrap();
        assert!(!model.folder(HOUR).settled, "all of them are being written");
    }

    #[test]
    fn what_is_hidden_in_a_version_tells_that_it_is_being_written_and_nothing_else() {
        let model = Model::new();
        model.put("1/model.onnx", "abc");
        model.put_manifest(1, &[("model.onnx", 3)]);
        let before = model.folder(HOUR);
        // So does who copies file by file.
        model.put("1/.model.onnx.a7", "ab");
        model.put("1/.parts/w.bin", "ab");
        assert_eq!(model.folder(HOUR), before);
        fs::remove_file(model.at("1/manifest.json")).unwrap();
        assert_eq!(model.folder(HOUR).unsettled, versions(&[1]));
    }

    #[test]
    fn links_that_lead_round_are_left_to_the_load() {
        let model = Model::new();
        model.put("1/model.onnx", "abc");
        for link in ["a", "b"] {
            std::os::unix::fs::symlink(".", model.at(&format!("1/{link}"))).unwrap();
        }
        std::os::unix::fs::symlink("c", model.at("1/c")).unwrap();
        std::os::unix::fs::symlink("2", model.at("2")).unwrap();
        assert!(model.folder(Duration::ZERO).settled);
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
        assert_eq!(glance().unsettled, versions(&[2]), "written into after it was named");
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
        for (path, content) in [
            ("model.yaml", "a"),
            ("model.yaml", "ab"),
            ("config.pbtxt", "label_filename: 'labels.txt'"),
            ("labels.txt", "cat"),
            ("golden/1/a.json", ""),
            ("golden/a.json", ""),
        ] {
            model.put(path, content);
            let after = model.folder(HOUR);
            assert!(after.settled && after.stamp != before, "{path}");
            before = after.stamp;
        }
    }

    #[test]
    fn what_is_none_of_the_models_is_not_looked_at() {
        let model = Model::new();
        model.put(".1/model.onnx", "abc");
        model.rename(".1", "1");
        let before = model.folder(HOUR);
        for path in [".2/model.onnx", ".tmp/w.bin", "3.partial/w.bin", "notes", "golden/2/a.json"] {
            for content in ["a", "ab"] {
                model.put(path, content);
                assert_eq!(model.folder(HOUR), before, "{path}");
            }
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
        assert!(!model.file(HOUR).settled, "its weights are not there yet");
        assert!(model.file(Duration::ZERO).settled, "they do not come");
        model.put("weights.bin", "w");
        assert_eq!(model.file(HOUR).unsettled, versions(&[1]), "they are being copied");
        model.put("other", "w");
        model.rename("other", "weights.bin");
        let before = model.file(HOUR);
        assert!(before.settled);
        model.put("m.model.yaml", "lazy: true");
        let after = model.file(HOUR);
        assert!(after.settled && after.stamp != before.stamp);
        model.put("unrelated.bin", "w");
        assert_eq!(model.file(HOUR), after);
    }

    #[test]
    fn what_is_of_a_time_to_come_settles_before_the_servers_eyes() {
        let begin = Now::get();
        let looks: [fn(&Model, Signs<'_>) -> Glance; 2] = [
            |model, signs| of_folder(&model.at(""), signs).unwrap(),
            |model, signs| model.file_at(signs),
        ];
        for (path, look) in ["1/model.onnx", "m.onnx"].into_iter().zip(looks) {
            let model = Model::new();
            let settled = |after: u64| {
                let after = Duration::from_secs(after);
                // The server's clock is an hour late.
                let wall = begin.wall.saturating_sub(HOUR) + after;
                let now = Now { wall, steady: begin.steady + after };
                look(&model, model.signs(Duration::from_secs(1), now)).settled
            };
            model.put(path, "abc");
            assert_eq!([0, 4, 5, 60].map(settled), [false, false, true, true], "{path}");
            model.put(path, "abcd");
            assert_eq!([61, 65, 66].map(settled), [false, false, true], "{path}");
            model.put("1/.model.onnx.a7", "abcd");
            model.put(path, "abcde");
            assert_eq!([67, 71, 72].map(settled), [false, false, true], "{path}");
        }
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
