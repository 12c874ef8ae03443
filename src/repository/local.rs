//! A repository in a local folder: `<model>/<version>/model.onnx` with `<model>/model.yaml`, or
//! `<model>.onnx` with `<model>.model.yaml`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::bare::{self, VersionFile};
use super::settling::Signs;
use super::sightings::{Now, Sight, Sightings};
use super::watching::Watching;
use super::{config_pbtxt, digest, golden, labels, manifest, model_yaml, settling};
use crate::causes;
use crate::inference::ModelFiles;
use crate::model::{
    AvailableModel, Glance, GoldenSample, Hints, ModelName, ModelSettings, ModelSource, NameError,
    SourceError, Version, VersionId,
};

/// How long a version must have been left alone to count as complete.
const STABLE: Duration = Duration::from_secs(5);

/// The largest file of settings.
pub(super) const LARGEST_SETTINGS: u64 = 1 << 20;

/// What an ensemble without folders of versions has in the place of a graph.
const WHOLE: &str = "ensemble";

/// A folder of models. Nothing outside it is ever read, also not through a link.
#[derive(Debug, Clone)]
pub struct LocalRepository {
    root: PathBuf,
    /// The file system that it was on when it was opened.
    device: u64,
    watching: Arc<Watching>,
    sightings: Arc<Sightings>,
    told: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl LocalRepository {
    /// The repository at `root`.
    ///
    /// # Errors
    /// [`SourceError::Io`] when there is no such folder.
    pub fn open(root: &Path) -> Result<Self, SourceError> {
        let root = root.canonicalize().map_err(|error| unreadable(root, error))?;
        fs::read_dir(&root).map_err(|error| unreadable(&root, error))?;
        let metadata = fs::metadata(&root).map_err(|error| unreadable(&root, error))?;
        let device = metadata.dev();
        let (watching, sightings) = (Arc::default(), Arc::default());
        Ok(Self { root, device, watching, sightings, told: Arc::default() })
    }

    /// What is at the root. A file system that is no longer mounted looks like an empty folder on
    /// another one, and is not taken for one that has no models.
    fn entries(&self) -> Result<Vec<PathBuf>, SourceError> {
        let entries = entries(&self.root)?;
        if entries.is_empty() {
            let metadata =
                fs::metadata(&self.root).map_err(|error| unreadable(&self.root, error))?;
            if metadata.dev() != self.device {
                return Err(invalid(&self.root, "nothing is mounted there any more"));
            }
        }
        Ok(entries)
    }

    /// Logs what cannot be a model for its name, once as long as it is there.
    fn tell(&self, badly_named: BTreeSet<PathBuf>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for path in badly_named.difference(&told) {
            warn!(path = %path.display(), "this is not a model: bad name");
        }
        *told = badly_named;
    }

    fn signs<'a>(&'a self, model: &'a ModelName) -> Signs<'a> {
        let sight = Sight { model, sightings: &self.sightings, now: Now::get() };
        Signs { stable: STABLE, renames: self.watching.renames(), sight }
    }

    /// How a model lies here.
    fn layout(&self, name: &ModelName) -> Result<Layout, SourceError> {
        let (folder, graph) =
            (self.root.join(name.as_str()), self.root.join(bare::graph_name(name)));
        let is_bare = fs::symlink_metadata(&graph).is_ok() && !graph.is_dir();
        match (folder.is_dir(), is_bare) {
            (true, false) => Ok(Layout::Folder(self.contained(&folder)?)),
            (false, true) => Ok(Layout::Bare(graph)),
            (false, false) => {
                self.entries()?;
                Err(SourceError::UnknownModel(name.clone()))
            }
            (true, true) => Err(twice(&folder, &graph)),
        }
    }

    /// What is written of a model.
    fn written(&self, name: &ModelName, layout: &Layout) -> Result<ModelSettings, SourceError> {
        match layout {
            Layout::Folder(folder) => self.written_in(name, folder),
            Layout::Bare(_) => {
                let settings = self.root.join(bare::settings_name(name));
                let is_there = fs::symlink_metadata(&settings).is_ok();
                let parsed = is_there.then(|| self.parsed_yaml(&settings));
                parsed.unwrap_or_else(|| Ok(ModelSettings::default()))
            }
        }
    }

    /// What is written beside the versions.
    fn written_in(&self, name: &ModelName, folder: &Path) -> Result<ModelSettings, SourceError> {
        let (ours, tritons) = (folder.join("model.yaml"), folder.join("config.pbtxt"));
        if ours.exists() {
            let mut settings = self.parsed_yaml(&ours)?;
            if tritons.exists() {
                let warning = "config.pbtxt is not read, because there is a model.yaml";
                settings.warnings.push(warning.to_owned());
            }
            return Ok(settings);
        }
        if tritons.exists() {
            let labels = |file: &str| self.labels(&folder.join(file));
            return self.parsed(&tritons, |text| config_pbtxt::parse(text, (name, &labels)));
        }
        Ok(ModelSettings::default())
    }

    fn parsed_yaml(&self, path: &Path) -> Result<ModelSettings, SourceError> {
        let labels = |file: &str| self.labels(&path.with_file_name(file));
        self.parsed(path, |text| model_yaml::parse(text, &labels))
    }

    /// What a file of labels says.
    fn labels(&self, path: &Path) -> Result<Vec<String>, String> {
        if !path.is_file() {
            let name = path.file_name().unwrap_or_default().display();
            return Err(format!("there is no file '{name}' beside this one"));
        }
        let real = self.contained(path).map_err(|error| causes::of_error(&error))?;
        labels::read(&real)
    }

    /// What a file of settings says.
    fn parsed(
        &self,
        path: &Path,
        parse: impl FnOnce(&str) -> Result<ModelSettings, String>,
    ) -> Result<ModelSettings, SourceError> {
        if !path.is_file() {
            return Err(invalid(path, "it is not a file"));
        }
        let real = self.contained(path)?;
        let size = fs::metadata(&real).map_err(|error| unreadable(&real, error))?.len();
        if size > LARGEST_SETTINGS {
            let problem = format!("it has {size} bytes, {LARGEST_SETTINGS} at most are read");
            return Err(invalid(path, problem));
        }
        let text = fs::read_to_string(&real).map_err(|error| unreadable(&real, error))?;
        parse(&text).map_err(|problem| invalid(path, problem))
    }

    /// The path without links, if it is inside the repository.
    fn contained(&self, path: &Path) -> Result<PathBuf, SourceError> {
        let real = path.canonicalize().map_err(|error| unreadable(path, error))?;
        if real.starts_with(&self.root) {
            return Ok(real);
        }
        Err(invalid(path, "it is a link that leads out of the repository"))
    }

    /// The versions of the model that an entry of the root is; none where that cannot be read.
    fn versions_at(&self, path: &Path) -> Vec<Version> {
        if !path.is_dir() {
            return vec![Version::FIRST];
        }
        self.contained(path).and_then(|folder| versions(&folder)).unwrap_or_default()
    }

    fn fetch_folder(&self, id: &VersionId, folder: &Path) -> Result<ModelFiles, SourceError> {
        let (model, folder) = (folder, folder.join(id.version.to_string()));
        if !folder.is_dir() {
            let is_whole = id.version == Version::FIRST && self.is_whole(&id.model, model)?;
            let unknown = || SourceError::UnknownVersion(id.clone());
            return is_whole.then(|| ModelFiles::at(model.join(WHOLE))).ok_or_else(unknown);
        }
        let graph = folder.join("model.onnx");
        if !graph.is_file() {
            if self.written_in(&id.model, model)?.ensemble.is_none() {
                return Err(invalid(&graph, no_graph(&entries(&folder)?)));
            }
            // It has no graph.
            manifest::check(&folder, &self.root).map_err(|problem| invalid(&folder, problem))?;
            return Ok(ModelFiles::at(self.contained(&folder)?.join("model.onnx")));
        }
        self.contained(&graph)?;
        manifest::check(&folder, &self.root).map_err(|problem| invalid(&folder, problem))?;
        // Under its own name, not that of what it may be a link to: beside it is what belongs to it.
        Ok(ModelFiles::at(self.contained(&folder)?.join("model.onnx")))
    }

    /// Whether a model has no folder of a version, and is an ensemble, which needs none.
    fn is_whole(&self, name: &ModelName, folder: &Path) -> Result<bool, SourceError> {
        let has_versions = !versions(folder)?.is_empty();
        Ok(!has_versions && self.written_in(name, folder)?.ensemble.is_some())
    }

    fn fetch_bare(&self, id: &VersionId, graph: PathBuf) -> Result<ModelFiles, SourceError> {
        if id.version != Version::FIRST {
            return Err(SourceError::UnknownVersion(id.clone()));
        }
        self.contained(&graph)?;
        if !graph.is_file() {
            return Err(invalid(&graph, "it is not a file"));
        }
        let files = bare::files(&graph).map_err(|error| match error.kind() {
            // What the graph says, and not the system.
            ErrorKind::Other => invalid(&graph, error.to_string()),
            _ => unreadable(&graph, error),
        })?;
        for VersionFile { name, path } in &files[1..] {
            if !path.is_file() {
                let problem =
                    format!("it refers to '{}', and there is no such file", name.display());
                return Err(invalid(&graph, problem));
            }
            self.contained(path)?;
        }
        Ok(ModelFiles::at(graph))
    }

    /// The files of a version that was fetched.
    fn files(&self, files: &ModelFiles) -> Result<Vec<VersionFile>, SourceError> {
        let (graph, folder) = (&files.graph, folder_of(files));
        if graph.ends_with(WHOLE) {
            return Ok(Vec::new());
        }
        if folder != self.root {
            return digest::files(folder, &self.root).map_err(|error| unreadable(folder, error));
        }
        let files = bare::files(graph).map_err(|error| unreadable(graph, error))?;
        files.iter().try_for_each(|file| self.contained(&file.path).map(drop))?;
        Ok(files)
    }
}

impl ModelSource for LocalRepository {
    fn list(&self) -> Result<Vec<AvailableModel>, SourceError> {
        let mut models = BTreeMap::<ModelName, Vec<Version>>::new();
        self.watching.check(&self.root);
        let mut badly_named = BTreeSet::new();
        for path in self.entries()? {
            let name = match named(&path) {
                Some(Ok(name)) => name,
                Some(Err(_)) => {
                    badly_named.insert(path);
                    continue;
                }
                None => continue,
            };
            let versions = self.versions_at(&path);
            // Where a model is there twice, neither counts; who loads it is told.
            models.entry(name).and_modify(Vec::clear).or_insert(versions);
        }
        self.tell(badly_named);
        let available = |(name, versions)| AvailableModel { name, versions };
        Ok(models.into_iter().map(available).collect())
    }

    fn model(&self, name: &ModelName) -> Result<AvailableModel, SourceError> {
        let versions = match self.layout(name)? {
            Layout::Folder(folder) => match versions_of(name, &folder)? {
                none if none.is_empty() && self.is_whole(name, &folder)? => vec![Version::FIRST],
                versions => versions,
            },
            Layout::Bare(_) => vec![Version::FIRST],
        };
        Ok(AvailableModel { name: name.clone(), versions })
    }

    fn settings(&self, name: &ModelName) -> Result<ModelSettings, SourceError> {
        let layout = self.layout(name)?;
        let mut settings = self.written(name, &layout)?;
        if let Layout::Folder(folder) = &layout {
            settings.warnings.extend(no_versions(folder)?);
        }
        Ok(settings)
    }

    fn fetch(&self, id: &VersionId) -> Result<ModelFiles, SourceError> {
        match self.layout(&id.model)? {
            Layout::Folder(folder) => self.fetch_folder(id, &folder),
            Layout::Bare(graph) => self.fetch_bare(id, graph),
        }
    }

    fn digest(&self, files: &ModelFiles) -> Result<String, SourceError> {
        let digest = digest::of_files(self.files(files)?);
        digest.map_err(|error| unreadable(folder_of(files), error))
    }

    fn glance(&self, name: &ModelName) -> Result<Glance, SourceError> {
        let layout = self.layout(name).inspect_err(|_| self.sightings.forget(name))?;
        match layout {
            Layout::Folder(folder) => settling::of_folder(&folder, self.signs(name))
                .map_err(|error| unreadable(&folder, error)),
            Layout::Bare(graph) => {
                let settings = self.root.join(bare::settings_name(name));
                settling::of_files(&graph, &settings, self.signs(name))
                    .map_err(|error| unreadable(&graph, error))
            }
        }
    }

    fn hints(&self) -> Result<Option<Hints>, SourceError> {
        let hints = self.watching.hints(&self.root);
        let what = format!("what changes in {}", self.root.display());
        hints.map(Some).map_err(|source| SourceError::Io { what, source })
    }

    fn size(&self, files: &ModelFiles) -> Result<u64, SourceError> {
        let size = digest::size(&self.files(files)?);
        size.map_err(|error| unreadable(folder_of(files), error))
    }

    fn samples(&self, id: &VersionId) -> Result<Vec<GoldenSample>, SourceError> {
        let Layout::Folder(folder) = self.layout(&id.model)? else { return Ok(Vec::new()) };
        let of_all = folder.join("golden");
        let mut samples = Vec::new();
        for folder in [of_all.join(id.version.to_string()), of_all] {
            let files = golden::files(&folder).map_err(|error| unreadable(&folder, error))?;
            for file in files {
                let sample = golden::read(&self.contained(&file)?);
                samples.push(sample.map_err(|problem| invalid(&file, problem))?);
            }
        }
        Ok(samples)
    }
}

/// How a model lies in the repository.
enum Layout {
    /// In a folder, with a folder for each version.
    Folder(PathBuf),
    /// As a file, which is its only version.
    Bare(PathBuf),
}

/// The model that an entry of the root is; `None` where it is none.
fn named(path: &Path) -> Option<Result<ModelName, NameError>> {
    let file = path.file_name()?;
    let text = file.to_string_lossy();
    let name = if path.is_dir() {
        (!text.starts_with('.')).then(|| ModelName::new(&text))?
    } else {
        bare::model_of(&text)?
    };
    // What is not Unicode cannot be asked for.
    Some(file.to_str().map_or_else(|| Err(NameError::Character(text.to_string())), |_| name))
}

/// The versions of a model, lowest first: the folders whose name is a positive integer.
fn versions(folder: &Path) -> Result<Vec<Version>, SourceError> {
    let folders = entries(folder)?.into_iter().filter(|path| path.is_dir());
    let name = |path: PathBuf| path.file_name().and_then(OsStr::to_str).map(str::parse);
    let mut versions: Vec<Version> = folders.filter_map(name).filter_map(Result::ok).collect();
    versions.sort_unstable();
    Ok(versions)
}

/// The same for a model that is to be loaded, which has to be more than a graph without a version.
fn versions_of(name: &ModelName, folder: &Path) -> Result<Vec<Version>, SourceError> {
    let versions = versions(folder)?;
    let names = entries(folder)?;
    let names = names.iter().filter_map(|path| path.file_name()?.to_str());
    match misplaced(name, names) {
        Some(problem) if versions.is_empty() => Err(invalid(folder, problem)),
        _ => Ok(versions),
    }
}

/// What to tell of a model without a version, whose graph lies where versions do.
pub(super) fn misplaced<'a>(
    name: &ModelName,
    mut names: impl Iterator<Item = &'a str>,
) -> Option<String> {
    let graph = names.find(|name| is_graph(name))?;
    let moved = format!("{name}/1/model.onnx");
    Some(format!("it has no version: '{graph}' lies beside the versions, move it to {moved}"))
}

/// What to tell of a version without a `model.onnx`.
fn no_graph(files: &[PathBuf]) -> String {
    let mut names = files.iter().filter_map(|path| path.file_name()?.to_str());
    match names.find(|name| is_graph(name)) {
        Some(other) => format!("there is no such file, but '{other}': rename it to model.onnx"),
        None => "there is no such file; a version is a folder with a model.onnx".to_owned(),
    }
}

pub(super) fn is_graph(name: &str) -> bool {
    Path::new(name).extension() == Some(OsStr::new("onnx")) && !name.starts_with('.')
}

/// What to tell of folders that are no versions, though they stand where versions do.
fn no_versions(folder: &Path) -> Result<Vec<String>, SourceError> {
    let folders = entries(folder)?.into_iter().filter(|path| path.is_dir() && !hidden(path));
    let names = folders.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let strange = names.filter(|name| name != "golden" && name != "samples");
    let strange = strange.filter(|name| name.parse::<Version>().is_err());
    let mut strange: Vec<String> = strange.collect();
    strange.sort();
    let told = |name| format!("the folder '{name}' is no version: versions are named 1, 2, 3, ...");
    Ok(strange.into_iter().map(told).collect())
}

fn folder_of(files: &ModelFiles) -> &Path {
    files.graph.parent().unwrap_or(Path::new(""))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect();
    let entries: io::Result<Vec<PathBuf>> = read();
    entries.map_err(|error| unreadable(folder, error))
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn invalid(path: &Path, problem: impl Into<String>) -> SourceError {
    SourceError::Invalid { what: path.display().to_string(), problem: problem.into() }
}

/// Nobody can tell which of them is meant.
fn twice(folder: &Path, graph: &Path) -> SourceError {
    let problem = format!("there is also the file {}; take one of them away", graph.display());
    invalid(folder, problem)
}

fn unreadable(path: &Path, source: io::Error) -> SourceError {
    SourceError::Io { what: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> (tempfile::TempDir, LocalRepository) {
        let root = tempfile::tempdir().unwrap();
        for folder in ["b/10", "b/9", "b/01", "b/notes", "a/1", ".git/1", "empty"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("README.md"), "hello").unwrap();
        fs::write(root.path().join("a/1/model.onnx"), "abc").unwrap();
        let repository = LocalRepository::open(root.path()).unwrap();
        (root, repository)
    }

    fn id(model: &str, version: u64) -> VersionId {
        let model = ModelName::new(model).unwrap();
        VersionId { model, version: Version::new(version).unwrap() }
    }

    #[test]
    fn a_graph_in_the_wrong_place_is_named() {
        let (root, repository) = repository();
        fs::write(root.path().join("empty/net.onnx"), "abc").unwrap();
        let problem = repository.model(&id("empty", 1).model).unwrap_err().to_string();
        assert!(problem.contains("'net.onnx'"), "{problem}");
        assert!(problem.ends_with("move it to empty/1/model.onnx"), "{problem}");
        fs::write(root.path().join("b/9/net.onnx"), "abc").unwrap();
        fs::write(root.path().join("b/net.onnx"), "abc").unwrap();
        assert_eq!(repository.model(&id("b", 9).model).unwrap().versions.len(), 2);
        let problem = repository.fetch(&id("b", 9)).unwrap_err().to_string();
        assert!(problem.ends_with("but 'net.onnx': rename it to model.onnx"), "{problem}");
    }

    #[test]
    fn models_and_versions_are_listed_in_order() {
        let (_root, repository) = repository();
        let listed: Vec<_> = repository
            .list()
            .unwrap()
            .into_iter()
            .map(|model| {
                let versions: Vec<u64> = model.versions.iter().map(|v| v.number()).collect();
                (model.name.to_string(), versions)
            })
            .collect();
        let expected = [("a", vec![1]), ("b", vec![9, 10]), ("empty", vec![])];
        assert_eq!(listed, expected.map(|(name, versions)| (name.to_owned(), versions)));
    }

    #[test]
    fn what_is_missing_is_named() {
        let (_root, repository) = repository();
        let error = |id: &VersionId| repository.fetch(id).unwrap_err().to_string();
        assert!(error(&id("nope", 1)).contains("no model 'nope'"));
        assert!(error(&id("a", 2)).contains("no version 2 of model 'a'"));
        assert!(error(&id("b", 9)).contains("model.onnx"));
        assert!(LocalRepository::open(Path::new("/nowhere/at/all")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_repository_is_refused() {
        let (root, repository) = repository();
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("1")).unwrap();
        fs::write(outside.path().join("1/model.onnx"), "secret").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("linked")).unwrap();
        let error = repository.fetch(&id("linked", 1)).unwrap_err().to_string();
        assert!(error.contains("leads out of the repository"), "{error}");
        std::os::unix::fs::symlink(
            outside.path().join("1/model.onnx"),
            root.path().join("b/9/model.onnx"),
        )
        .unwrap();
        assert!(repository.fetch(&id("b", 9)).is_err());
    }
    #[test]
    fn a_root_that_is_gone_or_not_mounted_is_not_one_without_models() {
        let (root, mut repository) = repository();
        let a = ModelName::new("a").unwrap();
        for entry in entries(root.path()).unwrap() {
            fs::remove_dir_all(&entry).or_else(|_| fs::remove_file(&entry)).unwrap();
        }
        assert_eq!(repository.list().unwrap(), []);
        assert!(matches!(repository.model(&a), Err(SourceError::UnknownModel(_))));
        repository.device += 1;
        assert!(repository.list().unwrap_err().to_string().contains("nothing is mounted"));
        assert!(matches!(repository.model(&a), Err(SourceError::Invalid { .. })));
        fs::create_dir(root.path().join("b")).unwrap();
        assert_eq!(repository.list().unwrap().len(), 1, "another file system with models");
        fs::remove_dir_all(root.path()).unwrap();
        assert!(matches!(repository.list(), Err(SourceError::Io { .. })));
        assert!(matches!(repository.glance(&a), Err(SourceError::Io { .. })));
    }

    #[tokio::test]
    async fn changes_are_hinted_at() {
        let (root, repository) = repository();
        let mut hints = repository.hints().unwrap().unwrap();
        fs::write(root.path().join("new.onnx"), "abc").unwrap();
        assert!(hints.heard().await);
        drop(repository);
        while hints.heard().await {}
    }

    #[test]
    fn files_at_the_root_are_listed_among_folders() {
        let (root, repository) = repository();
        for file in ["c.onnx", "b.onnx", ".onnx", ".d.onnx", "e\\f.onnx", "g.onnx.data"] {
            fs::write(root.path().join(file), "abc").unwrap();
        }
        let listed = repository.list().unwrap().into_iter();
        let listed: Vec<_> =
            listed.map(|model| (model.name.to_string(), model.versions.len())).collect();
        let expected = [("a", 1), ("b", 0), ("c", 1), ("empty", 0)];
        assert_eq!(listed, expected.map(|(name, versions)| (name.to_owned(), versions)));
        let error = repository.fetch(&id("b", 9)).unwrap_err().to_string();
        let path = |name: &str| repository.root.join(name).display().to_string();
        assert!(error.contains(&path("b")) && error.contains(&path("b.onnx")), "{error}");
        assert!(repository.settings(&ModelName::new("b").unwrap()).is_err());
        assert!(repository.glance(&ModelName::new("b").unwrap()).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_and_what_belongs_to_it_are_inside_the_repository() {
        use std::os::unix::fs::symlink;

        use crate::external_data::onnx::add_external;

        let (root, repository) = repository();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let graph = add_external("weights.bin");
        fs::write(root.path().join("m.onnx"), graph).unwrap();
        fs::write(root.path().join("store"), "w").unwrap();
        let fetch = |name| repository.fetch(&id(name, 1));
        let link = |to: &Path, at: &str| {
            fs::remove_file(root.path().join(at)).ok();
            symlink(to, root.path().join(at)).unwrap();
        };
        link(&outside.path().join("secret"), "weights.bin");
        assert!(fetch("m").unwrap_err().to_string().contains("leads out of the repository"));
        link(Path::new("store"), "weights.bin");
        let files = fetch("m").unwrap();
        let digest = repository.digest(&files).unwrap();
        link(&outside.path().join("secret"), "weights.bin");
        assert!(repository.digest(&files).is_err(), "not even between fetch and digest");
        fs::remove_file(root.path().join("weights.bin")).unwrap();
        fs::write(root.path().join("weights.bin"), "w").unwrap();
        assert_eq!(repository.digest(&fetch("m").unwrap()).unwrap(), digest);
        for (to, told) in [
            (outside.path().join("secret"), "leads out of the repository"),
            (root.path().join("nowhere"), "linked.onnx"),
            (root.path().join("store"), ""),
        ] {
            link(&to, "linked.onnx");
            assert!(repository.list().unwrap().iter().any(|model| model.name.as_str() == "linked"));
            let fetched = fetch("linked").map_err(|error| error.to_string());
            assert!(fetched.as_ref().err().map_or("", String::as_str).contains(told));
            assert_eq!(fetched.is_ok(), told.is_empty());
        }
        link(&outside.path().join("secret"), "linked.model.yaml");
        assert!(repository.settings(&ModelName::new("linked").unwrap()).is_err());
    }
}
