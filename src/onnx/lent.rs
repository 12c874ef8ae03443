//! Large outputs, which leave in the memory that they were computed in.

use std::sync::Arc;

use bytes::Bytes;

use super::allocator;
use super::raw::Value;
use super::session::OnnxSession;

/// From so many bytes on an output is not copied: below, what a copy saves a later run, which finds the
/// memory free, is worth more.
const LENT_FROM: usize = 64 << 10;

/// Whether an output of these bytes, for inputs of those, is to be [lent](lend). Not where it is in the
/// memory of an input, as that of a graph is which only passes it on: nobody keeps that for it.
pub(super) fn is_lendable<'a>(output: &[u8], inputs: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let own = output.as_ptr_range();
    let overlaps = |input: &[u8]| {
        let input = input.as_ptr_range();
        own.start < input.end && input.start < own.end
    };
    output.len() >= LENT_FROM && !inputs.into_iter().any(overlaps)
}

/// The bytes of an output. They keep it and its session, to which a constant's memory may belong.
pub(super) fn lend(output: Value<'static>, session: &Arc<OnnxSession>) -> Bytes {
    Bytes::from_owner(Lent { output: Some(output), session: Some(Arc::clone(session)) })
}

struct Lent {
    /// Taken only at the end.
    output: Option<Value<'static>>,
    session: Option<Arc<OnnxSession>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.output.as_ref().and_then(|output| output.bytes().ok()).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        drop(self.output.take());
        // The version was unloaded while somebody read the answer.
        if let Some(session) = self.session.take().and_then(Arc::into_inner) {
            drop(session);
            allocator::give_memory_back();
        }
    }
}
