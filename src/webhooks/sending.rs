//! Sending one event until it is taken.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use tokio::time::sleep;
use tracing::warn;

use super::{ClientError, Options};
use crate::causes;
use crate::cloudevents::{self, CloudEvents};
use crate::lifecycle::{EventRecord, HookProgress};

/// The wait after the first attempt; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No answer came.
    #[error("{0}")]
    NoAnswer(String),
    /// The endpoint answered something else than a success.
    #[error("it answered {0}")]
    Refused(StatusCode),
}

impl SendError {
    /// Whether the same event may be taken another time.
    fn may_pass(&self) -> bool {
        match self {
            Self::NoAnswer(_) => true,
            Self::Refused(status) => {
                let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                !status.is_client_error() || later.contains(status)
            }
        }
    }
}

/// Sends events to one endpoint.
pub(super) struct Sender {
    url: String,
    events: CloudEvents,
    options: Options,
    client: reqwest::Client,
}

impl Sender {
    pub(super) fn new(
        url: &str,
        events: CloudEvents,
        options: Options,
    ) -> Result<Self, ClientError> {
        // The process may have a provider already; any does.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::Client::builder()
            .timeout(options.timeout)
            // The environment is read in one place, and not by a client.
            .no_proxy()
            // An endpoint is where it was said to be; an event may be nobody else's business.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("onward/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { url: url.to_owned(), events, options, client })
    }

    /// Longer than sending one event can take.
    pub(super) fn longest(&self) -> Duration {
        let waits: Duration = (1..self.options.attempts).map(wait_after).sum();
        waits + (self.options.timeout + Duration::from_secs(1)) * self.options.attempts
    }

    /// Sends until the event is taken or there are no attempts left.
    ///
    /// # Errors
    /// The last attempt's.
    pub(super) async fn send(
        &self,
        record: &EventRecord,
        progress: &HookProgress,
    ) -> Result<(), SendError> {
        let id = self.events.id(record.sequence);
        let body = self.events.value(record).to_string();
        let parent = cloudevents::traceparent(&record.event);
        let mut attempt = 1;
        loop {
            let Err(error) = self.try_send(&id, (&body, parent)).await else {
                return Ok(());
            };
            if attempt >= self.options.attempts || !error.may_pass() {
                return Err(error);
            }
            let wait = wait_after(attempt);
            let (url, cause) = (super::shown(&self.url), error.to_string());
            warn!(url, event = id, attempt, cause, ?wait, "webhook failed, it is tried again");
            progress.attempt_failed(cause);
            sleep(wait).await;
            attempt += 1;
        }
    }

    async fn try_send(
        &self,
        id: &str,
        (body, parent): (&str, Option<&str>),
    ) -> Result<(), SendError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut request = self
            .client
            .post(&self.url)
            .header(CONTENT_TYPE, cloudevents::CONTENT_TYPE)
            .header("webhook-id", id)
            .header("webhook-timestamp", now);
        if let Some(parent) = parent {
            request = request.header("traceparent", parent);
        }
        if let Some(secret) = &self.options.secret {
            request = request.header("webhook-signature", secret.sign(id, now, body.as_bytes()));
        }
        let answer = request.body(body.to_owned()).send().await;
        let answer =
            answer.map_err(|error| SendError::NoAnswer(causes::of_error(&error.without_url())))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(SendError::Refused(status)) }
    }
}

fn wait_after(attempt: u32) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
    doubled.min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        let waits: Vec<u64> = [1, 2, 3, 8, 9, 4_000_000_000]
            .map(|attempt| u64::try_from(wait_after(attempt).as_millis()).unwrap())
            .to_vec();
        assert_eq!(waits, [500, 1000, 2000, 60_000, 60_000, 60_000]);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let may_pass = |status: StatusCode| SendError::Refused(status).may_pass();
        assert!(may_pass(StatusCode::INTERNAL_SERVER_ERROR));
        assert!(may_pass(StatusCode::TOO_MANY_REQUESTS));
        assert!(may_pass(StatusCode::FOUND));
        assert!(!may_pass(StatusCode::BAD_REQUEST));
        assert!(!may_pass(StatusCode::GONE));
    }
}
