//! Requests of a connection over HTTP/2: one that is alone and soon answered runs in the task of the connection, and
//! others in tasks of their own.
//!
//! A request costs its task, and two changes between tasks: to that, and back to the connection with the answer. That is
//! worth while where a connection has several requests under way, which can then be answered by several threads, and
//! where one goes on for long, so that it and the connection do not hold each other up.

use std::cell::Cell;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::Executor;
use tokio_util::task::TaskTracker;

use super::in_flight::InFlight;
use crate::turns::{self, Turns};

type Request = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How often a request is polled until it has a task, at most: one is answered in three whose body comes after its head,
/// and which shares its run.
const POLLS: usize = 4;

/// The offer of the connection that is polled on this thread to take a request into its task.
enum Offer {
    /// There is none.
    None,
    Open,
    Taken(Request),
    /// It takes none, as there are several, who came in this order.
    Declined(Vec<Request>),
}

thread_local! {
    static OFFER: Cell<Offer> = const { Cell::new(Offer::None) };
}

/// Where the requests of a connection run.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    tasks: TaskTracker,
    /// Those under way, each from before it is run.
    requests: InFlight,
}

impl Tasks {
    /// Those with tasks are told to `tasks`; `requests` tells how many are under way.
    pub(super) fn new(tasks: TaskTracker, requests: InFlight) -> Self {
        Self { tasks, requests }
    }

    fn spawn(&self, request: Request) {
        self.tasks.spawn(request);
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, request: F) {
        // Boxed first: it is large, and would be moved several times on its way to where tasks are.
        let request: Request = Box::pin(request);
        let is_alone = self.requests.count() <= 1;
        OFFER.set(match OFFER.replace(Offer::None) {
            Offer::None => {
                self.spawn(request);
                Offer::None
            }
            Offer::Open if is_alone => Offer::Taken(request),
            Offer::Open => Offer::Declined(vec![request]),
            Offer::Taken(first) => Offer::Declined(vec![first, request]),
            Offer::Declined(mut requests) => {
                requests.push(request);
                Offer::Declined(requests)
            }
        });
    }
}

/// Offers to take a request while a connection is polled, and tells what has come of it.
fn offer<T>(poll: impl FnOnce() -> T) -> (T, Offer) {
    // Also where it panics.
    let _withdrawn = Withdrawn;
    OFFER.set(Offer::Open);
    (poll(), OFFER.replace(Offer::None))
}

/// Ends the offer when it is dropped.
struct Withdrawn;

impl Drop for Withdrawn {
    fn drop(&mut self) {
        drop(OFFER.replace(Offer::None));
    }
}

/// A connection, with its request while that is alone. Over HTTP/1.1 there is none.
pub(super) struct Streams<'a, C> {
    connection: Pin<&'a mut C>,
    alone: Option<Alone>,
    tasks: Tasks,
    turns: Turns,
}

/// A request that is alone.
struct Alone {
    request: Request,
    polls: usize,
    /// Whether it waits for nothing but the next turn.
    is_in_line: bool,
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
        let mut is_polled = self.alone.as_ref().is_some_and(|alone| alone.is_in_line);
        if is_polled {
            self.poll_alone(context);
            if self.alone.is_none() {
                // It has woken its connection, which is polled next.
                forget_wakes();
            }
        }
        let (polled, offer) = offer(|| self.connection.as_mut().poll(context));
        match offer {
            Offer::Taken(request) => {
                // Whoever was there before is answered, or this one would not be alone.
                self.leave();
                self.alone = Some(Alone { request, polls: 0, is_in_line: false });
                is_polled = false;
            }
            Offer::Declined(requests) => {
                // What is spawned last waits until this thread is free; who came first shall not.
                self.leave();
                for request in requests {
                    self.tasks.spawn(request);
                }
            }
            Offer::None | Offer::Open => {}
        }
        if !is_polled {
            self.poll_alone(context);
        }
        let is_long = self.alone.as_ref().is_some_and(|alone| alone.polls >= POLLS);
        if is_long || polled.is_ready() {
            // It finds out by itself what becomes of its connection.
            self.leave();
        }
        polled
    }

    /// Polls the request that is alone, if there is one. A panic ends it, as it would a task.
    fn poll_alone(&mut self, context: &mut Context<'_>) {
        let Some(Alone { mut request, polls, .. }) = self.alone.take() else { return };
        // Where it has ended, it is dropped in there.
        let poll = || request.as_mut().poll(context).is_pending().then_some(request);
        let pending = catch_unwind(AssertUnwindSafe(poll)).ok().flatten();
        let is_in_line = turns::is_in_line();
        self.alone = pending.map(|request| Alone { request, polls: polls + 1, is_in_line });
    }

    /// From now on the request has a task, if there is one.
    fn leave(&mut self) {
        if let Some(Alone { request, .. }) = self.alone.take() {
            self.tasks.spawn(request);
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
        yield_now().await;
        answers.remove(0);
        yield_now().await;
        assert_eq!(tasks.len(), 1, "its task is woken as the connection was");
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
        yield_now().await;
        drop(last);
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn a_request_that_goes_on_has_a_task() {
        let (client, requests) = Client::new();
        let connection = pin!(connection(requests, client.tasks.clone()));
        let mut streams = Streams::new(connection, client.tasks.clone());
        let _answer = client.wait();
        for polls in 1..=POLLS {
            assert!(poll!(&mut streams).is_pending());
            let is_long = polls == POLLS;
            assert_eq!(
                (streams.alone.is_some(), client.tasks.tasks.len()),
                (!is_long, usize::from(is_long))
            );
        }
    }

    #[tokio::test]
    async fn who_waits_for_the_end_of_the_line_goes_on_in_the_next_turn() {
        let (client, requests) = Client::new();
        let connection = pin!(connection(requests, client.tasks.clone()));
        let mut streams = Streams::new(connection, client.tasks.clone());
        client.ask(turns::end_of_line());
        assert!(poll!(&mut streams).is_pending());
        assert!(streams.alone.is_some());
        assert!(poll!(&mut streams).is_pending());
        assert_eq!((streams.alone.is_some(), client.tasks.requests.count()), (false, 0));
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
        assert!(matches!(OFFER.replace(Offer::None), Offer::None));
    }
}
