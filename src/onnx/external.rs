//! External data: the files beside a graph that hold its weights.
//!
//! Left to itself, ONNX Runtime maps them into memory, so that whoever writes into such a file changes
//! the answers of a model that serves, and whoever truncates it kills the process. Here they are read
//! into memory that all instances share.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file that a graph refers to.
#[derive(Debug, Clone)]
pub(super) struct ExternalFile {
    /// Its path as the graph has it.
    pub(super) name: PathBuf,
    pub(super) content: Arc<[u8]>,
}

/// The files below the graph's folder whose paths occur in the graph.
///
/// # Errors
/// What the system said.
pub(super) fn of_graph(graph: &Path) -> io::Result<Vec<ExternalFile>> {
    let Some(folder) = graph.parent() else { return Ok(Vec::new()) };
    let mut beside = Vec::new();
    collect(folder, Path::new(""), &mut beside)?;
    beside.retain(|name| graph.file_name().is_none_or(|own| name != Path::new(own)));
    if beside.is_empty() {
        return Ok(Vec::new());
    }
    let text = fs::read(graph)?;
    let named = beside.into_iter().filter(|name| occurs(name, &text));
    named
        .map(|name| {
            let content = fs::read(folder.join(&name))?.into();
            Ok(ExternalFile { name, content })
        })
        .collect()
}

fn collect(folder: &Path, below: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, name) = entry.map(|entry| (entry.path(), below.join(entry.file_name())))?;
        if path.is_dir() {
            collect(&path, &name, files)?;
        } else if path.is_file() {
            files.push(name);
        }
    }
    Ok(())
}

fn occurs(name: &Path, text: &[u8]) -> bool {
    let name = name.as_os_str().as_encoded_bytes();
    text.windows(name.len()).any(|window| window == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_graph_names_is_read_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        for (name, text) in
            [("model.onnx", "..data/weights.bin.."), ("data/weights.bin", "w"), ("notes.txt", "n")]
        {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let found = of_graph(&folder.path().join("model.onnx")).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.as_path(), &*found[0].content),
            (Path::new("data/weights.bin"), &b"w"[..])
        );
    }
}
