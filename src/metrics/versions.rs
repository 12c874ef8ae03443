//! Metrics of requests, by model version. A version's series end with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Registry};

use super::{counters, names, register};
use crate::inference::Timings;
use crate::model::{Outcome, VersionId, VersionObserver};

/// From 50 microseconds to 30 seconds.
const BUCKETS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 10.0, 30.0,
];

#[derive(Debug)]
pub(super) struct VersionMetrics {
    requests: IntCounterVec,
    total: HistogramVec,
    queue: HistogramVec,
    compute: HistogramVec,
    /// How many lives of a version use its series: two while it is loaded anew.
    users: Mutex<HashMap<VersionId, usize>>,
}

impl VersionMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let labels = &["model", "version", "outcome"];
        Self {
            requests: counters(registry, &names::INFERENCE_REQUESTS_TOTAL, labels),
            total: histograms(registry, &names::INFERENCE_REQUEST_DURATION_SECONDS),
            queue: histograms(registry, &names::INFERENCE_QUEUE_DURATION_SECONDS),
            compute: histograms(registry, &names::INFERENCE_COMPUTE_DURATION_SECONDS),
            users: Mutex::default(),
        }
    }

    /// Forgets the series of a version that nobody uses any more.
    fn remove(&self, id: &VersionId) {
        let (model, version) = (id.model.as_str(), id.version.to_string());
        let labels = &[model, &version];
        for histogram in [&self.total, &self.queue, &self.compute] {
            // A series that was never there is as good as removed.
            histogram.remove_label_values(labels).ok();
        }
        for outcome in Outcome::ALL {
            self.requests.remove_label_values(&[model, &version, outcome.name()]).ok();
        }
    }

    fn users(&self) -> MutexGuard<'_, HashMap<VersionId, usize>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn histograms(registry: &Registry, name: &names::Name) -> HistogramVec {
    let opts = HistogramOpts::new(name.name, name.help).buckets(BUCKETS.to_vec());
    let histograms = HistogramVec::new(opts, &["model", "version"]);
    register(registry, histograms.expect("names and labels are valid"))
}

/// The series of one version, looked up once.
pub(super) struct OneVersion {
    metrics: Arc<VersionMetrics>,
    id: VersionId,
    requests: [IntCounter; Outcome::ALL.len()],
    total: Histogram,
    queue: Histogram,
    compute: Histogram,
}

impl OneVersion {
    pub(super) fn begin(metrics: &Arc<VersionMetrics>, id: &VersionId) -> Self {
        let (model, version) = (id.model.as_str(), id.version.to_string());
        let labels = &[model, version.as_str()];
        let mut users = metrics.users();
        *users.entry(id.clone()).or_default() += 1;
        let requests = Outcome::ALL.map(|outcome| {
            metrics.requests.with_label_values(&[model, version.as_str(), outcome.name()])
        });
        let total = metrics.total.with_label_values(labels);
        let queue = metrics.queue.with_label_values(labels);
        let compute = metrics.compute.with_label_values(labels);
        drop(users);
        Self { metrics: Arc::clone(metrics), id: id.clone(), requests, total, queue, compute }
    }
}

impl VersionObserver for OneVersion {
    fn request(&self, outcome: Outcome, total: Duration, timings: Option<Timings>) {
        let position = Outcome::ALL.iter().position(|known| *known == outcome);
        self.requests[position.expect("ALL has every outcome")].inc();
        self.total.observe(total.as_secs_f64());
        if let Some(timings) = timings {
            self.queue.observe(timings.queue.as_secs_f64());
            self.compute.observe(timings.compute.as_secs_f64());
        }
    }
}

impl Drop for OneVersion {
    fn drop(&mut self) {
        let mut users = self.metrics.users();
        let left = users.get_mut(&self.id).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            users.remove(&self.id);
            // Under the lock, so that a life that begins now gets series that stay.
            self.metrics.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, TextEncoder};

    use super::*;
    use crate::model::{ModelName, Version};

    #[test]
    fn series_last_as_long_as_the_last_life_of_their_version() {
        let registry = Registry::new();
        let metrics = Arc::new(VersionMetrics::new(&registry));
        let model = ModelName::new("m").unwrap();
        let id = VersionId { model, version: Version::new(1).unwrap() };
        let text = || {
            let mut text = Vec::new();
            TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        let old = OneVersion::begin(&metrics, &id);
        old.request(Outcome::Success, Duration::from_millis(1), Some(Timings::default()));
        let new = OneVersion::begin(&metrics, &id);
        drop(old);
        let counted =
            "onward_inference_requests_total{model=\"m\",outcome=\"success\",version=\"1\"} 1";
        assert!(text().contains(counted), "{}", text());
        drop(new);
        assert!(!text().contains("model=\"m\""), "{}", text());
    }
}
