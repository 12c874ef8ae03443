//! Opening models with ONNX Runtime.

use std::io;
use std::sync::Arc;

use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use tracing::debug;

use super::allocator;
use super::external::Graph;
use super::instance::OnnxInstance;
use super::library::OnnxRuntime;
use super::signature;
use super::threads::Threads;
use super::told;
use crate::inference::{
    Backend, BackendError, Instance, ModelFiles, OpenOptions, OpenedModel, Signature, Spawner,
};

/// ONNX Runtime as the core's engine.
#[derive(Debug, Clone)]
pub struct OnnxBackend {
    runtime: OnnxRuntime,
    spawner: Spawner,
}

impl OnnxBackend {
    /// The protocol's name for it.
    pub const PLATFORM: &str = "onnxruntime_onnx";

    /// A backend on a runtime that was loaded. Runs have the priority of the thread that calls this.
    pub fn new(runtime: OnnxRuntime) -> Self {
        Self { runtime, spawner: Spawner::start() }
    }

    fn session(
        &self,
        Graph { path, files, .. }: &Graph,
        options: OpenOptions,
    ) -> ort::Result<Session> {
        let mut builder = Session::builder(&self.runtime.environment)?;
        for file in files {
            let content = Arc::clone(&file.content);
            builder = builder.with_external_initializer_file_in_memory(&file.name, content)?;
        }
        builder
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(options.intra_op_threads.get())?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_thread_manager(Threads(self.spawner.clone()))?
            .commit_from_file(path)
    }
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
        let graph = Graph::read(&files.graph).map_err(|error| unreadable(&error))?;
        let session = self.session(&graph, options).map_err(|error| rejected(&error))?;
        let signature = signature::of(&session)?;
        let (backend, first) = (self.clone(), Some(session));
        Ok(Box::new(OnnxModel { backend, graph, options, signature, first }))
    }

    fn released(&self) {
        allocator::give_memory_back();
    }
}

struct OnnxModel {
    backend: OnnxBackend,
    graph: Graph,
    options: OpenOptions,
    signature: Signature,
    /// The session the signature was read from; the first instance gets it.
    first: Option<Session>,
}

impl OpenedModel for OnnxModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instantiate(&mut self) -> Result<Box<dyn Instance>, BackendError> {
        let session = if let Some(session) = self.first.take() {
            session
        } else {
            let session = self.backend.session(&self.graph, self.options);
            session.map_err(|error| rejected(&error))?
        };
        Ok(Box::new(OnnxInstance::new(session, self.signature.clone())))
    }
}

fn unreadable(error: &io::Error) -> BackendError {
    BackendError::Rejected(format!("its external data cannot be read: {error}"))
}

fn rejected(error: &ort::Error) -> BackendError {
    debug!(cause = error.message(), "the engine cannot open a model");
    BackendError::Rejected(told::cause(error.message()))
}
