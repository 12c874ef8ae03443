//! What a resource is made of.

use std::fmt;
use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::task::TaskTracker;

use super::backoff::Backoff;
use super::pool::{Pool, PoolOptions, Recipe};
use super::work::{Cleaner, Initializer, Probe, Setup};
use crate::lifecycle::handler::{Failure, blocking};
use crate::lifecycle::health::CheckResult;

/// How to set up, check and clean one kind of resource, of which there may be several, each with a
/// configuration of its own.
///
/// ```
/// use onward::lifecycle::{EventBus, HealthRegistry, ResourceManager, ResourceType};
/// # use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), onward::lifecycle::ResourceError> {
/// # let (second, events) = (Duration::from_secs(1), EventBus::new(64));
/// # let health = HealthRegistry::new(5 * second, second, events.clone());
/// let resources = ResourceManager::new(health, events);
/// let file = ResourceType::new(|path: &'static str| async move { std::fs::read_to_string(path) });
/// let hosts = resources.register(file.resource("hosts", "/etc/hosts").lazy());
/// let text = hosts.get().await?;
/// assert!(text.len() > 0);
/// # Ok(())
/// # }
/// ```
#[must_use = "a resource type does nothing until a resource of it is registered"]
pub struct ResourceType<C, T> {
    setup: Setup<C, T>,
    clean: Option<Cleaner<T>>,
    probe: Option<Probe<T>>,
}

impl<C, T> ResourceType<C, T>
where
    C: Clone + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    /// One that is set up by `init` from a configuration; what blocks belongs into
    /// [`ResourceType::blocking`]. When it takes longer than the resource's timeout it is dropped.
    pub fn new<F, R, E>(init: F) -> Self
    where
        F: Fn(C) -> R + Send + Sync + 'static,
        R: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<Failure>,
    {
        let init = move |config| init(config).map(|result| result.map_err(Into::into)).boxed();
        Self { setup: Setup::Async(Arc::new(init)), clean: None, probe: None }
    }

    /// One that is set up by an `init` that may block, on a thread where it may. When it takes longer
    /// than the resource's timeout nobody waits for it, and what it sets up at last is cleaned up.
    pub fn blocking<F, E>(init: F) -> Self
    where
        F: Fn(C) -> Result<T, E> + Send + Sync + 'static,
        E: Into<Failure>,
    {
        let init = move |config| init(config).map_err(Into::into);
        Self { setup: Setup::Blocking(Arc::new(init)), clean: None, probe: None }
    }

    /// Cleans each up with `clean`, once for each time that it was set up.
    pub fn clean<F, R, E>(mut self, clean: F) -> Self
    where
        F: Fn(Arc<T>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Failure>,
    {
        let clean = move |value| clean(value).map(|result| result.map_err(Into::into)).boxed();
        self.clean = Some(Arc::new(clean));
        self
    }

    /// Cleans each up with a `clean` that may block, as [`ResourceType::clean`] does.
    pub fn clean_blocking<F, E>(self, clean: F) -> Self
    where
        F: Fn(Arc<T>) -> Result<(), E> + Send + Sync + 'static,
        E: Into<Failure> + Send + 'static,
    {
        let clean = Arc::new(clean);
        self.clean(move |value| {
            let clean = Arc::clone(&clean);
            blocking(move || clean(value))
        })
    }

    /// Checks each with `check` while it is set up; see [`Resource::check`].
    pub fn check<F, R>(mut self, check: F) -> Self
    where
        F: Fn(Arc<T>) -> R + Send + Sync + 'static,
        R: Future<Output = CheckResult> + Send + 'static,
    {
        self.probe = Some(Probe::Async(Arc::new(move |value| check(value).boxed())));
        self
    }

    /// Checks each with a `check` that may block; see [`Resource::check`].
    pub fn check_blocking<F>(mut self, check: F) -> Self
    where
        F: Fn(&T) -> CheckResult + Send + Sync + 'static,
    {
        self.probe = Some(Probe::Blocking(Arc::new(check)));
        self
    }

    /// A resource of this type.
    pub fn resource(&self, name: impl Into<String>, config: C) -> Resource<T> {
        let mut resource = Resource::boxed(name.into(), self.setup.with(config));
        resource.clean.clone_from(&self.clean);
        resource.probe.clone_from(&self.probe);
        resource
    }

    /// A pool of items of this type, all with the same configuration. Its check fails while no item
    /// can be set up.
    pub fn pool(
        &self,
        name: impl Into<String>,
        config: C,
        options: PoolOptions,
    ) -> Resource<Pool<T>> {
        let (name, items) = (name.into(), self.setup.with(config));
        let recipe = Recipe::new(name.clone(), items, self.clean.clone(), options);
        let recipe = recipe.checked(self.probe.clone());
        let left = recipe.alive().clone();
        let pool = Resource::new(name, move || Pool::open(recipe.clone()));
        let pool = pool.clean(|pool| async move { pool.end().await });
        Resource { left, ..pool.check(|pool| ready(pool.health())) }
    }
}

/// A resource with its initialiser, cleaner and check. Without further words it is set up at the start,
/// in one attempt.
#[must_use = "a resource does nothing until it is registered"]
pub struct Resource<T> {
    pub(super) name: String,
    pub(super) after: Vec<String>,
    pub(super) lazy: bool,
    pub(super) lasting: bool,
    pub(super) critical: bool,
    /// What its life leaves behind, and the end waits for.
    pub(super) left: TaskTracker,
    pub(super) timeout: Option<Duration>,
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) init: Initializer<T>,
    pub(super) clean: Option<Cleaner<T>>,
    pub(super) probe: Option<Probe<T>>,
}

impl<T: Send + Sync + 'static> Resource<T> {
    /// One that is the only one of its type.
    pub fn new<F, R, E>(name: impl Into<String>, init: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<Failure>,
    {
        ResourceType::new(move |()| init()).resource(name, ())
    }

    /// One that is the only one of its type, set up by an `init` that may block; see
    /// [`ResourceType::blocking`].
    pub fn blocking<F, E>(name: impl Into<String>, init: F) -> Self
    where
        F: Fn() -> Result<T, E> + Send + Sync + 'static,
        E: Into<Failure>,
    {
        ResourceType::blocking(move |()| init()).resource(name, ())
    }

    fn boxed(name: String, init: Initializer<T>) -> Self {
        Self {
            name,
            after: Vec::new(),
            lazy: false,
            lasting: false,
            critical: true,
            left: TaskTracker::new(),
            timeout: None,
            attempts: 1,
            backoff: Backoff::default(),
            init,
            clean: None,
            probe: None,
        }
    }

    /// Cleans it up with `clean`, once for each time that it was set up.
    pub fn clean<F, R, E>(mut self, clean: F) -> Self
    where
        F: Fn(Arc<T>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Failure>,
    {
        let clean = move |value| clean(value).map(|result| result.map_err(Into::into)).boxed();
        self.clean = Some(Arc::new(clean));
        self
    }

    /// Checks it with `check`, which becomes a critical readiness check of the resource's name. While
    /// it fails the resource is DEGRADED, and is used on. What is not set up passes.
    pub fn check<F, R>(mut self, check: F) -> Self
    where
        F: Fn(Arc<T>) -> R + Send + Sync + 'static,
        R: Future<Output = CheckResult> + Send + 'static,
    {
        self.probe = Some(Probe::Async(Arc::new(move |value| check(value).boxed())));
        self
    }

    /// Reports its check without letting it fail the readiness probe.
    pub fn not_critical(mut self) -> Self {
        self.critical = false;
        self
    }

    /// Sets it up after the resource called `name`, and cleans it before.
    pub fn after(mut self, name: impl Into<String>) -> Self {
        self.after.push(name.into());
        self
    }

    /// Sets it up when somebody first needs it, and not at the start.
    pub fn lazy(mut self) -> Self {
        self.lazy = true;
        self
    }

    /// Lets nothing but the end of the application clean it.
    pub fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }

    /// Bounds each attempt to set it up, and its cleaner.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Tries so many times to set it up, at least once, and waits in between. After the last failure,
    /// whoever needs it is refused at once until the time of the back-off has passed.
    pub fn retry(mut self, attempts: u32, backoff: Backoff) -> Self {
        self.attempts = attempts.max(1);
        self.backoff = backoff;
        self
    }
}

impl<T> fmt::Debug for Resource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<C, T> fmt::Debug for ResourceType<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResourceType")
    }
}
