//! What requests and changes leave behind for those who follow them: spans of traces, and lines of the log.
//!
//! Knows no protocol: those who serve requests note in a [`Trail`] what becomes of one, and its end writes
//! what was asked for of it. Nothing of what a request has in its body gets into any of that.

mod context;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod lines;
mod operation;
mod recorder;
mod request;
mod sampler;
mod span;
mod spans;

pub use context::{Context, Parent, SpanId, TraceId};
pub use operation::{Change, Phase};
pub use recorder::{Recorder, Spans, SpansReport};
pub use request::{Arriving, Carrier, Ids, Terms, Trail, Trails, Version};
pub use span::{Attribute, Place, Span, Text};
