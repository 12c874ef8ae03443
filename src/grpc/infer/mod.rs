//! An inference, from its message to the message that answers it.

mod contents;
#[cfg(any(test, fuzzing))]
pub(in crate::grpc) mod fuzzing;
mod request;
mod response;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::proto::{ModelInferRequest, ModelInferResponse};
use super::terms::Terms;
use crate::model::{CacheLookup, ModelLifecycleManager, Traces};
use crate::oip::Refusal;
use crate::trail::Trail;

/// An answer, and what its metadata tell.
pub(super) struct Answered {
    pub(super) response: ModelInferResponse,
    /// Of the version that gave it.
    pub(super) digest: Bytes,
    /// Whether it had been kept; `None` where answers are not.
    pub(super) cache: Option<CacheLookup>,
}

/// Asks the model; its answer, and the digest of the version that gave it. `bounds` are when the request
/// came, and how long it may take from then on. Cancel safe.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn answer(
    serving: (&ModelLifecycleManager, &Traces),
    (request, trail): (ModelInferRequest, Option<Trail>),
    (terms, bounds): (&Terms, (Instant, Duration)),
) -> Result<Answered, Refusal> {
    let id = request.id.clone();
    let mut call = request::read(request)?;
    call.trail = trail;
    if terms.routing_key.is_some() {
        call.options.routing_key.clone_from(&terms.routing_key);
    }
    let reply = call.run(serving, bounds).await?;
    let (digest, cache) = (reply.version.traced().digest.clone(), reply.cache);
    Ok(Answered { response: response::write(&reply, id), digest, cache })
}
