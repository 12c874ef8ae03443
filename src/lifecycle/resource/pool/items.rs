//! How a pool's items come, are checked, and go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::PoolOptions;
use crate::causes;
use crate::lifecycle::deadline::Deadline;
use crate::lifecycle::handler::HandlerError;
use crate::lifecycle::resource::owned::{Cleaning, CleaningCount, Owned};
use crate::lifecycle::resource::work::{Cleaner, Initializer, Probe};

/// What a pool is made from, each time that it is set up.
pub(in crate::lifecycle::resource) struct Recipe<T> {
    pub(super) options: PoolOptions,
    init: Arc<Initializer<T>>,
    probe: Option<Probe<T>>,
    cleaning: Arc<Cleaning<T>>,
}

/// An item, and since when nobody has used it.
pub(super) struct Stored<T: Send + Sync + 'static> {
    pub(super) owned: Owned<T>,
    pub(super) idle_since: Instant,
}

/// Sets items up and checks them; the pool's crate calls it.
pub(super) struct Items<T> {
    recipe: Recipe<T>,
    initialized: AtomicU64,
    failure: Mutex<Option<String>>,
    /// An item has left the pool.
    pub(super) gone: Arc<Notify>,
}

impl<T: Send + Sync + 'static> Recipe<T> {
    pub(in crate::lifecycle::resource) fn new(
        name: String,
        init: Initializer<T>,
        clean: Option<Cleaner<T>>,
        options: PoolOptions,
    ) -> Self {
        let cleaning = Arc::new(Cleaning {
            name,
            clean,
            timeout: options.item_timeout,
            alive: TaskTracker::new(),
            count: CleaningCount::default(),
        });
        Self { options, init: Arc::new(init), probe: None, cleaning }
    }

    /// One whose items are checked before they are used again.
    pub(in crate::lifecycle::resource) fn checked(mut self, probe: Option<Probe<T>>) -> Self {
        self.probe = probe;
        self
    }

    /// Items, and their cleaners that run.
    pub(in crate::lifecycle::resource) fn alive(&self) -> &TaskTracker {
        &self.cleaning.alive
    }

    /// The resource's.
    pub(super) fn name(&self) -> &str {
        &self.cleaning.name
    }

    pub(super) fn count(&self) -> &CleaningCount {
        &self.cleaning.count
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.options.item_timeout)
    }
}

impl<T> Clone for Recipe<T> {
    fn clone(&self) -> Self {
        Self {
            options: self.options,
            init: Arc::clone(&self.init),
            probe: self.probe.clone(),
            cleaning: Arc::clone(&self.cleaning),
        }
    }
}

impl<T> Items<T> {
    pub(super) fn new(recipe: Recipe<T>) -> Self {
        Self {
            recipe,
            initialized: AtomicU64::new(0),
            failure: Mutex::default(),
            gone: Arc::default(),
        }
    }

    pub(super) fn recipe(&self) -> &Recipe<T> {
        &self.recipe
    }

    pub(super) fn initialized(&self) -> u64 {
        self.initialized.load(Ordering::Relaxed)
    }

    /// Why no item could be set up the last time; `None` when one could.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }
}

impl<T: Send + Sync + 'static> Manager for Items<T> {
    type Type = Stored<T>;
    type Error = HandlerError;

    async fn create(&self) -> Result<Stored<T>, HandlerError> {
        let recipe = &self.recipe;
        match recipe.init.attempt(&recipe.cleaning, recipe.deadline()).await {
            Ok(owned) => {
                self.initialized.fetch_add(1, Ordering::Relaxed);
                self.note(None);
                Ok(Stored { owned, idle_since: Instant::now() })
            }
            Err(failure) => {
                self.note(Some(causes::of_error(&failure)));
                Err(failure)
            }
        }
    }

    async fn recycle(&self, item: &mut Stored<T>, _: &Metrics) -> RecycleResult<HandlerError> {
        let Some(probe) = &self.recipe.probe else { return Ok(()) };
        let checked = probe.attempt(item.owned.value(), self.recipe.deadline()).await;
        if let Err(failure) = checked {
            let (resource, cause) = (self.recipe.name(), causes::of_error(&failure));
            tracing::warn!(resource, cause, "an item of a pool is not well and is replaced");
            return Err(RecycleError::Backend(failure));
        }
        match item.owned.value_mut() {
            Some(_) => Ok(()),
            None => Err(RecycleError::message("the check has kept the item")),
        }
    }

    fn detach(&self, _: &mut Stored<T>) {
        self.gone.notify_one();
    }
}
