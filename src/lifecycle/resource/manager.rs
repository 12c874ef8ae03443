//! Every resource, set up in order and cleaned in reverse.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::handle::ResourceHandle;
use super::kind::Resource;
use super::report::{ResourceError, ResourceReport};
use super::slot::{AnySlot, How, ON_DEMAND, Slot, Surroundings};
use crate::causes;
use crate::lifecycle::deadline::Deadline;
use crate::lifecycle::event::EventBus;
use crate::lifecycle::health::{HealthRegistry, Jitter};
use crate::lifecycle::order::{self, Item, OrderError};

/// Sets resources up, each after what it depends on, and cleans them in reverse.
///
/// A cleaner runs exactly once for each time that its resource was set up: at the end, after a start
/// that failed, after a panic elsewhere, on request. When the last owner is dropped without an end, a
/// synchronous drop cannot wait: inside a tokio runtime the cleaners are started in the right order on
/// a task of it, and run if the runtime lives on; outside of one nothing can be run, the values are
/// only dropped, and the log says so. [`ResourceManager::clean_all`] is what an orderly end calls.
pub struct ResourceManager {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    around: Surroundings,
    health: HealthRegistry,
    slots: Mutex<Vec<Arc<dyn AnySlot>>>,
}

impl ResourceManager {
    /// A manager without resources, whose checks go to `health`.
    pub fn new(health: HealthRegistry, events: EventBus) -> Self {
        Self::with_jitter(health, events, Jitter::random())
    }

    /// One whose back-off is moved by `jitter`, such as [`Jitter::none`] for a test.
    pub fn with_jitter(health: HealthRegistry, events: EventBus, jitter: Jitter) -> Self {
        let around = Surroundings { events, jitter, tasks: TaskTracker::new() };
        Self { shared: Arc::new(Shared { around, health, slots: Mutex::default() }) }
    }

    /// Adds a resource. One with a check must be added inside a tokio runtime.
    pub fn register<T: Send + Sync + 'static>(&self, resource: Resource<T>) -> ResourceHandle<T> {
        let slot = Arc::new(Slot::new(resource, self.shared.around.clone()));
        if let Some(check) = slot.health_check() {
            self.shared.health.register(check);
        }
        self.shared.slots().push(Arc::clone(&slot) as Arc<dyn AnySlot>);
        ResourceHandle { slot, shared: Arc::downgrade(&self.shared) }
    }

    /// Sets up every resource that is not lazy, and what they depend on.
    ///
    /// # Errors
    /// The first [`ResourceError`]; the resources after it were not touched, and those before it
    /// are the caller's to clean with [`ResourceManager::clean_all`].
    pub async fn init_all(&self, deadline: Deadline) -> Result<(), ResourceError> {
        let how = How { deadline, at_once: false };
        for slot in self.shared.in_order()? {
            if !slot.is_lazy() {
                self.shared.set_up(slot.name(), how).await?;
            }
        }
        Ok(())
    }

    /// Cleans every resource that is set up, in reverse order, whatever the others do. Nothing is set up
    /// any more afterwards.
    pub async fn clean_all(&self, deadline: Deadline) -> Vec<ResourceError> {
        let slots = self.shared.in_reverse();
        for slot in &slots {
            slot.close();
        }
        let mut failures = Vec::new();
        for slot in &slots {
            failures.extend(Arc::clone(slot).clean(deadline).await.err());
        }
        // What is under way without anybody who waits for it.
        let left = slots.iter().map(|slot| slot.left()).chain([&self.shared.around.tasks]);
        for tasks in left {
            tasks.close();
            if deadline.bound(tasks.wait()).await.is_none() {
                warn!("what is being set up or cleaned up now is not waited for");
            }
        }
        failures
    }

    /// Sets a resource up now, also before the time of its back-off has passed.
    ///
    /// # Errors
    /// [`ResourceError`].
    pub async fn init(&self, name: &str) -> Result<ResourceReport, ResourceError> {
        let how = How { at_once: true, ..How::on_demand() };
        self.shared.set_up(name, how).await?;
        self.report(name)
    }

    /// Cleans a resource now. Whoever needs it later sets it up again.
    ///
    /// # Errors
    /// [`ResourceError`]; also where others that depend on it are set up.
    pub async fn clean(&self, name: &str) -> Result<ResourceReport, ResourceError> {
        let slot = self.shared.slot(name)?;
        if slot.is_lasting() {
            return Err(ResourceError::Lasting(name.to_owned()));
        }
        let by = self.shared.live_dependents(name);
        if !by.is_empty() {
            return Err(ResourceError::Needed { resource: name.to_owned(), by });
        }
        slot.clean(How::on_demand().deadline).await?;
        self.report(name)
    }

    /// Cleans a resource, where it is set up, and sets it up anew; both also when the caller goes away.
    ///
    /// # Errors
    /// [`ResourceError`].
    pub async fn reset(&self, name: &str) -> Result<ResourceReport, ResourceError> {
        let (manager, owned) = (Self { shared: Arc::clone(&self.shared) }, name.to_owned());
        let reset = self.shared.around.tasks.spawn(async move {
            manager.clean(&owned).await?;
            manager.init(&owned).await
        });
        match reset.await {
            Ok(result) => result,
            // The runtime ends.
            Err(_) => Err(self.shared.slot(name)?.unavailable()),
        }
    }

    /// How a resource is.
    ///
    /// # Errors
    /// [`ResourceError::Unknown`].
    pub fn report(&self, name: &str) -> Result<ResourceReport, ResourceError> {
        Ok(self.shared.slot(name)?.report())
    }

    /// Every resource, in the order of registration.
    pub fn reports(&self) -> Vec<ResourceReport> {
        self.shared.slots().iter().map(|slot| slot.report()).collect()
    }
}

impl Shared {
    /// Sets a resource up, after what it depends on.
    pub(super) fn set_up(&self, name: &str, how: How) -> BoxFuture<'_, Result<(), ResourceError>> {
        let name = name.to_owned();
        async move {
            // Whatever has an order has no cycle to run around in.
            self.in_order()?;
            let slot = self.slot(&name)?;
            for dependency in slot.after() {
                self.set_up(dependency, how).await?;
            }
            slot.set_up(how).await
        }
        .boxed()
    }

    fn in_order(&self) -> Result<Vec<Arc<dyn AnySlot>>, OrderError> {
        let slots = self.slots();
        let items: Vec<Item<'_>> =
            slots.iter().map(|slot| Item { name: slot.name(), after: slot.after() }).collect();
        let order = order::of(&items)?;
        Ok(order.into_iter().map(|index| Arc::clone(&slots[index])).collect())
    }

    /// Where there is no order, nothing was set up, and any will do.
    fn in_reverse(&self) -> Vec<Arc<dyn AnySlot>> {
        let mut slots = self.in_order().unwrap_or_else(|_| self.slots().clone());
        slots.reverse();
        slots
    }

    fn live_dependents(&self, name: &str) -> Vec<String> {
        let slots = self.slots();
        let needs = |slot: &&Arc<dyn AnySlot>| slot.after().iter().any(|after| after == name);
        let live = slots.iter().filter(needs).filter(|slot| slot.is_live());
        live.map(|slot| slot.name().to_owned()).collect()
    }

    fn slot(&self, name: &str) -> Result<Arc<dyn AnySlot>, ResourceError> {
        let slots = self.slots();
        let slot = slots.iter().find(|slot| slot.name() == name).cloned();
        slot.ok_or_else(|| ResourceError::Unknown(name.to_owned()))
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Arc<dyn AnySlot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let slots = self.in_reverse();
        for slot in &slots {
            slot.close();
        }
        let live: Vec<_> = slots.into_iter().filter(|slot| slot.is_live()).collect();
        if live.is_empty() {
            return;
        }
        let names: Vec<&str> = live.iter().map(|slot| slot.name()).collect();
        let resources = names.join(", ");
        let Ok(runtime) = Handle::try_current() else {
            error!(resources, "dropped outside a runtime: resources are not cleaned");
            return;
        };
        error!(resources, "dropped without an end: resources are cleaned, and nobody waits for it");
        self.around.tasks.spawn_on(clean_each(live), &runtime);
    }
}

async fn clean_each(slots: Vec<Arc<dyn AnySlot>>) {
    for slot in slots {
        if let Err(failure) = slot.clean(Deadline::after(ON_DEMAND)).await {
            error!(cause = causes::of_error(&failure), "a resource was not cleaned up");
        }
    }
}

impl fmt::Debug for ResourceManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceManager")
            .field("resources", &self.reports())
            .finish_non_exhaustive()
    }
}
