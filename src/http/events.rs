//! Events: those that are kept, and those that come.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::error::ApiError;
use super::query::Parameters;
use super::wire::{self, time};
use crate::cloudevents::CloudEvents;
use crate::lifecycle::{EventKind, EventStream, HookReport};

/// With this header a client tells the last event that it has seen.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How many events one page has where the client does not say.
const PAGE: usize = 100;

/// Between two signs of life on a stream without events.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
pub(super) struct PageQuery {
    since: Option<u64>,
    kind: Option<String>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
pub(super) struct StreamQuery {
    since: Option<u64>,
    kind: Option<String>,
}

#[derive(Serialize)]
struct PageBody {
    instance: String,
    events: Vec<Value>,
    missed: u64,
    last: u64,
}

#[derive(Serialize)]
struct HooksBody {
    hooks: Vec<HookBody>,
}

#[derive(Serialize)]
struct HookBody {
    name: String,
    healthy: bool,
    handled: u64,
    failed: u64,
    missed: u64,
    pending: u64,
    last_error: Option<String>,
    last_success: Option<String>,
}

/// `GET /lifecycle/events`
pub(super) async fn page(
    State(services): Shared,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Response, ApiError> {
    let kinds = kinds(query.kind.as_deref())?;
    if query.limit == Some(0) {
        return Err(ApiError::bad_request("limit must be 1 or more"));
    }
    let (events, written) = (&services.parts.events, &services.parts.cloud_events);
    let replay = events.since(query.since.unwrap_or(0));
    let wanted = replay.events.iter().filter(|record| kinds.contains(&record.event.kind()));
    let page: Vec<_> = wanted.take(query.limit.unwrap_or(PAGE)).collect();
    // Where a page is full, its last event; else also what was passed over is done with.
    let full = page.len() == query.limit.unwrap_or(PAGE);
    let read_until = page.last().filter(|_| full).map(|record| record.sequence);
    Ok(wire::json(&PageBody {
        instance: written.instance().to_owned(),
        last: read_until.unwrap_or(replay.last),
        missed: replay.missed,
        events: page.into_iter().map(|record| written.value(record)).collect(),
    }))
}

/// `GET /lifecycle/events/stream`
pub(super) async fn stream(
    State(services): Shared,
    headers: HeaderMap,
    Parameters(query): Parameters<StreamQuery>,
) -> Result<Response, ApiError> {
    let kinds = kinds(query.kind.as_deref())?;
    let (events, written) = (&services.parts.events, &services.parts.cloud_events);
    let seen = headers.get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or_default());
    let (stream, begin) = match (seen, query.since) {
        (Some(id), _) => match written.sequence(id) {
            Some(sequence) => (events.subscribe_after(sequence), None),
            // The id of an earlier life, or of nothing: all that this life has is new.
            None => (events.subscribe_after(0), Some(reset(written))),
        },
        (None, Some(since)) => (events.subscribe_after(since), None),
        (None, None) => (events.subscribe(), None),
    };
    let reader = Reader {
        stream,
        kinds,
        written: written.clone(),
        end: services.parts.closing.clone(),
        begin,
    };
    let alive = KeepAlive::new().interval(KEEP_ALIVE).text("alive");
    Ok(Sse::new(reader.into_stream()).keep_alive(alive).into_response())
}

/// `GET /lifecycle/hooks`
pub(super) async fn hooks(State(services): Shared) -> Response {
    let hooks = services.parts.hooks.reports().into_iter().map(HookBody::from).collect();
    wire::json(&HooksBody { hooks })
}

/// The kinds in a list separated by commas; all without one.
fn kinds(list: Option<&str>) -> Result<BTreeSet<EventKind>, ApiError> {
    let Some(list) = list else {
        return Ok(EventKind::ALL.into_iter().collect());
    };
    let known = EventKind::ALL.map(EventKind::name).join(", ");
    list.split(',')
        .map(|name| {
            EventKind::from_name(name.trim()).ok_or_else(|| {
                ApiError::bad_request(format!("unknown kind '{name}', there are {known}"))
            })
        })
        .collect()
}

/// Tells a client that its last event was of another life of the server.
fn reset(written: &CloudEvents) -> sse::Event {
    let data = json!({ "instance": written.instance() });
    sse::Event::default().event("reset").data(data.to_string())
}

struct Reader {
    stream: EventStream,
    kinds: BTreeSet<EventKind>,
    written: CloudEvents,
    /// Ends the stream, so that the server's end does not wait for its client.
    end: CancellationToken,
    begin: Option<sse::Event>,
}

impl Reader {
    fn into_stream(self) -> impl Stream<Item = Result<sse::Event, Infallible>> {
        stream::unfold(self, |mut reader| async move {
            let event = reader.next().await?;
            Some((Ok(event), reader))
        })
    }

    async fn next(&mut self) -> Option<sse::Event> {
        if let Some(begin) = self.begin.take() {
            return Some(begin);
        }
        loop {
            let received = self.end.run_until_cancelled(self.stream.recv()).await?;
            let record = match received {
                Ok(record) => record,
                Err(missed) => {
                    let data = json!({ "count": missed.count });
                    return Some(sse::Event::default().event("missed").data(data.to_string()));
                }
            };
            if self.kinds.contains(&record.event.kind()) {
                let event = sse::Event::default()
                    .id(self.written.id(record.sequence))
                    .event(record.event.kind().name())
                    .data(self.written.value(&record).to_string());
                return Some(event);
            }
        }
    }
}

impl From<HookReport> for HookBody {
    fn from(report: HookReport) -> Self {
        Self {
            name: report.name,
            healthy: report.healthy,
            handled: report.handled,
            failed: report.failed,
            missed: report.missed,
            pending: report.pending,
            last_error: report.last_error,
            last_success: report.last_success.map(time),
        }
    }
}
