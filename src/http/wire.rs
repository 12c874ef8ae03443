//! Wire types that several answers share, and how the core's words are written.

use std::time::{Duration, SystemTime};

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use crate::lifecycle::CheckReport;
use crate::oip::Parameter;

/// The type of every JSON answer. Clients compare it literally, so it has no charset.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A JSON answer.
pub(super) fn json(body: &impl Serialize) -> Response {
    let mut text =
        serde_json::to_vec(body).expect("wire types have no maps with keys of other types");
    // For who reads it in a terminal.
    text.push(b'\n');
    ([(CONTENT_TYPE, JSON)], text).into_response()
}

/// A moment as in RFC 3339, in UTC with milliseconds; one that it has no form for as the last it has.
pub(super) fn time(moment: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_SECOND);
    let moment = moment.clamp(SystemTime::UNIX_EPOCH, last);
    humantime::format_rfc3339_millis(moment).to_string()
}

/// The last second of the year 9999, after 1970 began.
const LAST_SECOND: u64 = 253_402_300_799;

/// A duration as a number of milliseconds.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A parameter's value.
pub(super) fn parameter(value: Value) -> Parameter {
    match value {
        Value::Bool(value) => Parameter::Bool(value),
        Value::String(text) => Parameter::Text(text),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => Parameter::Uint(number),
            (_, Some(number), _) => Parameter::Int(number),
            (.., Some(number)) => Parameter::Double(number),
            _ => Parameter::Other(number.to_string()),
        },
        other => Parameter::Other(other.to_string()),
    }
}

/// A health check.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    name: String,
    kind: &'static str,
    critical: bool,
    status: &'static str,
    since: String,
    last_error: Option<String>,
    consecutive_failures: u32,
    duration_ms: f64,
    running_ms: Option<f64>,
}

impl From<CheckReport> for Check {
    fn from(report: CheckReport) -> Self {
        Self {
            name: report.name,
            kind: report.kind.name(),
            critical: report.critical,
            status: report.status.name(),
            since: time(report.since),
            last_error: report.last_error,
            consecutive_failures: report.consecutive_failures,
            duration_ms: milliseconds(report.duration),
            running_ms: report.running_for.map(milliseconds),
        }
    }
}
