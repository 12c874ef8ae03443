//! Runs that must not last: those on the threads that serve connections, and those that requests share.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::warn;

use super::control::RunControl;
use super::placement::STALL;
use super::threads::Spawner;

/// How late a deadline may be noticed, and for how long a run may keep other workers from being woken.
const PERIOD: Duration = Duration::from_millis(10);

/// What watches them. Nobody polls a request while its run has the thread, so a thread of its own ends the
/// inline runs whose deadlines have passed, and those that turn out to be long, which can begin again
/// elsewhere; so can each of the requests whose shared run is long. It sleeps while there are none.
///
/// It also sees to it that the other workers of the runtime go on. One that sleeps is woken when there is
/// more to do than the others do, but nobody looks for what comes over the network while the worker that did
/// so last is held by a run.
#[derive(Debug)]
pub struct RunWatch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    runs: Vec<Run>,
    /// Counts the runs.
    last: u64,
    /// How many there had been when the watch last looked.
    seen: u64,
    watch: Watch,
}

#[derive(Debug)]
struct Run {
    number: u64,
    begun: Instant,
    /// When it is ended.
    end: Instant,
    control: Arc<RunControl>,
    /// Whose worker it holds, if it does.
    runtime: Option<Handle>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// There is none, and so nothing may run inline.
    #[default]
    Off,
    /// It looks again soon.
    Awake,
    /// It must be told.
    Asleep,
}

impl RunWatch {
    /// Where the system has no thread for the watch, nothing is run inline.
    pub fn start(spawner: &Spawner) -> Self {
        let shared = Arc::new(Shared::default());
        shared.lock().watch = Watch::Awake;
        let watched = Arc::clone(&shared);
        let started = spawner.spawn("inline-watch", move || {
            let _off = OffAtTheEnd(&watched);
            watched.watch();
        });
        if let Err(error) = started {
            warn!(%error, "no thread can watch short runs, so all run on threads of their models");
            shared.lock().watch = Watch::Off;
        }
        Self(shared)
    }

    /// Watches one inline run on this thread until the guard is dropped. It is cancelled at its deadline, or after
    /// [`STALL`] if that is earlier. `None` where nothing may run on this thread.
    pub(super) fn begin(
        &self,
        deadline: Instant,
        control: &Arc<RunControl>,
    ) -> Option<Watched<'_>> {
        let runtime = Some(Handle::try_current().ok()?);
        let begun = Instant::now();
        let (end, control) = (deadline.min(begun + STALL), Arc::clone(control));
        self.watch(|number| Run { number, begun, end, control, runtime })
    }

    /// Watches one run on a thread that serves no connections until the guard is dropped. It is cancelled
    /// after `most`. `None` where there is no watch.
    pub(super) fn begin_aside(
        &self,
        most: Duration,
        control: &Arc<RunControl>,
    ) -> Option<Watched<'_>> {
        let begun = Instant::now();
        let (end, control) = (begun + most, Arc::clone(control));
        self.watch(|number| Run { number, begun, end, control, runtime: None })
    }

    fn watch(&self, run: impl FnOnce(u64) -> Run) -> Option<Watched<'_>> {
        let mut state = self.0.lock();
        if state.watch == Watch::Off {
            return None;
        }
        state.last += 1;
        let number = state.last;
        state.runs.push(run(number));
        let asleep = mem::replace(&mut state.watch, Watch::Awake) == Watch::Asleep;
        drop(state);
        if asleep {
            self.0.woken.notify_one();
        }
        Some(Watched { shared: &self.0, number })
    }
}

impl Drop for RunWatch {
    fn drop(&mut self) {
        drop(OffAtTheEnd(&self.0));
        self.0.woken.notify_one();
    }
}

/// Without the watch nothing may run inline.
struct OffAtTheEnd<'a>(&'a Shared);

impl Drop for OffAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.lock().watch = Watch::Off;
    }
}

impl Shared {
    fn watch(&self) {
        let mut state = self.lock();
        while state.watch != Watch::Off {
            if state.runs.is_empty() && state.seen == state.last {
                state.watch = Watch::Asleep;
                state = self.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.seen = state.last;
            let now = Instant::now();
            for run in &state.runs {
                if run.end <= now {
                    run.control.cancel();
                }
                if let Some(runtime) = run.runtime.as_ref().filter(|_| run.begun + PERIOD <= now) {
                    // Whoever takes this looks for what comes over the network afterwards.
                    drop(runtime.spawn(async {}));
                }
            }
            let pause = self.woken.wait_timeout(state, PERIOD);
            state = pause.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that is watched.
#[must_use = "the run is not watched after this is dropped"]
pub(super) struct Watched<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.shared.lock().runs.retain(|run| run.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_run_ends_at_its_deadline_also_after_the_watch_had_slept() {
        let runs = RunWatch::start(&Spawner::start());
        for _ in 0..2 {
            while runs.0.lock().watch != Watch::Asleep {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let control = Arc::new(RunControl::default());
            let (terminate, terminated) = channel();
            let _armed = control.arm(Arc::new(move || terminate.send(()).unwrap()));
            let watched = runs.begin(soon(), &control);
            assert!(watched.is_some());
            terminated.recv_timeout(Duration::from_secs(10)).expect("the run is ended");
            assert!(control.is_cancelled());
        }
    }

    #[tokio::test]
    async fn a_run_that_lasts_is_cancelled_before_its_deadline() {
        let runs = RunWatch::start(&Spawner::start());
        let (begun, control) = (Instant::now(), Arc::new(RunControl::default()));
        let (terminate, terminated) = channel();
        let _armed = control.arm(Arc::new(move || terminate.send(()).unwrap()));
        let watched = runs.begin(later(), &control);
        assert!(watched.is_some());
        terminated.recv_timeout(Duration::from_secs(10)).expect("the run is ended");
        assert!(begun.elapsed() >= STALL);
    }

    #[tokio::test]
    async fn a_run_that_has_ended_is_not_cancelled() {
        let runs = RunWatch::start(&Spawner::start());
        let control = Arc::new(RunControl::default());
        let watched = runs.begin(Instant::now() + PERIOD * 5, &control);
        assert!(watched.is_some());
        drop(watched);
        tokio::time::sleep(PERIOD * 10).await;
        assert!(!control.is_cancelled());
    }
}
