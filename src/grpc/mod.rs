//! The gRPC adapter: the [Open Inference Protocol v2] with Triton's calls, gRPC's health protocol and
//! server reflection. `proto/` has the messages.
//!
//! It does what REST does, over the same core; its own are only how requests are read, how answers are
//! written, and which status goes with an error.
//!
//! [Open Inference Protocol v2]: https://github.com/kserve/open-inference-protocol

mod call_id;
mod calls;
mod codec;
mod config;
mod counts;
mod front;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gate;
mod health;
mod infer;
mod proto;
mod settings;
mod statistics;
mod status;
mod stream;
mod terms;
mod upload;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use counts::{MethodCounts, MethodReport, code};
pub use front::{Grpc, is_grpc};
pub use gate::rules;

use crate::auth::{Audit, Guard};
use crate::lifecycle::{EventBus, HealthRegistry, LogControl};
use crate::model::{ModelLifecycleManager, Traces};

/// Bounds on what one call may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest message, in bytes, also once it is no longer compressed.
    pub max_message_size: usize,
    /// How long an inference may take from the moment its head was read.
    pub request_timeout: Duration,
}

/// What it is made of.
pub struct Parts {
    /// The models.
    pub models: ModelLifecycleManager,
    /// The health of the application.
    pub health: HealthRegistry,
    /// Its events, by which changes of its health are noticed.
    pub events: EventBus,
    /// Decides what of its log is written.
    pub log: Arc<dyn LogControl>,
    /// Decides which inferences are traced.
    pub traces: Arc<Traces>,
    /// Lets calls in; without it, everybody may do everything.
    pub guard: Option<Arc<Guard>>,
    /// Where changes, and what is denied, are written down.
    pub audit: Arc<Audit>,
    /// What a call that comes now may take.
    pub limits: Box<dyn Fn() -> Limits + Send + Sync>,
    /// Counts the calls that were answered.
    pub counts: Arc<MethodCounts>,
    /// Cancelled when streams without an end are to end.
    pub closing: CancellationToken,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("models", &self.models).finish_non_exhaustive()
    }
}
