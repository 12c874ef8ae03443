//! What can happen, as one type.

use std::fmt;

use tracing::{debug, info, warn};

use crate::lifecycle::health::CheckKind;
use crate::lifecycle::resource::ResourceState;
use crate::lifecycle::state::AppState;

/// Something that happened. Published after the state it tells of can be observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The application moved to another state.
    Application {
        /// The state before.
        from: AppState,
        /// The state after.
        to: AppState,
        /// Why.
        reason: String,
    },
    /// A health check's status changed.
    Health {
        /// The check's name.
        check: String,
        /// Which probe it belongs to.
        kind: CheckKind,
        /// Whether it passes now.
        passing: bool,
        /// Why it fails; empty while it passes.
        detail: String,
    },
    /// A resource moved to another state.
    Resource {
        /// The resource's name.
        resource: String,
        /// The state after.
        state: ResourceState,
        /// Why it failed; empty otherwise.
        detail: String,
    },
    /// A model version moved to another state.
    ModelVersion {
        /// The model's name.
        model: String,
        /// The version's number.
        version: u64,
        /// The name of the state before.
        from: &'static str,
        /// The name of the state after.
        to: &'static str,
        /// Why it failed; empty otherwise.
        detail: String,
    },
    /// Requests without a version are answered by another version of a model from now on.
    ModelSwapped {
        /// The model's name.
        model: String,
        /// The version before; `None` when the model had none.
        from: Option<u64>,
        /// The version after; `None` when the model was unloaded.
        to: Option<u64>,
    },
    /// A change of a model was begun, or has ended.
    Operation {
        /// The operation's id.
        id: String,
        /// What it does, such as `swap`.
        operation: &'static str,
        /// The model's name.
        model: String,
        /// `begun`, `succeeded`, `failed` or `cancelled`.
        state: &'static str,
        /// By what its caller finds what it has asked for: a text of the caller's own, such as a `traceparent`.
        origin: Option<String>,
        /// Why it failed; empty otherwise.
        detail: String,
    },
    /// Requests for a model are routed by other rules from now on: aliases, weights, a shadow.
    ModelTraffic {
        /// The model's name.
        model: String,
        /// The rules, in words.
        rules: String,
    },
    /// What was made of a version that is on trial.
    ModelDecision {
        /// The model's name.
        model: String,
        /// The version on trial.
        version: u64,
        /// `step passed`, `promoted`, `baked` or `rolled back`.
        decision: &'static str,
        /// The reason and the figures it was made from.
        figures: String,
    },
    /// A model was taken from memory to make room, or because nobody used it. The next request for it
    /// loads it again.
    ModelEvicted {
        /// The model's name.
        model: String,
        /// Why.
        reason: String,
        /// What its versions were estimated to take, in bytes.
        bytes: u64,
    },
    /// The configuration was read anew.
    Configuration {
        /// The settings that have another value from now on.
        changed: Vec<String>,
        /// Those that have changed too, but keep their value until the next start.
        ignored: Vec<String>,
        /// Why nothing was changed; empty otherwise.
        detail: String,
    },
    /// Somebody has changed something, or was denied to.
    Audit {
        /// Who, such as `key:ci`.
        who: String,
        /// The method of the request, or `gRPC`.
        method: String,
        /// Its path.
        path: String,
        /// The model that it names.
        model: Option<String>,
        /// The other end of the connection.
        peer: String,
        /// What the request is found by in the log.
        request_id: Option<String>,
        /// How it was answered: a status of HTTP, or a code of gRPC; `None` where the answer was not waited for.
        status: Option<u16>,
        /// Requests that were denied since the event before of one that was, and have none of their own.
        untold: u64,
    },
}

/// An [`Event`] without its data, to choose by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is documented on Event")]
pub enum EventKind {
    Application,
    Health,
    Resource,
    ModelVersion,
    ModelSwapped,
    Operation,
    ModelTraffic,
    ModelDecision,
    ModelEvicted,
    Configuration,
    Audit,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Application,
        Self::Health,
        Self::Resource,
        Self::ModelVersion,
        Self::ModelSwapped,
        Self::Operation,
        Self::ModelTraffic,
        Self::ModelDecision,
        Self::ModelEvicted,
        Self::Configuration,
        Self::Audit,
    ];

    /// The kind's name, such as `model_version`. It never changes its meaning.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Health => "health",
            Self::Resource => "resource",
            Self::ModelVersion => "model_version",
            Self::ModelSwapped => "model_swapped",
            Self::Operation => "operation",
            Self::ModelTraffic => "model_traffic",
            Self::ModelDecision => "model_decision",
            Self::ModelEvicted => "model_evicted",
            Self::Configuration => "configuration",
            Self::Audit => "audit",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Event {
    /// Its kind.
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Application { .. } => EventKind::Application,
            Self::Health { .. } => EventKind::Health,
            Self::Resource { .. } => EventKind::Resource,
            Self::ModelVersion { .. } => EventKind::ModelVersion,
            Self::ModelSwapped { .. } => EventKind::ModelSwapped,
            Self::Operation { .. } => EventKind::Operation,
            Self::ModelTraffic { .. } => EventKind::ModelTraffic,
            Self::ModelDecision { .. } => EventKind::ModelDecision,
            Self::ModelEvicted { .. } => EventKind::ModelEvicted,
            Self::Configuration { .. } => EventKind::Configuration,
            Self::Audit { .. } => EventKind::Audit,
        }
    }
}

/// The only place where what an event tells is logged.
pub(super) fn log(event: &Event) {
    match event {
        Event::Application { from, to, reason } => {
            info!(%from, %to, reason, "application state changed");
        }
        Event::Health { check, kind, passing: true, .. } => {
            info!(check, %kind, "health check passes");
        }
        Event::Health { check, kind, passing: false, detail } => {
            warn!(check, %kind, detail, "health check fails");
        }
        Event::Resource { resource, state: ResourceState::Failed, detail } => {
            warn!(resource, detail, "resource failed");
        }
        Event::Resource { resource, state, .. } => info!(resource, %state, "resource changed"),
        Event::ModelVersion { model, version, from, to, detail } if detail.is_empty() => {
            info!(model, version, from, to, "model version changed");
        }
        Event::ModelVersion { model, version, from, detail, .. } => {
            warn!(model, version, from, detail, "model version failed");
        }
        Event::ModelSwapped { model, from, to } => {
            info!(model, from, to, "current version changed");
        }
        Event::Operation { id, operation, model, state, detail, .. } if detail.is_empty() => {
            debug!(id, operation, model, state, "operation");
        }
        Event::Operation { id, operation, model, detail, .. } => {
            // Whoever asked is told, and a version or a model that fails is warned of.
            info!(id, operation, model, detail, "operation failed");
        }
        Event::ModelDecision { model, version, decision: "rolled back", figures } => {
            warn!(model, version, figures, "version rolled back");
        }
        Event::ModelDecision { model, version, decision, figures } => {
            info!(model, version, decision, figures, "version on trial");
        }
        Event::ModelEvicted { model, reason, bytes } => {
            info!(model, reason, bytes, "model evicted");
        }
        Event::ModelTraffic { model, rules } => info!(model, rules, "traffic rules changed"),
        Event::Configuration { changed, ignored, detail } if detail.is_empty() => {
            info!(changed = changed.join(","), "configuration read anew");
            if !ignored.is_empty() {
                let ignored = ignored.join(",");
                warn!(ignored, "these settings change only when the server is started anew");
            }
        }
        Event::Configuration { detail, .. } => warn!(detail, "the configuration stays as it is"),
        // The audit has lines of its own, also for what there is no event of.
        Event::Audit { .. } => {}
    }
}
