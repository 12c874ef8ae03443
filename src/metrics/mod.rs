//! Prometheus metrics.
//!
//! What requests do is counted by the core and the interfaces as they end, and read at the moment of a
//! scrape, as is everything that is a state: nothing here is on the way of a request, and no gauge outlives
//! what it tells of. Kept here are only counts of events.

mod events;
mod interfaces;
mod names;
mod page;
mod scrape;
mod versions;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus::TextEncoder;

pub use interfaces::{GrpcMethod, HttpRoute, Interfaces, SpanCounts};

use crate::lifecycle::{EventStream, HealthRegistry, LifecycleManager, ResourceManager};
use crate::model::{ModelLifecycleManager, ModelObserver, UsageReader, VersionId};
use events::EventCounts;
use names::{GROUPS, TRITON};
use page::Page;
use versions::Versions;

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is read at a scrape.
pub struct Observed {
    /// The application.
    pub lifecycle: Arc<LifecycleManager>,
    /// Its checks.
    pub health: HealthRegistry,
    /// Its resources.
    pub resources: Arc<ResourceManager>,
    /// Its models.
    pub models: ModelLifecycleManager,
    /// What has come over its interfaces.
    pub interfaces: Box<dyn Fn() -> Interfaces + Send + Sync>,
    /// The version of the engine.
    pub engine_version: String,
    /// When the process was started.
    pub started: SystemTime,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("models", &self.models).finish_non_exhaustive()
    }
}

/// One server's metrics. There is no global registry: two servers fit in one process.
#[derive(Debug, Default)]
pub struct Metrics {
    events: EventCounts,
    versions: Arc<Versions>,
    triton_names: bool,
}

impl Metrics {
    /// Metrics that are all zero; with those of Triton's names too, or not.
    pub fn new(triton_names: bool) -> Self {
        Self { triton_names, ..Self::default() }
    }

    /// Counts events for ever. Cancel safe.
    pub async fn count_events(&self, mut stream: EventStream) {
        loop {
            match stream.recv().await {
                Ok(record) => self.events.count(&record.event),
                Err(missed) => self.events.miss(missed.count),
            }
        }
    }

    /// The text exposition of everything.
    pub fn render(&self, observed: &Observed) -> String {
        let mut page = Page::default();
        // Looked for before: what comes meanwhile is kept.
        let mut forgotten = self.events.models();
        let known = scrape::tell(&mut page, observed, self.triton_names);
        forgotten.retain(|model| !known.contains(model.as_str()));
        self.events.forget(&forgotten);
        for (id, totals) in self.versions.totals() {
            totals.tell(&mut page, &id);
            if self.triton_names {
                totals.tell_as_triton(&mut page, &id);
            }
        }
        let mut families = self.events.gather();
        families.extend(page.families());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        // Encoding fails on a family without metrics, which there is none of.
        let text = TextEncoder::new().encode_to_string(&families);
        let mut text = text.expect("gathered families are complete");
        let names = GROUPS.iter().flat_map(|(_, names)| *names);
        let triton = TRITON.iter().filter(|_| self.triton_names);
        let is_told =
            |name: &str| families.binary_search_by(|family| family.name().cmp(name)).is_ok();
        let missing = names.chain(triton).filter(|name| !is_told(name.name));
        missing.for_each(|name| page::head(&mut text, name));
        text
    }
}

impl ModelObserver for Metrics {
    fn version(&self, id: &VersionId, usage: UsageReader) -> crate::model::Observed {
        Box::new(self.versions.begin(id, usage))
    }
}

#[cfg(test)]
mod tests;
