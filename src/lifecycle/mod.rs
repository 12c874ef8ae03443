//! The lifecycle core: application state, health, resources, events and deadlines.
//!
//! It serves any tokio program; nothing here knows models, HTTP or metrics.

pub mod checks;
mod deadline;
mod event;
mod handler;
mod health;
mod manager;
mod resource;
mod signal;
mod state;

pub use deadline::Deadline;
pub use event::{Event, EventBus, EventRecord};
pub use handler::{Handler, HandlerError, HandlerFailure};
pub use health::{
    Check, CheckChange, CheckDetail, CheckKind, CheckReport, CheckResult, CheckRunError,
    CheckSchedule, CheckStatus, HealthOptions, HealthRegistry, HealthReporter, Jitter, Verdict,
};
pub use manager::{
    LifecycleConfig, LifecycleManager, ShutdownReport, StartupError, Transition, TransitionError,
};
pub use resource::{Resource, ResourceError, ResourceManager, ResourceReport, ResourceState};
pub use signal::{Signal, SignalSource};
pub use state::{AppEvent, AppState, IllegalTransition};
