//! What a request leaves behind, where it does.

use axum::extract::Request;

use crate::trail::Trail;

/// Of a request that is being handled.
pub(super) fn of(request: &Request) -> Option<Trail> {
    request.extensions().get().cloned()
}

/// By what is found what a request asks for, as it is kept with that.
pub(super) fn origin(request: &Request) -> Option<String> {
    request.extensions().get().and_then(Trail::context)
}
