//! The seam between the core and an inference engine.

use std::any::Any;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use super::control::RunControl;
use super::metadata::Signature;
use super::provider::ExecutionProvider;
use super::request::PreparedRequest;
use super::tensor::Tensor;

/// The files of one model version, on local disk and complete.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// The graph's file; files it refers to stand beside it.
    pub graph: PathBuf,
    size: u64,
    /// What keeps them there for as long as somebody has a clone of this.
    _keeper: Option<Arc<dyn Any + Send + Sync>>,
}

impl ModelFiles {
    /// Files that nobody takes away for having been used.
    pub fn at(graph: PathBuf) -> Self {
        Self { graph, size: 0, _keeper: None }
    }

    /// The same files, of which it is known how many bytes they have together.
    #[must_use]
    pub fn of_size(self, size: u64) -> Self {
        Self { size, ..self }
    }

    /// How many bytes they have together; zero where that is not known.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Files that may go when `keeper` is dropped, which is with the last clone of this.
    #[must_use]
    pub fn kept_by(self, keeper: impl Any + Send + Sync) -> Self {
        Self { _keeper: Some(Arc::new(keeper)), ..self }
    }
}

/// How a model is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// Threads that one run may use inside the engine.
    pub intra_op_threads: NonZeroUsize,
    /// What runs its nodes, each those that it can; the engine's default where there is none.
    pub execution_providers: Vec<ExecutionProvider>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { intra_op_threads: NonZeroUsize::MIN, execution_providers: Vec::new() }
    }
}

/// Why an engine could not open a model.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The engine refused the file: corrupt, or uses what the engine does not have.
    #[error("{0}")]
    Rejected(String),
    /// The engine is not there, or not any more.
    #[error("{0}")]
    Unavailable(String),
    /// The graph has an input or output that cannot travel over the protocol.
    #[error("{direction} '{name}' has {what}, which cannot be served")]
    Unservable {
        /// `input` or `output`.
        direction: &'static str,
        /// Its name.
        name: String,
        /// What it is.
        what: String,
    },
}

/// Why one run failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The run was cancelled before or while it ran.
    #[error("the run was cancelled")]
    Cancelled,
    /// The engine refused the input: it fits the signature, but not what the graph does with it.
    #[error("the model cannot compute this input: {0}")]
    Rejected(String),
    /// The engine failed.
    #[error("the engine failed: {0}")]
    Engine(String),
    /// The engine, or the code that calls it, panicked. The instance goes on with the next request.
    #[error("the engine panicked: {0}")]
    Panicked(String),
}

/// An inference engine. Calls may block for long and come from threads made for it.
pub trait Backend: Send + Sync + 'static {
    /// The protocol's platform name, such as `onnxruntime_onnx`.
    fn platform(&self) -> &'static str;

    /// Reads a model and its signature.
    ///
    /// # Errors
    /// [`BackendError`], with a text that tells a user what is wrong with the file.
    fn open(
        &self,
        files: &ModelFiles,
        options: OpenOptions,
    ) -> Result<Box<dyn OpenedModel>, BackendError>;

    /// How many times so many instances of a model have its files' content in memory together.
    fn copies(
        &self,
        _files: &ModelFiles,
        _options: &OpenOptions,
        instances: NonZeroUsize,
    ) -> NonZeroUsize {
        instances
    }

    /// Called after a version's instances were dropped: the place to give memory back to the system.
    fn released(&self) {}
}

/// A model that was read and can be instantiated.
pub trait OpenedModel: Send {
    /// What the model takes and gives.
    fn signature(&self) -> &Signature;

    /// Makes one more instance that can run beside the others.
    ///
    /// # Errors
    /// [`BackendError`] as for [`Backend::open`].
    fn instantiate(&mut self) -> Result<Box<dyn Instance>, BackendError>;
}

/// Something that runs one request at a time, on whichever thread calls it.
pub trait Instance: Send {
    /// Runs the model. The answer has one tensor per entry of `request.outputs()`, in that order. How far
    /// it has come, it may tell `control`.
    ///
    /// # Errors
    /// [`RunError::Cancelled`] after `control` was cancelled, otherwise [`RunError::Rejected`] or
    /// [`RunError::Engine`].
    fn run(
        &mut self,
        request: &PreparedRequest,
        control: &RunControl,
    ) -> Result<Vec<Tensor>, RunError>;
}
