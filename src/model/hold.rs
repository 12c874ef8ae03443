//! What holds a version in memory beside its requests: ensembles that have it as a step.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::handle::Serving;
use super::names::VersionId;

/// Who holds a version, each as often as it has it as a step.
#[derive(Debug, Default)]
pub(super) struct Holds {
    kept: Mutex<Kept>,
    released: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    holders: BTreeMap<VersionId, usize>,
    /// Whether nobody may hold it, for it is about to go.
    is_sealed: bool,
}

impl Holds {
    pub(super) fn is_held(&self) -> bool {
        !self.kept().holders.is_empty()
    }

    /// Who holds it, in order.
    pub(super) fn by(&self) -> Vec<VersionId> {
        self.kept().holders.keys().cloned().collect()
    }

    /// The same as users of the version, in words.
    pub(super) fn users(&self) -> Vec<String> {
        self.kept().holders.keys().map(|holder| format!("the ensemble {holder}")).collect()
    }

    /// Waits until nobody holds it. Cancel safe.
    pub(super) async fn released(&self) {
        loop {
            let mut released = pin!(self.released.notified());
            // Registered before the look, so that who lets go in between wakes it.
            released.as_mut().enable();
            if !self.is_held() {
                return;
            }
            released.await;
        }
    }

    /// Lets nobody hold it from then on; not where somebody does.
    #[must_use]
    pub(super) fn seal(&self) -> bool {
        let mut kept = self.kept();
        kept.is_sealed |= kept.holders.is_empty();
        kept.is_sealed
    }

    /// It may be held again.
    pub(super) fn unseal(&self) {
        self.kept().is_sealed = false;
    }

    /// Whether it could be added to.
    fn add(&self, holder: &VersionId) -> bool {
        let mut kept = self.kept();
        if !kept.is_sealed {
            *kept.holders.entry(holder.clone()).or_default() += 1;
        }
        !kept.is_sealed
    }

    fn remove(&self, holder: &VersionId) {
        let mut kept = self.kept();
        if let Some(count) = kept.holders.get_mut(holder) {
            *count -= 1;
            if *count == 0 {
                kept.holders.remove(holder);
            }
        }
        drop(kept);
        self.released.notify_waiters();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A version that is held: it is not unloaded, though it may have stopped to take requests of others.
#[must_use = "the version may be unloaded once the hold is dropped"]
pub(super) struct Hold {
    serving: Arc<Serving>,
    holder: VersionId,
    ended: AtomicBool,
}

impl Hold {
    /// Holds a version; `None` when it takes nothing new any more.
    pub(super) fn of(serving: &Arc<Serving>, holder: &VersionId) -> Option<Self> {
        // Who unloads it waits for who is inside, and looks for holders only then.
        let _inside = serving.gate_guard()?;
        let is_held = serving.holds.add(holder);
        let (serving, holder) = (Arc::clone(serving), holder.clone());
        is_held.then(|| Self { serving, holder, ended: AtomicBool::new(false) })
    }

    /// Another hold of the same version by the same holder.
    pub(super) fn again(&self) -> Self {
        let is_held = self.serving.holds.add(&self.holder);
        debug_assert!(is_held, "what is held is not sealed");
        let (serving, holder) = (Arc::clone(&self.serving), self.holder.clone());
        Self { serving, holder, ended: AtomicBool::new(false) }
    }

    pub(super) fn serving(&self) -> &Arc<Serving> {
        &self.serving
    }

    /// Lets go now, whoever still has this.
    pub(super) fn end(&self) {
        if !self.ended.swap(true, Ordering::SeqCst) {
            self.serving.holds.remove(&self.holder);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("of", &self.serving.id).finish_non_exhaustive()
    }
}
