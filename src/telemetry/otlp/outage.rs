//! What the log is told of a collector: that it takes no spans, once, and that it takes them again.

use tracing::{debug, info, warn};

use crate::trail::SpansReport;

/// Whether the collector is away.
pub(super) struct Outage {
    /// The collector, as it may be shown.
    collector: String,
    is_away: bool,
    has_rejected: bool,
    /// What was dropped before it went.
    before: SpansReport,
}

impl Outage {
    pub(super) fn new(collector: String) -> Self {
        let before = SpansReport::default();
        Self { collector, is_away: false, has_rejected: false, before }
    }

    pub(super) fn failed(&mut self, cause: &str, report: SpansReport) {
        let collector = &self.collector;
        if self.is_away {
            debug!(collector, cause, "spans are still not taken");
            return;
        }
        (self.is_away, self.before) = (true, report);
        warn!(collector, cause, "spans are not taken: what the queue has no room for is dropped");
    }

    pub(super) fn passed(&mut self, report: SpansReport) {
        if std::mem::take(&mut self.is_away) {
            let dropped = dropped(report).saturating_sub(dropped(self.before));
            info!(collector = self.collector, dropped, "spans are taken again");
        }
    }

    /// The collector has taken a batch, and did not want some of it.
    pub(super) fn rejected(&mut self, count: u64, why: &str) {
        let collector = &self.collector;
        if std::mem::replace(&mut self.has_rejected, true) {
            debug!(collector, count, why, "spans are not wanted");
        } else {
            warn!(collector, count, why, "spans are not wanted; further ones are only counted");
        }
    }
}

fn dropped(report: SpansReport) -> u64 {
    report.full + report.failed + report.rejected
}
