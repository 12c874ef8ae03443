//! The id under which a request is found in the logs.

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::str;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// The header or metadata that carries the id both ways.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// The longest id that is taken from a caller.
const LONGEST: usize = 128;

/// The longest that is made: two numbers of 64 bits, in either base, and a dash.
const LONGEST_MADE: usize = 16 + 1 + 20;

/// The id of a request: visible ASCII.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(Bytes);

impl RequestId {
    /// What a caller has given, where it can be logged and returned.
    pub(crate) fn read(given: &[u8]) -> Option<Self> {
        usable(given).then(|| Self(Bytes::copy_from_slice(given)))
    }

    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("visible ASCII is UTF-8")
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }
}

/// Makes ids that no other process makes.
#[derive(Debug)]
pub(crate) struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        // The standard library seeds a hasher's state at random.
        Self { process: RandomState::new().hash_one(std::process::id()), next: AtomicU64::new(1) }
    }

    /// The caller's id if it gave one that can be logged and returned, else a new one.
    pub(crate) fn of(&self, given: Option<&[u8]>) -> RequestId {
        given.and_then(RequestId::read).unwrap_or_else(|| self.make())
    }

    /// A new one.
    pub(crate) fn make(&self) -> RequestId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = String::with_capacity(LONGEST_MADE);
        write!(id, "{:016x}-{number}", self.process).expect("a string takes every text");
        RequestId(id.into())
    }
}

fn usable(bytes: &[u8]) -> bool {
    (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usable_id_is_kept_and_any_other_replaced() {
        let ids = RequestIds::new();
        let of = |given: &str| ids.of(Some(given.as_bytes())).as_str().to_owned();
        assert_eq!(of("abc-1"), "abc-1");
        assert_eq!(of(&"x".repeat(128)), "x".repeat(128));
        for bad in ["", "two words", "ümlaut", &"x".repeat(129)] {
            assert!(of(bad).starts_with(&format!("{:016x}-", ids.process)), "{bad}");
        }
        assert_ne!(of(""), of(""));
        assert_ne!(ids.of(None).as_str(), "");
    }
}
