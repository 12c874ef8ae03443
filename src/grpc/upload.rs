//! A message that has to be here in time.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

/// A body that breaks off with an error at its deadline, if it has one.
pub(super) struct Timely {
    body: Incoming,
    deadline: Option<Instant>,
    /// From when on it was waited for.
    late: Option<Pin<Box<Sleep>>>,
}

impl Timely {
    pub(super) fn new(body: Incoming, deadline: Option<Instant>) -> Self {
        Self { body, deadline, late: None }
    }
}

impl HttpBody for Timely {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, deadline, late } = &mut *self;
        let frame = Pin::new(body).poll_frame(context);
        let Some(deadline) = *deadline else {
            return frame.map_err(|error| Status::from_error(error.into()));
        };
        if frame.is_ready() {
            return frame.map_err(|_| Status::internal("the message broke off before its end"));
        }
        let late = late.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        let told = |()| Some(Err(Status::deadline_exceeded("the message did not arrive in time")));
        late.as_mut().poll(context).map(told)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
