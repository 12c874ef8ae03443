//! What the head of a call says of how it is to be served.

use std::time::Duration;

use axum::http::HeaderMap;
use tokio::time::Instant;

use super::Limits;
use crate::oip::Refusal;

/// The metadata with a key for which one version answers as long as the model's traffic rules stay.
const ROUTING_KEY: &str = "x-onward-routing-key";

/// How long the caller is ready to wait, as gRPC writes it.
const TIMEOUT: &str = "grpc-timeout";

/// How a call is to be served.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// When its head was read.
    pub(super) received: Instant,
    /// How long one request may take.
    most: Duration,
    /// When the caller waits no longer.
    deadline: Option<Instant>,
    /// What the caller wants to be recognised by.
    pub(super) routing_key: Option<String>,
}

impl Terms {
    /// # Errors
    /// What cannot be read.
    pub(super) fn read(headers: &HeaderMap, limits: Limits) -> Result<Self, Refusal> {
        let received = Instant::now();
        let deadline = timeout(headers)?.map(|timeout| received + timeout);
        let routing_key = text(headers, ROUTING_KEY)?.map(str::to_owned);
        Ok(Self { received, most: limits.request_timeout, deadline, routing_key })
    }

    /// When a request came, and how long it may take from then on.
    pub(super) fn bounds(&self, received: Instant) -> (Instant, Duration) {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(received));
        (received, left.map_or(self.most, |left| left.min(self.most)))
    }

    /// When the call has to be here as a whole, where it is one request.
    pub(super) fn arrival(&self) -> Instant {
        let (received, most) = self.bounds(self.received);
        received + most
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let wrong = || Refusal::invalid(format!("{name} is not visible ASCII"));
    headers.get(name).map(|value| value.to_str().map_err(|_| wrong())).transpose()
}

fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(text) = text(headers, TIMEOUT)? else { return Ok(None) };
    let wrong = || {
        let expected = "up to eight digits and one of H, M, S, m, u, n";
        Refusal::invalid(format!("{TIMEOUT} is {expected}, got {text:?}"))
    };
    duration(text).map(Some).ok_or_else(wrong)
}

fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let sound = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| sound)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Duration::from_hours(1)),
            ("2M", Duration::from_mins(2)),
            ("99999999S", Duration::from_secs(99_999_999)),
            ("5m", Duration::from_millis(5)),
            ("0u", Duration::ZERO),
            ("7n", Duration::from_nanos(7)),
        ] {
            assert_eq!(duration(text), Some(expected), "{text}");
        }
        for text in ["", "1", "S", "-1S", "+1S", "1s", "123456789S", "1 S", "1ü"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
