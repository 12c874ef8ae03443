//! Where spans go: into a bounded queue, from which they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::context::{Context, Parent, SpanId};
use super::sampler::Sampler;
use super::span::{Place, Span};

/// Takes spans, and never waits: what does not fit into the queue is dropped and counted. Clones share
/// everything. There is one that takes none.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    sampler: Sampler,
    queue: mpsc::Sender<Span>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    full: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
}

/// What became of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpansReport {
    /// Those that the collector has taken.
    pub sent: u64,
    /// Those for which the queue had no room.
    pub full: u64,
    /// Those that could not be sent.
    pub failed: u64,
    /// Those that the collector did not want.
    pub rejected: u64,
}

/// The other end of the queue.
#[derive(Debug)]
pub struct Spans {
    queue: mpsc::Receiver<Span>,
    counts: Arc<Counts>,
}

impl Recorder {
    /// One that records so many of a million traces that begin here, and the end of its queue, which has room
    /// for `room` spans.
    pub fn new(millionths: u32, room: usize) -> (Self, Spans) {
        let (sender, receiver) = mpsc::channel(room);
        let counts = Arc::<Counts>::default();
        let sampler = Sampler::new(millionths);
        let shared = Shared { sampler, queue: sender, counts: Arc::clone(&counts) };
        (Self(Some(Arc::new(shared))), Spans { queue: receiver, counts })
    }

    /// Whether any trace may be recorded.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Of traces that begin here, so many of a million are recorded from now on.
    pub fn record_millionths(&self, millionths: u32) {
        if let Some(shared) = &self.0 {
            shared.sampler.set(millionths);
        }
    }

    /// The place of a span that begins here; `None` where its trace is not recorded. A caller has decided that
    /// for its trace, and a trace without one is recorded by chance.
    pub fn begin(&self, parent: Option<&Parent>) -> Option<Place> {
        let sampler = &self.0.as_ref()?.sampler;
        match parent {
            Some(parent) if parent.context.sampled => Some(self.under(parent)?),
            Some(_) => None,
            None => {
                let trace = sampler.trace();
                sampler.takes(trace).then(|| Place::root(trace, sampler.span()))
            }
        }
    }

    /// [`Recorder::begin`] for what is so rare that it is always recorded, unless its caller has decided
    /// otherwise.
    pub fn begin_rare(&self, parent: Option<&Parent>) -> Option<Place> {
        let sampler = &self.0.as_ref()?.sampler;
        match parent {
            Some(_) => self.begin(parent),
            None => Some(Place::root(sampler.trace(), sampler.span())),
        }
    }

    fn under(&self, parent: &Parent) -> Option<Place> {
        let Context { trace, span, .. } = parent.context;
        Some(Place {
            trace,
            span: self.span()?,
            parent: Some(span),
            is_remote: true,
            state: parent.state.clone(),
        })
    }

    /// The place of a part of what is done at `whole`.
    pub fn within(&self, whole: &Place) -> Option<Place> {
        let (trace, state) = (whole.trace, whole.state.clone());
        Some(Place { trace, span: self.span()?, parent: Some(whole.span), is_remote: false, state })
    }

    fn span(&self) -> Option<SpanId> {
        Some(self.0.as_ref()?.sampler.span())
    }

    /// Takes a span.
    pub fn record(&self, span: Span) {
        let Some(shared) = &self.0 else { return };
        match shared.queue.try_send(span) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                shared.counts.full.fetch_add(1, Ordering::Relaxed);
            }
            // The server has ended what sends them.
            Err(TrySendError::Closed(_)) => {
                shared.counts.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What became of spans so far.
    pub fn report(&self) -> SpansReport {
        self.0.as_ref().map(|shared| shared.counts.read()).unwrap_or_default()
    }
}

impl Place {
    fn root(trace: super::TraceId, span: SpanId) -> Self {
        Self { trace, span, parent: None, is_remote: false, state: None }
    }

    /// What is told of it to those who are asked on its behalf.
    pub fn context(&self) -> Context {
        Context { trace: self.trace, span: self.span, sampled: true }
    }
}

impl Counts {
    fn read(&self) -> SpansReport {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        SpansReport {
            sent: read(&self.sent),
            full: read(&self.full),
            failed: read(&self.failed),
            rejected: read(&self.rejected),
        }
    }
}

impl Spans {
    /// Waits for spans, and adds as many as there are to `batch`, `most` at most; whether there may be more
    /// at all. Cancel safe.
    pub(crate) async fn take(&mut self, batch: &mut Vec<Span>, most: usize) -> bool {
        most == 0 || self.queue.recv_many(batch, most).await > 0
    }

    /// Takes no more; what was taken can still be had.
    pub(crate) fn close(&mut self) {
        self.queue.close();
    }

    /// Counts spans that the collector has got, and those of them that it did not want.
    pub(crate) fn sent(&self, count: u64, rejected: u64) {
        self.counts.sent.fetch_add(count.saturating_sub(rejected), Ordering::Relaxed);
        self.counts.rejected.fetch_add(rejected.min(count), Ordering::Relaxed);
    }

    /// Counts spans that could not be sent.
    pub(crate) fn failed(&self, count: u64) {
        self.counts.failed.fetch_add(count, Ordering::Relaxed);
    }

    /// What became of spans so far.
    pub(crate) fn report(&self) -> SpansReport {
        self.counts.read()
    }
}
