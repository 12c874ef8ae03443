//! The id under which a request is found in the logs.

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::str;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries the id both ways.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken from a caller.
const LONGEST: usize = 128;

/// The longest that is made: two numbers of 64 bits, in either base, and a dash.
const LONGEST_MADE: usize = 16 + 1 + 20;

/// The id of a request: visible ASCII.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Bytes);

impl RequestId {
    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("visible ASCII is UTF-8")
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    pub(super) fn to_header(&self) -> HeaderValue {
        let header = HeaderValue::from_maybe_shared(self.0.clone());
        header.expect("visible ASCII is a header value")
    }
}

/// The id of a request that is being handled, where it came through the router.
pub(super) fn of(request: &Request) -> Option<RequestId> {
    request.extensions().get().cloned()
}

/// Makes ids that no other process makes.
#[derive(Debug)]
pub(super) struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        // The standard library seeds a hasher's state at random.
        Self { process: RandomState::new().hash_one(std::process::id()), next: AtomicU64::new(1) }
    }

    /// The caller's id if it gave one that can be logged and returned, else a new one.
    pub(super) fn of(&self, headers: &HeaderMap) -> RequestId {
        match headers.get(HEADER).filter(|given| usable(given)) {
            Some(given) => RequestId(Bytes::copy_from_slice(given.as_bytes())),
            None => self.make(),
        }
    }

    fn make(&self) -> RequestId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = String::with_capacity(LONGEST_MADE);
        write!(id, "{:016x}-{number}", self.process).expect("a string takes every text");
        RequestId(id.into())
    }
}

fn usable(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usable_id_is_kept_and_any_other_replaced() {
        let ids = RequestIds::new();
        let of = |given: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(given.as_bytes()).unwrap());
            ids.of(&headers).as_str().to_owned()
        };
        assert_eq!(of("abc-1"), "abc-1");
        assert_eq!(of(&"x".repeat(128)), "x".repeat(128));
        for bad in ["", "two words", "ümlaut", &"x".repeat(129)] {
            assert!(of(bad).starts_with(&format!("{:016x}-", ids.process)), "{bad}");
        }
        assert_ne!(of(""), of(""));
    }
}
