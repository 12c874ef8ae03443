//! Repositories of any number of equal models.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use tempfile::TempDir;

use super::body::Body;
use super::load::Target;
use super::served::Served;
use super::zoo::Model;

/// A repository of a graph under several names.
pub(crate) struct Store(TempDir);

impl Store {
    /// So many of a graph, each with these settings, which may be none.
    pub(crate) fn of(graph: &[u8], (count, settings): (usize, &str)) -> Result<Self> {
        let folder = TempDir::new()?;
        for number in 0..count {
            let model = folder.path().join(name(number));
            fs::create_dir_all(model.join("1"))?;
            fs::write(model.join("1/model.onnx"), graph)?;
            fs::write(model.join("model.yaml"), settings)?;
        }
        Ok(Self(folder))
    }

    /// The file of the first.
    pub(crate) fn graph(&self) -> PathBuf {
        self.0.path().join(name(0)).join("1/model.onnx")
    }

    /// A server that has loaded all of it.
    pub(crate) fn serve(&self) -> Result<Served> {
        Served::start(self.0.path())
    }
}

/// A request for the first model, which is the tiny one.
pub(crate) fn tiny(onward: &Served) -> Target {
    Body::binary(&Model::Mlp.inputs(0, 1)).post(onward.address(), &path())
}

/// Where the first model answers.
pub(crate) fn path() -> String {
    format!("/v2/models/{}/infer", name(0))
}

fn name(number: usize) -> String {
    format!("model-{number}")
}
