//! Where requests meet that are on one thread of the runtime at the same time, so that they share a run there.
//!
//! When several connections have something to read, the runtime hands them to a thread all at once, which
//! reads one request after the other. The first that is read opens a room and goes to the end of that line, and
//! so does each that comes in after it. The first whose turn it is again shuts the door and runs all that are
//! inside. None waits for one that is not there yet, and none depends on another's going on: a request that
//! nobody looks after any more is run by those beside it.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::{Instant, timeout_at};

use super::super::batching::Batching;
use super::super::control::RunControl;
use super::super::task::{Completion, InferError, Task};
use super::gathering::Gathering;
use super::shared::lock;
use crate::turns::end_of_line;

/// What becomes of a request that was in a room.
pub(super) enum Met {
    Answer(Result<Completion, InferError>),
    /// It has not been run, and is to be run elsewhere.
    Back(Task),
    /// It was not answered together with others, and is to be run alone.
    Alone(Task),
}

/// A request inside.
pub(super) struct Guest {
    pub(super) task: Task,
    reply: oneshot::Sender<Met>,
}

impl Guest {
    pub(super) fn tell(self, met: impl FnOnce(Task) -> Met) {
        // The caller may have gone; then nobody wants to know.
        drop(self.reply.send(met(self.task)));
    }
}

/// Requests that meet.
struct Room {
    /// Of which pool they are, by its number.
    pool: u64,
    /// `None` once the door is shut.
    inside: Mutex<Option<(Gathering, Vec<Guest>)>>,
}

impl Room {
    fn is_open(&self) -> bool {
        lock(&self.inside).is_some()
    }

    /// Lets one out whose caller has gone, and shuts the door behind the last.
    fn left(&self) {
        let mut inside = lock(&self.inside);
        if let Some((_, guests)) = &mut *inside {
            guests.retain(|guest| !guest.task.control.is_cancelled());
            if guests.is_empty() {
                *inside = None;
            }
        }
    }
}

/// How many rooms are open on a thread at most: those of several versions, or for inputs of several shapes.
const ROOMS: usize = 4;

thread_local! {
    /// Those on this thread, the oldest first. Some may be shut by now.
    static OPEN: RefCell<Vec<Arc<Room>>> = const { RefCell::new(Vec::new()) };
}

/// A request's place inside a room.
pub(super) struct Inside {
    room: Arc<Room>,
    told: oneshot::Receiver<Met>,
    deadline: Instant,
    /// There until its caller has its answer, or its task.
    control: Option<Arc<RunControl>>,
}

impl Inside {
    /// Comes in where a room of this pool is open on this thread. The task comes back where there is none, or
    /// none that it fits in.
    pub(super) fn enter(pool: u64, task: Task, batching: &Batching) -> Result<Self, Task> {
        OPEN.with_borrow(|rooms| {
            for room in rooms.iter().filter(|room| room.pool == pool) {
                let mut inside = lock(&room.inside);
                if let Some((gathering, guests)) = &mut *inside
                    && gathering.takes(&task, batching)
                {
                    return Ok(Self::as_guest(task, (room, guests)));
                }
            }
            Err(task)
        })
    }

    /// Opens a room for those of this pool that come next on this thread.
    pub(super) fn open(pool: u64, task: Task, gathering: Gathering) -> Self {
        let (mut guests, inside) = (Vec::new(), Mutex::default());
        let room = Arc::new(Room { pool, inside });
        let place = Self::as_guest(task, (&room, &mut guests));
        *lock(&room.inside) = Some((gathering, guests));
        OPEN.with_borrow_mut(|rooms| {
            rooms.retain(|room| room.is_open());
            if rooms.len() == ROOMS {
                rooms.remove(0);
            }
            rooms.push(room);
        });
        place
    }

    fn as_guest(task: Task, (room, guests): (&Arc<Room>, &mut Vec<Guest>)) -> Self {
        let (reply, told) = oneshot::channel();
        let (deadline, control) = (task.terms.deadline, Some(Arc::clone(&task.control)));
        guests.push(Guest { task, reply });
        Self { room: Arc::clone(room), told, deadline, control }
    }

    /// Lets others in until it is this request's turn, or that of one that had come before. Whoever is first has
    /// `run` tell all of them, which were looked for since then. `None` where that has not told this one, which it
    /// always does.
    ///
    /// Cancel safe: the others go on.
    pub(super) async fn met(mut self, run: impl FnOnce(Instant, Vec<Guest>)) -> Option<Met> {
        end_of_line().await;
        let inside = lock(&self.room.inside).take();
        if let Some((gathering, guests)) = inside {
            run(gathering.since, guests);
        }
        let met = match self.told.try_recv() {
            Ok(met) => met,
            Err(TryRecvError::Closed) => return None,
            // Another thread runs it.
            Err(TryRecvError::Empty) => match timeout_at(self.deadline, &mut self.told).await {
                Ok(told) => told.ok()?,
                Err(_) => return Some(Met::Answer(Err(InferError::DeadlineExceeded))),
            },
        };
        self.control = None;
        Some(met)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // Nobody runs it for nothing where the caller has gone.
        if let Some(control) = self.control.take() {
            control.cancel();
            self.room.left();
        }
    }
}

/// How many requests meet, on average: rooms are not opened where nobody comes.
#[derive(Debug)]
pub(super) struct Company {
    /// In 256ths.
    average: AtomicU32,
    /// Requests that did not look for any.
    alone: AtomicU32,
}

/// One.
const ONE: u32 = 256;

/// From so many on it is worth while.
const ENOUGH: u32 = ONE + ONE / 4;

/// One in so many requests looks, whatever was found before.
const SELDOM: u32 = 64;

/// The weight of what was before and of the last room, against that of the last room.
const INERTIA: u32 = 4;

impl Default for Company {
    fn default() -> Self {
        Self { average: AtomicU32::new(2 * ONE), alone: AtomicU32::new(0) }
    }
}

impl Company {
    /// Whether the next request is to open a room.
    pub(super) fn is_sought(&self) -> bool {
        self.is_usual() || self.alone.fetch_add(1, Ordering::Relaxed).is_multiple_of(SELDOM)
    }

    /// Whether there mostly is some.
    pub(super) fn is_usual(&self) -> bool {
        self.average.load(Ordering::Relaxed) >= ENOUGH
    }

    /// So many have met.
    pub(super) fn met(&self, requests: usize) {
        let last = u32::try_from(requests).unwrap_or(ONE).min(ONE) * ONE;
        // Of two that meet at once, one may be lost.
        let average = self.average.load(Ordering::Relaxed);
        self.average.store(average - average / INERTIA + last / INERTIA, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn company_is_sought_where_it_was_found_and_else_seldom() {
        let company = Company::default();
        assert!(company.is_sought(), "nothing is known");
        (0..10).for_each(|_| company.met(1));
        let sought = (0..10 * SELDOM).filter(|_| company.is_sought()).count();
        assert_eq!(sought, 10);
        company.met(4);
        assert!(company.is_sought());
        (0..10).for_each(|_| company.met(usize::MAX));
        (0..40).for_each(|_| company.met(1));
        assert!((0..SELDOM).any(|_| !company.is_sought()));
    }
}
