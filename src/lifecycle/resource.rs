//! Things that are set up before the application starts and must be cleaned up after it.

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::deadline::Deadline;
use super::event::{Event, EventBus};
use super::handler::{Action, HandlerError, action, perform};
use crate::causes;

/// Where a resource is in its life:
/// `UNINITIALIZED -> INITIALIZING -> READY -> CLEANING -> CLEANED`, and `FAILED` from both steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResourceState {
    /// Registered only.
    Uninitialized,
    /// Its initialiser runs.
    Initializing,
    /// In use.
    Ready,
    /// Its cleaner runs.
    Cleaning,
    /// Its cleaner has run.
    Cleaned,
    /// Its initialiser or its cleaner failed.
    Failed,
}

impl ResourceState {
    /// The state's name, such as `READY`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uninitialized => "UNINITIALIZED",
            Self::Initializing => "INITIALIZING",
            Self::Ready => "READY",
            Self::Cleaning => "CLEANING",
            Self::Cleaned => "CLEANED",
            Self::Failed => "FAILED",
        }
    }
}

impl fmt::Display for ResourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A resource with its initialiser and cleaner.
#[must_use = "a resource does nothing until it is registered"]
pub struct Resource {
    name: String,
    init: Option<Action>,
    clean: Option<Action>,
}

impl Resource {
    /// A resource with nothing to do.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), init: None, clean: None }
    }

    /// Sets it up with `work`.
    pub fn init<F, W, E>(mut self, work: F) -> Self
    where
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.init = Some(action(work));
        self
    }

    /// Cleans it up with `work`, once, if it was set up.
    pub fn clean<F, W, E>(mut self, work: F) -> Self
    where
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.clean = Some(action(work));
        self
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A resource's failure with its name.
#[derive(Debug, thiserror::Error)]
#[error("resource '{resource}' failed")]
pub struct ResourceError {
    /// The resource's name.
    pub resource: String,
    /// What went wrong.
    pub source: HandlerError,
}

/// A resource as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceReport {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: ResourceState,
    /// Since when.
    pub since: SystemTime,
    /// Why it failed; `None` otherwise.
    pub error: Option<String>,
}

/// Sets resources up in the order of registration and cleans them in reverse.
#[derive(Debug)]
pub struct ResourceManager {
    events: EventBus,
    entries: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    resource: Resource,
    report: ResourceReport,
}

impl ResourceManager {
    /// A manager without resources.
    pub fn new(events: EventBus) -> Self {
        Self { events, entries: Mutex::default() }
    }

    /// Adds a resource.
    pub fn register(&self, resource: Resource) {
        let report = ResourceReport {
            name: resource.name.clone(),
            state: ResourceState::Uninitialized,
            since: SystemTime::now(),
            error: None,
        };
        self.entries().push(Entry { resource, report });
    }

    /// Sets up, in order, every resource that is not yet.
    ///
    /// # Errors
    /// The first [`ResourceError`]; the resources after it were not touched, and those before it
    /// are the caller's to clean with [`ResourceManager::clean_all`].
    pub async fn init_all(&self, deadline: Deadline) -> Result<(), ResourceError> {
        let count = self.entries().len();
        for index in 0..count {
            if self.state_of(index) == ResourceState::Uninitialized {
                self.init(index, deadline).await?;
            }
        }
        Ok(())
    }

    /// Cleans every resource that was set up, in reverse order, whatever the others do.
    pub async fn clean_all(&self, deadline: Deadline) -> Vec<ResourceError> {
        let mut failures = Vec::new();
        let count = self.entries().len();
        for index in (0..count).rev() {
            if self.state_of(index) == ResourceState::Ready {
                failures.extend(self.clean(index, deadline).await.err());
            }
        }
        failures
    }

    /// Every resource, in the order of registration.
    pub fn reports(&self) -> Vec<ResourceReport> {
        self.entries().iter().map(|entry| entry.report.clone()).collect()
    }

    async fn init(&self, index: usize, deadline: Deadline) -> Result<(), ResourceError> {
        let work = self.entries()[index].resource.init.take();
        self.enter(index, ResourceState::Initializing, None);
        self.settle(index, work_within(work, deadline).await, ResourceState::Ready)
    }

    async fn clean(&self, index: usize, deadline: Deadline) -> Result<(), ResourceError> {
        let work = self.entries()[index].resource.clean.take();
        self.enter(index, ResourceState::Cleaning, None);
        self.settle(index, work_within(work, deadline).await, ResourceState::Cleaned)
    }

    /// Enters the state that a step's result leads to.
    fn settle(
        &self,
        index: usize,
        result: Result<(), HandlerError>,
        done: ResourceState,
    ) -> Result<(), ResourceError> {
        let Err(source) = result else {
            self.enter(index, done, None);
            return Ok(());
        };
        self.enter(index, ResourceState::Failed, Some(causes::of_error(&source)));
        Err(ResourceError { resource: self.entries()[index].report.name.clone(), source })
    }

    fn enter(&self, index: usize, state: ResourceState, error: Option<String>) {
        let mut entries = self.entries();
        let report = &mut entries[index].report;
        report.state = state;
        report.since = SystemTime::now();
        report.error.clone_from(&error);
        let (resource, detail) = (report.name.clone(), error.unwrap_or_default());
        self.events.publish(Event::Resource { resource, state, detail });
    }

    fn state_of(&self, index: usize) -> ResourceState {
        self.entries()[index].report.state
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn work_within(work: Option<Action>, deadline: Deadline) -> Result<(), HandlerError> {
    match work {
        Some(work) => perform(work, deadline).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    type Log = Arc<Mutex<Vec<&'static str>>>;

    fn logging(log: &Log, name: &'static str, fails: bool) -> Resource {
        let (init, clean) = (Arc::clone(log), Arc::clone(log));
        Resource::new(name)
            .init(move || async move {
                init.lock().unwrap().push(name);
                if fails { Err(std::io::Error::other("refused")) } else { Ok(()) }
            })
            .clean(move || async move {
                clean.lock().unwrap().push(name);
                Ok::<_, std::io::Error>(())
            })
    }

    #[tokio::test]
    async fn what_was_set_up_is_cleaned_in_reverse_once() {
        let (manager, log) = (ResourceManager::new(EventBus::new(16)), Log::default());
        manager.register(logging(&log, "a", false));
        manager.register(logging(&log, "b", false));
        manager.register(logging(&log, "c", true));
        manager.register(logging(&log, "d", false));
        let deadline = Deadline::after(Duration::from_secs(5));
        let error = manager.init_all(deadline).await.unwrap_err();
        assert_eq!(error.to_string(), "resource 'c' failed");
        assert!(manager.clean_all(deadline).await.is_empty());
        assert!(manager.clean_all(deadline).await.is_empty());
        assert_eq!(*log.lock().unwrap(), ["a", "b", "c", "b", "a"]);
        let states: Vec<_> = manager.reports().iter().map(|report| report.state.name()).collect();
        assert_eq!(states, ["CLEANED", "CLEANED", "FAILED", "UNINITIALIZED"]);
        assert_eq!(manager.reports()[2].error.as_deref(), Some("it failed: refused"));
    }
}
