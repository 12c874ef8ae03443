//! Turns of a task at its thread of the runtime.
//!
//! A task that is woken while it is polled goes to the end of its thread's line, and the runtime wakes another
//! thread to help with that line. For what is woken in order to share a run, that is what is wanted. A connection
//! over HTTP/1.1 however wakes itself twice for each request that has a body: when it is asked for the body, and
//! when it has handed that on; and over HTTP/2 by the answer of a request that it runs itself. So it goes on at
//! once, which spares a request two ways to the end of the line, and an idle server two wakes of a thread that finds
//! nothing to do.

use std::cell::Cell;
use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, Ordering};

/// How often a future is polled in one turn of its task, at most: a request with a body is answered in two, and
/// has woken its connection once more.
const POLLS: usize = 3;

thread_local! {
    /// Whether what is polled on this thread waits for the end of the line.
    static WAITS: Cell<bool> = const { Cell::new(false) };
    /// Whether a request was answered in this turn.
    static ANSWERED: Cell<bool> = const { Cell::new(false) };
}

/// Tells that the connection that is polled has answered a request.
pub(crate) fn answered() {
    ANSWERED.set(true);
}

/// Tells that the connection that is polled begins a request. Where it has answered one in the same turn, that ends
/// with this poll, so that who sends many at once does not come before all others.
pub(crate) fn begin() {
    if ANSWERED.get() {
        WAITS.set(true);
    }
}

/// Ends after everything that this thread has to do already.
///
/// Cancel safe.
pub(crate) async fn end_of_line() {
    let mut has_waited = false;
    poll_fn(|context| {
        if mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        WAITS.set(true);
        // Woken by itself, a task goes to the end of the line.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Whether what was polled last on this thread waits for the end of the line.
pub(crate) fn is_in_line() -> bool {
    WAITS.get()
}

/// Polls what a task has to do again at once when that was woken while it was polled, by itself or by others.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    of_task: Option<(Arc<Wakes>, Waker)>,
}

impl Turns {
    /// Calls `step` to poll as if by `context`: several times where that is woken meanwhile, unless it waits for the end
    /// of the line. The other function that it is given forgets that it was woken, for a step that polls all there is
    /// only after that.
    pub(crate) fn poll<T>(
        &mut self,
        mut step: impl FnMut(&mut Context<'_>, &dyn Fn()) -> Poll<T>,
        context: &mut Context<'_>,
    ) -> Poll<T> {
        let (wakes, own) = self.of(context.waker());
        let forget_wakes = || {
            wakes.state.swap(POLLED, Ordering::AcqRel);
        };
        ANSWERED.set(false);
        for _ in 0..POLLS {
            WAITS.set(false);
            forget_wakes();
            let polled = step(&mut Context::from_waker(own), &forget_wakes);
            let woken = wakes.state.swap(IDLE, Ordering::AcqRel) == WOKEN;
            if polled.is_ready() || !woken {
                return polled;
            }
            if WAITS.get() {
                break;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// What to poll with in a task of this waker. It is made once, as long as the task stays the same.
    fn of(&mut self, task: &Waker) -> (&Wakes, &Waker) {
        let known = self.of_task.take().filter(|(wakes, _)| wakes.task.will_wake(task));
        let (wakes, own) = self.of_task.insert(known.unwrap_or_else(|| {
            let wakes = Arc::new(Wakes { state: AtomicU8::new(IDLE), task: task.clone() });
            (Arc::clone(&wakes), Waker::from(wakes))
        }));
        (wakes, own)
    }
}

/// Nobody polls: who wakes has to wake the task.
const IDLE: u8 = 0;
/// Who polls looks afterwards whether it was woken.
const POLLED: u8 = 1;
/// It will be polled again.
const WOKEN: u8 = 2;

/// Wakes a task, unless that is awake. Each step is a swap, so that who polls sees all that whoever has woken it did
/// before.
#[derive(Debug)]
struct Wakes {
    state: AtomicU8,
    task: Waker,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == IDLE {
            self.task.wake_by_ref();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::pin::{Pin, pin};
    use std::sync::atomic::AtomicUsize;
    use std::thread;
    use std::time::{Duration, Instant};

    use tokio::sync::mpsc::unbounded_channel;
    use tokio::time::timeout;

    use super::*;

    /// Counts how often a task is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Woken {
        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn task() -> (Arc<Woken>, Waker) {
        let woken = Arc::new(Woken::default());
        (Arc::clone(&woken), Waker::from(woken))
    }

    /// Wakes itself so often, and is then ready.
    fn restless(mut left: usize) -> impl Future<Output = ()> {
        poll_fn(move |context| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }

    /// Polls a future in one turn.
    fn poll<F: Future>(
        turns: &mut Turns,
        mut future: Pin<&mut F>,
        context: &mut Context<'_>,
    ) -> Poll<F::Output> {
        turns.poll(|context, _| future.as_mut().poll(context), context)
    }

    /// Holds a future to taking two turns, and to waking its task between them alone.
    fn takes_two_turns(mut future: Pin<&mut impl Future<Output = ()>>) {
        let ((woken, waker), mut turns) = (task(), Turns::default());
        let context = &mut Context::from_waker(&waker);
        assert_eq!(poll(&mut turns, future.as_mut(), context), Poll::Pending);
        assert_eq!(woken.count(), 1, "others are served before it goes on");
        assert_eq!(poll(&mut turns, future, context), Poll::Ready(()));
        assert_eq!(woken.count(), 1);
    }

    #[test]
    fn what_wakes_itself_goes_on_in_the_same_turn() {
        let ((woken, waker), mut turns) = (task(), Turns::default());
        let context = &mut Context::from_waker(&waker);
        assert_eq!(poll(&mut turns, pin!(restless(2)), context), Poll::Ready(()));
        assert_eq!(woken.count(), 0);
    }

    #[test]
    fn a_turn_has_an_end() {
        takes_two_turns(pin!(restless(POLLS)));
    }

    #[test]
    fn the_end_of_the_line_is_not_here() {
        takes_two_turns(pin!(async {
            restless(1).await;
            end_of_line().await;
            restless(1).await;
        }));
    }

    #[test]
    fn a_turn_begins_nothing_after_an_answer() {
        takes_two_turns(pin!(async {
            for _ in 0..2 {
                begin();
                restless(1).await;
                answered();
            }
        }));
    }

    #[test]
    fn a_wake_that_is_forgotten_gives_no_further_poll() {
        let ((woken, waker), mut turns) = (task(), Turns::default());
        let context = &mut Context::from_waker(&waker);
        let mut polls = 0;
        let mut step = |wakes_again: bool| {
            let polled = turns.poll(
                |context, forget_wakes| {
                    polls += 1;
                    context.waker().wake_by_ref();
                    forget_wakes();
                    if wakes_again && polls == 1 {
                        context.waker().wake_by_ref();
                    }
                    Poll::<()>::Pending
                },
                context,
            );
            (polled, mem::take(&mut polls))
        };
        assert_eq!(step(false), (Poll::Pending, 1));
        assert_eq!(step(true), (Poll::Pending, 2), "what comes after it counts");
        assert_eq!(woken.count(), 0);
    }

    #[test]
    fn what_is_woken_between_turns_gets_one() {
        let ((woken, waker), mut turns) = (task(), Turns::default());
        let mut wakers = Vec::new();
        let mut future = pin!(poll_fn(|context| {
            wakers.push(context.waker().clone());
            if wakers.len() == 2 { Poll::Ready(wakers.clone()) } else { Poll::Pending }
        }));
        assert!(poll(&mut turns, future.as_mut(), &mut Context::from_waker(&waker)).is_pending());
        assert_eq!(woken.count(), 0);
        let (other_woken, other) = task();
        let Poll::Ready(wakers) = poll(&mut turns, future, &mut Context::from_waker(&other)) else {
            panic!("it was polled twice")
        };
        wakers.iter().for_each(Waker::wake_by_ref);
        wakers.iter().for_each(Waker::wake_by_ref);
        assert_eq!((woken.count(), other_woken.count()), (1, 1), "each of its task, and once");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_that_other_threads_send_is_missed() {
        const EACH: usize = 20_000;
        let (tell, mut told) = unbounded_channel();
        let tell = [tell.clone(), tell];
        let senders = tell.map(|tell| {
            thread::spawn(move || (0..EACH).for_each(|number| tell.send(number).unwrap()))
        });
        let mut turns = Turns::default();
        let mut all = pin!(async {
            let mut sum = 0;
            while let Some(number) = told.recv().await {
                sum += number;
            }
            sum
        });
        let started = Instant::now();
        let sum = timeout(
            Duration::from_mins(1),
            poll_fn(|context| poll(&mut turns, all.as_mut(), context)),
        )
        .await
        .expect("every wake is noticed");
        // The end of the time would wake it too.
        assert!(started.elapsed() < Duration::from_secs(50), "the last wake is noticed");
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(sum, EACH * (EACH - 1));
    }
}
