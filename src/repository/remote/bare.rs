//! Models that are an object at the root of the repository. In the tree they have a folder, so that it
//! does not matter there how they lie in the store.

use std::path::PathBuf;

use object_store::{Error, ObjectMeta, ObjectStoreExt as _};

use tracing::warn;

use super::cache::Cache;
use super::{RemoteRepository, download, failed, unwritable};
use crate::external_data;
use crate::model::{ModelName, SourceError};
use crate::repository::bare;

/// A file for the tree, with its content in the cache.
type Brought = (String, PathBuf);

/// A model as it is at the root of a store.
pub(super) struct Root {
    graph: ObjectMeta,
    settings: Option<ObjectMeta>,
}

impl RemoteRepository {
    /// The model as an object at the root, where it is one.
    pub(super) fn at_root(&self, name: &ModelName) -> Result<Option<Root>, SourceError> {
        let Some(graph) = self.head(&bare::graph_name(name))? else { return Ok(None) };
        let settings = self.head(&bare::settings_name(name))?;
        Ok(Some(Root { graph, settings }))
    }

    /// # Errors
    /// That a model with a folder is an object at the root too: nobody can tell which is meant.
    pub(super) fn is_no_object(&self, name: &ModelName) -> Result<(), SourceError> {
        let graph = bare::graph_name(name);
        if self.head(&graph)?.is_none() {
            return Ok(());
        }
        let what = self.key(&[name.as_str()]).to_string();
        let problem = format!("there is also the file {graph}; take one of them away");
        Err(SourceError::Invalid { what, problem })
    }

    /// Brings its settings.
    pub(super) fn bring_settings(&self, name: &ModelName, root: &Root) -> Result<(), SourceError> {
        let settings = root.settings.iter().map(|object| self.bring("model.yaml", object));
        let settings = settings.collect::<Result<Vec<_>, _>>()?;
        let folder = self.folder(name);
        Cache::lay_out(&folder, &settings).map_err(|error| unwritable(&folder, error))
    }

    /// Brings its graph and what that refers to.
    pub(super) fn bring_version(&self, name: &ModelName, root: &Root) -> Result<(), SourceError> {
        let graph = self.bring("model.onnx", &root.graph)?;
        let what = root.graph.location.as_ref();
        let wrong = |problem: String| SourceError::Invalid { what: what.to_owned(), problem };
        let references = bare::references(&graph.1).map_err(|error| wrong(error.to_string()))?;
        let mut files = vec![graph];
        for name in references {
            let name = name.display().to_string();
            let absent = || wrong(format!("it refers to '{name}', and there is no such file"));
            files.push(self.bring(&name, &self.head(&name)?.ok_or_else(absent)?)?);
        }
        let folder = self.folder(name).join("1");
        Cache::lay_out(&folder, &files).map_err(|error| unwritable(&folder, error))
    }

    /// Everything of it that a glance has to see. What the graph refers to is known once it was
    /// fetched.
    pub(super) fn seen_at_root(
        &self,
        name: &ModelName,
        root: Root,
    ) -> Result<Vec<ObjectMeta>, SourceError> {
        let graph = self.folder(name).join("1/model.onnx");
        // What is damaged in the cache is fetched again by the load.
        let references = external_data::of_graph(&graph).unwrap_or_default();
        let mut seen = vec![root.graph];
        seen.extend(root.settings);
        for reference in references.iter().filter(|path| external_data::is_inside(path)) {
            seen.extend(self.head(&reference.display().to_string())?);
        }
        Ok(seen)
    }

    fn bring(&self, name: &str, object: &ObjectMeta) -> Result<Brought, SourceError> {
        let blob = download::fetch(self.store.as_ref(), &self.cache, object);
        Ok((name.to_owned(), self.runtime.block_on(blob)?))
    }

    /// What there is of an object below the root; `None` where there is none.
    fn head(&self, path: &str) -> Result<Option<ObjectMeta>, SourceError> {
        let parts: Vec<&str> = path.split('/').filter(|part| *part != ".").collect();
        let key = self.key(&parts);
        match self.runtime.block_on(self.store.head(&key)) {
            Ok(object) => Ok(Some(object)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(key.as_ref(), error)),
        }
    }
}

/// The models that objects at the root are.
pub(super) fn models(objects: &[ObjectMeta]) -> impl Iterator<Item = ModelName> {
    let named = |object: &ObjectMeta| {
        let file = object.location.filename()?;
        let name = bare::model_of(file)?;
        name.inspect_err(|_| warn!(file, "this is not a model: bad name")).ok()
    };
    objects.iter().filter_map(named)
}
