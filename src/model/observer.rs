//! What the model core tells those who measure it.

use std::sync::Arc;
use std::time::Duration;

use super::names::VersionId;
use crate::inference::{InferError, RunError, Timings};

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
    /// Called when a version becomes ready. Dropping the result ends what is kept of the version.
    fn version(&self, id: &VersionId) -> Box<dyn VersionObserver>;
}

/// Observes the requests of one version. Called on the request path: must not block.
pub trait VersionObserver: Send + Sync + 'static {
    /// A request ended after `total`; `timings` is there when it was answered.
    fn request(&self, outcome: Outcome, total: Duration, timings: Option<Timings>);
}

/// Observes nothing.
impl ModelObserver for () {
    fn version(&self, _: &VersionId) -> Box<dyn VersionObserver> {
        Box::new(())
    }
}

impl VersionObserver for () {
    fn request(&self, _: Outcome, _: Duration, _: Option<Timings>) {}
}

impl<O: ModelObserver> ModelObserver for Arc<O> {
    fn version(&self, id: &VersionId) -> Box<dyn VersionObserver> {
        self.as_ref().version(id)
    }
}
