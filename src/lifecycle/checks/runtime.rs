//! The runtime itself, seen from outside.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::progress::{Look, Progress, WorkerLook};
use crate::lifecycle::health::{CheckKind, HealthRegistry, HealthReporter};

/// The check's name.
const RUNTIME: &str = "runtime";

/// Looks in the time after which a stall is one.
const LOOKS: u32 = 10;

/// The longest and the shortest time between two looks.
const LONGEST: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(1);

/// How long the task waits that the runtime is given at a look: it is done only if the runtime also
/// serves its timers, which it does together with its sockets.
const TASK: Duration = Duration::from_millis(1);

/// Watches a tokio runtime from a thread of its own, and reports it as the liveness check `runtime`.
///
/// A runtime whose workers are all inside tasks that do not return cannot tell so: no task of it runs,
/// and neither does any check that is one. This thread looks from outside, ten times in the time after
/// which a stall is one, but at least once a second:
///
/// - it gives the runtime a task that waits for a timer. Until it is done no other is given. That sees
///   a runtime of which no worker is left, or whose timers and sockets nobody serves;
/// - it reads each worker's counters. A worker that is not parked and whose counters stand still is
///   inside one task. That sees a single worker that is stuck, while the others hide it.
///
/// Load does not look like a stall: a busy worker comes back to its scheduler after each task and
/// counts that every few dozen tasks. Only looks are counted, each for the time that should lie
/// between two of them, so that a process that was stopped or starved as a whole does not fail.
///
/// What a probe over HTTP sees of it: while a worker is left to answer, the liveness probe fails by
/// this check. With none left there is no answer, which whoever probes takes for a failure; the log
/// has the reason, for the event is published by this thread.
///
/// ```
/// # use std::time::Duration;
/// use onward::lifecycle::checks::RuntimeWatch;
/// use onward::lifecycle::{CheckKind, EventBus, HealthRegistry};
/// use tokio::runtime::Handle;
///
/// # #[tokio::main]
/// # async fn main() -> std::io::Result<()> {
/// # let seconds = Duration::from_secs;
/// let health = HealthRegistry::new(seconds(5), seconds(2), EventBus::new(64));
/// let watch = RuntimeWatch::start(&health, Handle::current(), seconds(10))?;
/// assert!(health.check(CheckKind::Liveness, "runtime").is_some());
/// drop(watch);
/// assert!(health.check(CheckKind::Liveness, "runtime").is_none());
/// # Ok(())
/// # }
/// ```
#[must_use = "the watch ends when this is dropped"]
#[derive(Debug)]
pub struct RuntimeWatch {
    reporter: Arc<HealthReporter>,
    /// Closed to end the thread; nothing is ever sent.
    _stop: mpsc::SyncSender<Infallible>,
}

impl RuntimeWatch {
    /// Watches `runtime`, whose timers must be enabled. A stall of more than `max_stall` fails the
    /// liveness probe until it is over; at least a few seconds leave room for a machine that has too
    /// much to do.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        health: &HealthRegistry,
        runtime: Handle,
        max_stall: Duration,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::sync_channel(0);
        let reporter = Arc::new(health.reporter(RUNTIME, CheckKind::Liveness, Ok(())));
        let watch = Self { reporter: Arc::clone(&reporter), _stop: stop };
        let every = (max_stall / LOOKS).clamp(SHORTEST, LONGEST);
        let mut watched = Watched::new(runtime);
        let mut progress = Progress::new(every, max_stall);
        let watching = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
                reporter.report(progress.look(&watched.look()));
            }
        };
        thread::Builder::new().name("runtime-watch".to_owned()).spawn(watching)?;
        Ok(watch)
    }
}

impl Drop for RuntimeWatch {
    /// Takes the check out. The thread ends by itself.
    fn drop(&mut self) {
        self.reporter.deregister();
    }
}

/// A runtime, and the task that it was given last.
struct Watched {
    runtime: Handle,
    task: JoinHandle<()>,
}

impl Watched {
    fn new(runtime: Handle) -> Self {
        let task = give_task(&runtime);
        Self { runtime, task }
    }

    fn look(&mut self) -> Look {
        let answered = self.task.is_finished();
        if answered {
            self.task = give_task(&self.runtime);
        }
        let metrics = self.runtime.metrics();
        let workers = (0..metrics.num_workers()).map(|worker| WorkerLook {
            parked_and_unparked: metrics.worker_park_unpark_count(worker),
            busy: metrics.worker_total_busy_duration(worker),
        });
        Look { answered, workers: workers.collect() }
    }
}

fn give_task(runtime: &Handle) -> JoinHandle<()> {
    runtime.spawn(async { sleep(TASK).await })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::runtime::{Builder, Runtime};
    use tokio::task::yield_now;
    use tokio::time::{interval, timeout};

    use super::*;
    use crate::lifecycle::{CheckStatus, Event, EventBus};

    const WORKERS: usize = 2;

    /// A stall that a test does not wait long for. A machine that is busy may stall a worker for as
    /// long, so a test with it relies on there being a stall, never on there being none.
    const QUICK: Duration = Duration::from_millis(50);

    /// Longer than any stall of a machine that is busy.
    const PATIENCE: Duration = Duration::from_mins(1);

    struct Scene {
        watched: Runtime,
        health: HealthRegistry,
        events: EventBus,
    }

    impl Scene {
        fn new() -> Self {
            let mut watched = Builder::new_multi_thread();
            let watched = watched.worker_threads(WORKERS).enable_all().build().unwrap();
            let events = EventBus::new(64);
            let health = HealthRegistry::new(PATIENCE, PATIENCE, events.clone());
            Self { watched, health, events }
        }

        fn watch(&self, max_stall: Duration) -> RuntimeWatch {
            RuntimeWatch::start(&self.health, self.watched.handle().clone(), max_stall).unwrap()
        }

        /// Waits, outside the runtime that is watched, until the check has this status and tells of
        /// all of these.
        fn until(&self, status: CheckStatus, texts: &[&str]) {
            let outside = Builder::new_current_thread().enable_all().build().unwrap();
            let asking = async {
                let mut ticks = interval(Duration::from_millis(10));
                loop {
                    ticks.tick().await;
                    let now = self.health.check(CheckKind::Liveness, RUNTIME).unwrap().report;
                    let error = now.last_error.unwrap_or_default();
                    if now.status == status && texts.iter().all(|text| error.contains(text)) {
                        return;
                    }
                }
            };
            outside.block_on(async { timeout(PATIENCE, asking).await }).unwrap();
        }
    }

    /// Puts so many workers inside a task, which they leave when what is returned is dropped.
    fn block(runtime: &Runtime, workers: usize) -> Vec<mpsc::Sender<()>> {
        let (inside, is_inside) = mpsc::channel();
        let block = |_| {
            let (release, released) = mpsc::channel();
            let inside = inside.clone();
            runtime.spawn(async move {
                inside.send(()).unwrap();
                released.into_iter().for_each(drop);
            });
            release
        };
        let held = (0..workers).map(block).collect();
        (0..workers).for_each(|_| is_inside.recv_timeout(PATIENCE).unwrap());
        held
    }

    #[test]
    fn one_stuck_worker_is_seen_beside_the_others() {
        let scene = Scene::new();
        let watch = scene.watch(QUICK);
        let blocked = block(&scene.watched, 1);
        scene.until(CheckStatus::Failing, &["worker", "did not come back from a task for"]);
        // The other one works.
        scene.watched.block_on(scene.watched.spawn(async {})).unwrap();
        assert!(!scene.health.verdict(CheckKind::Liveness).passing);
        drop(blocked);
        scene.until(CheckStatus::Passing, &[]);
        drop(watch);
        assert!(scene.health.checks().is_empty());
    }

    #[test]
    fn a_runtime_without_a_worker_left_is_seen_from_outside() {
        let scene = Scene::new();
        let _watch = scene.watch(QUICK);
        let blocked = block(&scene.watched, WORKERS);
        scene
            .until(CheckStatus::Failing, &["no worker took up a new task", "worker 0", "worker 1"]);
        let published = scene.events.since(0);
        assert!(published.events.iter().any(|record| matches!(
            &record.event,
            Event::Health { check, passing: false, .. } if check == RUNTIME
        )));
        drop(blocked);
        scene.until(CheckStatus::Passing, &[]);
    }

    /// Every worker has more to do than it can, for longer than a stall may last.
    #[test]
    fn load_does_not_look_like_a_stall() {
        let scene = Scene::new();
        let max_stall = Duration::from_secs(1);
        let _watch = scene.watch(max_stall);
        let end = Instant::now() + max_stall * 2;
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                scene.watched.spawn(async move {
                    while Instant::now() < end {
                        let work = Instant::now();
                        while work.elapsed() < Duration::from_micros(200) {
                            std::hint::spin_loop();
                        }
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            scene.watched.block_on(task).unwrap();
        }
        let detail = scene.health.check(CheckKind::Liveness, RUNTIME).unwrap();
        assert_eq!(detail.history.len(), 1, "{:?}", detail.history);
    }
}
