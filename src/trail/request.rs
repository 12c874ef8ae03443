//! One request, from its arrival to its end.

use std::borrow::Cow;
use std::fmt;
use std::mem;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::time::Instant;

use super::context::{Context, Parent, SpanId, TraceId};
use super::recorder::Recorder;
use super::span::{Place, cut};
use super::{lines, spans};
use crate::inference::Timings;

/// What there is to be written of requests beside their spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// Whether each has a line in the log.
    pub access_log: bool,
    /// How long one may take that has no line of its own for it.
    pub slow_request: Option<Duration>,
}

/// Begins the trails of requests. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Trails(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    recorder: Recorder,
    terms: ArcSwap<Terms>,
    /// Whether there is anything to write of any request.
    on: AtomicBool,
}

/// What a request came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are known by their names")]
pub enum Carrier {
    Http,
    Grpc,
}

/// A request as it arrives.
#[derive(Debug, Clone)]
pub struct Arriving {
    /// What it came over.
    pub carrier: Carrier,
    /// Its method; of a call of gRPC, that of HTTP.
    pub method: String,
    /// Its path, without a query.
    pub path: String,
    /// The other end of its connection.
    pub peer: SocketAddr,
    /// How many bytes its body has, where its head tells.
    pub bytes: Option<u64>,
}

/// A version that is asked, as the heads of its answers tell it.
#[derive(Debug, Clone)]
pub struct Version {
    /// The model.
    pub model: Bytes,
    /// The version's number.
    pub version: Bytes,
    /// The digest of its files.
    pub digest: Bytes,
}

/// By what a request is found in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ids {
    trace: Option<TraceId>,
    span: Option<SpanId>,
}

/// A request that leaves something behind. Clones are of the same request, which has ended when the last of
/// them is dropped: then its spans and its lines are written.
#[derive(Clone)]
#[must_use = "the request has ended once it is dropped"]
pub struct Trail(Arc<Course>);

/// The request itself.
pub(super) struct Course {
    shared: Arc<Shared>,
    pub(super) arriving: Arriving,
    /// Where its span is, where it has one.
    pub(super) place: Option<Place>,
    /// The context that it came with.
    came_with: Option<Context>,
    is_probe: bool,
    pub(super) is_message: bool,
    pub(super) began: Instant,
    pub(super) wall: SystemTime,
    notes: Mutex<Notes>,
}

/// What was noted of it on its way.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    pub(super) route: Option<&'static str>,
    pub(super) id: Option<Bytes>,
    pub(super) who: Option<String>,
    /// A status of HTTP, or a code of gRPC; none where the client has gone before.
    pub(super) status: Option<u16>,
    pub(super) bytes: Option<u64>,
    /// The code of its error.
    pub(super) failure: Option<Cow<'static, str>>,
    pub(super) model: Option<Bytes>,
    pub(super) version: Option<Version>,
    pub(super) timings: Option<Timings>,
    pub(super) cache: Option<&'static str>,
    pub(super) is_stream: bool,
}

impl Trails {
    /// What begins trails whose spans go to `recorder`.
    pub fn new(recorder: Recorder, terms: Terms) -> Self {
        let trails = Self(Arc::new(Shared { recorder, ..Shared::default() }));
        trails.set(terms);
        trails
    }

    /// Writes so much of requests from now on.
    pub fn set(&self, terms: Terms) {
        let on = self.0.recorder.is_on() || terms != Terms::default();
        self.0.terms.store(Arc::new(terms));
        self.0.on.store(on, Ordering::Relaxed);
    }

    /// What takes the spans.
    pub fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    /// Whether there is anything to write of any request.
    pub fn is_on(&self) -> bool {
        self.0.on.load(Ordering::Relaxed)
    }

    /// The trail of a request that arrives now; `None` where there will be nothing to write of it. Of probes
    /// there is nothing but what their callers record.
    pub fn begin(
        &self,
        (parent, is_probe): (Option<Parent>, bool),
        arriving: impl FnOnce() -> Arriving,
    ) -> Option<Trail> {
        let is_sampled = !is_probe || parent.is_some();
        let place = is_sampled.then(|| self.0.recorder.begin(parent.as_ref())).flatten();
        let has_lines = !is_probe && **self.0.terms.load() != Terms::default();
        if place.is_none() && parent.is_none() && !has_lines {
            return None;
        }
        let mut arriving = arriving();
        let came_with = parent.map(|parent| parent.context);
        let Arriving { method, path, .. } = &mut arriving;
        // Both are the client's, and may be as long as the head of a request.
        (*method, *path) = (cut(mem::take(method)), cut(mem::take(path)));
        let course = Course {
            shared: Arc::clone(&self.0),
            arriving,
            place,
            came_with,
            is_probe,
            is_message: false,
            began: Instant::now(),
            wall: SystemTime::now(),
            notes: Mutex::default(),
        };
        Some(Trail(Arc::new(course)))
    }
}

tokio::task_local! {
    /// Of the request that the task works on.
    static HERE: Ids;
}

impl Ids {
    /// Those of the request on whose [`Trail::around`] the task is; none elsewhere.
    pub fn here() -> Self {
        HERE.try_with(|ids| *ids).unwrap_or_default()
    }

    /// The trace's id, as text.
    pub fn trace(self) -> Option<String> {
        self.trace.map(|trace| trace.to_string())
    }

    /// The id of the request's own span, as text; `None` where it has none.
    pub fn span(self) -> Option<String> {
        self.span.map(|span| span.to_string())
    }
}

impl Trail {
    /// By what the request is found.
    pub fn ids(&self) -> Ids {
        self.0.ids()
    }

    /// The context for what is done on its behalf, as a `traceparent`.
    pub fn context(&self) -> Option<String> {
        self.0.context().map(|context| context.to_string())
    }

    /// One message of a stream, as a request of its own within this one.
    pub fn message(&self) -> Self {
        let whole = &*self.0;
        let place = whole.place.as_ref().and_then(|place| whole.shared.recorder.within(place));
        let notes = whole.notes();
        let of_message = Notes { route: notes.route, who: notes.who.clone(), ..Notes::default() };
        drop(notes);
        Self(Arc::new(Course {
            shared: Arc::clone(&whole.shared),
            arriving: whole.arriving.clone(),
            place,
            came_with: whole.came_with,
            is_probe: whole.is_probe,
            is_message: true,
            began: Instant::now(),
            wall: SystemTime::now(),
            notes: Mutex::new(of_message),
        }))
    }

    /// Notes the template of the path that it has come to.
    pub fn routed(&self, route: &'static str) {
        self.0.notes().route = Some(route);
    }

    /// Notes its id.
    pub fn identified(&self, id: Bytes) {
        self.0.notes().id = Some(id);
    }

    /// Notes whose it is.
    pub fn is_by(&self, who: String) {
        self.0.notes().who = Some(who);
    }

    /// Notes that its answer has no end of its own.
    pub fn is_stream(&self) {
        self.0.notes().is_stream = true;
    }

    /// Notes the model that it names.
    pub fn for_model(&self, model: Bytes) {
        self.0.notes().model = Some(model);
    }

    /// Notes the version that it has come to.
    pub fn asks(&self, version: Version) {
        self.0.notes().version = Some(version);
    }

    /// Notes that the version has answered: where the time went, and whether the answer had been kept.
    pub fn ran(&self, timings: Timings, cache: Option<&'static str>) {
        let mut notes = self.0.notes();
        (notes.timings, notes.cache) = (Some(timings), cache);
    }

    /// Notes the code of the error that it is told.
    pub fn failed(&self, code: impl Into<Cow<'static, str>>) {
        self.0.notes().failure = Some(code.into());
    }

    /// Does `work`, in which [`Ids::here`] are those of this request. Cancel safe if that is.
    pub fn around<W: Future>(self, work: W) -> impl Future<Output = W::Output> {
        // Not an async function, which would have room for `work` twice.
        HERE.scope(self.ids(), work)
    }

    /// Notes the status of its answer, and how many bytes that has, where it is known.
    pub fn answered(&self, status: u16, bytes: Option<u64>) {
        let mut notes = self.0.notes();
        (notes.status, notes.bytes) = (Some(status), bytes);
    }
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trail").field("arriving", &self.0.arriving).finish_non_exhaustive()
    }
}

impl Course {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn context(&self) -> Option<Context> {
        self.place.as_ref().map(Place::context).or(self.came_with)
    }

    pub(super) fn ids(&self) -> Ids {
        let span = self.place.as_ref().map(|place| place.span);
        Ids { trace: self.context().map(|context| context.trace), span }
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        let notes = mem::take(&mut *self.notes());
        let took = self.began.elapsed();
        if let Some(place) = &self.place {
            spans::write(&self.shared.recorder, (self, place), (&notes, took));
        }
        if self.is_probe {
            return;
        }
        let terms = **self.shared.terms.load();
        if terms.access_log && !self.is_message {
            lines::access(self, &notes, took);
        }
        // How long a stream lasts is its client's business; its messages are looked at.
        if !notes.is_stream && terms.slow_request.is_some_and(|most| took > most) {
            lines::slow(self, &notes, took);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::trail::{Attribute, Span};

    fn arriving() -> Arriving {
        Arriving {
            carrier: Carrier::Http,
            method: "POST".to_owned(),
            path: "/v2/models/m/infer".to_owned(),
            peer: (Ipv4Addr::LOCALHOST, 7).into(),
            bytes: Some(3),
        }
    }

    fn parent(flags: &str) -> Option<Parent> {
        let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        Parent::read([text.as_bytes()].into_iter(), [].into_iter())
    }

    async fn taken(mut spans: super::super::Spans) -> Vec<Span> {
        let mut taken = Vec::new();
        spans.close();
        while spans.take(&mut taken, 100).await {}
        taken
    }

    #[tokio::test]
    async fn a_request_is_recorded_as_its_caller_decided() {
        let (recorder, spans) = Recorder::new(0, 100);
        let trails = Trails::new(recorder, Terms::default());
        assert!(trails.begin((None, false), arriving).is_none());
        let unsampled = trails.begin((parent("00"), false), arriving).unwrap();
        assert!(unsampled.ids().trace().is_some() && unsampled.ids().span().is_none());
        drop(unsampled);
        let trail = trails.begin((parent("01"), false), arriving).unwrap();
        trail.routed("/v2/models/{model}/infer");
        trail.answered(200, None);
        let ids = trail.ids();
        drop((trail, trails));
        let [span] = &taken(spans).await[..] else { panic!("there is one span") };
        assert_eq!(span.name, "POST /v2/models/{model}/infer");
        assert_eq!(Some(span.place.span.to_string()), ids.span());
        assert_eq!(span.place.parent.unwrap().to_string(), "b7ad6b7169203331");
        assert!(span.attributes.contains(&("http.response.status_code", Attribute::Number(200))));
    }

    #[tokio::test]
    async fn probes_begin_no_trace() {
        let (recorder, _spans) = Recorder::new(1_000_000, 100);
        let lines = Terms { access_log: true, ..Terms::default() };
        let trails = Trails::new(recorder, lines);
        assert!(trails.begin((None, true), arriving).is_none());
        assert!(trails.begin((parent("01"), true), arriving).is_some());
        assert!(trails.begin((None, false), arriving).is_some());
    }

    #[tokio::test]
    async fn a_queue_that_is_full_drops_spans_and_counts_them() {
        let (recorder, _spans) = Recorder::new(1_000_000, 2);
        let trails = Trails::new(recorder, Terms::default());
        for _ in 0..5 {
            drop(trails.begin((None, false), arriving));
        }
        assert_eq!(trails.recorder().report().full, 3);
    }

    #[test]
    fn without_anything_to_write_there_are_no_trails() {
        let trails = Trails::default();
        assert!(!trails.is_on());
        assert!(trails.begin((None, false), arriving).is_none());
        trails.set(Terms { slow_request: Some(Duration::ZERO), access_log: false });
        assert!(trails.is_on());
    }
}
