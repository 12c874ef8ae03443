//! Prometheus metrics.
//!
//! Counters and histograms are kept as requests end; everything that is a state is read from the
//! core at the moment of a scrape, so that no gauge outlives what it tells of.

mod names;
mod scrape;
mod versions;

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, IntCounterVec, Opts, Registry, TextEncoder};

use crate::lifecycle::{Event, EventStream, HealthRegistry, LifecycleManager, ResourceManager};
use crate::model::{ModelLifecycleManager, ModelObserver, VersionId, VersionObserver};
use versions::VersionMetrics;

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is read at a scrape.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The application.
    pub lifecycle: Arc<LifecycleManager>,
    /// Its checks.
    pub health: HealthRegistry,
    /// Its resources.
    pub resources: Arc<ResourceManager>,
    /// Its models.
    pub models: ModelLifecycleManager,
}

/// One server's metrics. There is no global registry: two servers fit in one process.
#[derive(Debug)]
pub struct Metrics {
    kept: Registry,
    versions: Arc<VersionMetrics>,
    transitions: IntCounterVec,
    swaps: IntCounterVec,
    reloads: IntCounterVec,
}

impl Metrics {
    /// Metrics that are all zero.
    pub fn new() -> Self {
        let kept = Registry::new();
        let versions = Arc::new(VersionMetrics::new(&kept));
        let transitions = counters(&kept, &names::APPLICATION_TRANSITIONS_TOTAL, &["to"]);
        let swaps = counters(&kept, &names::MODEL_CURRENT_CHANGES_TOTAL, &["model"]);
        let reloads = counters(&kept, &names::CONFIGURATION_RELOADS_TOTAL, &["result"]);
        Self { kept, versions, transitions, swaps, reloads }
    }

    /// Counts events for ever. Cancel safe.
    pub async fn count_events(&self, mut stream: EventStream) {
        loop {
            // What was missed is not counted; the bus keeps far more than a burst.
            if let Ok(record) = stream.recv().await {
                self.count(&record.event);
            }
        }
    }

    /// The text exposition of everything.
    pub fn render(&self, observed: &Observed) -> String {
        let mut families: Vec<MetricFamily> = self.kept.gather();
        families.extend(scrape::gather(observed));
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        // Encoding fails on a family without metrics, which a registry never gives.
        TextEncoder::new().encode(&families, &mut text).expect("gathered families are complete");
        String::from_utf8(text).expect("the exposition format is UTF-8")
    }

    fn count(&self, event: &Event) {
        match event {
            Event::Application { to, .. } => {
                self.transitions.with_label_values(&[to.name()]).inc();
            }
            Event::ModelSwapped { model, .. } => {
                self.swaps.with_label_values(&[model.as_str()]).inc();
            }
            Event::Configuration { detail, .. } => {
                let result = if detail.is_empty() { "success" } else { "failure" };
                self.reloads.with_label_values(&[result]).inc();
            }
            Event::Health { .. }
            | Event::Resource { .. }
            | Event::ModelVersion { .. }
            | Event::Operation { .. }
            | Event::ModelTraffic { .. }
            | Event::ModelDecision { .. }
            | Event::ModelEvicted { .. } => {}
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelObserver for Metrics {
    fn version(&self, id: &VersionId) -> Box<dyn VersionObserver> {
        Box::new(versions::OneVersion::begin(&self.versions, id))
    }
}

fn counters(registry: &Registry, name: &names::Name, labels: &[&str]) -> IntCounterVec {
    let counters = IntCounterVec::new(opts(name), labels).expect("names and labels are valid");
    register(registry, counters)
}

fn opts(name: &names::Name) -> Opts {
    Opts::new(name.name, name.help)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("names are unique");
    collector
}
