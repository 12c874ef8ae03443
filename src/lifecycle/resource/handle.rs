//! A resource for those who need it.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::manager::Shared;
use super::report::{ResourceError, ResourceReport};
use super::slot::{AnySlot, How, Slot};

/// Gives a resource of a known type to those who need it.
pub struct ResourceHandle<T> {
    pub(super) slot: Arc<Slot<T>>,
    pub(super) shared: Weak<Shared>,
}

/// A resource in use. Its cleaner waits until it is dropped, for half of the time that it has.
#[must_use = "the resource is in use for as long as this lives"]
pub struct ResourceRef<T> {
    value: Arc<T>,
    _user: TaskTrackerToken,
}

impl<T: Send + Sync + 'static> ResourceHandle<T> {
    /// The resource, set up if it is not, after what it depends on. Callers at the same time wait for
    /// the one initialisation, which goes on when they go away. Cancel safe.
    ///
    /// # Errors
    /// [`ResourceError`]: it cannot be set up, it is too early to try again, or the manager has ended.
    pub async fn get(&self) -> Result<ResourceRef<T>, ResourceError> {
        let how = How::on_demand();
        loop {
            if let Some(user) = self.try_get() {
                return Ok(user);
            }
            let shared = self.shared.upgrade().ok_or_else(|| self.slot.unavailable())?;
            shared.set_up(self.slot.name(), how).await?;
            // Somebody may clean it before it is taken.
            if how.deadline.remaining().is_zero() {
                return self.try_get().ok_or_else(|| self.slot.unavailable());
            }
        }
    }

    /// The resource, if it is set up.
    pub fn try_get(&self) -> Option<ResourceRef<T>> {
        self.slot.enter().map(|(value, user)| ResourceRef { value, _user: user })
    }

    /// How it is.
    pub fn report(&self) -> ResourceReport {
        self.slot.report()
    }
}

impl<T> Clone for ResourceHandle<T> {
    fn clone(&self) -> Self {
        Self { slot: Arc::clone(&self.slot), shared: Weak::clone(&self.shared) }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for ResourceHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceHandle").field("name", &self.slot.name()).finish_non_exhaustive()
    }
}

impl<T> Deref for ResourceRef<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for ResourceRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
