//! Changes of models, as spans.

use std::time::SystemTime;

use super::context::{Context, Parent};
use super::recorder::Recorder;
use super::span::{Attribute, Place, Span, cut};

/// A change of a model that has ended.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its id.
    pub id: String,
    /// What it does, such as `load`.
    pub operation: &'static str,
    /// The model.
    pub model: String,
    /// The `traceparent` of what has asked for it.
    pub origin: Option<String>,
    /// When it began, and when it ended.
    pub time: (SystemTime, SystemTime),
    /// What it was made of, in order.
    pub phases: Vec<Phase>,
    /// Why it failed, where it did.
    pub failure: Option<String>,
}

/// A part of a change.
#[derive(Debug, Clone)]
pub struct Phase {
    /// What was done, in words or as the state of the version.
    pub what: String,
    /// The version that it was done with, where it was one.
    pub version: Option<u64>,
    /// When it began. It ended when the next with the same version did, or with the change.
    pub began: SystemTime,
    /// Whether it is the end of what was done with the version, and takes no time.
    pub is_end: bool,
}

impl Recorder {
    /// Records a change with its phases. What the server does by itself is rare, and always recorded.
    pub fn record_change(&self, change: Change) {
        let origin = change.origin.as_ref().and_then(|text| Context::read(text.as_bytes()));
        let parent = origin.map(|context| Parent { context, state: None });
        let Some(place) = self.begin_rare(parent.as_ref()) else { return };
        // It is this program that has asked.
        let place = Place { is_remote: false, ..place };
        for (number, phase) in change.phases.iter().enumerate().filter(|(_, phase)| !phase.is_end) {
            let mut later = change.phases[number + 1..].iter();
            let next = later.find(|next| next.version == phase.version);
            let ended = next.map_or(change.time.1, |next| next.began);
            self.record_phase(&place, phase, ended);
        }
        self.record(Span {
            place,
            name: change.operation.to_owned(),
            serves: false,
            time: change.time,
            attributes: vec![
                ("onward.model.name", change.model.into()),
                ("onward.operation.id", change.id.into()),
            ],
            failure: change.failure.map(|why| cut(why.trim_end().to_owned())),
        });
    }

    fn record_phase(&self, whole: &Place, phase: &Phase, ended: SystemTime) {
        let Some(place) = self.within(whole) else { return };
        let (name, rest) = phase.what.split_once(' ').unwrap_or((&phase.what, ""));
        let mut attributes = Vec::new();
        if let Some(version) = phase.version {
            attributes.push(("onward.model.version", Attribute::from(version.to_string())));
        }
        if !rest.is_empty() {
            attributes.push(("onward.operation.step", rest.to_owned().into()));
        }
        self.record(Span {
            place,
            // What has few values, as OpenTelemetry wants it.
            name: name.to_ascii_lowercase(),
            serves: false,
            time: (phase.began, ended),
            attributes,
            failure: None,
        });
    }
}
