//! The engine-neutral inference core: tensors, signatures, the backend traits and bounded admission.
//!
//! Nothing here knows HTTP, a serialisation format or a particular engine. A request enters as an
//! [`InferenceRequest`], is checked once against the model's [`Signature`], and only a
//! [`PreparedRequest`] may reach an [`Instance`].

mod backend;
pub mod compare;
mod control;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod inline;
mod metadata;
mod placement;
mod pool;
mod queue;
mod request;
mod task;
mod tensor;
mod threads;

pub use backend::{
    Backend, BackendError, Instance, ModelFiles, OpenOptions, OpenedModel, RunError,
};
pub use compare::Tolerance;
pub use control::{Armed, RunControl, Terminator};
pub use inline::InlineRuns;
pub use metadata::{Dim, Signature, TensorSpec};
pub use placement::Placement;
pub use pool::{InstancePool, PoolOptions};
pub use request::{InferenceRequest, InputError, NamedTensor, PreparedRequest};
pub use task::{Completion, InferError, Timings};
pub use tensor::{DataType, Element, Tensor, TensorError, UnknownDataType};
pub use threads::{Spawner, give_way};
