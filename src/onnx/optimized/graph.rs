//! A graph as the optimiser has left it.
//!
//! A session that has optimised its graph keeps the optimiser for as long as it is there: 40 KB, which is
//! about as much as all else of a tiny model. A session of what the optimiser left has none.

use std::fs;
use std::path::Path;

use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tracing::debug;

use super::super::backend::SHARED_FROM;
use super::super::external::Graph;
use super::super::session::{OnnxSession, Outputs};

/// A session, and what others of the same graph can be made of, if it is known.
pub(in super::super) type Opened = (OnnxSession, Option<OptimizedGraph>);

/// What the optimiser left, after what the graph's own session takes and gives, in short.
#[derive(Debug)]
pub(in super::super) struct OptimizedGraph(Vec<u8>);

impl OptimizedGraph {
    /// What was kept of one.
    pub(super) fn kept(content: Vec<u8>) -> Self {
        Self(content)
    }

    /// What to keep of it.
    pub(super) fn content(&self) -> &[u8] {
        &self.0
    }

    /// Optimises the content of a graph: a session of it, without the optimiser where that counts. `None`
    /// where it cannot be opened. The optimiser writes into `scratch`.
    pub(super) fn make(
        content: &[u8],
        scratch: &Path,
        builder: impl Fn() -> ort::Result<SessionBuilder>,
    ) -> Option<Opened> {
        let path = scratch.join("graph.onnx");
        let open = || -> ort::Result<Session> {
            builder()?
                .with_optimization_level(GraphOptimizationLevel::All)?
                // It warns that what it writes is for this processor.
                .with_log_level(LogLevel::Error)?
                .with_optimized_model_path(&path)?
                .commit_from_memory(content)
        };
        let session = opened(open())?;
        let Ok(left) = fs::read(&path) else {
            return Some((session, None));
        };
        let optimized = Self([&seal(&session)[..], &left].concat());
        let is_small = (left.len() as u64) < SHARED_FROM;
        let without = is_small.then(|| optimized.open(builder().ok()?)).flatten();
        Some((without.unwrap_or(session), Some(optimized)))
    }

    /// A session, where it takes and gives what the graph's own does.
    pub(in super::super) fn open(&self, builder: SessionBuilder) -> Option<OnnxSession> {
        let (sealed, optimized) = self.0.split_first_chunk()?;
        let open = || -> ort::Result<Session> {
            builder
                .with_optimization_level(GraphOptimizationLevel::Disable)?
                .commit_from_memory(optimized)
        };
        opened(open()).filter(|session| seal(session) == *sealed)
    }
}

/// A session of a graph whose optimised form nobody keeps; `None` where it has to be opened as usual, as also
/// where it cannot be opened.
pub(in super::super) fn open(
    graph: &Graph,
    builder: impl Fn() -> ort::Result<SessionBuilder>,
) -> Option<Opened> {
    let content = content(graph, SHARED_FROM)?;
    let scratch = TempDir::new().ok()?;
    OptimizedGraph::make(&content, scratch.path(), builder)
}

/// A graph's file, where that is all there is to it but for data in memory, and has with that so many bytes
/// at most.
pub(super) fn content(graph: &Graph, largest: u64) -> Option<Vec<u8>> {
    let data: u64 = graph.files.iter().map(|file| file.content.len() as u64).sum();
    let size = fs::metadata(&graph.path).ok()?.len();
    let is_whole = !graph.is_copied() && size.saturating_add(data) <= largest;
    is_whole.then(|| fs::read(&graph.path).ok())?
}

fn opened(session: ort::Result<Session>) -> Option<OnnxSession> {
    let session = session.inspect_err(|error| {
        debug!(cause = error.message(), "the engine cannot open a graph by its optimised form");
    });
    OnnxSession::new(session.ok()?, Outputs::Lent).ok()
}

/// What a session takes and gives, in short.
fn seal(session: &OnnxSession) -> [u8; 32] {
    Sha256::digest(format!("{:?}", session.signature())).into()
}
