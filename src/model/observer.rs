//! What the model core tells those who measure it.

use std::any::Any;
use std::sync::Arc;

use super::names::VersionId;
use super::usage::UsageReader;
use crate::inference::{InferError, RunError};

/// What a request came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// REST.
    Http,
    /// gRPC.
    Grpc,
    /// Nothing: it is one of the server's own, such as that of a step of an ensemble.
    #[default]
    Internal,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::Http, Self::Grpc, Self::Internal];

    /// The protocol's name, such as `grpc`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Internal => "internal",
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was answered.
    Success,
    /// It did not fit the model.
    Invalid,
    /// It was refused because the queue was full.
    Shed,
    /// Its deadline passed.
    DeadlineExceeded,
    /// Its caller went away.
    Cancelled,
    /// The engine failed.
    Failed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] = [
        Self::Success,
        Self::Invalid,
        Self::Shed,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::Failed,
    ];

    /// The outcome's name, such as `deadline_exceeded`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Invalid => "invalid",
            Self::Shed => "shed",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

impl From<&InferError> for Outcome {
    fn from(error: &InferError) -> Self {
        match error {
            InferError::Step { error, .. } => Self::from(&**error),
            InferError::Input(_) | InferError::Run(RunError::Rejected(_)) => Self::Invalid,
            InferError::Overloaded { .. } => Self::Shed,
            InferError::DeadlineExceeded => Self::DeadlineExceeded,
            InferError::Run(RunError::Cancelled) => Self::Cancelled,
            InferError::Stopped | InferError::Run(RunError::Engine(_) | RunError::Panicked(_)) => {
                Self::Failed
            }
        }
    }
}

/// Observes all models.
pub trait ModelObserver: Send + Sync + 'static {
    /// Called when a version is loaded, with all that it will do. The result is dropped once that is all.
    fn version(&self, id: &VersionId, usage: UsageReader) -> Observed;
}

/// An observation that goes on as long as this is there.
pub type Observed = Box<dyn Any + Send + Sync>;

/// Observes nothing.
impl ModelObserver for () {
    fn version(&self, _: &VersionId, _: UsageReader) -> Observed {
        Box::new(())
    }
}

impl<O: ModelObserver> ModelObserver for Arc<O> {
    fn version(&self, id: &VersionId, usage: UsageReader) -> Observed {
        self.as_ref().version(id, usage)
    }
}
