//! The lifecycle core: application state, health, resources, events and deadlines.
//!
//! It serves any tokio program; nothing here knows models, HTTP or metrics.

mod application;
pub mod checks;
mod deadline;
mod event;
mod handler;
mod health;
mod logging;
mod manager;
mod order;
mod process;
mod resource;
mod signal;
mod standing;
mod state;

pub use application::{Application, Drained, Ending};
pub use deadline::{Deadline, telling};
pub use event::{
    Event, EventBus, EventKind, EventRecord, EventStream, Hook, HookProgress, HookReport, Hooks,
    Missed, Replay,
};
pub use handler::{Handler, HandlerError, HandlerFailure};
pub use health::{
    Check, CheckChange, CheckDetail, CheckKind, CheckReport, CheckResult, CheckRunError,
    CheckSchedule, CheckStatus, HealthOptions, HealthRegistry, HealthReporter, Jitter, Verdict,
};
pub use logging::{LogChange, LogControl, LogSettings};
pub use manager::{
    LifecycleConfig, LifecycleManager, NotRunning, ShutdownReport, StartupError, Transition,
    TransitionError,
};
pub use order::OrderError;
pub use process::ProcessReport;
pub use resource::{
    Backoff, IllegalResourceTransition, Pool, PoolError, PoolItem, PoolOptions, PoolStatus,
    Resource, ResourceError, ResourceEvent, ResourceHandle, ResourceManager, ResourceRef,
    ResourceReport, ResourceState, ResourceType,
};
pub use signal::{Signal, SignalSource, StopSignal};
pub use state::{AppEvent, AppState, IllegalTransition};
