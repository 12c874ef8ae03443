//! Events as CloudEvents: the one form in which they leave the process.
//!
//! Structured mode of [CloudEvents 1.0](https://github.com/cloudevents/spec), in JSON, with the
//! extension attribute `sequence`, and with `traceparent` where the request that has asked for what happened
//! is part of a trace.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use crate::lifecycle::{Event, EventRecord};

/// The media type of one event.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Writes the events of one life of the server.
#[derive(Debug, Clone)]
pub struct CloudEvents {
    instance: Arc<str>,
    source: Arc<str>,
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    r#type: String,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    datacontenttype: &'static str,
    /// Sequence numbers are texts in the extension that has them.
    sequence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    data: Value,
}

impl CloudEvents {
    /// Events of the life called `instance`, which no other life of the server shares.
    pub fn new(instance: &str) -> Self {
        Self { instance: Arc::from(instance), source: Arc::from(format!("/onward/{instance}")) }
    }

    /// The name of this life.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// An event's id: no other event has the same, also not of another life.
    pub fn id(&self, sequence: u64) -> String {
        format!("{}-{sequence}", self.instance)
    }

    /// The sequence number in an id that this life gave; `None` for any other text.
    pub fn sequence(&self, id: &str) -> Option<u64> {
        let (instance, sequence) = id.rsplit_once('-')?;
        if instance == &*self.instance { sequence.parse().ok() } else { None }
    }

    /// The event as JSON.
    pub fn value(&self, record: &EventRecord) -> Value {
        let event = CloudEvent {
            specversion: "1.0",
            id: self.id(record.sequence),
            source: &self.source,
            r#type: format!("onward.{}", record.event.kind()),
            time: humantime::format_rfc3339_millis(record.at).to_string(),
            subject: subject(&record.event),
            datacontenttype: "application/json",
            sequence: record.sequence.to_string(),
            traceparent: traceparent(&record.event),
            data: data(&record.event),
        };
        serde_json::to_value(event).expect("an event has no maps with keys of other types")
    }
}

/// The trace of what has asked for what happened, where it has one.
pub fn traceparent(event: &Event) -> Option<&str> {
    match event {
        Event::Operation { origin, .. } => origin.as_deref(),
        _ => None,
    }
}

/// What the event is about; `None` where it is about the application as a whole.
fn subject(event: &Event) -> Option<String> {
    match event {
        Event::Application { .. } | Event::Configuration { .. } | Event::Audit { .. } => None,
        Event::Health { check, kind, .. } => Some(format!("checks/{kind}/{check}")),
        Event::Resource { resource, .. } => Some(format!("resources/{resource}")),
        Event::ModelVersion { model, version, .. }
        | Event::ModelDecision { model, version, .. } => {
            Some(format!("models/{model}/versions/{version}"))
        }
        Event::ModelSwapped { model, .. }
        | Event::ModelTraffic { model, .. }
        | Event::ModelEvicted { model, .. } => Some(format!("models/{model}")),
        Event::Operation { id, .. } => Some(format!("operations/{id}")),
    }
}

fn data(event: &Event) -> Value {
    match event {
        Event::Application { from, to, reason } => {
            json!({ "from": from.name(), "to": to.name(), "reason": reason })
        }
        Event::Health { check, kind, passing, detail } => {
            json!({ "check": check, "kind": kind.name(), "passing": passing, "detail": detail })
        }
        Event::Resource { resource, state, detail } => {
            json!({ "resource": resource, "state": state.name(), "detail": detail })
        }
        Event::ModelVersion { model, version, from, to, detail } => {
            let version = version.to_string();
            json!({ "model": model, "version": version, "from": from, "to": to, "detail": detail })
        }
        Event::ModelSwapped { model, from, to } => {
            let text = |version: &Option<u64>| version.map(|version| version.to_string());
            json!({ "model": model, "from": text(from), "to": text(to) })
        }
        Event::Operation { id, operation, model, state, detail, .. } => json!({
            "id": id, "operation": operation, "model": model, "state": state, "detail": detail,
        }),
        Event::ModelDecision { model, version, decision, figures } => json!({
            "model": model, "version": version.to_string(), "decision": decision, "figures": figures,
        }),
        Event::ModelEvicted { model, reason, bytes } => {
            json!({ "model": model, "reason": reason, "bytes": bytes })
        }
        Event::ModelTraffic { model, rules } => json!({ "model": model, "rules": rules }),
        Event::Configuration { changed, ignored, detail } => {
            json!({ "changed": changed, "ignored": ignored, "detail": detail })
        }
        Event::Audit { who, method, path, model, peer, request_id, status, untold } => json!({
            "who": who, "method": method, "path": path, "model": model, "peer": peer,
            "request_id": request_id, "status": status, "untold": untold,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn an_event_is_a_cloud_event() {
        let model = "digits".to_owned();
        let event = Event::ModelSwapped { model, from: None, to: Some(2) };
        let at = UNIX_EPOCH + Duration::from_millis(1_500);
        let events = CloudEvents::new("a1");
        let expected = json!({
            "specversion": "1.0",
            "id": "a1-7",
            "source": "/onward/a1",
            "type": "onward.model_swapped",
            "time": "1970-01-01T00:00:01.500Z",
            "subject": "models/digits",
            "datacontenttype": "application/json",
            "sequence": "7",
            "data": { "model": "digits", "from": null, "to": "2" },
        });
        assert_eq!(events.value(&EventRecord { sequence: 7, at, event }), expected);
    }

    #[test]
    fn ids_of_another_life_are_known_to_be() {
        let events = CloudEvents::new("a1");
        assert_eq!(events.sequence(&events.id(12)), Some(12));
        assert_eq!(events.sequence("b2-12"), None);
        assert_eq!(events.sequence("12"), None);
        assert_eq!(events.sequence("a1-x"), None);
    }
}
