//! The engine-neutral inference core: tensors, signatures, the backend traits and bounded admission.
//!
//! Nothing here knows HTTP, a serialisation format or a particular engine. A request enters as an
//! [`InferenceRequest`], is checked once against the model's [`Signature`], and only a
//! [`PreparedRequest`] may reach an [`Instance`].

mod backend;
mod batch;
mod batching;
pub mod compare;
mod control;
mod costs;
mod datatype;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod group;
mod metadata;
mod padding;
mod placement;
mod pool;
mod provider;
mod queue;
mod request;
mod rows;
mod runs;
mod task;
mod tensor;
mod threads;
mod watch;

pub use backend::{
    Backend, BackendError, Instance, ModelFiles, OpenOptions, OpenedModel, RunError,
};
pub use batch::{Batch, Indivisible};
pub use batching::{BatchOptions, BatchingReport};
pub use compare::Tolerance;
pub use control::{Armed, RunControl, Terminate, Terminator};
pub use datatype::{DataType, Element, UnknownDataType};
pub use metadata::{Dim, Signature, TensorSpec};
pub use padding::Padding;
pub use placement::Placement;
pub use pool::{InstancePool, PoolOptions};
pub use provider::ExecutionProvider;
pub(crate) use request::Positions;
pub use request::{InferenceRequest, InputError, NamedTensor, PreparedRequest};
pub(crate) use runs::RunCounts;
pub use runs::{RunsReport, StagesReport};
pub use task::{Completion, InferError, RunTerms, Timings};
pub use tensor::{Shape, Tensor, TensorError};
pub use threads::{Spawner, give_way};
pub use watch::RunWatch;
