//! Code of the application's own that runs when something happens.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::bus::{EventBus, EventRecord, EventStream};
use super::kinds::EventKind;
use crate::causes;
use crate::lifecycle::deadline::Deadline;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Work = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;
type Handler = Box<dyn Fn(Arc<EventRecord>, HookProgress) -> Work + Send + Sync>;

/// How long one event may keep a hook that does not say otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to do when something happens.
///
/// A hook gets its events one after the other, in order. One that is slow lags behind and delays
/// nobody else; one that lags by more than the bus keeps misses events, which is reported.
#[must_use = "a hook does nothing until it is registered"]
pub struct Hook {
    name: String,
    kinds: Option<BTreeSet<EventKind>>,
    timeout: Duration,
    handler: Handler,
}

impl Hook {
    /// A hook that runs `work` for every event.
    pub fn new<F, W, E>(name: impl Into<String>, work: F) -> Self
    where
        F: Fn(Arc<EventRecord>) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Failure>,
    {
        Self::with_progress(name, move |record, _| work(record))
    }

    /// A hook that runs `work` for every event, and of which can be seen meanwhile how that goes.
    pub fn with_progress<F, W, E>(name: impl Into<String>, work: F) -> Self
    where
        F: Fn(Arc<EventRecord>, HookProgress) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Failure>,
    {
        let handler: Handler = Box::new(move |record, progress| {
            Box::pin(work(record, progress).map(|result| result.map_err(Into::into)))
        });
        Self { name: name.into(), kinds: None, timeout: PATIENCE, handler }
    }

    /// Only for events of these kinds.
    pub fn kinds(mut self, kinds: impl IntoIterator<Item = EventKind>) -> Self {
        self.kinds = Some(kinds.into_iter().collect());
        self
    }

    /// How long one event may take; 30 s without it. Then the work is dropped, which counts as its
    /// failure.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn wants(&self, record: &EventRecord) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&record.event.kind()))
    }

    /// Handles one event; what went wrong is text, for nobody acts on its kind.
    async fn handle(&self, record: Arc<EventRecord>, progress: HookProgress) -> Result<(), String> {
        let work = AssertUnwindSafe(async { (self.handler)(record, progress).await });
        let work = work.catch_unwind();
        match timeout(self.timeout, work).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(causes::of_error(error.as_ref())),
            Ok(Err(panic)) => Err(format!("it panicked: {}", causes::of_panic(panic.as_ref()))),
            Err(_) => {
                Err(format!("it took longer than {}", humantime::format_duration(self.timeout)))
            }
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Tells of an event that a hook has not handled yet.
#[derive(Debug, Clone)]
pub struct HookProgress(Arc<Entry>);

impl HookProgress {
    /// An attempt has failed, and there will be another: the hook is not healthy until one succeeds.
    pub fn attempt_failed(&self, cause: impl Into<String>) {
        let mut report = self.0.report();
        report.healthy = false;
        report.last_error = Some(cause.into());
    }
}

/// How a hook is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookReport {
    /// Its name.
    pub name: String,
    /// Whether its last event was handled, and no attempt at the present one has failed.
    pub healthy: bool,
    /// Events it has handled.
    pub handled: u64,
    /// Events it has failed on.
    pub failed: u64,
    /// Events it was too slow for.
    pub missed: u64,
    /// Events it has yet to see, whether it wants them or not.
    pub pending: u64,
    /// What the last failure was, that of an attempt included; `None` if it never failed.
    pub last_error: Option<String>,
    /// When it last handled an event.
    pub last_success: Option<SystemTime>,
}

/// Runs hooks, each in a task of its own.
#[derive(Debug)]
pub struct Hooks {
    events: EventBus,
    entries: Mutex<Vec<Arc<Entry>>>,
    tasks: TaskTracker,
    finish: CancellationToken,
    abort: CancellationToken,
}

/// What is known of one hook.
#[derive(Debug)]
struct Entry {
    report: Mutex<HookReport>,
    /// The last event that it has done with.
    seen: AtomicU64,
}

impl Entry {
    fn report(&self) -> MutexGuard<'_, HookReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hooks {
    /// Hooks on the events of `events`.
    pub fn new(events: EventBus) -> Self {
        let (finish, abort) = (CancellationToken::new(), CancellationToken::new());
        Self { events, entries: Mutex::default(), tasks: TaskTracker::new(), finish, abort }
    }

    /// Adds a hook, for the events from now on. Must be called inside a tokio runtime.
    pub fn register(&self, hook: Hook) {
        let stream = self.events.subscribe();
        let report = HookReport {
            name: hook.name.clone(),
            healthy: true,
            handled: 0,
            failed: 0,
            missed: 0,
            pending: 0,
            last_error: None,
            last_success: None,
        };
        let entry = Entry { report: Mutex::new(report), seen: AtomicU64::new(stream.seen()) };
        let (entry, finish) = (Arc::new(entry), self.finish.clone());
        self.entries().push(Arc::clone(&entry));
        let run = async move { Runner { hook, stream, entry }.run(&finish).await };
        self.tasks.spawn(self.abort.clone().run_until_cancelled_owned(run));
    }

    /// How each hook is doing, in the order of registration.
    pub fn reports(&self) -> Vec<HookReport> {
        let last = self.events.last();
        let report = |entry: &Arc<Entry>| {
            let pending = last.saturating_sub(entry.seen.load(Ordering::Relaxed));
            HookReport { pending, ..entry.report().clone() }
        };
        self.entries().iter().map(report).collect()
    }

    /// Lets every hook handle what has been published until now, then ends them; whether all were
    /// done by the deadline. A hook that is not is dropped where it waits.
    pub async fn finish(&self, deadline: Deadline) -> bool {
        self.finish.cancel();
        self.tasks.close();
        let done = deadline.bound(self.tasks.wait()).await.is_some();
        self.abort.cancel();
        done
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Runner {
    hook: Hook,
    stream: EventStream,
    entry: Arc<Entry>,
}

impl Runner {
    async fn run(mut self, finish: &CancellationToken) {
        loop {
            let received = match self.stream.try_recv() {
                Some(received) => received,
                None if finish.is_cancelled() => return,
                None => match finish.run_until_cancelled(self.stream.recv()).await {
                    Some(received) => received,
                    // What was published until now is still to be handled.
                    None => continue,
                },
            };
            match received {
                Ok(record) if self.hook.wants(&record) => self.handle(record).await,
                Ok(_) => {}
                Err(missed) => self.miss(missed.count),
            }
            self.entry.seen.store(self.stream.seen(), Ordering::Relaxed);
        }
    }

    async fn handle(&self, record: Arc<EventRecord>) {
        let sequence = record.sequence;
        let progress = HookProgress(Arc::clone(&self.entry));
        let result = self.hook.handle(record, progress).await;
        let mut report = self.entry.report();
        report.healthy = result.is_ok();
        match result {
            Ok(()) => {
                report.handled += 1;
                report.last_success = Some(SystemTime::now());
            }
            Err(cause) => {
                warn!(hook = self.hook.name, sequence, cause, "hook failed on an event");
                report.failed += 1;
                report.last_error = Some(cause);
            }
        }
    }

    fn miss(&self, count: u64) {
        warn!(hook = self.hook.name, count, "hook was too slow and has missed events");
        self.entry.report().missed += count;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::lifecycle::Event;

    fn publish(events: &EventBus, to: u64) {
        events.publish(Event::ModelSwapped { model: "m".to_owned(), from: None, to: Some(to) });
    }

    fn long() -> Deadline {
        Deadline::after(Duration::from_hours(1))
    }

    #[tokio::test]
    async fn a_hook_gets_the_events_it_wants_in_order() {
        let (events, (sender, mut seen)) = (EventBus::new(8), mpsc::channel(8));
        let hooks = Hooks::new(events.clone());
        publish(&events, 1);
        let hook = Hook::new("mine", move |record: Arc<EventRecord>| {
            let sender = sender.clone();
            async move { sender.send(record.sequence).await }
        });
        hooks.register(hook.kinds([EventKind::ModelSwapped]));
        publish(&events, 2);
        let (resource, detail) = ("r".to_owned(), String::new());
        let state = crate::lifecycle::ResourceState::Ready;
        events.publish(Event::Resource { resource, state, detail });
        publish(&events, 3);
        assert!(hooks.finish(long()).await);
        assert_eq!((seen.recv().await, seen.recv().await), (Some(2), Some(4)));
        let report = &hooks.reports()[0];
        assert_eq!((report.handled, report.failed, report.pending), (2, 0, 0));
        assert!(report.last_success.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_wrong_in_a_hook_stays_there() {
        let events = EventBus::new(8);
        let hooks = Hooks::new(events.clone());
        let work = |record: Arc<EventRecord>| async move {
            match record.sequence {
                1 => Err("it will not"),
                2 => panic!("it cannot"),
                3 => std::future::pending().await,
                _ => Ok(()),
            }
        };
        hooks.register(Hook::new("bad", work).timeout(Duration::from_secs(5)));
        for to in 1..=3 {
            publish(&events, to);
            while hooks.reports()[0].failed < to {
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        }
        publish(&events, 4);
        assert!(hooks.finish(long()).await);
        let report = &hooks.reports()[0];
        assert_eq!((report.handled, report.failed), (1, 3));
        assert_eq!(report.last_error.as_deref(), Some("it took longer than 5s"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_hook_misses_events_and_is_ended_at_the_deadline() {
        let events = EventBus::new(2);
        let hooks = Hooks::new(events.clone());
        let work = |_| std::future::pending::<Result<(), String>>();
        hooks.register(Hook::new("slow", work).timeout(Duration::from_mins(1)));
        publish(&events, 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        (2..=6).for_each(|to| publish(&events, to));
        assert!(!hooks.finish(Deadline::after(Duration::from_secs(90))).await);
        let report = &hooks.reports()[0];
        assert_eq!((report.handled, report.failed, report.missed), (0, 1, 3));
    }
}
