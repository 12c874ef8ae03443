//! Models without a folder: `<model>.onnx` at the root of a repository, and what belongs to it.

use std::io;
use std::path::{Component, Path, PathBuf};

use crate::external_data;
use crate::model::{ModelName, NameError};

const GRAPH: &str = ".onnx";
const SETTINGS: &str = ".model.yaml";

/// A file of a version.
pub(super) struct VersionFile {
    /// Its path in a version's folder.
    pub(super) name: PathBuf,
    pub(super) path: PathBuf,
}

/// The file that a model without a folder is.
pub(super) fn graph_name(model: &ModelName) -> String {
    format!("{model}{GRAPH}")
}

/// The file with its settings.
pub(super) fn settings_name(model: &ModelName) -> String {
    format!("{model}{SETTINGS}")
}

/// The model that a file at the root is; `None` where it is none, as hidden ones are.
///
/// # Errors
/// [`NameError`] where no model can have that name.
pub(super) fn model_of(file: &str) -> Option<Result<ModelName, NameError>> {
    let name = file.strip_suffix(GRAPH)?;
    let is_hidden = name.starts_with('.');
    (!is_hidden).then(|| ModelName::new(name))
}

/// What a graph refers to, by paths without detours.
///
/// # Errors
/// What the system said; and which file the graph refers to, where that is not below its folder.
pub(super) fn references(graph: &Path) -> io::Result<Vec<PathBuf>> {
    let named = external_data::of_graph(graph)?.into_iter();
    let inside = named.map(|reference| {
        if external_data::is_inside(&reference) {
            return Ok(tidy(&reference));
        }
        let reference = reference.display();
        Err(io::Error::other(format!("it refers to '{reference}', which is not below its folder")))
    });
    let mut references = inside.collect::<io::Result<Vec<_>>>()?;
    references.sort();
    references.dedup();
    Ok(references)
}

/// The files of a model without a folder, under the names that they would have in one. So the same
/// content has the same digest either way.
///
/// # Errors
/// As [`references`].
pub(super) fn files(graph: &Path) -> io::Result<Vec<VersionFile>> {
    let folder = graph.parent().unwrap_or(Path::new(""));
    let beside = |name: PathBuf| VersionFile { path: folder.join(&name), name };
    let own = VersionFile { name: PathBuf::from("model.onnx"), path: graph.to_owned() };
    let mut files = vec![own];
    files.extend(references(graph)?.into_iter().map(beside));
    Ok(files)
}

fn tidy(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::external_data::onnx::{Graph, Tensor, add_external};

    #[test]
    fn files_are_models_by_their_names() {
        let models = [("a.onnx", "a"), ("a b.v1.onnx", "a b.v1"), ("a.onnx.onnx", "a.onnx")];
        for (file, model) in models {
            assert_eq!(model_of(file).unwrap().unwrap().as_str(), model);
        }
        for other in ["a.onnx.data", "a.ONNX", "a.model.yaml", ".a.onnx", "onnx"] {
            assert!(model_of(other).is_none(), "{other}");
        }
        let long = format!("{}.onnx", "x".repeat(256));
        for bad in [".onnx", "a\\b.onnx", "a\nb.onnx", &long] {
            assert!(model_of(bad).unwrap().is_err(), "{bad}");
        }
    }

    #[test]
    fn files_have_the_names_that_they_would_have_in_a_folder() {
        let root = tempfile::tempdir().unwrap();
        let graph = root.path().join("a.onnx");
        let external = |location| Tensor::external(&[1], location);
        let of = Graph::new("two").initializer("x", &external("./data/./b.bin"));
        let of = of.initializer("y", &external("a.bin")).initializer("z", &external("./a.bin"));
        fs::write(&graph, of.into_model()).unwrap();
        let files = files(&graph).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.name.to_str().unwrap()).collect();
        assert_eq!(names, ["model.onnx", "a.bin", "data/b.bin"]);
        assert_eq!(files[0].path, graph);
        assert_eq!(files[2].path, root.path().join("data/b.bin"));
        fs::write(&graph, add_external("../secret")).unwrap();
        assert!(references(&graph).unwrap_err().to_string().contains("'../secret'"));
    }
}
