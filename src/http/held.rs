//! Answers over HTTP/2, which are under way until the peer has taken all of them.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use super::in_flight::Entered;

/// A body whose request counts until its last part was asked for. As the connection asks for a part only
/// once the peer has room for the one before, nothing is left then that waits for the peer.
#[derive(Debug)]
pub(super) struct Held {
    body: Body,
    begun: bool,
    _request: Entered,
}

impl Held {
    pub(super) fn new(body: Body, request: Entered) -> Self {
        Self { body, begun: false, _request: request }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.begun = true;
        Pin::new(&mut self.body).poll_frame(context)
    }

    /// Not told with the last part, so that the end is asked for too; only of a body without parts.
    fn is_end_stream(&self) -> bool {
        !self.begun && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
