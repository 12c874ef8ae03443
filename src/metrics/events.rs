//! Counts of events.

use std::collections::{BTreeSet, HashMap};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::names::{self, Described};
use crate::lifecycle::Event;

/// Why a version was taken back.
const CAUSES: [&str; 2] = ["manual", "canary"];

/// How loads of versions end.
const RESULTS: [&str; 2] = ["success", "failure"];

/// What is counted of events as they come.
#[derive(Debug)]
pub(super) struct EventCounts {
    registry: Registry,
    missed: IntCounter,
    transitions: IntCounterVec,
    reloads: IntCounterVec,
    changes: IntCounterVec,
    operations: IntCounterVec,
    models: OfModels,
}

#[derive(Debug)]
struct OfModels {
    loads: IntCounterVec,
    swaps: IntCounterVec,
    rollbacks: IntCounterVec,
    decisions: IntCounterVec,
    evictions: IntCounterVec,
}

impl Default for EventCounts {
    fn default() -> Self {
        let registry = Registry::new();
        let counters = |name: &Described| {
            let opts = Opts::new(name.name, name.help);
            let counters =
                IntCounterVec::new(opts, name.labels).expect("names and labels are valid");
            registry.register(Box::new(counters.clone())).expect("names are unique");
            counters
        };
        let missed = counters(&names::EVENTS_MISSED_TOTAL).with_label_values(NO_LABELS);
        let reloads = counters(&names::CONFIGURATION_RELOADS_TOTAL);
        // What goes from nothing to one has not grown, as far as Prometheus can tell.
        for result in RESULTS {
            reloads.with_label_values(&[result]);
        }
        Self {
            missed,
            reloads,
            transitions: counters(&names::APPLICATION_TRANSITIONS_TOTAL),
            changes: counters(&names::MODEL_CURRENT_CHANGES_TOTAL),
            operations: counters(&names::MODEL_OPERATIONS_TOTAL),
            models: OfModels {
                loads: counters(&names::MODEL_LOADS_TOTAL),
                swaps: counters(&names::MODEL_SWAPS_TOTAL),
                rollbacks: counters(&names::MODEL_ROLLBACKS_TOTAL),
                decisions: counters(&names::MODEL_DECISIONS_TOTAL),
                evictions: counters(&names::MODEL_EVICTIONS_TOTAL),
            },
            registry,
        }
    }
}

const NO_LABELS: &[&str] = &[];

impl EventCounts {
    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// The models that have series.
    pub(super) fn models(&self) -> BTreeSet<String> {
        let mut models = BTreeSet::new();
        self.each(|_, labels| {
            models.insert(labels["model"].to_owned());
        });
        models
    }

    /// Ends the series of these models.
    pub(super) fn forget(&self, models: &BTreeSet<String>) {
        self.each(|counters, labels| {
            if models.contains(labels["model"]) {
                // It was there a moment ago.
                counters.remove(labels).ok();
            }
        });
    }

    /// Each series of a model, by its labels.
    fn each(&self, mut look: impl FnMut(&IntCounterVec, &HashMap<&str, &str>)) {
        let OfModels { loads, swaps, rollbacks, decisions, evictions } = &self.models;
        for counters in [loads, swaps, rollbacks, decisions, evictions, &self.changes] {
            for metric in counters.collect().iter().flat_map(MetricFamily::get_metric) {
                let labels = metric.get_label().iter().map(|label| (label.name(), label.value()));
                look(counters, &labels.collect());
            }
        }
    }

    pub(super) fn miss(&self, count: u64) {
        self.missed.inc_by(count);
    }

    pub(super) fn count(&self, event: &Event) {
        match event {
            Event::Application { to, .. } => {
                self.transitions.with_label_values(&[to.name()]).inc();
            }
            Event::ModelVersion { model, from, to, .. } => {
                self.models.meet(model);
                self.models.moved(model, (from, to));
            }
            Event::ModelSwapped { model, .. } => {
                self.changes.with_label_values(&[model.as_str()]).inc();
            }
            Event::Operation { operation, model, state, .. } if *state != "begun" => {
                self.operations.with_label_values(&[*operation, *state]).inc();
                if *state == "succeeded" {
                    self.models.succeeded(model, operation);
                }
            }
            Event::ModelDecision { model, decision, .. } => self.models.decided(model, decision),
            Event::ModelEvicted { model, .. } => {
                self.models.evictions.with_label_values(&[model.as_str()]).inc();
            }
            Event::Configuration { detail, .. } => {
                let result = if detail.is_empty() { "success" } else { "failure" };
                self.reloads.with_label_values(&[result]).inc();
            }
            Event::Health { .. }
            | Event::Resource { .. }
            | Event::Operation { .. }
            | Event::ModelTraffic { .. }
            | Event::Audit { .. } => {}
        }
    }
}

impl OfModels {
    /// Counts from zero what may happen to a model.
    fn meet(&self, model: &str) {
        for result in RESULTS {
            self.loads.with_label_values(&[model, result]);
        }
        for cause in CAUSES {
            self.rollbacks.with_label_values(&[cause, model]);
        }
        self.swaps.with_label_values(&[model]);
        self.evictions.with_label_values(&[model]);
    }

    fn moved(&self, model: &str, (from, to): (&str, &str)) {
        let result = match (from, to) {
            (_, "FAILED") => "failure",
            ("WARMING", "READY") => "success",
            _ => return,
        };
        self.loads.with_label_values(&[model, result]).inc();
    }

    fn succeeded(&self, model: &str, operation: &str) {
        match operation {
            "swap" => self.swaps.with_label_values(&[model]).inc(),
            "rollback" => self.rollbacks.with_label_values(&["manual", model]).inc(),
            _ => {}
        }
    }

    fn decided(&self, model: &str, decision: &str) {
        if decision == "rolled back" {
            self.rollbacks.with_label_values(&["canary", model]).inc();
        }
        self.decisions.with_label_values(&[&decision.replace(' ', "_"), model]).inc();
    }
}
