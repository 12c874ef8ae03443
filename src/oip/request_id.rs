//! The id under which a request is found in the logs.

use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;
use std::str;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// The header or metadata that carries the id both ways.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// The longest id that is taken from a caller.
const LONGEST: usize = 128;

/// What those that are made begin with: a number of 64 bits, and a dash.
const BEGINNING: usize = 16 + 1;

/// The longest that is made, which ends with another such number in decimal.
const LONGEST_MADE: usize = BEGINNING + 20;

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
    beginning: [u8; BEGINNING],
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        // The standard library seeds a hasher's state at random.
        let process = format!("{:016x}-", RandomState::new().hash_one(std::process::id()));
        let beginning = process.as_bytes().try_into().expect("it has sixteen digits");
        Self { beginning, next: AtomicU64::new(1) }
    }

    /// The caller's id if it gave one that can be logged and returned, else a new one.
    pub(crate) fn of(&self, given: Option<&[u8]>) -> RequestId {
        given.and_then(RequestId::read).unwrap_or_else(|| self.make())
    }

    /// A new one.
    pub(crate) fn make(&self) -> RequestId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut made = Made { text: [0; LONGEST_MADE], length: 0 };
        made.text[..BEGINNING].copy_from_slice(&self.beginning);
        let mut rest = &mut made.text[BEGINNING..];
        write!(rest, "{number}").expect("there is room for the longest");
        made.length = LONGEST_MADE - rest.len();
        // Shared from the beginning: it is cloned in any case.
        RequestId(Bytes::from_owner(made))
    }
}

/// An id that was made.
struct Made {
    text: [u8; LONGEST_MADE],
    length: usize,
}

impl AsRef<[u8]> for Made {
    fn as_ref(&self) -> &[u8] {
        &self.text[..self.length]
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
            let made = of(bad);
            let number = made.as_bytes().strip_prefix(&ids.beginning).expect(bad);
            assert!(!number.is_empty() && number.iter().all(u8::is_ascii_digit), "{made}");
        }
        assert_ne!(of(""), of(""));
        assert_ne!(ids.of(None).as_str(), "");
        let last = RequestIds { next: AtomicU64::new(u64::MAX), ..ids };
        assert!(last.make().as_str().ends_with("-18446744073709551615"));
    }
}
