//! The configuration while the server runs: what is shown of it, and how it is read anew.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tracing::{Level, enabled};

use super::cpu::cores;
use super::secure;
use crate::auth::Guard;
use crate::config::{Config, ConfigError, Effective, Layers, Reloaded, TelemetryConfig};
use crate::http::Limits;
use crate::lifecycle::{Event, EventBus, LifecycleManager};
use crate::model::{ModelLifecycleManager, Terms};
use crate::telemetry::Logs;
use crate::tls::Tls;
use crate::trail::{self, Trails};

/// The configuration in effect, with what it was made from and will be made from again.
#[derive(Debug)]
pub struct Configuration {
    layers: Layers,
    effective: Mutex<Effective>,
    logs: Logs,
}

impl Configuration {
    /// What was read from the layers, and what changes the logs of this process.
    pub fn new(layers: Layers, effective: Effective, logs: Logs) -> Self {
        Self { layers, effective: Mutex::new(effective), logs }
    }

    /// What its environment says of object stores.
    pub(super) fn store_options(&self) -> Vec<(String, String)> {
        store_options(&self.layers.environment)
    }

    /// The values in effect.
    pub(super) fn config(&self) -> Config {
        self.effective().config().clone()
    }

    /// What writes the log.
    pub(super) const fn logs(&self) -> &Logs {
        &self.logs
    }

    /// What is in effect.
    pub(super) fn snapshot(&self) -> Effective {
        self.effective().clone()
    }

    /// Reads the layers anew and keeps what can be changed.
    fn read_anew(&self) -> Result<Reloaded, ConfigError> {
        let read = self.layers.read()?;
        let mut effective = self.effective();
        let reloaded = effective.reloaded(read);
        effective.clone_from(&reloaded.effective);
        Ok(reloaded)
    }

    fn effective(&self) -> MutexGuard<'_, Effective> {
        self.effective.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What takes new values while it runs.
pub(super) struct Reloading {
    pub(super) limits: Arc<ArcSwap<Limits>>,
    pub(super) lifecycle: Arc<LifecycleManager>,
    pub(super) models: ModelLifecycleManager,
    pub(super) events: EventBus,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) guard: Option<Arc<Guard>>,
    pub(super) trails: Trails,
}

impl Reloading {
    /// Reads the configuration anew, all or nothing, and tells what has become of it. Blocks for as
    /// long as the file takes to read.
    pub(super) fn reload(&self, configuration: &Configuration) {
        let told = match configuration.read_anew() {
            Ok(Reloaded { effective, changed, ignored }) => {
                let config = effective.config();
                self.apply(config);
                let event = Event::Configuration {
                    changed: changed.into_iter().map(str::to_owned).collect(),
                    ignored: ignored.into_iter().map(str::to_owned).collect(),
                    detail: String::new(),
                };
                let level = || configuration.logs.set(&config.telemetry.log_level);
                // It is logged by the level before or after, whichever lets it through.
                let set = if enabled!(Level::INFO) {
                    self.events.publish(event);
                    level()
                } else {
                    let set = level();
                    self.events.publish(event);
                    set
                };
                set.map_err(|error| error.to_string())
            }
            Err(mistakes) => Err(mistakes.to_string()),
        };
        if let Err(detail) = told {
            let (changed, ignored) = (Vec::new(), Vec::new());
            self.events.publish(Event::Configuration { changed, ignored, detail });
        }
        if let Some(tls) = &self.tls {
            secure::reload(tls, &self.events);
        }
        if let Some(guard) = &self.guard {
            guard.reload();
        }
    }

    fn apply(&self, config: &Config) {
        self.limits.store(Arc::new(limits(config)));
        self.lifecycle.reconfigure(config.lifecycle);
        self.models.reconfigure(terms(config));
        self.trails.set(trail_terms(config));
        let ratio = config.telemetry.trace_sample_ratio;
        self.trails.recorder().record_millionths(ratio.millionths());
    }
}

/// What is written of requests beside their spans.
pub(super) fn trail_terms(config: &Config) -> trail::Terms {
    let TelemetryConfig { access_log, slow_request, .. } = &config.telemetry;
    trail::Terms { access_log: *access_log, slow_request: slow_request.on().copied() }
}

/// What one request may take.
pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        max_body_size: config.server.max_body_size.bytes(),
        request_timeout: config.server.request_timeout,
        heavy_work: cores(),
    }
}

/// What holds for all models and may change.
pub(super) fn terms(config: &Config) -> Terms {
    Terms {
        required: config.models.required.clone(),
        drain_timeout: config.models.drain_timeout,
        keep_previous: config.models.keep_previous,
        idle_ttl: config.lifecycle.idle_ttl,
        memory_budget: config.models.memory_budget.get(),
        reconcile_interval: config.models.reconcile_interval,
        load_attempts: config.models.load_attempts,
        load_backoff: config.models.load_backoff,
    }
}

/// What an environment says of object stores, by the names that their clients know.
pub(super) fn store_options(environment: &[(OsString, OsString)]) -> Vec<(String, String)> {
    let known = ["AWS_", "GOOGLE_", "AZURE_"];
    let texts = environment
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?.to_owned())));
    let of_stores = texts.filter(|(name, _)| known.iter().any(|known| name.starts_with(known)));
    of_stores.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
}
