//! External data: the files beside a graph that hold its weights.
//!
//! Left to itself, ONNX Runtime maps them into memory, so that whoever writes into such a file changes
//! the answers of a model that serves, and whoever truncates it kills the process. So they are read into
//! memory that all instances share. That is possible for the initializers of the graph itself; where
//! something inside it refers to a file too, ONNX Runtime gets a copy of all of them, which nobody else
//! knows of.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::external_data::{self, Holder};

/// A file that a graph refers to.
#[derive(Debug, Clone)]
pub(super) struct ExternalFile {
    /// Its path as the graph has it.
    pub(super) name: PathBuf,
    pub(super) content: Arc<[u8]>,
}

/// A graph as it is given to the engine.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) path: PathBuf,
    /// What is given from memory.
    pub(super) files: Vec<ExternalFile>,
    /// Where the graph and what it refers to were copied to, if they were. What is mapped of it stays when
    /// it is removed.
    copy: Option<TempDir>,
}

impl Graph {
    /// Whether it is a copy, with all it refers to.
    pub(super) fn is_copied(&self) -> bool {
        self.copy.is_some()
    }

    /// Reads what the graph refers to.
    ///
    /// # Errors
    /// What the system said, or which reference leads elsewhere than to a file below the graph's folder
    /// that is not hidden.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let references = external_data::references(path)?;
        references.keys().try_for_each(|name| check(folder, name))?;
        if references.values().any(|holder| *holder == Holder::Inner) {
            let copy = copied(path, &references)?;
            let path = copy.path().join("model.onnx");
            return Ok(Self { path, files: Vec::new(), copy: Some(copy) });
        }
        let read = |name: PathBuf| {
            let content = fs::read(folder.join(&name))?.into();
            Ok(ExternalFile { name, content })
        };
        let files = references.into_keys().map(read).collect::<io::Result<_>>()?;
        Ok(Self { path: path.to_owned(), files, copy: None })
    }
}

fn check(folder: &Path, name: &Path) -> io::Result<()> {
    let problem = if !external_data::is_inside(name) {
        "which is hidden or not below its folder"
    } else if !folder.join(name).is_file() {
        "and there is no such file"
    } else {
        return Ok(());
    };
    Err(io::Error::other(format!("it refers to '{}', {problem}", name.display())))
}

fn copied(graph: &Path, references: &BTreeMap<PathBuf, Holder>) -> io::Result<TempDir> {
    let (copy, folder) = (TempDir::new()?, graph.parent().unwrap_or(Path::new("")));
    fs::copy(graph, copy.path().join("model.onnx"))?;
    for name in references.keys() {
        let target = copy.path().join(name);
        fs::create_dir_all(target.parent().unwrap_or(copy.path()))?;
        fs::copy(folder.join(name), target)?;
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::external_data::onnx::{self, Attribute, Node, Tensor};

    /// A folder with this graph and these files, each with its name as its content.
    fn folder(graph: onnx::Graph, files: &[&str]) -> TempDir {
        let folder = TempDir::new().unwrap();
        for name in files {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, name).unwrap();
        }
        fs::write(folder.path().join("model.onnx"), graph.into_model()).unwrap();
        folder
    }

    fn external(graph: onnx::Graph, location: &str) -> onnx::Graph {
        graph.initializer("value", &Tensor::external(&[1], location))
    }

    fn read(folder: &TempDir) -> io::Result<Graph> {
        Graph::read(&folder.path().join("model.onnx"))
    }

    #[test]
    fn what_the_graph_refers_to_is_read_and_nothing_else() {
        let graph = external(external(onnx::Graph::new("g"), "./data/a.bin"), "b.bin");
        // It is in the graph too, as a name, but nothing is read from it.
        let graph = graph.initializer("notes.txt", &Tensor::floats(&[1], &[1.0]));
        let folder = folder(graph, &["data/a.bin", "b.bin", "notes.txt"]);
        let found = read(&folder).unwrap();
        let told: Vec<_> =
            found.files.iter().map(|file| (file.name.to_str().unwrap(), &*file.content)).collect();
        assert_eq!(told, [("./data/a.bin", &b"data/a.bin"[..]), ("b.bin", b"b.bin")]);
        assert_eq!(found.path, folder.path().join("model.onnx"));
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for location in ["absent.bin", "../b.bin", ".hidden.bin", "/etc/hostname", "data"] {
            let graph = external(onnx::Graph::new("g"), location);
            let folder = folder(graph, &[".hidden.bin", "data/a.bin"]);
            let error = read(&folder).unwrap_err().to_string();
            assert!(error.contains(&format!("'{location}'")), "{error}");
        }
    }

    #[test]
    fn what_something_inside_refers_to_is_copied() {
        let body = external(onnx::Graph::new("body"), "sub//a.bin");
        let node = Node::new("Loop", &["n", "", "x"], &["y"]);
        let node = node.attribute("body", &Attribute::Graph(body));
        let graph = external(onnx::Graph::new("g"), "b.bin").node(&node);
        let folder = folder(graph, &["sub/a.bin", "b.bin"]);
        let found = read(&folder).unwrap();
        assert!(found.files.is_empty());
        let copy = found.path.parent().unwrap().to_owned();
        assert_ne!(copy, folder.path());
        assert_eq!(fs::read(copy.join("sub/a.bin")).unwrap(), b"sub/a.bin");
        assert_eq!(fs::read(copy.join("b.bin")).unwrap(), b"b.bin");
        drop(found);
        assert!(!copy.exists());
    }
}
