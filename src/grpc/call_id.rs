//! The id under which a call is found.

use std::sync::{Arc, OnceLock};

use axum::http::{HeaderMap, HeaderValue};

use crate::oip::{REQUEST_ID, RequestId, RequestIds};

/// The id of a call: that of its metadata, else that of its message, else a new one. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct CallId(Arc<OnceLock<RequestId>>);

impl CallId {
    /// That of the metadata, where they have one.
    pub(super) fn given(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).map(HeaderValue::as_bytes).and_then(RequestId::read);
        Self(Arc::new(given.map_or_else(OnceLock::new, OnceLock::from)))
    }

    /// Takes over the id of the message, where it can be logged and there is none.
    pub(super) fn or_of_message(&self, id: &str) {
        if let Some(id) = RequestId::read(id.as_bytes()) {
            self.0.get_or_init(|| id);
        }
    }

    /// What it is from now on.
    pub(super) fn settle(&self, ids: &RequestIds) -> &RequestId {
        self.0.get_or_init(|| ids.make())
    }

    /// What it is, where that is known.
    pub(super) fn known(&self) -> Option<&RequestId> {
        self.0.get()
    }
}
