//! The model core: versions, their states, and the changes that never drop a request.
//!
//! The control plane ([`ModelLifecycleManager`]) changes one model at a time; the data plane
//! ([`ModelLifecycleManager::acquire`]) reads an immutable snapshot and takes no lock that a change
//! holds.

mod batching;
mod change;
mod compatibility;
mod declared;
mod desired;
mod ensemble;
mod error;
mod eviction;
mod exchange;
mod follow;
mod followed;
mod gate;
mod golden;
mod handle;
mod hints;
mod history;
mod hold;
mod intent;
mod invariance;
mod judge;
mod latency;
mod lease;
mod ledger;
mod load;
mod loader;
mod loading;
mod manager;
mod memory;
mod mirror;
mod names;
mod numbers;
mod observer;
mod operation;
mod overriding;
mod reconcile;
mod record;
mod registry;
mod report;
mod response_cache;
mod retire;
mod routing;
mod runner;
mod serving_map;
mod state;
mod swap;
mod traced;
mod traces;
mod traffic;
mod trial;
mod turn;
mod unload;
mod unrouted;
mod usage;
mod verify;
mod waiting;
mod warm_up;

#[cfg(test)]
mod tests;

pub use batching::{BatchingMode, BatchingSettings, LONGEST_DELAY, PadValue};
pub use change::Terms;
pub use declared::{DeclaredSignature, DeclaredTensor};
pub use desired::{Callers, Desire, DesiredModel, DesiredState, DesiredStore, PlannedChange};
pub use ensemble::{EnsembleDefinition, EnsembleError, StepDefinition};
pub use error::{ChangeError, LoadError, LookupError};
pub use eviction::{EvictionReport, EvictionVerdict, Resident};
pub use golden::GoldenSample;
pub use handle::{Answer, VersionHandle};
pub use hints::{Hinter, Hints};
pub use history::{Cause, Tenure};
pub use intent::{Choice, Intent, ShadowTarget};
pub use judge::Limits;
pub use lease::LeaseReport;
pub use ledger::NoRoom;
pub use load::LoadOptions;
pub use loader::{
    AvailableModel, Glance, Labels, MOST_INSTANCES, ModelSettings, ModelSource, SourceError,
    VersionPolicy, WarmUp,
};
pub use manager::{Change, ManagerOptions, ManagerParts, ModelLifecycleManager};
pub use memory::MemoryChange;
pub use mirror::MirrorTally;
pub use names::{AliasName, ModelName, NameError, Version, VersionId, VersionRef};
pub use observer::{ModelObserver, Observed, Outcome, Protocol};
pub use operation::{
    CancelError, Conditions, Done, Ended, IdempotencyKey, Operation, OperationKind,
    OperationReport, Step,
};
pub use overriding::{Laid, OverrideFile, Overrides};
pub use reconcile::Unmet;
pub use report::{
    IndexEntry, LoadReport, ModelReport, ServingReport, ShadowReport, StepReport, SwapReport,
    TrafficReport, UnloadReport, VerifyReport, VersionReport,
};
pub use response_cache::{CacheLookup, CacheUse, ResponseCacheReport};
pub use routing::RoutingChange;
pub use serving_map::Wanted;
pub use state::{FailureReason, IllegalTransition, StateKind, VersionEvent, VersionState};
pub use swap::{Keep, RollbackOptions, Strategy, SwapOptions};
pub use traced::Traced;
pub use traces::{TraceChange, TraceLevel, TraceSettings, Traces, Update};
pub use traffic::{WHOLE, Weights, WeightsError};
pub use trial::{Bake, CanaryPlan};
pub use unrouted::{Unrouted, UnroutedReport};
pub use usage::{LatencyReport, Outcomes, Spent, UsageReader, UsageReport, WorkReport};
