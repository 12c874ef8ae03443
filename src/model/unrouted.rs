//! Counts requests that no version has got.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::LookupError;

/// Why no version has got a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unrouted {
    /// There is no such model, version or alias.
    Unknown,
    /// The model or the version does not serve.
    Unavailable,
    /// As many requests waited for the model to be loaded as may.
    QueueFull,
    /// The deadline passed before the model was loaded.
    Deadline,
    /// The model did not fit into the memory.
    Memory,
}

/// Requests by [`Unrouted`], in the order of its `ALL`.
pub type UnroutedReport = [u64; Unrouted::ALL.len()];

/// Counters that are bumped without a lock.
#[derive(Debug)]
pub(super) struct UnroutedCounts([AtomicU64; Unrouted::ALL.len()]);

impl Unrouted {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::Unknown, Self::Unavailable, Self::QueueFull, Self::Deadline, Self::Memory];

    /// The reason's name, such as `queue_full`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Unavailable => "unavailable",
            Self::QueueFull => "queue_full",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
        }
    }

    /// Of a request that was refused so; `lacks_room` where the model did not fit when it was last loaded.
    pub(super) fn of(error: &LookupError, lacks_room: bool) -> Self {
        match error {
            LookupError::Name(_)
            | LookupError::UnknownModel(_)
            | LookupError::UnknownVersion { .. }
            | LookupError::UnknownAlias { .. } => Self::Unknown,
            LookupError::Crowded { .. } => Self::QueueFull,
            LookupError::Late { .. } => Self::Deadline,
            LookupError::NotServing { .. } if lacks_room => Self::Memory,
            LookupError::NotServing { .. } => Self::Unavailable,
        }
    }
}

impl Default for UnroutedCounts {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl UnroutedCounts {
    pub(super) fn add(&self, reason: Unrouted) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> UnroutedReport {
        array::from_fn(|place| self.0[place].load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StateKind;

    #[test]
    fn every_refusal_has_one_reason() {
        let counts = UnroutedCounts::default();
        let model = || "m".to_owned();
        let resting = || LookupError::NotServing {
            model: model(),
            version: None,
            state: StateKind::Unloaded,
            reason: String::new(),
        };
        counts.add(Unrouted::of(&LookupError::UnknownModel(model()), false));
        counts.add(Unrouted::of(&resting(), false));
        counts.add(Unrouted::of(&LookupError::Crowded { model: model() }, true));
        counts.add(Unrouted::of(&LookupError::Late { model: model() }, true));
        counts.add(Unrouted::of(&resting(), true));
        assert_eq!(counts.read(), [1; Unrouted::ALL.len()]);
    }
}
