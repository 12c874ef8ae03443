//! The lines of the log that requests have.

use std::time::Duration;

use tracing::{info, warn};

use super::request::{Carrier, Course, Notes};

/// What a request's own line is logged under, and that of one that was slow.
const ACCESS: &str = "onward::access";
const SLOW: &str = "onward::slow";

/// What both lines tell.
struct Told<'a> {
    protocol: &'static str,
    method: &'a str,
    status: Option<u16>,
    outcome: &'static str,
    code: Option<&'a str>,
    request_id: Option<&'a str>,
    trace_id: Option<String>,
    span_id: Option<String>,
    model: Option<&'a str>,
    version: Option<&'a str>,
}

impl<'a> Told<'a> {
    fn of(course: &'a Course, notes: &'a Notes) -> Self {
        let ids = course.ids();
        let model = notes.version.as_ref().map(|version| &version.model).or(notes.model.as_ref());
        let text = |bytes: &'a bytes::Bytes| str::from_utf8(bytes).ok();
        Self {
            protocol: match course.arriving.carrier {
                Carrier::Http => "http",
                Carrier::Grpc => "grpc",
            },
            method: &course.arriving.method,
            status: notes.status,
            outcome: notes.outcome(),
            code: notes.failure.as_deref(),
            request_id: notes.id.as_ref().and_then(text),
            trace_id: ids.trace(),
            span_id: ids.span(),
            model: model.and_then(text),
            version: notes.version.as_ref().and_then(|version| text(&version.version)),
        }
    }
}

impl Notes {
    /// What became of it, in a word.
    pub(super) fn outcome(&self) -> &'static str {
        match (self.status, &self.failure) {
            (None, _) => "abandoned",
            (Some(_), None) => "answered",
            (Some(_), Some(_)) => "refused",
        }
    }
}

/// Writes the line that every request has.
pub(super) fn access(course: &Course, notes: &Notes, took: Duration) {
    let told = Told::of(course, notes);
    info!(
        target: ACCESS,
        protocol = told.protocol, method = told.method, route = notes.route,
        path = course.arriving.path, status = told.status, outcome = told.outcome,
        code = told.code, duration_ms = milliseconds(took), request_id = told.request_id,
        trace_id = told.trace_id, span_id = told.span_id, model = told.model,
        version = told.version, client = %course.arriving.peer, principal = notes.who,
        request_bytes = course.arriving.bytes, response_bytes = notes.bytes, "request answered"
    );
}

/// Writes the line that one has which took long: where its time went.
pub(super) fn slow(course: &Course, notes: &Notes, took: Duration) {
    let told = Told::of(course, notes);
    let timings = notes.timings.as_ref();
    let gathering = timings.and_then(|timings| timings.gathering).unwrap_or_default();
    let queue = timings.map(|timings| milliseconds(timings.queue.saturating_sub(gathering)));
    let compute = timings.map(|timings| milliseconds(timings.compute));
    let elsewhere =
        timings.map(|timings| milliseconds(took.saturating_sub(timings.queue + timings.compute)));
    warn!(
        target: SLOW,
        protocol = told.protocol, method = told.method, route = notes.route,
        path = course.arriving.path, status = told.status, outcome = told.outcome,
        code = told.code, duration_ms = milliseconds(took), queue_ms = queue,
        batch_ms = timings.map(|_| milliseconds(gathering)), compute_ms = compute,
        elsewhere_ms = elsewhere, requests_of_run = timings.map(|timings| timings.requests),
        request_id = told.request_id, trace_id = told.trace_id, span_id = told.span_id,
        model = told.model, version = told.version, "request was slow"
    );
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
