//! Answers that are under way until the peer has taken all of them: all over HTTP/2, and over HTTP/1.1 those without a
//! length.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use super::in_flight::Entered;

/// How many bytes may wait in the connection once the last of them were asked for.
const PIECE: usize = 16 * 1024;

/// A body whose request counts until its last piece was asked for. The connection asks for one only once
/// the peer has room for the one before, so that no more than a piece is left then that waits for the
/// peer.
#[derive(Debug)]
pub(super) struct Held {
    body: Body,
    /// What was read of it and not yet asked for.
    rest: Bytes,
    begun: bool,
    _request: Entered,
}

impl Held {
    pub(super) fn new(body: Body, request: Entered) -> Self {
        Self { body, rest: Bytes::new(), begun: false, _request: request }
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
        if self.rest.is_empty() {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    /// Not told with the last part, so that the end is asked for too; only of a body without parts.
    fn is_end_stream(&self) -> bool {
        !self.begun && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
