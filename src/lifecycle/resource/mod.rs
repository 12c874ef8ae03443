//! Things that are set up when they are needed and cleaned up for certain.

mod backoff;
mod flight;
mod handle;
mod kind;
mod manager;
mod owned;
mod pool;
mod report;
mod slot;
mod state;
mod work;

#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use handle::{ResourceHandle, ResourceRef};
pub use kind::{Resource, ResourceType};
pub use manager::ResourceManager;
pub use pool::{Pool, PoolError, PoolItem, PoolOptions, PoolStatus};
pub use report::{ResourceError, ResourceReport};
pub use state::{IllegalResourceTransition, ResourceEvent, ResourceState};
