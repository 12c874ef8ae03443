//! Models that are an object at the root of the repository. What is laid out of them has a folder, so that
//! it does not matter from there on how they lie in the store.

use object_store::ObjectMeta;
use tracing::warn;

use super::RemoteRepository;
use super::snapshot::Snapshot;
use super::store::RemoteFile;
use crate::external_data;
use crate::inference::ModelFiles;
use crate::model::{ModelName, ModelSettings, ModelSource as _, SourceError, VersionId};
use crate::repository::bare;

/// A model as it is at the root of a store.
pub(super) struct Root {
    graph: ObjectMeta,
    settings: Option<ObjectMeta>,
}

impl RemoteRepository {
    /// The model as an object at the root, where it is one.
    pub(super) fn at_root(&self, name: &ModelName) -> Result<Option<Root>, SourceError> {
        let Some(graph) = self.store.object(&bare::graph_name(name))? else { return Ok(None) };
        let settings = self.store.object(&bare::settings_name(name))?;
        Ok(Some(Root { graph, settings }))
    }

    /// # Errors
    /// That a model with a folder is an object at the root too: nobody can tell which is meant.
    pub(super) fn is_no_object(&self, name: &ModelName) -> Result<(), SourceError> {
        let graph = bare::graph_name(name);
        if self.store.object(&graph)?.is_none() {
            return Ok(());
        }
        let what = self.store.key(&[name.as_str()]).to_string();
        let problem = format!("there is also the file {graph}; take one of them away");
        Err(SourceError::Invalid { what, problem })
    }

    pub(super) fn root_settings(
        &self,
        name: &ModelName,
        root: Root,
    ) -> Result<ModelSettings, SourceError> {
        let snapshot = Snapshot::new(&self.cache)?;
        let path = "model.yaml".to_owned();
        let settings = root.settings.map(|object| RemoteFile { path, object });
        self.bring(settings.into_iter().collect(), (&snapshot, name.as_str()))?;
        snapshot.read(|repository| repository.settings(name))
    }

    /// The graph with what it refers to.
    pub(super) fn root_files(&self, id: &VersionId, root: Root) -> Result<ModelFiles, SourceError> {
        let (snapshot, folder) = (Snapshot::new(&self.cache)?, format!("{}/1", id.model));
        let (what, path) = (root.graph.location.to_string(), "model.onnx".to_owned());
        let wrong = |problem: String| SourceError::Invalid { what: what.clone(), problem };
        let graph = RemoteFile { path, object: root.graph };
        self.bring(vec![graph], (&snapshot, &folder))?;
        let graph = snapshot.folder(&folder)?.join("model.onnx");
        let references = bare::references(&graph).map_err(|error| wrong(error.to_string()))?;
        let beside = references.into_iter().map(|reference| {
            let path = reference.display().to_string();
            let absent = || wrong(format!("it refers to '{path}', and there is no such file"));
            let object = self.store.object(&path)?.ok_or_else(absent)?;
            Ok(RemoteFile { path, object })
        });
        self.bring(beside.collect::<Result<_, SourceError>>()?, (&snapshot, &folder))?;
        let files = snapshot.read(|repository| repository.fetch(id))?;
        Ok(files.kept_by(snapshot))
    }

    /// Everything of it that a glance has to see. What the graph refers to is known once it was
    /// fetched.
    pub(super) fn seen_at_root(&self, root: Root) -> Result<Vec<ObjectMeta>, SourceError> {
        // What is damaged in the cache is fetched again by the load.
        let graph = self.cache.content(&root.graph);
        let references = graph.and_then(|graph| external_data::of_graph(&graph).ok());
        let mut seen = vec![root.graph];
        seen.extend(root.settings);
        for reference in references.iter().flatten() {
            if external_data::is_inside(reference) {
                seen.extend(self.store.object(&reference.display().to_string())?);
            }
        }
        Ok(seen)
    }
}

/// The models that files at the root are.
pub(super) fn models(files: &[RemoteFile]) -> impl Iterator<Item = ModelName> {
    let named = |file: &RemoteFile| {
        let file = file.path.as_str();
        bare::model_of(file)?.inspect_err(|_| warn!(file, "this is not a model: bad name")).ok()
    };
    files.iter().filter_map(named)
}
