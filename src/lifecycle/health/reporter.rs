//! Checks whose state is told by the code that knows.

use std::sync::Arc;
use std::time::Duration;

use super::check::CheckResult;
use super::record::Finished;
use super::registry::HealthRegistry;
use super::slot::Slot;

/// Tells the state of one check, at the moment it changes. May be used from any thread.
#[derive(Debug)]
pub struct HealthReporter {
    registry: HealthRegistry,
    slot: Arc<Slot>,
}

impl HealthReporter {
    pub(super) fn new(registry: HealthRegistry, slot: Arc<Slot>) -> Self {
        Self { registry, slot }
    }

    /// Reports what is the case now; takes effect for the next probe. Without effect once another
    /// check has taken the place of this one.
    pub fn report(&self, result: CheckResult) {
        self.slot.count(Finished { result, duration: Duration::ZERO });
    }

    /// Takes the check out, as [`HealthRegistry::deregister`] does, unless another has its place
    /// already. Without this it stays as it was reported last.
    pub fn deregister(&self) {
        self.registry.deregister_slot(&self.slot);
    }
}
