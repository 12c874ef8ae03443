//! Things that are set up when they are needed and cleaned up for certain.

mod flight;
mod handle;
mod kind;
mod manager;
mod report;
mod slot;
mod state;

#[cfg(test)]
mod tests;

pub use handle::{ResourceHandle, ResourceRef};
pub use kind::{Backoff, Resource, ResourceType};
pub use manager::ResourceManager;
pub use report::{ResourceError, ResourceReport};
pub use state::{IllegalResourceTransition, ResourceEvent, ResourceState};
