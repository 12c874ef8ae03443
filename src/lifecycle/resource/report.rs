//! A resource as seen from outside.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::state::ResourceState;
use crate::lifecycle::handler::HandlerError;
use crate::lifecycle::order::OrderError;

/// Why a resource cannot be had, or cleaned.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResourceError {
    /// Its initialiser or its cleaner did not complete.
    #[error("resource '{resource}' failed")]
    Failed {
        /// The resource's name.
        resource: String,
        /// What went wrong.
        source: Arc<HandlerError>,
    },
    /// It has failed, and it is too early to try again.
    #[error("resource '{resource}' failed and is not tried again for {}", humantime::format_duration(*.retry_in))]
    BackingOff {
        /// The resource's name.
        resource: String,
        /// How long not.
        retry_in: Duration,
        /// What went wrong the last time.
        source: Arc<HandlerError>,
    },
    /// There is no resource of this name.
    #[error("there is no resource '{0}'")]
    Unknown(String),
    /// The resources have no order.
    #[error("the resources have no order")]
    Order(#[from] OrderError),
    /// Others that depend on it are set up.
    #[error("resource '{resource}' is needed by {}", .by.join(", "))]
    Needed {
        /// The resource's name.
        resource: String,
        /// Theirs.
        by: Vec<String>,
    },
    /// Only the end of the application cleans it.
    #[error("resource '{0}' lasts as long as the application")]
    Lasting(String),
    /// Its state does not allow it: it is being cleaned, or the manager has ended.
    #[error("resource '{resource}' is {state}")]
    Unavailable {
        /// The resource's name.
        resource: String,
        /// Its state.
        state: ResourceState,
    },
}

/// A resource as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceReport {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: ResourceState,
    /// Since when.
    pub since: SystemTime,
    /// Why it is DEGRADED or FAILED; `None` otherwise.
    pub error: Option<String>,
    /// Whether it is set up on first use rather than at the start.
    pub lazy: bool,
    /// Whether only the end of the application cleans it.
    pub lasting: bool,
    /// The names of the resources it comes after.
    pub after: Vec<String>,
    /// How often it was taken, in all.
    pub uses: u64,
    /// How many have it now.
    pub in_use: usize,
    /// When it was taken last.
    pub last_use: Option<SystemTime>,
    /// How often it was set up.
    pub initializations: u64,
    /// Attempts to set it up that have failed since the last success.
    pub consecutive_failures: u32,
    /// How long it is not tried again; `None` where it may be.
    pub retry_in: Option<Duration>,
}
