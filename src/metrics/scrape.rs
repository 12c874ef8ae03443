//! States, read when they are asked for.

use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Registry};

use super::{Observed, counters, names, opts, register};
use crate::lifecycle::{AppState, CheckStatus};
use crate::model::{ModelReport, ResponseCacheReport, StateKind, VersionReport};

/// The families of everything that is a state now.
pub(super) fn gather(observed: &Observed) -> Vec<MetricFamily> {
    // Made for this scrape only: two scrapes at once never see each other's half.
    let registry = Registry::new();
    application(&registry, observed);
    health(&registry, observed);
    models(&registry, &observed.models.reports());
    response_cache(&registry, observed.models.response_cache());
    registry.gather()
}

fn application(registry: &Registry, observed: &Observed) {
    let lifecycle = &observed.lifecycle;
    let build = gauges(registry, &names::BUILD_INFO, &["version"]);
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let state = gauges(registry, &names::APPLICATION_STATE, &["state"]);
    for known in AppState::ALL {
        let is_now = lifecycle.state() == known;
        state.with_label_values(&[known.name()]).set(i64::from(is_now));
    }
    let uptime = lifecycle.process_uptime().as_secs_f64();
    seconds(registry, &names::PROCESS_UPTIME_SECONDS, &[]).with_label_values(NO_LABELS).set(uptime);
    let running = lifecycle.running_uptime().unwrap_or_default().as_secs_f64();
    seconds(registry, &names::RUNNING_UPTIME_SECONDS, &[])
        .with_label_values(NO_LABELS)
        .set(running);
}

const NO_LABELS: &[&str] = &[];

fn health(registry: &Registry, observed: &Observed) {
    let checks = gauges(registry, &names::HEALTH_CHECK_PASSING, &["check", "kind"]);
    for report in observed.health.checks() {
        let labels = &[report.name.as_str(), report.kind.name()];
        let passing = report.status == CheckStatus::Passing;
        checks.with_label_values(labels).set(i64::from(passing));
    }
    let ready = gauges(registry, &names::RESOURCE_READY, &["resource"]);
    for report in observed.resources.reports() {
        let is_ready = report.state.is_live();
        ready.with_label_values(&[report.name.as_str()]).set(i64::from(is_ready));
    }
}

fn response_cache(registry: &Registry, report: ResponseCacheReport) {
    for (name, value) in [
        (&names::RESPONSE_CACHE_ANSWERS, report.answers),
        (&names::RESPONSE_CACHE_BYTES, report.bytes),
        (&names::RESPONSE_CACHE_CAPACITY_BYTES, report.capacity),
    ] {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        gauges(registry, name, &[]).with_label_values(NO_LABELS).set(value);
    }
}

struct ModelGauges {
    current: IntGaugeVec,
    state: IntGaugeVec,
    load: GaugeVec,
    instances: IntGaugeVec,
    in_flight: IntGaugeVec,
    queue_depth: IntGaugeVec,
    queue_capacity: IntGaugeVec,
    cache_hits: IntCounterVec,
    cache_misses: IntCounterVec,
}

fn models(registry: &Registry, reports: &[ModelReport]) {
    let version = &["model", "version"];
    let gauges = ModelGauges {
        current: gauges(registry, &names::MODEL_CURRENT_VERSION, &["model"]),
        state: gauges(registry, &names::MODEL_VERSION_STATE, &["model", "version", "state"]),
        load: seconds(registry, &names::MODEL_LOAD_DURATION_SECONDS, version),
        instances: gauges(registry, &names::MODEL_INSTANCES, version),
        in_flight: gauges(registry, &names::INFERENCE_IN_FLIGHT, version),
        queue_depth: gauges(registry, &names::INFERENCE_QUEUE_DEPTH, version),
        queue_capacity: gauges(registry, &names::INFERENCE_QUEUE_CAPACITY, version),
        cache_hits: counters(registry, &names::RESPONSE_CACHE_HITS_TOTAL, version),
        cache_misses: counters(registry, &names::RESPONSE_CACHE_MISSES_TOTAL, version),
    };
    for model in reports {
        if let Some(current) = model.current {
            let number = i64::try_from(current.number()).unwrap_or(i64::MAX);
            gauges.current.with_label_values(&[model.name.as_str()]).set(number);
        }
        for version in &model.versions {
            gauges.tell(model.name.as_str(), version);
        }
    }
}

impl ModelGauges {
    /// Adds one life of a version; while it is loaded anew, both lives add up.
    fn tell(&self, model: &str, report: &VersionReport) {
        // What is gone has no series.
        if report.state == StateKind::Unloaded {
            return;
        }
        let version = report.version.to_string();
        self.state.with_label_values(&[model, &version, report.state.name()]).set(1);
        let Some(serving) = &report.serving else {
            return;
        };
        let labels = &[model, version.as_str()];
        if let Some(load) = report.load_duration() {
            self.load.with_label_values(labels).set(load.as_secs_f64());
        }
        self.instances.with_label_values(labels).add(number(serving.instances));
        let in_flight = i64::try_from(serving.in_flight).unwrap_or(i64::MAX);
        self.in_flight.with_label_values(labels).add(in_flight);
        self.queue_depth.with_label_values(labels).add(number(serving.queue_depth));
        self.queue_capacity.with_label_values(labels).add(number(serving.queue_capacity));
        if let Some(usage) = &serving.response_cache {
            self.cache_hits.with_label_values(labels).inc_by(usage.hits.count);
            self.cache_misses.with_label_values(labels).inc_by(usage.misses.count);
        }
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn gauges(registry: &Registry, name: &names::Name, labels: &[&str]) -> IntGaugeVec {
    let gauges = IntGaugeVec::new(opts(name), labels).expect("names and labels are valid");
    register(registry, gauges)
}

fn seconds(registry: &Registry, name: &names::Name, labels: &[&str]) -> GaugeVec {
    let gauges = GaugeVec::new(opts(name), labels).expect("names and labels are valid");
    register(registry, gauges)
}
