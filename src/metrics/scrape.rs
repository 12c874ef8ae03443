//! States, read when they are asked for.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::Observed;
use super::interfaces::Interfaces;
use super::names::{self, Described};
use super::page::{Grain, Page, float};
use crate::lifecycle::{AppState, CheckKind, CheckStatus, ProcessReport};
use crate::model::{
    ModelLifecycleManager, ModelName, ModelReport, ServingReport, StateKind, TrafficReport,
    Unrouted, UnroutedReport, VersionReport, WHOLE,
};

/// The model of requests for models that are unknown. No model can be called so.
const UNKNOWN_MODEL: &str = "/unknown";

/// The states of a version that is loaded, with the names of the phases that they are.
const PHASES: [(StateKind, &str); 4] = [
    (StateKind::Fetching, "fetch"),
    (StateKind::Verifying, "verify"),
    (StateKind::Loading, "load"),
    (StateKind::Warming, "warm_up"),
];

/// Tells everything that is a state now; which models there are.
pub(super) fn tell(
    page: &mut Page,
    observed: &Observed,
    triton_names: bool,
) -> BTreeSet<ModelName> {
    application(page, observed);
    health(page, observed);
    let known = models(page, &observed.models, triton_names);
    response_cache(page, &observed.models);
    interfaces(page, &(observed.interfaces)());
    process(page, &ProcessReport::now(), observed.started);
    known
}

fn application(page: &mut Page, observed: &Observed) {
    let lifecycle = &observed.lifecycle;
    let versions = [observed.engine_version.as_str(), env!("CARGO_PKG_VERSION")];
    page.set(&names::BUILD_INFO, &versions, 1.0);
    for known in AppState::ALL {
        let is_now = lifecycle.state() == known;
        page.set(&names::APPLICATION_STATE, &[known.name()], flag(is_now));
    }
    let uptime = lifecycle.process_uptime().as_secs_f64();
    page.set(&names::PROCESS_UPTIME_SECONDS, &[], uptime);
    let running = lifecycle.running_uptime().unwrap_or_default().as_secs_f64();
    page.set(&names::RUNNING_UPTIME_SECONDS, &[], running);
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn health(page: &mut Page, observed: &Observed) {
    for report in observed.health.checks() {
        let labels = &[report.name.as_str(), report.kind.name()];
        let passing = report.status == CheckStatus::Passing;
        page.set(&names::HEALTH_CHECK_PASSING, labels, flag(passing));
    }
    for kind in CheckKind::ALL {
        let passing = observed.health.verdict(kind).passing;
        page.set(&names::PROBE_PASSING, &[kind.name()], flag(passing));
    }
    for report in observed.resources.reports() {
        page.set(&names::RESOURCE_READY, &[report.name.as_str()], flag(report.state.is_live()));
    }
}

fn response_cache(page: &mut Page, models: &ModelLifecycleManager) {
    let report = models.response_cache();
    page.set(&names::RESPONSE_CACHE_ANSWERS, &[], float(report.answers));
    page.set(&names::RESPONSE_CACHE_BYTES, &[], float(report.bytes));
    page.set(&names::RESPONSE_CACHE_CAPACITY_BYTES, &[], float(report.capacity));
}

fn models(
    page: &mut Page,
    models: &ModelLifecycleManager,
    triton_names: bool,
) -> BTreeSet<ModelName> {
    let reports = models.reports();
    for model in &reports {
        let name = model.name.as_str();
        if let Some(current) = model.current {
            page.set(&names::MODEL_CURRENT_VERSION, &[name], float(current.number()));
        }
        unrouted(page, name, &model.unrouted);
        traffic(page, model);
        for version in &model.versions {
            tell_version(page, name, version);
            if let Some(serving) = version.serving.as_ref().filter(|_| triton_names) {
                let labels = &[name, &version.version.to_string()];
                page.add(&names::NV_PENDING, labels, size(serving.queue_depth));
            }
        }
    }
    unrouted(page, UNKNOWN_MODEL, &models.unrouted());
    let (used, budget) = models.memory();
    page.set(&names::MODEL_MEMORY_USED_BYTES, &[], float(used));
    if let Some(budget) = budget {
        page.set(&names::MODEL_MEMORY_BUDGET_BYTES, &[], float(budget));
    }
    reports.into_iter().map(|model| model.name).collect()
}

/// Requests that no version has got. Those that waited for one were shed.
fn unrouted(page: &mut Page, model: &str, counts: &UnroutedReport) {
    for (reason, count) in Unrouted::ALL.into_iter().zip(counts) {
        let (name, count) = (reason.name(), float(*count));
        match reason {
            Unrouted::Unknown | Unrouted::Unavailable => {
                page.set(&names::INFERENCE_REQUESTS_UNROUTED_TOTAL, &[model, name], count);
            }
            Unrouted::QueueFull | Unrouted::Deadline | Unrouted::Memory => {
                page.set(&names::INFERENCE_REQUESTS_SHED_TOTAL, &[model, name, ""], count);
            }
        }
    }
}

fn traffic(page: &mut Page, model: &ModelReport) {
    let (name, TrafficReport { current, aliases, weights, shadow }) =
        (model.name.as_str(), &model.traffic);
    let all = current.map(|current| (current, WHOLE));
    let weights = if weights.is_empty() { all.as_slice() } else { weights };
    for (version, weight) in weights {
        let labels = &[name, &version.to_string()];
        page.set(&names::MODEL_TRAFFIC_WEIGHT, labels, share(*weight));
    }
    for (alias, version) in aliases {
        let labels = &[alias.as_str(), name];
        page.set(&names::MODEL_ALIAS_VERSION, labels, float(version.number()));
    }
    let Some(shadow) = shadow else { return };
    let (version, tally) = (shadow.version.to_string(), shadow.tally);
    page.set(&names::MODEL_SHADOW_SHARE, &[name, &version], share(shadow.share));
    for (result, count) in [
        ("same", tally.agreed),
        ("different", tally.compared - tally.agreed),
        ("failed", tally.failed),
        ("skipped", tally.skipped),
    ] {
        let labels = &[name, result, &version];
        page.set(&names::MODEL_SHADOW_COMPARISONS_TOTAL, labels, float(count));
    }
}

fn share(hundredths_of_percent: u32) -> f64 {
    f64::from(hundredths_of_percent) / f64::from(WHOLE)
}

/// Adds one life of a version; while it is loaded anew, both lives add up.
fn tell_version(page: &mut Page, model: &str, report: &VersionReport) {
    // What is gone has no series.
    if report.state == StateKind::Unloaded {
        return;
    }
    let version = report.version.to_string();
    page.set(&names::MODEL_VERSION_STATE, &[model, report.state.name(), &version], 1.0);
    let Some(serving) = &report.serving else {
        return;
    };
    let labels = &[model, version.as_str()];
    if let Some(load) = report.load_duration() {
        page.set(&names::MODEL_LOAD_DURATION_SECONDS, labels, load.as_secs_f64());
    }
    for (state, phase) in PHASES {
        if let Some((_, lasted)) = report.phases.iter().find(|(known, _)| *known == state) {
            let labels = &[model, phase, version.as_str()];
            page.set(&names::MODEL_LOAD_PHASE_DURATION_SECONDS, labels, lasted.as_secs_f64());
        }
    }
    tell_serving(page, labels, serving);
}

fn tell_serving(page: &mut Page, labels: &[&str], serving: &ServingReport) {
    let mut numbers: Vec<(&Described, f64)> = vec![
        (&names::MODEL_INSTANCES, size(serving.instances)),
        (&names::INFERENCE_IN_FLIGHT, float(serving.in_flight)),
        (&names::INFERENCE_QUEUE_DEPTH, size(serving.queue_depth)),
        (&names::INFERENCE_QUEUE_CAPACITY, size(serving.queue_capacity)),
        (&names::MODEL_MEMORY_RESERVED_BYTES, float(serving.memory)),
    ];
    if let Some(usage) = &serving.response_cache {
        numbers.push((&names::RESPONSE_CACHE_HITS_TOTAL, float(usage.hits.count)));
        numbers.push((&names::RESPONSE_CACHE_MISSES_TOTAL, float(usage.misses.count)));
    }
    for (name, number) in numbers {
        page.add(name, labels, number);
    }
    if let Some(change) = serving.measured {
        let grown = u64::try_from(change.grown()).unwrap_or_default();
        page.add(&names::MODEL_MEMORY_MEASURED_BYTES, labels, float(grown));
    }
}

fn size(count: usize) -> f64 {
    float(u64::try_from(count).unwrap_or(u64::MAX))
}

fn interfaces(page: &mut Page, interfaces: &Interfaces) {
    for route in &interfaces.http {
        for (status, count) in &route.statuses {
            let labels = &[route.method, route.route, status];
            page.set(&names::HTTP_REQUESTS_TOTAL, labels, float(*count));
        }
        let labels = &[route.method, route.route];
        let durations = (&route.durations, Grain::Fine);
        page.durations(&names::HTTP_REQUEST_DURATION_SECONDS, labels, durations);
    }
    for method in &interfaces.grpc {
        for (code, count) in &method.codes {
            page.set(&names::GRPC_CALLS_TOTAL, &[code, method.method], float(*count));
        }
        let durations = (&method.durations, Grain::Fine);
        page.durations(&names::GRPC_CALL_DURATION_SECONDS, &[method.method], durations);
    }
    page.set(&names::TRACE_SPANS_SENT_TOTAL, &[], float(interfaces.spans.sent));
    for (reason, count) in interfaces.spans.dropped {
        page.set(&names::TRACE_SPANS_DROPPED_TOTAL, &[reason], float(count));
    }
    for (reason, count) in interfaces.lost_lines {
        page.set(&names::LOG_LINES_LOST_TOTAL, &[reason], float(count));
    }
    for (reason, count) in &interfaces.refused {
        page.set(&names::REQUESTS_REFUSED_TOTAL, &[reason], float(*count));
    }
    page.set(&names::REQUESTS_IN_FLIGHT, &[], size(interfaces.in_flight));
    for (listener, open) in &interfaces.connections {
        page.set(&names::CONNECTIONS_OPEN, &[listener], size(*open));
    }
}

fn process(page: &mut Page, process: &ProcessReport, started: SystemTime) {
    let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    page.set(&names::PROCESS_START_TIME_SECONDS, &[], since.as_secs_f64());
    if let Some(cpu) = process.cpu {
        page.set(&names::PROCESS_CPU_SECONDS_TOTAL, &[], cpu.as_secs_f64());
    }
    for (name, number) in [
        (&names::PROCESS_RESIDENT_MEMORY_BYTES, process.resident),
        (&names::PROCESS_VIRTUAL_MEMORY_BYTES, process.virtual_memory),
        (&names::PROCESS_OPEN_FDS, process.open_files),
        (&names::PROCESS_MAX_FDS, process.max_files),
        (&names::PROCESS_THREADS, process.threads),
    ] {
        if let Some(number) = number {
            page.set(name, &[], float(number));
        }
    }
}
