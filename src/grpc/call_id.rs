//! The id under which a call is found.

use std::sync::{Arc, OnceLock};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::oip::{self, RequestId, RequestIds};

/// The metadata that have it, both ways.
const REQUEST_ID: HeaderName = HeaderName::from_static(oip::REQUEST_ID);

/// The id of a call: that of its metadata, else that of its message, else a new one. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct CallId(Arc<Known>);

#[derive(Debug)]
struct Known {
    id: OnceLock<RequestId>,
    ids: Arc<RequestIds>,
}

tokio::task_local! {
    /// That of the call that the task answers.
    static HERE: CallId;
}

impl CallId {
    /// That of the metadata, where they have one.
    pub(super) fn given(headers: &HeaderMap, ids: &Arc<RequestIds>) -> Self {
        let given = headers.get(&REQUEST_ID).map(HeaderValue::as_bytes).and_then(RequestId::read);
        let id = given.map_or_else(OnceLock::new, OnceLock::from);
        Self(Arc::new(Known { id, ids: Arc::clone(ids) }))
    }

    /// Takes over the id of the message, where it can be logged and there is none.
    pub(super) fn or_of_message(&self, id: &str) {
        if let Some(id) = RequestId::read(id.as_bytes()) {
            self.0.id.get_or_init(|| id);
        }
    }

    /// What it is from now on.
    pub(super) fn settle(&self) -> &RequestId {
        self.0.id.get_or_init(|| self.0.ids.make())
    }

    /// Tells the caller.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        let told = HeaderValue::from_maybe_shared(self.settle().to_bytes());
        let mut told = told.expect("it is visible ASCII");
        // No other answer has it: it is not to be kept among the headers that a connection repeats.
        told.set_sensitive(true);
        headers.insert(REQUEST_ID, told);
    }

    /// Does `work`, in which [`CallId::here`] is this. Cancel safe if that is.
    pub(super) fn around<W: Future>(self, work: W) -> impl Future<Output = W::Output> {
        // Not an async function, which would have room for `work` twice.
        HERE.scope(self, work)
    }

    /// That of the call on whose [`CallId::around`] the task is; `None` elsewhere.
    pub(super) fn here() -> Option<String> {
        HERE.try_with(|id| id.settle().as_str().to_owned()).ok()
    }
}
