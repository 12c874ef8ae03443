//! A message that has to be here in time.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::Frame;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

/// A body that breaks off with an error at its deadline.
pub(super) struct Timely {
    body: Body,
    late: Pin<Box<Sleep>>,
}

impl Timely {
    pub(super) fn new(body: Body, deadline: Instant) -> Self {
        Self { body, late: Box::pin(sleep_until(deadline)) }
    }
}

impl HttpBody for Timely {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            let broken = |_| Status::internal("the message broke off before its end");
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        let late = |()| Some(Err(Status::deadline_exceeded("the message did not arrive in time")));
        self.late.as_mut().poll(context).map(late)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
