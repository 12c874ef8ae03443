//! Opening models with ONNX Runtime.

use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use tracing::{debug, warn};

use super::allocator;
use super::external::Graph;
use super::instance::OnnxInstance;
use super::library::OnnxRuntime;
use super::optimized::{self, Opened, OptimizedGraph, OptimizedGraphs};
use super::providers;
use super::session::{OnnxSession, Outputs};
use super::threads::Threads;
use super::told;
use crate::inference::{
    Backend, BackendError, ExecutionProvider, Instance, ModelFiles, OpenOptions, OpenedModel,
    Signature, Spawner,
};

/// From so many bytes of files on, the instances of a version run one session. Of a smaller model each
/// has its own: next to runs so short, what they would wait for each other in one counts, and its weights do
/// not.
pub(super) const SHARED_FROM: u64 = 1 << 20;

/// ONNX Runtime as the core's engine.
#[derive(Debug, Clone)]
pub struct OnnxBackend {
    runtime: OnnxRuntime,
    spawner: Spawner,
    graphs: Option<Arc<OptimizedGraphs>>,
    usual_providers: Vec<ExecutionProvider>,
}

impl OnnxBackend {
    /// The protocol's name for it.
    pub const PLATFORM: &str = "onnxruntime_onnx";

    /// A backend on a runtime that was loaded. Runs have the priority of the thread that calls this.
    pub fn new(runtime: OnnxRuntime) -> Self {
        Self { runtime, spawner: Spawner::start(), graphs: None, usual_providers: Vec::new() }
    }

    /// It keeps what the optimiser makes of graphs in this folder, in so many bytes, for whoever loads the
    /// same ones on the same kind of machine. Who can write there decides what models answer.
    #[must_use]
    pub fn with_cache(self, folder: PathBuf, size: u64) -> Self {
        let graphs = OptimizedGraphs::new(&self.runtime, folder, size);
        if graphs.is_none() {
            warn!("graphs are not cached, for the system does not tell what the processor is");
        }
        Self { graphs: graphs.map(Arc::new), ..self }
    }

    /// It runs models on these where their options name none.
    #[must_use]
    pub fn with_execution_providers(self, usual_providers: Vec<ExecutionProvider>) -> Self {
        Self { usual_providers, ..self }
    }

    #[cfg(test)]
    pub(super) fn runtime(&self) -> &OnnxRuntime {
        &self.runtime
    }

    /// A model, with the session that its signature is read from.
    pub(super) fn load(
        &self,
        files: &ModelFiles,
        options: OpenOptions,
    ) -> Result<OnnxModel, BackendError> {
        let graph = Graph::read(&files.graph).map_err(|error| unreadable(&error))?;
        let (session, optimized) = self.first(&graph, (files, &options))?;
        let is_shared = self.is_shared(files, &options);
        Ok(OnnxModel {
            backend: self.clone(),
            is_shared,
            graph,
            options,
            optimized: optimized.filter(|_| !is_shared),
            signature: session.signature().clone(),
            session: Some(Arc::new(session)),
        })
    }

    /// The first session of a model, and what the others can be made of, if that is known.
    fn first(
        &self,
        graph: &Graph,
        (files, options): (&ModelFiles, &OpenOptions),
    ) -> Result<Opened, BackendError> {
        providers::check(self.providers(options))?;
        let builder = || self.builder(graph, options);
        let opened = match &self.graphs {
            _ if !providers::is_cpu_alone(self.providers(options)) => None,
            Some(graphs) => graphs.open(graph, builder),
            None if files.size() < SHARED_FROM => optimized::open(graph, builder),
            None => None,
        };
        opened.map_or_else(|| Ok((self.session(graph, options)?, None)), Ok)
    }

    /// A session that optimises its graph.
    fn session(&self, graph: &Graph, options: &OpenOptions) -> Result<OnnxSession, BackendError> {
        let builder = self.builder(graph, options).map_err(|error| rejected(&error));
        let providers = self.providers(options);
        if !providers::is_cpu_alone(providers) {
            let session = opened(providers::give(builder?, providers)?, graph)?;
            return OnnxSession::new(session, Outputs::Copied);
        }
        OnnxSession::new(opened(builder?, graph)?, Outputs::Lent)
    }

    /// What runs a model of these options.
    fn providers<'a>(&'a self, options: &'a OpenOptions) -> &'a [ExecutionProvider] {
        let own = &options.execution_providers;
        if own.is_empty() { &self.usual_providers } else { own }
    }

    /// Whether the instances of such a model run one session.
    fn is_shared(&self, files: &ModelFiles, options: &OpenOptions) -> bool {
        files.size() >= SHARED_FROM && providers::is_cpu_alone(self.providers(options))
    }

    /// What every session of this graph is made with.
    fn builder(&self, graph: &Graph, options: &OpenOptions) -> ort::Result<SessionBuilder> {
        let mut builder = Session::builder(&self.runtime.environment)?;
        for file in &graph.files {
            let content = Arc::clone(&file.content);
            builder = builder.with_external_initializer_file_in_memory(&file.name, content)?;
        }
        let builder = builder
            .with_intra_threads(options.intra_op_threads.get())?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_thread_manager(Threads(self.spawner.clone()))?;
        Ok(builder)
    }
}

fn opened(builder: SessionBuilder, graph: &Graph) -> Result<Session, BackendError> {
    let open = || -> ort::Result<Session> {
        builder.with_optimization_level(GraphOptimizationLevel::All)?.commit_from_file(&graph.path)
    };
    open().map_err(|error| rejected(&error))
}

impl Backend for OnnxBackend {
    fn platform(&self) -> &'static str {
        Self::PLATFORM
    }

    fn open(
        &self,
        files: &ModelFiles,
        options: OpenOptions,
    ) -> Result<Box<dyn OpenedModel>, BackendError> {
        Ok(Box::new(self.load(files, options)?))
    }

    fn copies(
        &self,
        files: &ModelFiles,
        options: &OpenOptions,
        instances: NonZeroUsize,
    ) -> NonZeroUsize {
        if self.is_shared(files, options) { NonZeroUsize::MIN } else { instances }
    }

    fn released(&self) {
        allocator::give_memory_back();
    }
}

/// A model that was opened.
pub(super) struct OnnxModel {
    backend: OnnxBackend,
    graph: Graph,
    options: OpenOptions,
    signature: Signature,
    is_shared: bool,
    /// What further sessions are made of, if it is known.
    optimized: Option<OptimizedGraph>,
    /// What the next instance runs, if it is there already.
    session: Option<Arc<OnnxSession>>,
}

impl OnnxModel {
    /// What one more instance runs.
    pub(super) fn session(&mut self) -> Result<Arc<OnnxSession>, BackendError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => Arc::new(self.another()?),
        };
        if self.is_shared {
            self.session = Some(Arc::clone(&session));
        }
        Ok(session)
    }

    fn another(&self) -> Result<OnnxSession, BackendError> {
        let builder = || self.backend.builder(&self.graph, &self.options).ok();
        let optimized = self.optimized.as_ref().and_then(|graph| graph.open(builder()?));
        optimized.map_or_else(|| self.backend.session(&self.graph, &self.options), Ok)
    }
}

impl OpenedModel for OnnxModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instantiate(&mut self) -> Result<Box<dyn Instance>, BackendError> {
        Ok(Box::new(OnnxInstance::new(self.session()?)))
    }
}

fn unreadable(error: &io::Error) -> BackendError {
    BackendError::Rejected(format!("its external data cannot be read: {error}"))
}

fn rejected(error: &ort::Error) -> BackendError {
    debug!(cause = error.message(), "the engine cannot open a model");
    BackendError::Rejected(told::cause(error.message()))
}
