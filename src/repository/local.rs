//! A repository in a local folder: `<model>/<version>/model.onnx`, `<model>/model.yaml`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;

use super::{config_pbtxt, digest, golden, manifest, model_yaml, settling};
use crate::inference::ModelFiles;
use crate::model::{
    AvailableModel, Glance, GoldenSample, ModelName, ModelSettings, ModelSource, SourceError,
    Version, VersionId,
};

/// How long a version must have been left alone to count as complete.
const STABLE: Duration = Duration::from_secs(5);

/// The largest file of settings.
const LARGEST_SETTINGS: u64 = 1 << 20;

/// A folder of models. Nothing outside it is ever read, also not through a link.
#[derive(Debug, Clone)]
pub struct LocalRepository {
    root: PathBuf,
}

impl LocalRepository {
    /// The repository at `root`.
    ///
    /// # Errors
    /// [`SourceError::Io`] when there is no such folder.
    pub fn open(root: &Path) -> Result<Self, SourceError> {
        let root = root.canonicalize().map_err(|error| unreadable(root, error))?;
        fs::read_dir(&root).map_err(|error| unreadable(&root, error))?;
        Ok(Self { root })
    }

    fn folder(&self, name: &ModelName) -> Result<PathBuf, SourceError> {
        let folder = self.root.join(name.as_str());
        if !folder.is_dir() {
            return Err(SourceError::UnknownModel(name.clone()));
        }
        self.contained(&folder)
    }

    /// What is written beside the versions.
    fn written(&self, name: &ModelName, folder: &Path) -> Result<ModelSettings, SourceError> {
        let (ours, tritons) = (folder.join("model.yaml"), folder.join("config.pbtxt"));
        if ours.exists() {
            let mut settings = self.parsed(&ours, model_yaml::parse)?;
            if tritons.exists() {
                let warning = "config.pbtxt is not read, because there is a model.yaml";
                settings.warnings.push(warning.to_owned());
            }
            return Ok(settings);
        }
        if tritons.exists() {
            return self.parsed(&tritons, |text| config_pbtxt::parse(text, (name, folder)));
        }
        Ok(ModelSettings::default())
    }

    /// What a file of settings says.
    fn parsed(
        &self,
        path: &Path,
        parse: impl FnOnce(&str) -> Result<ModelSettings, String>,
    ) -> Result<ModelSettings, SourceError> {
        let invalid = |problem| SourceError::Invalid { what: path.display().to_string(), problem };
        if !path.is_file() {
            return Err(invalid("it is not a file".to_owned()));
        }
        let real = self.contained(path)?;
        let size = fs::metadata(&real).map_err(|error| unreadable(&real, error))?.len();
        if size > LARGEST_SETTINGS {
            return Err(invalid(format!(
                "it has {size} bytes, {LARGEST_SETTINGS} at most are read"
            )));
        }
        let text = fs::read_to_string(&real).map_err(|error| unreadable(&real, error))?;
        parse(&text).map_err(invalid)
    }

    /// The path without links, if it is inside the repository.
    fn contained(&self, path: &Path) -> Result<PathBuf, SourceError> {
        let real = path.canonicalize().map_err(|error| unreadable(path, error))?;
        if real.starts_with(&self.root) {
            return Ok(real);
        }
        let problem = "it is a link that leads out of the repository".to_owned();
        Err(SourceError::Invalid { what: path.display().to_string(), problem })
    }
}

impl ModelSource for LocalRepository {
    fn list(&self) -> Result<Vec<AvailableModel>, SourceError> {
        let names = entries(&self.root)?.into_iter().filter(|path| path.is_dir());
        let mut models = Vec::new();
        for path in names {
            let name = path.file_name().and_then(OsStr::to_str).map(ModelName::new);
            match name {
                Some(Ok(name)) => {
                    let versions = versions(&path).unwrap_or_default();
                    models.push(AvailableModel { name, versions });
                }
                _ if hidden(&path) => {}
                _ => warn!(folder = %path.display(), "folder is not a model: bad name"),
            }
        }
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    fn model(&self, name: &ModelName) -> Result<AvailableModel, SourceError> {
        let versions = versions(&self.folder(name)?)?;
        Ok(AvailableModel { name: name.clone(), versions })
    }

    fn settings(&self, name: &ModelName) -> Result<ModelSettings, SourceError> {
        let folder = self.folder(name)?;
        let mut settings = self.written(name, &folder)?;
        settings.warnings.extend(no_versions(&folder)?);
        Ok(settings)
    }

    fn fetch(&self, id: &VersionId) -> Result<ModelFiles, SourceError> {
        let folder = self.folder(&id.model)?.join(id.version.to_string());
        if !folder.is_dir() {
            return Err(SourceError::UnknownVersion(id.clone()));
        }
        let graph = folder.join("model.onnx");
        if !graph.is_file() {
            let problem = "there is no such file; a version is a folder with a model.onnx";
            let what = graph.display().to_string();
            return Err(SourceError::Invalid { what, problem: problem.to_owned() });
        }
        self.contained(&graph)?;
        let invalid =
            |problem| SourceError::Invalid { what: folder.display().to_string(), problem };
        manifest::check(&folder).map_err(invalid)?;
        // Under its own name, not that of what it may be a link to: beside it is what belongs to it.
        Ok(ModelFiles::at(self.contained(&folder)?.join("model.onnx")))
    }

    fn digest(&self, files: &ModelFiles) -> Result<String, SourceError> {
        let folder = files.graph.parent().unwrap_or(&self.root);
        digest::of_folder(folder, &self.root).map_err(|error| unreadable(folder, error))
    }

    fn glance(&self, name: &ModelName) -> Result<Glance, SourceError> {
        let folder = self.folder(name)?;
        let looked = settling::glance(&folder, STABLE);
        looked.map_err(|error| unreadable(&folder, error))
    }

    fn size(&self, files: &ModelFiles) -> Result<u64, SourceError> {
        let folder = files.graph.parent().unwrap_or(&self.root);
        digest::size(folder).map_err(|error| unreadable(folder, error))
    }

    fn samples(&self, id: &VersionId) -> Result<Vec<GoldenSample>, SourceError> {
        let of_all = self.folder(&id.model)?.join("golden");
        let mut samples = Vec::new();
        for folder in [of_all.join(id.version.to_string()), of_all] {
            let files = golden::files(&folder).map_err(|error| unreadable(&folder, error))?;
            for file in files {
                let what = file.display().to_string();
                let invalid = |problem| SourceError::Invalid { what, problem };
                samples.push(golden::read(&self.contained(&file)?).map_err(invalid)?);
            }
        }
        Ok(samples)
    }
}

/// The versions of a model, lowest first: the folders whose name is a positive integer.
fn versions(folder: &Path) -> Result<Vec<Version>, SourceError> {
    let folders = entries(folder)?.into_iter().filter(|path| path.is_dir());
    let name = |path: PathBuf| path.file_name().and_then(OsStr::to_str).map(str::parse);
    let mut versions: Vec<Version> = folders.filter_map(name).filter_map(Result::ok).collect();
    versions.sort_unstable();
    Ok(versions)
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

fn entries(folder: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect();
    let entries: io::Result<Vec<PathBuf>> = read();
    entries.map_err(|error| unreadable(folder, error))
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
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
}
