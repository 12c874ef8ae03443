//! The model core: versions, their states, and the changes that never drop a request.
//!
//! The control plane ([`ModelLifecycleManager`]) changes one model at a time; the data plane
//! ([`ModelLifecycleManager::acquire`]) reads an immutable snapshot and takes no lock that a change
//! holds.

mod change;
mod error;
mod gate;
mod handle;
mod loader;
mod loading;
mod manager;
mod names;
mod observer;
mod record;
mod registry;
mod report;
mod retire;
mod serving_map;
mod state;
mod swap;
mod usage;
mod warm_up;

#[cfg(test)]
mod tests;

pub use change::Terms;
pub use error::{ChangeError, LoadError, LookupError};
pub use handle::{Answer, VersionHandle};
pub use loader::{
    AvailableModel, MOST_INSTANCES, ModelSettings, ModelSource, SourceError, VersionPolicy, WarmUp,
};
pub use manager::{ManagerOptions, ManagerParts, ModelLifecycleManager};
pub use names::{ModelName, NameError, Version, VersionId};
pub use observer::{ModelObserver, Outcome, VersionObserver};
pub use report::{
    IndexEntry, LoadReport, ModelReport, ServingReport, SwapReport, UnloadReport, VersionReport,
};
pub use state::{FailureReason, IllegalTransition, StateKind, VersionEvent, VersionState};
pub use swap::SwapOptions;
pub use usage::UsageReport;
