//! Requests of a connection over HTTP/2: one that is alone runs in the task of the connection, and others in tasks of
//! their own.
//!
//! A request costs its task, and two changes between tasks: to that, and back to the connection with the answer. That is
//! worth while where a connection has several requests under way, which can then be answered by several threads, and do
//! not hold each other up.

use std::cell::RefCell;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::Executor;
use tokio_util::task::TaskTracker;

use super::in_flight::InFlight;
use crate::turns::Turns;

type Request = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What becomes of a request that the connection begins which is polled on this thread.
enum Place {
    /// Nobody asks: it has a task.
    None,
    /// It is handed over, if it is alone.
    Free,
    Taken(Request),
    /// It has a task, and so is to have who was first, as there are several.
    Crowded,
}

thread_local! {
    static PLACE: RefCell<Place> = const { RefCell::new(Place::None) };
}

/// Where the requests of a connection run.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    tasks: TaskTracker,
    /// Those under way, with each from before it is run.
    requests: InFlight,
}

impl Tasks {
    /// Those with tasks are told to `tasks`; `requests` tells how many are under way.
    pub(super) fn new(tasks: TaskTracker, requests: InFlight) -> Self {
        Self { tasks, requests }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, request: F) {
        // Boxed first: it is large, and would be moved several times on its way to where tasks are.
        let request: Request = Box::pin(request);
        let is_alone = self.requests.count() <= 1;
        let before = PLACE.replace(Place::None);
        let (place, with_task) = match before {
            Place::None => (Place::None, [Some(request), None]),
            Place::Free if is_alone => (Place::Taken(request), [None, None]),
            Place::Free | Place::Crowded => (Place::Crowded, [Some(request), None]),
            // The last one waits until this thread is free; who came first shall not.
            Place::Taken(first) => (Place::Crowded, [Some(first), Some(request)]),
        };
        PLACE.set(place);
        for request in with_task.into_iter().flatten() {
            self.tasks.spawn(request);
        }
    }
}

/// A connection, with its request while that is alone. Over HTTP/1.1 there is none.
pub(super) struct Streams<'a, C> {
    connection: Pin<&'a mut C>,
    alone: Option<Request>,
    tasks: Tasks,
    turns: Turns,
}

impl<'a, C: Future> Streams<'a, C> {
    /// Of a connection that was made with these tasks.
    pub(super) fn new(connection: Pin<&'a mut C>, tasks: Tasks) -> Self {
        Self { connection, alone: None, tasks, turns: Turns::default() }
    }

    pub(super) fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }

    fn step(&mut self, context: &mut Context<'_>, forget_wakes: &dyn Fn()) -> Poll<C::Output> {
        if self.has_ended(context) {
            // It has woken its connection, which is polled next.
            forget_wakes();
        }
        let (polled, place) = offer(|| self.connection.as_mut().poll(context));
        match place {
            Place::Taken(request) => {
                // Whoever was there before has ended, or this one would not be alone.
                self.have_task();
                self.alone = Some(request);
                self.has_ended(context);
            }
            Place::Crowded => self.have_task(),
            Place::None | Place::Free => {}
        }
        if polled.is_ready() {
            // It finds out by itself what has become of its connection.
            self.have_task();
        }
        polled
    }

    /// Polls the request that is alone, if there is one, and tells whether it has ended by that. A panic ends it, as it
    /// would a task.
    fn has_ended(&mut self, context: &mut Context<'_>) -> bool {
        let Some(mut alone) = self.alone.take() else { return false };
        // Where it has ended, it is dropped in there.
        let poll = || alone.as_mut().poll(context).is_pending().then_some(alone);
        self.alone = catch_unwind(AssertUnwindSafe(poll)).ok().flatten();
        self.alone.is_none()
    }

    /// From now on the request has a task, if there is one.
    fn have_task(&mut self) {
        if let Some(alone) = self.alone.take() {
            self.tasks.tasks.spawn(alone);
        }
    }
}

impl<C: Future> Future for Streams<'_, C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let mut turns = mem::take(&mut self.turns);
        let step =
            |context: &mut Context<'_>, forget_wakes: &dyn Fn()| self.step(context, forget_wakes);
        let polled = turns.poll(step, context);
        self.turns = turns;
        polled
    }
}

/// Offers a place for a request while a connection is polled, and tells what has become of it.
fn offer<T>(poll: impl FnOnce() -> T) -> (T, Place) {
    // Also where it panics.
    let _withdrawn = Withdrawn;
    PLACE.set(Place::Free);
    (poll(), PLACE.replace(Place::None))
}

/// Ends the offer when it is dropped.
struct Withdrawn;

impl Drop for Withdrawn {
    fn drop(&mut self) {
        PLACE.set(Place::None);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::panic::resume_unwind;
    use std::pin::pin;
    use std::task::ready;

    use futures_util::poll;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    use super::*;

    /// Requests for a connection.
    struct Client {
        send: UnboundedSender<Request>,
        tasks: Tasks,
    }

    impl Client {
        fn new() -> (Self, UnboundedReceiver<Request>) {
            let (send, requests) = unbounded_channel();
            (Self { send, tasks: Tasks::new(TaskTracker::new(), InFlight::default()) }, requests)
        }

        fn ask(&self, request: impl Future<Output = ()> + Send + 'static) {
            let entered = self.tasks.requests.enter();
            let request = async {
                let _entered = entered;
                request.await;
            };
            self.send.send(Box::pin(request)).unwrap();
        }

        /// Asks for an answer that comes when what this returns is dropped.
        fn wait(&self) -> oneshot::Sender<()> {
            let (answer, answered) = oneshot::channel::<()>();
            self.ask(async { drop(answered.await) });
            answer
        }
    }

    /// A connection that begins these requests, and ends when no more can come.
    fn connection(
        mut requests: UnboundedReceiver<Request>,
        tasks: Tasks,
    ) -> impl Future<Output = ()> {
        poll_fn(move |context| {
            while let Some(request) = ready!(requests.poll_recv(context)) {
                tasks.execute(request);
            }
            Poll::Ready(())
        })
    }

    #[tokio::test]
    async fn a_request_has_a_task_where_it_is_not_alone() {
        let (client, requests) = Client::new();
        let connection = pin!(connection(requests, client.tasks.clone()));
        let mut streams = Streams::new(connection, client.tasks.clone());
        let tasks = client.tasks.tasks.clone();
        let mut answers = vec![client.wait()];
        assert!(poll!(&mut streams).is_pending());
        assert_eq!((streams.alone.is_some(), tasks.len()), (true, 0));
        answers.push(client.wait());
        assert!(poll!(&mut streams).is_pending());
        assert_eq!((streams.alone.is_some(), tasks.len()), (false, 2), "both have one");
        answers.remove(0);
        yield_now().await;
        answers.push(client.wait());
        assert!(poll!(&mut streams).is_pending());
        assert_eq!((streams.alone.is_some(), tasks.len()), (false, 2), "so has who comes later");
        answers.clear();
        yield_now().await;
        let two_at_once = [client.wait(), client.wait()];
        assert!(poll!(&mut streams).is_pending());
        assert_eq!((streams.alone.is_some(), tasks.len()), (false, 2));
        drop(two_at_once);
        yield_now().await;
        let last = client.wait();
        assert!(poll!(&mut streams).is_pending());
        assert_eq!((streams.alone.is_some(), tasks.len()), (true, 0), "it is alone again");
        drop(client);
        streams.await;
        assert_eq!(tasks.len(), 1, "it outlives its connection");
        drop(last);
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn a_panic_ends_the_request_alone() {
        let (client, requests) = Client::new();
        let connection = pin!(connection(requests, client.tasks.clone()));
        let mut streams = Streams::new(connection, client.tasks.clone());
        client.ask(async {
            yield_now().await;
            resume_unwind(Box::new("it is this request's"));
        });
        assert!(poll!(&mut streams).is_pending());
        assert!(streams.alone.is_some());
        yield_now().await;
        assert!(poll!(&mut streams).is_pending());
        assert_eq!((streams.alone.is_some(), client.tasks.requests.count()), (false, 0));
    }

    #[tokio::test]
    async fn a_panic_of_the_connection_leaves_nothing_to_the_next_on_its_thread() {
        let (client, _requests) = Client::new();
        let tasks = client.tasks.clone();
        let panics = pin!(poll_fn(move |_| {
            tasks.execute(pending::<()>());
            resume_unwind(Box::new("it is the connection's"));
        }));
        let mut streams: Streams<'_, _> = Streams::new(panics, client.tasks.clone());
        let poll =
            || Pin::new(&mut streams).poll(&mut Context::from_waker(std::task::Waker::noop()));
        let polled: Result<Poll<()>, _> = catch_unwind(AssertUnwindSafe(poll));
        assert!(polled.is_err());
        assert!(matches!(PLACE.replace(Place::None), Place::None));
    }
}
