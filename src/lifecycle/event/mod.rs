//! Events: what happened, in one order, for whoever wants to know.

mod bus;
mod hooks;
mod kinds;

pub use bus::{EventBus, EventRecord, EventStream, Missed, Replay};
pub use hooks::{Hook, HookProgress, HookReport, Hooks};
pub use kinds::{Event, EventKind};
