//! Requests that are to share a run, as they are found.

use tokio::time::Instant;

use super::super::batching::Batching;
use super::super::padding::Key;
use super::super::task::Task;

/// What those that were found have together, and what another must have that is to share their run.
pub(super) struct Gathering {
    /// What all of them have to have.
    key: Key,
    entries: usize,
    bytes: u64,
    /// The most entries.
    limit: usize,
    /// The most bytes.
    most: u64,
    /// Since when they are looked for.
    pub(super) since: Instant,
    /// Until when more may be waited for.
    pub(super) until: Instant,
}

impl Gathering {
    /// Begins with `first`, for a run of so many entries and bytes at most; `None` where that is to be alone.
    pub(super) fn of(
        first: &Task,
        (limit, most): (usize, u64),
        batching: &Batching,
    ) -> Option<Self> {
        let entries = batching.entries(&first.request).filter(|entries| *entries < limit)?;
        let since = Instant::now();
        if first.dead(since).is_some() {
            return None;
        }
        let key = batching.options.padding.key(&first.request)?;
        let until = first.admitted + batching.options.max_delay;
        let until = until.min(first.terms.deadline);
        Some(Self { key, entries, bytes: first.size, limit, most, since, until })
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries >= self.limit
    }

    /// Whether another is to share the run, which it does from then on.
    pub(super) fn takes(&mut self, task: &Task, batching: &Batching) -> bool {
        let Some(more) = batching.entries(&task.request) else { return false };
        let entries = self.entries.saturating_add(more);
        let bytes = self.bytes.saturating_add(task.size);
        let has_room = entries <= self.limit && bytes <= self.most;
        if !has_room || !batching.options.padding.has_key(&task.request, &self.key) {
            return false;
        }
        (self.entries, self.bytes) = (entries, bytes);
        self.until = self.until.min(task.terms.deadline);
        true
    }
}
