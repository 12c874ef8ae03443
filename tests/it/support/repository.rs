//! A model repository in a temporary folder.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Removed when dropped.
#[derive(Debug)]
pub(crate) struct Repository(TempDir);

impl Repository {
    pub(crate) fn empty() -> Self {
        Self(TempDir::new().expect("the system has a temporary folder"))
    }

    /// A repository with one model in one version.
    pub(crate) fn of(model: &str, graph: &[u8]) -> Self {
        Self::empty().and(model, 1, graph)
    }

    /// Adds a version.
    pub(crate) fn and(self, model: &str, version: u64, graph: &[u8]) -> Self {
        self.put(model, version, graph);
        self
    }

    /// Adds a `model.yaml`.
    pub(crate) fn with_settings(self, model: &str, yaml: &str) -> Self {
        self.settings(model, yaml);
        self
    }

    /// Adds or replaces a `model.yaml`.
    pub(crate) fn settings(&self, model: &str, yaml: &str) {
        self.write(&format!("{model}/model.yaml"), yaml.as_bytes());
    }

    /// Adds or replaces a version's graph.
    pub(crate) fn put(&self, model: &str, version: u64, graph: &[u8]) {
        self.write(&format!("{model}/{version}/model.onnx"), graph);
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        let file: PathBuf = self.path().join(path);
        fs::create_dir_all(file.parent().expect("the path has a folder")).unwrap();
        fs::write(file, content).unwrap();
    }
}
