//! Graphs as the optimiser leaves them, so that who opens one again has no need of it: the next instance of a
//! tiny model, and where they are kept on disk, the next load.
//!
//! Optimising takes long for graphs of many nodes, and none of it hangs on a load. What it leaves hangs on
//! the graph and its data, on the library, and on the processor: those are an entry's key. The content that
//! is hashed is the content that the engine is given, so that no entry is of something else than its key
//! says.

mod cache;
mod graph;
mod machine;

use std::path::PathBuf;

use ort::session::builder::SessionBuilder;
use sha2::{Digest, Sha256};

use self::cache::Cache;
pub(super) use self::graph::{Opened, OptimizedGraph, open};
use super::external::Graph;
use super::library::OnnxRuntime;
use crate::hex::hex;

/// The largest models of which an optimised graph is kept, in bytes. Of a larger one the most time goes
/// into its weights, and reading and checking them again takes as long as the optimiser.
const LARGEST: u64 = 32 << 20;

/// Opens graphs by what the optimiser left of them before.
#[derive(Debug)]
pub(super) struct OptimizedGraphs {
    cache: Cache,
    /// The library and the processor.
    place: String,
}

impl OptimizedGraphs {
    /// With entries in this folder, of so many bytes together; `None` where the processor is not known.
    pub(super) fn new(runtime: &OnnxRuntime, folder: PathBuf, size: u64) -> Option<Self> {
        let place = format!("{}\n{}", runtime.build(), machine::described()?);
        Some(Self { cache: Cache::new(folder, size), place })
    }

    /// A session of this graph with the options of `builder`; `None` where it has to be opened as usual,
    /// as also where it cannot be opened.
    pub(super) fn open(
        &self,
        graph: &Graph,
        builder: impl Fn() -> ort::Result<SessionBuilder>,
    ) -> Option<Opened> {
        let content = graph::content(graph, LARGEST)?;
        let key = self.key(&content, graph);
        if let Some(known) = self.cache.get(&key).map(OptimizedGraph::kept)
            && let Some(session) = known.open(builder().ok()?)
        {
            return Some((session, Some(known)));
        }
        let scratch = self.cache.scratch()?;
        let (session, optimized) = OptimizedGraph::make(&content, scratch.path(), builder)?;
        if let Some(optimized) = &optimized {
            self.cache.put(&key, optimized.content());
        }
        Some((session, optimized))
    }

    fn key(&self, content: &[u8], graph: &Graph) -> String {
        let mut hasher = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(self.place.as_bytes());
        part(content);
        for file in &graph.files {
            part(file.name.as_os_str().as_encoded_bytes());
            part(&file.content);
        }
        hex(&hasher.finalize())
    }
}

#[cfg(test)]
mod tests;
