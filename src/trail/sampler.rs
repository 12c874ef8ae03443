//! Which traces are recorded that begin here, and their ids.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use super::context::{SpanId, TraceId};

/// All of them, in millionths.
const ALL: u64 = 1_000_000;

/// Makes ids that no other process makes, and decides by them: every program that decides by ids keeps the
/// same traces.
#[derive(Debug)]
pub(super) struct Sampler {
    /// The standard library seeds a hasher's state at random, and its hash tells nothing of the next.
    keys: [RandomState; 2],
    next: AtomicU64,
    millionths: AtomicU64,
}

impl Sampler {
    pub(super) fn new(millionths: u32) -> Self {
        let keys = [RandomState::new(), RandomState::new()];
        let sampler = Self { keys, next: AtomicU64::new(0), millionths: AtomicU64::new(0) };
        sampler.set(millionths);
        sampler
    }

    /// So many of a million traces are recorded from now on.
    pub(super) fn set(&self, millionths: u32) {
        self.millionths.store(u64::from(millionths).min(ALL), Ordering::Relaxed);
    }

    pub(super) fn trace(&self) -> TraceId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let [first, second] = [&self.keys[0], &self.keys[1]].map(|key| hash(key, number));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&first.to_be_bytes());
        bytes[8..].copy_from_slice(&second.to_be_bytes());
        TraceId(bytes)
    }

    pub(super) fn span(&self) -> SpanId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        SpanId(hash(&self.keys[0], number).to_be_bytes())
    }

    /// Whether a trace that begins here is recorded.
    pub(super) fn takes(&self, trace: TraceId) -> bool {
        let last = trace.0.last_chunk::<8>().expect("it has 16 bytes");
        // The last 7 bytes of an id are random, by the specification.
        let random = u64::from_be_bytes(*last) & (u64::MAX >> 8);
        let below = (u128::from(self.millionths.load(Ordering::Relaxed)) << 56) / u128::from(ALL);
        u128::from(random) < below
    }
}

/// Never zero, which is no id.
fn hash(key: &RandomState, number: u64) -> u64 {
    key.hash_one(number).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn so_many_of_a_million_are_taken() {
        let sampler = Sampler::new(0);
        let taken = |millionths| {
            sampler.set(millionths);
            (0..10_000).filter(|_| sampler.takes(sampler.trace())).count()
        };
        assert_eq!((taken(0), taken(1_000_000)), (0, 10_000));
        assert!((2_200..2_800).contains(&taken(250_000)));
    }

    #[test]
    fn ids_differ() {
        let sampler = Sampler::new(0);
        let traces: HashSet<_> = (0..1000).map(|_| sampler.trace()).collect();
        let spans: HashSet<_> = (0..1000).map(|_| sampler.span()).collect();
        assert_eq!((traces.len(), spans.len()), (1000, 1000));
    }
}
