//! External data: the files beside a graph that hold its weights.
//!
//! Left to itself, ONNX Runtime maps them into memory, so that whoever writes into such a file changes
//! the answers of a model that serves, and whoever truncates it kills the process. Here they are read
//! into memory that all instances share.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::external_data;

/// A file that a graph refers to.
#[derive(Debug, Clone)]
pub(super) struct ExternalFile {
    /// Its path as the graph has it.
    pub(super) name: PathBuf,
    pub(super) content: Arc<[u8]>,
}

/// The files below the graph's folder that the graph refers to. What is not there, or elsewhere, is
/// left to the engine, which refuses it.
///
/// # Errors
/// What the system said.
pub(super) fn of_graph(graph: &Path) -> io::Result<Vec<ExternalFile>> {
    let folder = graph.parent().unwrap_or(Path::new(""));
    let named = external_data::of_graph(graph)?.into_iter();
    let there = |name: &PathBuf| external_data::is_inside(name) && folder.join(name).is_file();
    let read = |name: PathBuf| {
        let content = fs::read(folder.join(&name))?.into();
        Ok(ExternalFile { name, content })
    };
    named.filter(there).map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::external_data::onnx::{Graph, Tensor};

    #[test]
    fn what_the_graph_refers_to_is_read_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let graph = ["./data/a.bin", "b.bin", "absent.bin", "../outside.bin"]
            .into_iter()
            .fold(Graph::new("g"), |graph, location| {
                graph.initializer("value", &Tensor::external(&[1], location))
            });
        // It is in the graph too, as a name, but nothing is read from it.
        let graph = graph.initializer("notes.txt", &Tensor::floats(&[1], &[1.0])).into_model();
        let own = folder.path().join("own");
        fs::create_dir_all(own.join("data")).unwrap();
        for name in ["own/data/a.bin", "own/b.bin", "own/notes.txt", "outside.bin"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        fs::write(own.join("model.onnx"), graph).unwrap();
        let found = of_graph(&own.join("model.onnx")).unwrap();
        let told: Vec<_> =
            found.iter().map(|file| (file.name.to_str().unwrap(), &*file.content)).collect();
        let expected = [("./data/a.bin", &b"own/data/a.bin"[..]), ("b.bin", b"own/b.bin")];
        assert_eq!(told, expected);
    }
}
