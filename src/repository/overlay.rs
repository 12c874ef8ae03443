//! What loads have brought with them, over a source of models.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use super::LocalRepository;
use super::config_pbtxt;
use crate::inference::ModelFiles;
use crate::model::{
    AvailableModel, Glance, GoldenSample, Hints, Labels, Laid, ModelName, ModelSettings,
    ModelSource, OverrideFile, Overrides, SourceError, VersionId,
};

/// What errors call the configuration of a load.
const CONFIG: &str = "the configuration of the load";

/// A source of models over which others are laid. A model of which only the configuration was brought has
/// the files of the source; one that was brought with files has no others.
///
/// What was brought lies in temporary folders, which go with it.
pub struct OverlayRepository {
    below: Box<dyn ModelSource>,
    over: Over,
}

/// What lies over each model.
type Over = Arc<Mutex<BTreeMap<ModelName, Arc<Brought>>>>;

/// What a load has brought.
struct Brought {
    settings: ModelSettings,
    files: Option<Files>,
}

/// A repository of one model.
struct Files {
    repository: LocalRepository,
    root: PathBuf,
    _folder: TempDir,
}

impl OverlayRepository {
    /// The source, with nothing over it.
    pub fn new(below: impl ModelSource) -> Self {
        Self { below: Box::new(below), over: Arc::default() }
    }

    /// What throws away everything that was brought; for the end of the server, as it does not run what is
    /// left to be dropped then. Blocks.
    pub fn clear(&self) -> impl FnOnce() + Send + 'static {
        let over = Arc::clone(&self.over);
        move || {
            let all = std::mem::take(&mut *held(&over));
            drop(all);
        }
    }

    fn brought(&self, name: &ModelName) -> Option<Arc<Brought>> {
        held(&self.over).get(name).cloned()
    }

    /// What was brought with files.
    fn with_files(&self, name: &ModelName) -> Option<Arc<Brought>> {
        self.brought(name).filter(|brought| brought.files.is_some())
    }

    /// What has brought these files.
    fn owner(&self, files: &ModelFiles) -> Option<Arc<Brought>> {
        let owns = |brought: &&Arc<Brought>| {
            brought.files.as_ref().is_some_and(|own| files.graph.starts_with(&own.root))
        };
        held(&self.over).values().find(owns).cloned()
    }
}

impl fmt::Debug for OverlayRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OverlayRepository").finish_non_exhaustive()
    }
}

impl Brought {
    /// The repository that knows its files: its own, or the one below.
    fn source<'a>(
        brought: Option<&'a Arc<Self>>,
        below: &'a dyn ModelSource,
    ) -> &'a dyn ModelSource {
        let files = brought.and_then(|brought| brought.files.as_ref());
        files.map_or(below, |files| &files.repository)
    }

    fn new(
        (name, overrides): (&ModelName, &Overrides),
        below: &dyn ModelSource,
    ) -> Result<Self, SourceError> {
        let labels = |file: &str| known_labels(below, name, file);
        let settings = config_pbtxt::parse_json(&overrides.config, (name, &labels));
        let settings = settings.map_err(|problem| {
            let what = CONFIG.to_owned();
            SourceError::Invalid { what, problem }
        })?;
        let are_there = !overrides.files.is_empty();
        let files = are_there.then(|| Files::write(name, &overrides.files)).transpose()?;
        Ok(Self { settings, files })
    }
}

impl Files {
    fn write(name: &ModelName, files: &[OverrideFile]) -> Result<Self, SourceError> {
        let folder = tempfile::Builder::new().prefix("onward-load-").tempdir();
        let unwritten =
            |source| SourceError::Io { what: "the files of the load".to_owned(), source };
        let folder = folder.map_err(unwritten)?;
        let root = folder.path().canonicalize().map_err(unwritten)?;
        for file in files {
            write(&root.join(name.as_str()), file).map_err(unwritten)?;
        }
        let repository = LocalRepository::open(&root)?;
        Ok(Self { repository, root, _folder: folder })
    }
}

/// What a file of labels says, where the settings of the source name it too: a configuration that was told
/// can be brought back.
fn known_labels(
    below: &dyn ModelSource,
    name: &ModelName,
    file: &str,
) -> Result<Vec<String>, String> {
    let known = below.settings(name).map(|settings| settings.labels).unwrap_or_default();
    let is_named = |labels: &Labels| labels.file.as_deref() == Some(file);
    let labels = known.into_values().find(is_named).map(|labels| labels.texts);
    labels.ok_or_else(|| format!("the model's settings in the repository name no file '{file}'"))
}

fn write(model: &Path, file: &OverrideFile) -> io::Result<()> {
    let folder = model.join(file.version.to_string());
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(&file.name), &file.content)
}

fn held(over: &Over) -> MutexGuard<'_, BTreeMap<ModelName, Arc<Brought>>> {
    over.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts something over a model, or nothing; what was there before.
fn put(over: &Over, name: &ModelName, brought: Option<Arc<Brought>>) -> Option<Arc<Brought>> {
    match brought {
        Some(brought) => held(over).insert(name.clone(), brought),
        None => held(over).remove(name),
    }
}

impl ModelSource for OverlayRepository {
    fn list(&self) -> Result<Vec<AvailableModel>, SourceError> {
        let mut models: BTreeMap<ModelName, AvailableModel> =
            self.below.list()?.into_iter().map(|model| (model.name.clone(), model)).collect();
        let over: Vec<Arc<Brought>> = held(&self.over).values().cloned().collect();
        for files in over.iter().filter_map(|brought| brought.files.as_ref()) {
            let own = files.repository.list()?;
            models.extend(own.into_iter().map(|model| (model.name.clone(), model)));
        }
        Ok(models.into_values().collect())
    }

    fn model(&self, name: &ModelName) -> Result<AvailableModel, SourceError> {
        Brought::source(self.brought(name).as_ref(), &*self.below).model(name)
    }

    fn settings(&self, name: &ModelName) -> Result<ModelSettings, SourceError> {
        match self.brought(name) {
            Some(brought) => Ok(brought.settings.clone()),
            None => self.below.settings(name),
        }
    }

    fn fetch(&self, id: &VersionId) -> Result<ModelFiles, SourceError> {
        match self.with_files(&id.model) {
            Some(brought) => {
                let files = Brought::source(Some(&brought), &*self.below).fetch(id)?;
                // They stay for whoever has them, whatever is laid over the model next.
                Ok(files.kept_by(brought))
            }
            None => self.below.fetch(id),
        }
    }

    fn digest(&self, files: &ModelFiles) -> Result<String, SourceError> {
        Brought::source(self.owner(files).as_ref(), &*self.below).digest(files)
    }

    fn glance(&self, name: &ModelName) -> Result<Glance, SourceError> {
        Brought::source(self.brought(name).as_ref(), &*self.below).glance(name)
    }

    fn hints(&self) -> Result<Option<Hints>, SourceError> {
        self.below.hints()
    }

    fn size(&self, files: &ModelFiles) -> Result<u64, SourceError> {
        Brought::source(self.owner(files).as_ref(), &*self.below).size(files)
    }

    fn samples(&self, id: &VersionId) -> Result<Vec<GoldenSample>, SourceError> {
        Brought::source(self.brought(&id.model).as_ref(), &*self.below).samples(id)
    }

    fn lay(&self, name: &ModelName, overrides: Option<Overrides>) -> Result<Laid, SourceError> {
        let bring = |overrides| Brought::new((name, &overrides), &*self.below);
        let brought = overrides.map(bring).transpose()?;
        let is_bare = brought.is_none();
        let before = put(&self.over, name, brought.map(Arc::new));
        if is_bare && before.is_none() {
            return Ok(Laid::nothing());
        }
        let (over, name) = (Arc::clone(&self.over), name.clone());
        Ok(Laid::new(move || drop(put(&over, &name, before))))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::Version;

    fn name(name: &str) -> ModelName {
        ModelName::new(name).unwrap()
    }

    fn overlay() -> (TempDir, OverlayRepository) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("m/1")).unwrap();
        fs::write(folder.path().join("m/1/model.onnx"), b"below").unwrap();
        let local = LocalRepository::open(folder.path()).unwrap();
        (folder, OverlayRepository::new(local))
    }

    fn bringing(config: &str, versions: &[u64]) -> Overrides {
        let file = |version: &u64| OverrideFile {
            version: Version::new(*version).unwrap(),
            name: "model.onnx".to_owned(),
            content: Bytes::from("brought"),
        };
        Overrides { config: config.to_owned(), files: versions.iter().map(file).collect() }
    }

    fn versions(overlay: &OverlayRepository, model: &str) -> Vec<u64> {
        let versions = overlay.model(&name(model)).unwrap().versions;
        versions.into_iter().map(Version::number).collect()
    }

    fn listed(overlay: &OverlayRepository) -> Vec<String> {
        overlay.list().unwrap().into_iter().map(|model| model.name.to_string()).collect()
    }

    #[test]
    fn what_is_kept_holds_and_what_is_not_is_taken_back() {
        let (_folder, overlay) = overlay();
        overlay.lay(&name("m"), Some(bringing("{}", &[2, 3]))).unwrap().keep();
        assert_eq!(versions(&overlay, "m"), [2, 3]);
        let tried = overlay.lay(&name("m"), Some(bringing("{}", &[4]))).unwrap();
        assert_eq!(versions(&overlay, "m"), [4]);
        drop(tried);
        assert_eq!(versions(&overlay, "m"), [2, 3]);
        drop(overlay.lay(&name("m"), None).unwrap());
        assert_eq!(versions(&overlay, "m"), [2, 3]);
        assert!(overlay.lay(&name("m"), Some(bringing("[]", &[5]))).is_err());
        assert_eq!(versions(&overlay, "m"), [2, 3]);
        overlay.lay(&name("m"), None).unwrap().keep();
        assert_eq!(versions(&overlay, "m"), [1]);
    }

    #[test]
    fn a_configuration_alone_keeps_the_files() {
        let (_folder, overlay) = overlay();
        let config = r#"{"max_batch_size": 4}"#;
        overlay.lay(&name("m"), Some(bringing(config, &[]))).unwrap().keep();
        assert_eq!(versions(&overlay, "m"), [1]);
        assert_eq!(overlay.settings(&name("m")).unwrap().max_batch_size, Some(4));
        assert_eq!(listed(&overlay), ["m"]);
    }

    #[test]
    fn labels_are_those_of_the_repository() {
        let (folder, overlay) = overlay();
        let model = folder.path().join("m");
        let config = "output { name: 'y' label_filename: 'labels.txt' }";
        fs::write(model.join("config.pbtxt"), config).unwrap();
        fs::write(model.join("labels.txt"), b"cat\ndog\n").unwrap();
        fs::write(model.join("other.txt"), b"a\n").unwrap();
        let config =
            |file: &str| format!(r#"{{"output": [{{"name": "y", "label_filename": "{file}"}}]}}"#);
        let brought = bringing(&config("labels.txt"), &[]);
        overlay.lay(&name("m"), Some(brought)).unwrap().keep();
        let labels = overlay.settings(&name("m")).unwrap().labels;
        assert_eq!(labels["y"].texts, ["cat", "dog"]);
        let refused = overlay.lay(&name("m"), Some(bringing(&config("other.txt"), &[]))).err();
        let told = refused.unwrap().to_string();
        assert!(told.contains("label_filename") && told.contains("no file 'other.txt'"), "{told}");
    }

    #[test]
    fn files_stay_for_who_has_them_and_then_go() {
        let (_folder, overlay) = overlay();
        overlay.lay(&name("new"), Some(bringing("{}", &[1]))).unwrap().keep();
        assert_eq!(listed(&overlay), ["m", "new"]);
        let id = VersionId { model: name("new"), version: Version::FIRST };
        let files = overlay.fetch(&id).unwrap();
        assert_eq!(fs::read(&files.graph).unwrap(), b"brought");
        assert_eq!(overlay.size(&files).unwrap(), 7);
        let digest = overlay.digest(&files).unwrap();
        assert_eq!(digest.len(), 64);
        overlay.lay(&name("new"), None).unwrap().keep();
        assert!(overlay.model(&name("new")).is_err());
        assert!(files.graph.is_file());
        let graph = files.graph.clone();
        drop(files);
        assert!(!graph.exists());
        overlay.lay(&name("new"), Some(bringing("{}", &[1]))).unwrap().keep();
        let graph = overlay.fetch(&id).unwrap().graph;
        overlay.clear()();
        assert!(!graph.exists());
    }
}
