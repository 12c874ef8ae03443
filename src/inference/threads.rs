//! Threads, and how much the system favours them.
//!
//! On Linux every thread has a priority of its own, its nice value. A thread can give way to others but
//! not take that back, and the threads that it starts inherit it. So who must not give way is started by
//! a [`Spawner`].

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How far a thread gives way. On a core that others keep busy it gets about a thirtieth of the time; when
/// cores are idle it gets all it can use. Not less: it may hold a lock that others wait for.
const NICE: i32 = 15;

/// How long such a thread may go on at a time when others want its core, in nanoseconds. It is the least
/// that Linux knows; its default is several milliseconds, which is long for who waits to answer.
#[cfg(target_os = "linux")]
const SLICE: u64 = 100_000;

type Work = Box<dyn FnOnce() + Send>;

/// A thread that is to be started, and where its handle goes.
struct Order(String, Work, SyncSender<io::Result<JoinHandle<()>>>);

/// Starts threads at the priority that the process has, whatever that of the thread that asks.
///
/// It is a thread itself, which ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Spawner {
    /// `None` where the system had no thread left for it; then who asks starts the thread.
    orders: Option<SyncSender<Order>>,
}

impl Spawner {
    /// Must be called by a thread that has not given way.
    pub fn start() -> Self {
        let (orders, received) = sync_channel::<Order>(0);
        let serve = move || {
            for Order(name, work, reply) in received {
                // Who has asked waits.
                drop(reply.send(Builder::new().name(name).spawn(work)));
            }
        };
        let started = Builder::new().name("spawner".to_owned()).spawn(serve);
        Self { orders: started.ok().map(|_| orders) }
    }

    /// Starts a thread. Blocks for the moment that takes.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn spawn(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let work: Work = Box::new(work);
        let Some(orders) = &self.orders else {
            return Builder::new().name(name.to_owned()).spawn(work);
        };
        let (reply, started) = sync_channel(1);
        let gone = || io::Error::other("the thread that starts threads has ended");
        orders.send(Order(name.to_owned(), work, reply)).map_err(|_| gone())?;
        started.recv().unwrap_or_else(|_| Err(gone()))
    }
}

/// How long something takes that the calling thread does.
#[derive(Debug)]
pub(super) struct Stopwatch {
    started: Instant,
    cpu: Duration,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), cpu: cpu_time() }
    }

    /// The time that the thread has had a core, without what others on the machine took of it. Where that is
    /// a small part, something else computes, and all of the time counts.
    pub(super) fn took(&self) -> Duration {
        let (all, own) = (self.started.elapsed(), cpu_time().saturating_sub(self.cpu));
        if own * 4 < all { all } else { own }
    }
}

/// For how long the calling thread has had a core since it began; zero where the system does not tell.
fn cpu_time() -> Duration {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(time).unwrap_or_default()
    }
    #[cfg(not(unix))]
    Duration::ZERO
}

/// Lets the calling thread give way to all that have not called this, for the rest of its life. Elsewhere
/// than on Linux it does nothing.
pub fn give_way() {
    #[cfg(target_os = "linux")]
    if !give_way_in_short_slices() {
        // It cannot fail: nobody is denied to give way. Elsewhere it would be the whole process.
        rustix::process::setpriority_process(None, NICE).ok();
    }
}

/// Lowers the priority and the time slice of this thread in one step, if the system lets it. Linux ignores the
/// slice before 6.12.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the C library has no function for it")]
fn give_way_in_short_slices() -> bool {
    let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap_or_default();
    let attributes = libc::sched_attr {
        size,
        sched_policy: libc::SCHED_OTHER.unsigned_abs(),
        sched_flags: 0,
        sched_nice: NICE,
        sched_priority: 0,
        sched_runtime: SLICE,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the call reads as many bytes as `size` says, and changes nothing but this thread.
    let failed = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    failed == 0
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn nice() -> i32 {
        rustix::process::getpriority_process(None).expect("every thread has one")
    }

    #[test]
    fn who_gives_way_starts_threads_that_do_not() {
        let usual = nice();
        let spawner = Spawner::start();
        let kind = std::thread::spawn(move || {
            give_way();
            let (tell, told) = sync_channel(2);
            let other = tell.clone();
            spawner.spawn("x", move || tell.send(nice()).unwrap()).unwrap().join().unwrap();
            std::thread::spawn(move || other.send(nice()).unwrap()).join().unwrap();
            (nice(), told.recv().unwrap(), told.recv().unwrap())
        });
        assert_eq!(kind.join().unwrap(), (NICE, usual, NICE));
        assert_eq!(nice(), usual);
    }
}
