//! Graphs as the optimiser leaves them, kept on disk, so that who loads one again has no need of it.
//!
//! Optimising takes long for graphs of many nodes, and none of it hangs on a load. What it leaves hangs on
//! the graph and its data, on the library, and on the processor: those are an entry's key. The content that
//! is hashed is the content that the engine is given, so that no entry is of something else than its key
//! says.

mod cache;
mod machine;

use std::fs;
use std::path::PathBuf;

use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use sha2::{Digest, Sha256};
use tracing::debug;

use self::cache::Cache;
use super::external::Graph;
use super::library::OnnxRuntime;
use super::session::{OnnxSession, Outputs};
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
    ) -> Option<OnnxSession> {
        let content = content(graph)?;
        let key = self.key(&content, graph);
        let known = self.cache.get(&key);
        if let Some(session) = known.and_then(|entry| reopened(&entry, builder().ok()?)) {
            return Some(session);
        }
        self.optimized((&key, &content), builder().ok()?)
    }

    /// A session of a graph that has to be optimised first. What that leaves is kept.
    fn optimized(
        &self,
        (key, content): (&str, &[u8]),
        builder: SessionBuilder,
    ) -> Option<OnnxSession> {
        let scratch = self.cache.scratch()?;
        let path = scratch.path().join("graph.onnx");
        let open = || -> ort::Result<Session> {
            builder
                .with_optimization_level(GraphOptimizationLevel::All)?
                // It warns that what it writes is for this processor.
                .with_log_level(LogLevel::Error)?
                .with_optimized_model_path(&path)?
                .commit_from_memory(content)
        };
        let session = opened(open())?;
        if let Ok(optimized) = fs::read(&path) {
            let mut entry = seal(&session).to_vec();
            entry.extend(optimized);
            self.cache.put(key, &entry);
        }
        Some(session)
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

/// A graph's file, where it is to be kept at all.
fn content(graph: &Graph) -> Option<Vec<u8>> {
    let data: u64 = graph.files.iter().map(|file| file.content.len() as u64).sum();
    let size = fs::metadata(&graph.path).ok()?.len();
    let is_whole = !graph.is_copied() && size.saturating_add(data) <= LARGEST;
    is_whole.then(|| fs::read(&graph.path).ok())?
}

/// A session of what the optimiser left, where it takes and gives what the graph's own did.
fn reopened(entry: &[u8], builder: SessionBuilder) -> Option<OnnxSession> {
    let (sealed, optimized) = entry.split_first_chunk()?;
    let open = || -> ort::Result<Session> {
        builder
            .with_optimization_level(GraphOptimizationLevel::Disable)?
            .commit_from_memory(optimized)
    };
    opened(open()).filter(|session| seal(session) == *sealed)
}

fn opened(session: ort::Result<Session>) -> Option<OnnxSession> {
    let session = session.inspect_err(|error| {
        debug!(cause = error.message(), "the engine cannot open a graph by the cache");
    });
    OnnxSession::new(session.ok()?, Outputs::Lent).ok()
}

/// What a session takes and gives, in short.
fn seal(session: &OnnxSession) -> [u8; 32] {
    Sha256::digest(format!("{:?}", session.signature())).into()
}

#[cfg(test)]
mod tests;
