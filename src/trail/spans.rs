//! The spans of a request, made at its end of what was measured on its way.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::recorder::Recorder;
use super::request::{Carrier, Course, Notes};
use super::span::{Attribute, Place, Span};
use crate::inference::Timings;

/// The methods that a span may be named by; all further ones are `_OTHER`, as OpenTelemetry has it.
const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"];

/// The codes of gRPC that are the server's fault.
const FAULTS: [u16; 6] = [2, 4, 12, 13, 14, 15];

type Attributes = Vec<(&'static str, Attribute)>;

/// Writes the parts of a request first, and the request itself at last.
pub(super) fn write(
    recorder: &Recorder,
    (course, place): (&Course, &Place),
    (notes, took): (&Notes, Duration),
) {
    if let Some(timings) = &notes.timings {
        let parts = Parts { recorder, course };
        // An answer that was kept has waited for nothing, and nothing was computed.
        if let Some(admitted) = timings.admitted.filter(|_| notes.cache != Some("hit")) {
            parts.write(place, (timings, admitted));
        }
    }
    let mut attributes = if course.is_message { Vec::new() } else { course.attributes(notes) };
    notes.tell(&mut attributes);
    recorder.record(Span {
        place: place.clone(),
        name: course.name(notes),
        serves: !course.is_message,
        time: (course.wall, course.wall + took),
        attributes,
        failure: course.failure(notes),
    });
}

/// Writes what a run was made of.
struct Parts<'a> {
    recorder: &'a Recorder,
    course: &'a Course,
}

impl Parts<'_> {
    fn write(&self, whole: &Place, (timings, admitted): (&Timings, Instant)) {
        let begun = admitted + timings.queue;
        let gathered = begun - timings.gathering.unwrap_or_default();
        let ended = begun + timings.compute;
        self.part("queue", whole, ((admitted, gathered), Vec::new()));
        let around = timings
            .gathering
            .and_then(|_| self.part("batch", whole, ((gathered, ended), of_batch(timings))));
        let around = around.as_ref().unwrap_or(whole);
        let Some(compute) = self.part("compute", around, ((begun, ended), Vec::new())) else {
            return;
        };
        if timings.input + timings.output > Duration::ZERO {
            let (computing, computed) = (begun + timings.input, ended - timings.output);
            self.part("compute.input", &compute, ((begun, computing), Vec::new()));
            self.part("compute.infer", &compute, ((computing, computed), Vec::new()));
            self.part("compute.output", &compute, ((computed, ended), Vec::new()));
        }
    }

    fn part(
        &self,
        name: &str,
        whole: &Place,
        ((from, to), attributes): ((Instant, Instant), Attributes),
    ) -> Option<Place> {
        let place = self.recorder.within(whole)?;
        self.recorder.record(Span {
            place: place.clone(),
            name: name.to_owned(),
            serves: false,
            time: (self.course.at(from), self.course.at(to)),
            attributes,
            failure: None,
        });
        Some(place)
    }
}

fn of_batch(timings: &Timings) -> Attributes {
    vec![
        ("onward.batch.requests", timings.requests.into()),
        ("onward.batch.entries", timings.entries.into()),
    ]
}

impl Course {
    /// The time of day at a moment of its course.
    fn at(&self, moment: Instant) -> SystemTime {
        match moment.checked_duration_since(self.began) {
            Some(after) => self.wall + after,
            None => self.wall - self.began.duration_since(moment),
        }
    }

    fn method(&self) -> &'static str {
        let known = METHODS.into_iter().find(|known| *known == self.arriving.method);
        known.unwrap_or("_OTHER")
    }

    /// What has few values, as OpenTelemetry wants it.
    fn name(&self, notes: &Notes) -> String {
        match (self.is_message, self.arriving.carrier, notes.route) {
            (true, ..) => "message".to_owned(),
            (_, Carrier::Grpc, route) => route.unwrap_or("unknown").to_owned(),
            (_, Carrier::Http, Some(route)) => format!("{} {route}", self.method()),
            (_, Carrier::Http, None) => self.method().to_owned(),
        }
    }

    /// By the semantic conventions of OpenTelemetry.
    fn attributes(&self, notes: &Notes) -> Attributes {
        let mut attributes: Attributes = match self.arriving.carrier {
            Carrier::Http => {
                let path = self.arriving.path.clone();
                vec![("http.request.method", self.method().into()), ("url.path", path.into())]
            }
            Carrier::Grpc => vec![("rpc.system", "grpc".into())],
        };
        match (self.arriving.carrier, notes.route) {
            (Carrier::Http, Some(route)) => attributes.push(("http.route", route.into())),
            (Carrier::Grpc, Some(route)) => {
                if let Some((service, method)) = route.split_once('/') {
                    attributes.push(("rpc.service", service.into()));
                    attributes.push(("rpc.method", method.into()));
                }
            }
            (_, None) => {}
        }
        if let Some(status) = notes.status {
            let name = match self.arriving.carrier {
                Carrier::Http => "http.response.status_code",
                Carrier::Grpc => "rpc.grpc.status_code",
            };
            attributes.push((name, u32::from(status).into()));
        }
        attributes.push(("client.address", self.arriving.peer.ip().to_string().into()));
        attributes
    }

    /// Why it is a failure of the server, where it is one. A client that has gone is one too: it may be for
    /// how long it was kept waiting.
    fn failure(&self, notes: &Notes) -> Option<String> {
        let Some(status) = notes.status else { return Some("abandoned".to_owned()) };
        let is_fault = match self.arriving.carrier {
            Carrier::Http => status >= 500,
            Carrier::Grpc => FAULTS.contains(&status),
        };
        is_fault.then(|| notes.failure.clone().unwrap_or_default().into_owned())
    }
}

impl Notes {
    fn tell(&self, attributes: &mut Attributes) {
        if let Some(id) = &self.id {
            attributes.push(("onward.request_id", id.clone().into()));
        }
        match (&self.version, &self.model) {
            (Some(version), _) => {
                attributes.push(("onward.model.name", version.model.clone().into()));
                attributes.push(("onward.model.version", version.version.clone().into()));
                attributes.push(("onward.model.digest", version.digest.clone().into()));
            }
            (None, Some(model)) => attributes.push(("onward.model.name", model.clone().into())),
            (None, None) => {}
        }
        if let Some(cache) = self.cache {
            attributes.push(("onward.cache", cache.into()));
        }
        if let Some(code) = self.failure.clone() {
            attributes.push(("error.type", code.into_owned().into()));
        }
    }
}
