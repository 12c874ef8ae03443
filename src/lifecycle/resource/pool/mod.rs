//! Several items of one resource type, lent to one user each.

mod items;
mod keeper;

#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::panicking;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Object, QueueMode, TimeoutType, Timeouts};
use tokio_util::task::AbortOnDropHandle;

pub(super) use items::Recipe;

use crate::lifecycle::handler::HandlerError;
use crate::lifecycle::health::CheckResult;
use items::{Items, Stored};
use keeper::AT_ONCE;

/// How many items a pool has, and how long everything may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolOptions {
    /// Items that are kept also while nobody needs them; they are set up with the pool.
    pub min: usize,
    /// Items at most; the others are set up when they are needed.
    pub max: NonZeroUsize,
    /// Users that may wait for an item at once; who comes later is refused.
    pub max_waiting: usize,
    /// How long each of them may wait.
    pub wait: Duration,
    /// How long an item above the `min` is kept while nobody needs it.
    pub idle_timeout: Duration,
    /// How long an item's initialiser, its check and its cleaner may take, each.
    pub item_timeout: Duration,
}

impl PoolOptions {
    /// At most `max` items and 1024 waiting users, none kept without need; 10 seconds to wait, 10
    /// minutes until an item is idle, 30 seconds for each step of an item.
    pub const fn new(max: NonZeroUsize) -> Self {
        Self {
            min: 0,
            max,
            max_waiting: 1024,
            wait: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(10),
            item_timeout: Duration::from_secs(30),
        }
    }
}

/// Why there is no item, or no pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// As many users wait as may.
    #[error("{waiting} others wait for an item already")]
    Full {
        /// How many.
        waiting: usize,
    },
    /// No item came back in time.
    #[error("no item came back within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// There is none, and none could be set up.
    #[error("no item can be set up")]
    Failed(#[source] HandlerError),
    /// The pool was cleaned up.
    #[error("the pool is closed")]
    Closed,
    /// More are to be kept than there may be.
    #[error("a pool of at most {max} items cannot keep {min}")]
    Options {
        /// To be kept.
        min: usize,
        /// At most.
        max: usize,
    },
    /// So many cleaners of items have failed; the log has their causes.
    #[error("{0} items were not cleaned up")]
    Unclean(u64),
}

/// Items of one type, each with one user at a time.
///
/// Made by [`ResourceType::pool`](super::ResourceType::pool). Whoever waits is served in the order of
/// arrival. An item is checked before it has another user; one that is not well is cleaned up, and the
/// next is tried, or a new one set up. Each item's cleaner runs once: when it is idle for too long, not
/// well, discarded, dropped by a user that panics, or when the pool is cleaned up or dropped; then on
/// the runtime in which it was set up, as long as that runs.
pub struct Pool<T: Send + Sync + 'static> {
    items: managed::Pool<Items<T>>,
    waiting: AtomicUsize,
    keeper: AbortOnDropHandle<()>,
}

/// An item in use. It goes back when it is dropped.
#[must_use = "the item goes back at once"]
pub struct PoolItem<T: Send + Sync + 'static> {
    /// `None` only while it is dropped.
    object: Option<Object<Items<T>>>,
}

/// What a pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    /// Items there are.
    pub size: usize,
    /// Items that have a user.
    pub in_use: usize,
    /// Users that wait for one.
    pub waiting: usize,
    /// Items that were set up, in all.
    pub initialized: u64,
    /// Items that were cleaned up, in all, and in every life of the pool.
    pub cleaned: u64,
    /// Items whose cleaner failed, likewise.
    pub unclean: u64,
}

impl<T: Send + Sync + 'static> Pool<T> {
    /// A pool with as many items as it is to keep. If one fails, the others are cleaned up before this
    /// returns.
    pub(super) async fn open(recipe: Recipe<T>) -> Result<Self, PoolError> {
        let options = recipe.options;
        if options.min > options.max.get() {
            return Err(PoolError::Options { min: options.min, max: options.max.get() });
        }
        let alive = recipe.alive().clone();
        alive.reopen();
        let items = managed::Pool::builder(Items::new(recipe))
            .max_size(options.max.get())
            // What is used least is idle first.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a runtime for time-outs is given");
        if let Err(failure) = keeper::fill(&items).await {
            items.close();
            alive.close();
            alive.wait().await;
            return Err(PoolError::Failed(failure));
        }
        let keeper = AbortOnDropHandle::new(tokio::spawn(keeper::keep(items.weak())));
        Ok(Self { items, waiting: AtomicUsize::new(0), keeper })
    }

    /// An item that nobody else has. Waits for one if all are in use. Cancel safe: no item and no place
    /// is lost.
    ///
    /// # Errors
    /// [`PoolError`], but [`PoolError::Options`] and [`PoolError::Unclean`].
    pub async fn get(&self) -> Result<PoolItem<T>, PoolError> {
        let object = match self.items.timeout_get(&AT_ONCE).await {
            Err(managed::PoolError::Timeout(TimeoutType::Wait)) => self.wait().await,
            done => done.map_err(|refusal| self.refused(refusal)),
        };
        object.map(|object| PoolItem { object: Some(object) })
    }

    async fn wait(&self) -> Result<Object<Items<T>>, PoolError> {
        let options = self.options();
        let _waiting = Waiting::among(&self.waiting, options.max_waiting)?;
        let patience = Timeouts { wait: Some(options.wait), ..AT_ONCE };
        self.items.timeout_get(&patience).await.map_err(|refusal| self.refused(refusal))
    }

    fn refused(&self, refusal: managed::PoolError<HandlerError>) -> PoolError {
        match refusal {
            managed::PoolError::Backend(failure) => PoolError::Failed(failure),
            managed::PoolError::Timeout(_) => PoolError::TimedOut(self.options().wait),
            managed::PoolError::Closed
            | managed::PoolError::NoRuntimeSpecified
            | managed::PoolError::PostCreateHook(_) => PoolError::Closed,
        }
    }

    /// What it has now.
    pub fn status(&self) -> PoolStatus {
        let (status, items) = (self.items.status(), self.items.manager());
        let count = items.recipe().count();
        PoolStatus {
            size: status.size,
            in_use: status.size - status.available,
            waiting: self.waiting.load(Ordering::Relaxed),
            initialized: items.initialized(),
            cleaned: count.cleaned.load(Ordering::Relaxed),
            unclean: count.failed.load(Ordering::Relaxed),
        }
    }

    /// Whether items can be set up.
    pub(super) fn health(&self) -> CheckResult {
        self.items.manager().failure().map_or(Ok(()), Err)
    }

    /// Refuses whoever waits or comes, and waits until every item is back and cleaned up.
    pub(super) async fn end(&self) -> Result<(), PoolError> {
        let recipe = self.items.manager().recipe();
        let before = recipe.count().failed.load(Ordering::Relaxed);
        self.keeper.abort();
        self.items.close();
        recipe.alive().close();
        recipe.alive().wait().await;
        match recipe.count().failed.load(Ordering::Relaxed) - before {
            0 => Ok(()),
            unclean => Err(PoolError::Unclean(unclean)),
        }
    }

    fn options(&self) -> PoolOptions {
        self.items.manager().recipe().options
    }
}

/// Counts one that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(count: &'a AtomicUsize, most: usize) -> Result<Self, PoolError> {
        let enter = |waiting| (waiting < most).then_some(waiting + 1);
        match count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter) {
            Ok(_) => Ok(Self(count)),
            Err(waiting) => Err(PoolError::Full { waiting }),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T: Send + Sync + 'static> PoolItem<T> {
    /// Takes the item out of the pool: it is cleaned up, and its place is free for another.
    pub fn discard(mut self) {
        self.object.take().map(Object::take);
    }

    fn stored(&self) -> &Stored<T> {
        self.object.as_ref().expect(LENT)
    }
}

const LENT: &str = "an item is there until it is dropped";

impl<T: Send + Sync + 'static> Drop for PoolItem<T> {
    fn drop(&mut self) {
        let Some(mut object) = self.object.take() else { return };
        if panicking() {
            // Nobody knows how its user has left it.
            drop(Object::take(object));
        } else {
            object.idle_since = tokio::time::Instant::now();
        }
    }
}

impl<T: Send + Sync + 'static> Deref for PoolItem<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.stored().owned.value()
    }
}

impl<T: Send + Sync + 'static> DerefMut for PoolItem<T> {
    fn deref_mut(&mut self) -> &mut T {
        let object = self.object.as_mut().expect(LENT);
        object.owned.value_mut().expect("nobody but its user has an item")
    }
}

impl<T: fmt::Debug + Send + Sync + 'static> fmt::Debug for PoolItem<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("status", &self.status()).finish_non_exhaustive()
    }
}
