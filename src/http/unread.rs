//! Whether a request's body was read to its end before the request was answered.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use hyper::body::{Frame, Incoming, SizeHint};

/// Tells of one body.
pub(super) struct Unread(Option<Arc<AtomicBool>>);

impl Unread {
    /// Whether there may be more to come of it.
    pub(super) fn is_left(&self) -> bool {
        self.0.as_ref().is_some_and(|ended| !ended.load(Ordering::Relaxed))
    }
}

/// The request, of whose body it is told whether it was read to its end.
pub(super) fn watched(request: axum::http::Request<Incoming>) -> (Request, Unread) {
    if request.body().is_end_stream() {
        return (request.map(|_| Body::empty()), Unread(None));
    }
    let ended = Arc::new(AtomicBool::new(false));
    let unread = Unread(Some(Arc::clone(&ended)));
    (request.map(|body| Body::new(Watched { body, ended })), unread)
}

struct Watched {
    body: Incoming,
    ended: Arc<AtomicBool>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let frame = frame.map(|frame| frame.map_err(axum::Error::new));
        if frame.is_none() || self.body.is_end_stream() {
            self.ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
