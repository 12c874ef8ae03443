//! Spans as the messages of OpenTelemetry.

use std::time::{SystemTime, UNIX_EPOCH};

use super::proto::ExportTraceServiceRequest;
use super::proto::Resource;
use super::proto::any_value::Value;
use super::proto::span::SpanKind;
use super::proto::status::StatusCode;
use super::proto::{AnyValue, InstrumentationScope, KeyValue};
use super::proto::{ResourceSpans, ScopeSpans, Span as Message, Status};
use crate::trail::{Attribute, Span};

/// Of a span's flags: it is recorded; whether its parent is another program's is known; it is.
const SAMPLED: u32 = 1;
const REMOTE_IS_KNOWN: u32 = 1 << 8;
const IS_REMOTE: u32 = 1 << 9;

/// Writes what all spans of this life of the server have in common.
pub(super) struct Encoder {
    resource: Resource,
}

impl Encoder {
    pub(super) fn new(service: &str, instance: &str) -> Self {
        let attributes = [
            ("service.name", service),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", instance),
        ];
        let attributes = attributes.map(|(key, text)| pair(key, Value::StringValue(text.into())));
        Self { resource: Resource { attributes: attributes.to_vec() } }
    }

    pub(super) fn message(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let spans = spans.into_iter().map(Message::from).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        let resource = Some(self.resource.clone());
        let resource_spans = ResourceSpans { resource, scope_spans };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
    }
}

impl From<Span> for Message {
    fn from(span: Span) -> Self {
        let (kind, (from, to)) =
            (if span.serves { SpanKind::Server } else { SpanKind::Internal }, span.time);
        let remote = if span.place.is_remote { IS_REMOTE } else { 0 };
        let parent = span.place.parent.map(|parent| parent.bytes().to_vec());
        let attributes = span.attributes.into_iter();
        let failed = |message| Status { message, code: StatusCode::Error.into() };
        Self {
            trace_id: span.place.trace.bytes().to_vec(),
            span_id: span.place.span.bytes().to_vec(),
            trace_state: span.place.state.unwrap_or_default(),
            parent_span_id: parent.unwrap_or_default(),
            flags: SAMPLED | REMOTE_IS_KNOWN | remote,
            name: span.name,
            kind: kind.into(),
            start_time_unix_nano: nanoseconds(from),
            end_time_unix_nano: nanoseconds(to),
            attributes: attributes.map(|(key, value)| pair(key, value.into())).collect(),
            status: span.failure.map(failed),
        }
    }
}

impl From<Attribute> for Value {
    fn from(attribute: Attribute) -> Self {
        match attribute {
            Attribute::Text(text) => Self::StringValue(text.into_string()),
            Attribute::Number(number) => Self::IntValue(number),
        }
    }
}

fn pair(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value }
}

fn nanoseconds(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
