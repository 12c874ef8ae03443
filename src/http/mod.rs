//! The REST adapter: what of the core is reachable over HTTP, and in which words.
//!
//! The wire is the [Open Inference Protocol v2] with Triton's model repository extension, the
//! probes of Kubernetes and Onward's own `/lifecycle`. `openapi.yaml` describes all of it; a test
//! compares it with [`routes`].
//!
//! [Open Inference Protocol v2]: https://github.com/kserve/open-inference-protocol

mod body;
mod changes;
mod checks;
#[doc(hidden)]
pub mod codec;
mod connection;
mod counts;
mod desired;
mod docs;
mod documents;
mod error;
mod events;
mod finish;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gate;
mod health;
mod heavy;
mod held;
mod in_flight;
mod infer;
mod lifecycle;
mod lingering;
mod logging;
mod metadata;
mod model_config;
mod models;
mod newcomers;
mod operations;
mod patience;
mod query;
mod repository;
mod residence;
mod resources;
mod rest;
mod room;
mod routes;
mod server;
mod statistics;
mod streams;
mod target;
mod tfs;
mod trace;
mod trail;
mod unread;
mod watched_stream;
mod wire;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

pub use counts::{RouteCounts, RouteReport};
pub use in_flight::{Entered, InFlight};
pub use rest::Rest;
pub use routes::{routes, rules};
pub use server::{Answers, BACKLOG, Bounds, Protocols, Served, serve};

use crate::auth::{Audit, Guard};
use crate::cloudevents::CloudEvents;
use crate::lifecycle::{
    EventBus, HealthRegistry, Hooks, LifecycleManager, LogControl, ResourceManager,
};
use crate::model::{ModelLifecycleManager, Traces};
use crate::oip::RequestIds;
use heavy::HeavyWork;

/// Bounds on what one request may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest body, in bytes.
    pub max_body_size: usize,
    /// How long a request may take from the moment its head was read.
    pub request_timeout: Duration,
    /// Large bodies that are parsed or written at once; read once, when [`Rest`] is made.
    pub heavy_work: NonZeroUsize,
}

/// The text of `/metrics`, made anew for each scrape.
pub struct MetricsPage {
    /// Its content type.
    pub content_type: &'static str,
    /// Its text.
    pub render: Box<dyn Fn() -> String + Send + Sync>,
}

/// The JSON of `/lifecycle/config`, made anew for each reader.
pub struct ConfigurationPage(pub Box<dyn Fn() -> serde_json::Value + Send + Sync>);

/// What [`Rest`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// The application.
    pub lifecycle: Arc<LifecycleManager>,
    /// Its health.
    pub health: HealthRegistry,
    /// Its resources.
    pub resources: Arc<ResourceManager>,
    /// Its models.
    pub models: ModelLifecycleManager,
    /// Its metrics.
    pub metrics: MetricsPage,
    /// What one request may take; it may change, and holds for requests that come after.
    pub limits: Arc<ArcSwap<Limits>>,
    /// The configuration in effect, as JSON.
    pub configuration: ConfigurationPage,
    /// Its events.
    pub events: EventBus,
    /// How they are written.
    pub cloud_events: CloudEvents,
    /// What runs when something happens.
    pub hooks: Arc<Hooks>,
    /// Decides what of its log is written.
    pub log: Arc<dyn LogControl>,
    /// Decides which inferences are traced.
    pub traces: Arc<Traces>,
    /// Lets requests in; without it, everybody may do everything.
    pub guard: Option<Arc<Guard>>,
    /// Where changes, and what is denied, are written down.
    pub audit: Arc<Audit>,
    /// Counts the requests that are being answered.
    pub in_flight: InFlight,
    /// Counts those that were.
    pub counts: Arc<RouteCounts>,
    /// Cancelled when answers without an end are to end.
    pub closing: CancellationToken,
}

impl fmt::Debug for MetricsPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsPage")
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ConfigurationPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfigurationPage")
    }
}

/// What every handler can reach.
#[derive(Debug)]
struct Services {
    parts: Parts,
    heavy: HeavyWork,
    request_ids: RequestIds,
}

impl Services {
    fn new(parts: Parts) -> Self {
        let heavy = HeavyWork::new(parts.limits.load().heavy_work);
        Self { parts, heavy, request_ids: RequestIds::new() }
    }

    /// What a request that comes now may take.
    fn limits(&self) -> Limits {
        **self.parts.limits.load()
    }
}

/// The state of every handler.
type Shared = axum::extract::State<Arc<Services>>;
