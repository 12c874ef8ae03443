//! Events sent to endpoints of others: CloudEvents over HTTP POST, signed, until they are taken.
//!
//! Headers and signature are those of the [Standard Webhooks] specification, version 1, so that a
//! receiver has a library for them: `webhook-id`, `webhook-timestamp` and
//! `webhook-signature: v1,<base64>`, the HMAC-SHA256 of `id.timestamp.body`.
//!
//! [Standard Webhooks]: https://github.com/standard-webhooks/standard-webhooks

mod secret;
mod sending;

use std::sync::Arc;
use std::time::Duration;

pub use secret::{Secret, SecretError};
pub use sending::SendError;

use crate::cloudevents::CloudEvents;
use crate::lifecycle::{EventKind, EventRecord, Hook, HookProgress};
use sending::Sender;

/// How events are sent.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only events of these kinds; all of them where there is none.
    pub kinds: Vec<EventKind>,
    /// Signs every event; without it none is.
    pub secret: Option<Secret>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How often an event is sent before it is given up.
    pub attempts: u32,
}

/// Why webhooks cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("the client for webhooks cannot be made")]
pub struct ClientError(#[from] reqwest::Error);

/// A hook that sends events to `url`, one after the other, each until it is taken. While an endpoint
/// is away, events wait for it in the bus.
///
/// # Errors
/// [`ClientError`].
pub fn hook(url: &str, events: &CloudEvents, options: &Options) -> Result<Hook, ClientError> {
    let sender = Arc::new(Sender::new(url, events.clone(), options.clone())?);
    let longest = sender.longest();
    let send = move |record: Arc<EventRecord>, progress: HookProgress| {
        let sender = Arc::clone(&sender);
        async move { sender.send(&record, &progress).await }
    };
    let hook = Hook::with_progress(format!("webhook {}", shown(url)), send).timeout(longest);
    Ok(if options.kinds.is_empty() { hook } else { hook.kinds(options.kinds.iter().copied()) })
}

/// The address without what may be secret in it: user, password and query.
fn shown(url: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse(url) else {
        return "of no address".to_owned();
    };
    // Neither fails for an address with a host, and one without has neither.
    url.set_username("").ok();
    url.set_password(None).ok();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn secrets_in_an_address_are_not_shown() {
        assert_eq!(shown("https://me:secret@x.example/a?token=1#b"), "https://x.example/a");
        assert_eq!(shown("http://127.0.0.1:80/events"), "http://127.0.0.1/events");
    }
}
