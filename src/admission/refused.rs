//! How many were not let in.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::oip::Refusal;

/// Counts requests that were not let in, by why.
#[derive(Debug, Default)]
pub struct Refused {
    crowded: AtomicU64,
    too_often: AtomicU64,
    elsewhere: AtomicU64,
}

impl Refused {
    pub(super) fn add(&self, refusal: &Refusal) {
        let count = match refusal {
            Refusal::Crowded => &self.crowded,
            Refusal::TooOften { .. } => &self.too_often,
            _ => &self.elsewhere,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Those by now: too many connections were open, their clients had asked too often, or another listener
    /// answers them.
    pub fn report(&self) -> [(&'static str, u64); 3] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("crowded", read(&self.crowded)),
            ("rate_limited", read(&self.too_often)),
            ("elsewhere", read(&self.elsewhere)),
        ]
    }
}
