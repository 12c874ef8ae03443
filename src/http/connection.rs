//! One connection, and its end.

use std::convert::Infallible;
use std::future::pending;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Version};
use axum::response::Response;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::SetOnce;
use tokio::task::yield_now;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::held::Held;
use super::in_flight::{Entered, InFlight};
use super::lingering::{Lingering, Unsent};
use super::server::{Answers, Around, Protocols, Served};
use super::streams::{Streams, Tasks};
use super::watched_stream::{Peer, WatchedStream};
use crate::admission::Client;
use crate::turns;

/// How long a connection may be idle, and a new one may take to send anything; and how often it is looked at in that
/// time, so that one that was just in use is kept for up to one look more. That costs a request nothing, unlike a timer
/// that each of them sets anew.
const IDLE: Duration = Duration::from_secs(75);
const LOOKS: u32 = 3;

/// At the end of the server, how long a new connection may take to send its first request, and any
/// to send the rest of a head.
pub(super) const HEAD_GRACE: Duration = Duration::from_secs(1);

/// At the end of the server, how long a connection that was open already may take to send another
/// request, and whoever is connecting to be there: what is on its way shall not find it closed.
pub(super) const NEXT_GRACE: Duration = Duration::from_millis(20);

/// How often a peer that speaks HTTP/2 and says nothing is asked whether it is still there, and how long
/// it may take to answer.
const PING_INTERVAL: Duration = Duration::from_mins(1);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Requests that one connection may have under way at once over HTTP/2.
const STREAMS: u32 = 1024;

/// The largest head over HTTP/2, in bytes as its fields count there.
const HEAD: u32 = 64 * 1024;

/// Requests of one connection that the peer takes back before they were begun, and those that it gets
/// wrong, before the connection is closed: what floods a server with requests that cost only it.
const TAKEN_BACK: usize = 20;
const WRONG: usize = 128;

/// Serves one connection, until it ends or has to.
pub(super) async fn connection<A: Answers>(
    (stream, client): (impl AsyncRead + AsyncWrite + Unsent + Send + Unpin + 'static, Client),
    (served, tasks): Around<A>,
    stop: CancellationToken,
) {
    let Served { answers, protocols, bounds, open, .. } = served;
    let _open = open.enter();
    let (stream, peer) = WatchedStream::new(Lingering::new(stream), bounds.header_timeout);
    let talk = Arc::new(Talk {
        answers,
        client,
        peer,
        requests: InFlight::default(),
        streams: InFlight::default(),
        asked: SetOnce::new(),
    });
    let of_request = Arc::clone(&talk);
    let service = service_fn(move |request: Request<Incoming>| {
        let entered = of_request.begin(&request);
        answered(Arc::clone(&of_request), request, entered)
    });
    let tasks = Tasks::new(tasks, talk.requests.clone());
    let builder = builder(protocols, tasks.clone());
    let connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut streams = Streams::new(connection, tasks);
    // Polled only when it was woken, and not with each request.
    let mut ending = FuturesUnordered::from_iter([ending(&stop, &talk)]);
    let served = tokio::select! {
        biased;
        // First, so that no peer that keeps the connection busy is before it.
        Some(()) = ending.next() => {
            streams.connection().graceful_shutdown();
            let (peer, over_http_2) = (&talk.peer, talk.is_over_http_2());
            let before = peer.heard();
            // Over HTTP/2 the peer is asked for an answer. Whoever gives it takes what is left, however
            // slowly, and the connection ends by itself.
            let is_there = || over_http_2 && peer.heard() > before;
            tokio::select! {
                served = &mut streams => served,
                () = idle(|| talk.requests.count() == 0 && !peer.is_behind() && !is_there()) => {
                    Ok(())
                }
            }
        }
        served = &mut streams => served,
    };
    if let Err(error) = served {
        debug!(%error, "connection ended with an error");
    }
}

fn builder(protocols: Protocols, tasks: Tasks) -> auto::Builder<Tasks> {
    let mut builder = auto::Builder::new(tasks);
    builder.http1().header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD)
        .max_pending_accept_reset_streams(TAKEN_BACK)
        .max_local_error_reset_streams(WRONG);
    match protocols {
        Protocols::Http1And2 => builder,
        Protocols::Http2 => builder.http2_only(),
    }
}

/// What all requests of a connection need. It is counted by itself who has it: over HTTP/1.1, that is in the cache of one
/// thread, unlike the count of what all connections have.
struct Talk<A> {
    answers: Arc<A>,
    client: Client,
    peer: Peer,
    /// Those under way: over HTTP/1.1 until the head of their answer, as what comes after it shows in the backlog.
    requests: InFlight,
    /// Over HTTP/1.1, answers that come to their end when they like.
    streams: InFlight,
    /// By what the first has asked.
    asked: SetOnce<Version>,
}

impl<A> Talk<A> {
    fn begin(&self, request: &Request<Incoming>) -> Entered {
        // All but the first find it set.
        if !self.asked.initialized() {
            self.asked.set(request.version()).ok();
        }
        self.peer.has_asked();
        turns::begin();
        self.requests.enter()
    }

    /// As far as it is known.
    fn is_over_http_2(&self) -> bool {
        self.asked.get() == Some(&Version::HTTP_2)
    }

    /// Whether it is not the peer's turn to ask. One that has begun with a head has a time of its own for it.
    fn is_busy(&self) -> bool {
        let is_answering = self.requests.count() > 0 || self.streams.count() > 0;
        is_answering || self.peer.is_behind() || self.peer.is_asking()
    }

    /// What is another whenever something was read or written.
    fn progress(&self) -> (usize, usize) {
        (self.peer.heard(), self.peer.sent())
    }
}

/// Answers a request. Over HTTP/2 it counts until the end of the answer, which a peer can stop without stopping the
/// connection.
async fn answered(
    talk: Arc<Talk<impl Answers>>,
    request: Request<Incoming>,
    entered: Entered,
) -> Result<Response, Infallible> {
    let version = request.version();
    let mut answer = talk.answers.answer(request, talk.client).await;
    talk.peer.is_answered();
    turns::answered();
    if talk.client.is_spare {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let held = match version {
        Version::HTTP_2 => Some(entered),
        _ => answer.body().size_hint().exact().is_none().then(|| talk.streams.enter()),
    };
    Ok(match held {
        Some(entered) => answer.map(|body| Body::new(Held::new(body, entered))),
        None => answer,
    })
}

/// Waits until the connection has to end.
async fn ending<A>(stop: &CancellationToken, talk: &Talk<A>) {
    tokio::select! {
        () = lingering(stop, &talk.asked) => {}
        () = silence(talk) => {}
    }
}

/// Waits until nothing was asked for as long as a connection may be idle. Over HTTP/2, that is only until the first
/// request: from then on the peer is asked whether it is there.
async fn silence<A>(talk: &Talk<A>) {
    if timeout(IDLE, talk.asked.wait()).await.is_err() {
        return;
    }
    if talk.is_over_http_2() {
        pending::<()>().await;
    }
    let (mut last, mut quiet) = (talk.progress(), 0);
    loop {
        sleep(IDLE / LOOKS).await;
        let before = mem::replace(&mut last, talk.progress());
        quiet = if last == before && !talk.is_busy() { quiet + 1 } else { 0 };
        if quiet < LOOKS {
            continue;
        }
        // The connection reads what may have come by now.
        yield_now().await;
        if last == talk.progress() {
            return;
        }
        quiet = 0;
    }
}

/// Waits for the end of the server, and then for a request that may be on its way.
async fn lingering(stop: &CancellationToken, asked: &SetOnce<Version>) {
    stop.cancelled().await;
    if asked.initialized() {
        sleep(NEXT_GRACE).await;
    } else {
        timeout(HEAD_GRACE, asked.wait()).await.ok();
    }
}

/// Waits until nothing has been under way for a while: then what keeps a connection that is to end is the head of
/// a request that does not come to its end, or an answer that waits for something to tell.
async fn idle(nothing_under_way: impl Fn() -> bool) {
    let mut looks = interval(HEAD_GRACE);
    let mut was_idle = false;
    loop {
        looks.tick().await;
        let is_idle = nothing_under_way();
        if was_idle && is_idle {
            return;
        }
        was_idle = is_idle;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::SocketAddr;
    use std::thread;

    use axum::Router;
    use axum::body::Bytes;
    use axum::extract::Path;
    use axum::routing::{get, post};
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::net::TcpListener;
    use tokio::time::Instant;
    use tokio_util::task::TaskTracker;

    use super::*;

    /// How often a connection is polled for requests that a client sends one after the other, or all at once.
    async fn polls(requests: usize, at_once: bool) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asking = thread::spawn(move || ask(address, (requests, at_once)));
        let (polls, _) = polls_of(&listener).await;
        asking.join().unwrap();
        polls
    }

    /// How often the next connection is polled until its end, and how many of its requests had tasks at most at once.
    async fn polls_of(listener: &TcpListener) -> (usize, usize) {
        let (stream, peer) = listener.accept().await.unwrap();
        let router = Router::new().route("/", post(|body: Bytes| async { body }));
        let served = Served::new(Arc::new(router), Protocols::Http1And2);
        let (tasks, client) = (TaskTracker::new(), Client { peer, is_spare: false });
        let (around, stop) = ((served, tasks.clone()), CancellationToken::new());
        let mut connection = pin!(connection((stream, client), around, stop));
        let (mut polls, mut with_tasks) = (0, 0);
        poll_fn(|context| {
            polls += 1;
            let polled = connection.as_mut().poll(context);
            with_tasks = with_tasks.max(tasks.len());
            polled
        })
        .await;
        (polls, with_tasks)
    }

    /// How a client begins with HTTP/2: the preface, and settings of which none is unusual.
    fn preface() -> Vec<u8> {
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame([4, 0], 0, b"")[..]].concat()
    }

    /// A frame of a kind with its flags, of a stream.
    fn frame([kind, flags]: [u8; 2], stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags], &stream.to_be_bytes()[..], payload].concat()
    }

    /// Asks so often over HTTP/2, for so many answers at once.
    fn ask_over_http_2(address: SocketAddr, (times, at_once): (usize, usize)) {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(&preface()).unwrap();
        // POST, http, /, and an authority of one letter.
        let request =
            |id| [frame([1, 4], id, b"\x83\x86\x84\x41\x01x"), frame([0, 1], id, b"body")];
        let mut ids = (1..).step_by(2);
        for _ in 0..times {
            let requests: Vec<u8> =
                ids.by_ref().take(at_once).flat_map(request).flatten().collect();
            stream.write_all(&requests).unwrap();
            let (mut bodies, mut head) = (0, [0; 9]);
            while bodies < at_once * "body".len() {
                stream.read_exact(&mut head).unwrap();
                let mut payload = vec![0; usize::from(head[2])];
                stream.read_exact(&mut payload).unwrap();
                bodies += if head[3] == 0 { payload.len() } else { 0 };
            }
        }
    }

    fn ask(address: SocketAddr, (requests, at_once): (usize, bool)) {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let request = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody";
        let each = if at_once { requests } else { 1 };
        for _ in 0..requests / each {
            stream.write_all(request.repeat(each).as_bytes()).unwrap();
            let (mut answers, mut some) = (String::new(), [0; 4096]);
            while answers.matches("\r\n\r\nbody").count() < each {
                let read = stream.read(&mut some).unwrap();
                assert!(read > 0, "{answers}");
                answers.push_str(std::str::from_utf8(&some[..read]).unwrap());
            }
        }
    }

    impl Unsent for DuplexStream {
        fn unsent(&self) -> usize {
            0
        }
    }

    /// Asks for an answer that takes so many seconds until its head and after it, and reads it.
    async fn ask_slowly(stream: &mut DuplexStream, (before, after): (u64, u64)) {
        let request = format!("GET /{before}/{after} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut answer, end) =
            (String::new(), if after > 0 { "slow\r\n0\r\n\r\n" } else { "slow" });
        while !answer.ends_with(end) {
            let mut some = [0; 1024];
            let read = stream.read(&mut some).await.unwrap();
            assert!(read > 0, "{answer}");
            answer.push_str(std::str::from_utf8(&some[..read]).unwrap());
        }
    }

    /// The other end of a connection, where each answer takes some seconds until its head and after it.
    fn connected() -> DuplexStream {
        let slow = |Path((before, after)): Path<(u64, u64)>| async move {
            sleep(Duration::from_secs(before)).await;
            let rest = async move {
                sleep(Duration::from_secs(after)).await;
                Ok::<_, Infallible>("slow")
            };
            if after > 0 { Body::from_stream(rest.into_stream()) } else { Body::from("slow") }
        };
        let router = Router::new().route("/{before}/{after}", get(slow));
        let (stream, other) = duplex(4096);
        let served = Served::new(Arc::new(router), Protocols::Http1And2);
        let client = Client { peer: ([127, 0, 0, 1], 1).into(), is_spare: false };
        let (around, stop) = ((served, TaskTracker::new()), CancellationToken::new());
        tokio::spawn(connection((other, client), around, stop));
        stream
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_kept_while_it_is_in_use_and_not_for_ever() {
        for requests in [vec![], vec![(1, 0)], vec![(1, 0), (200, 0), (0, 300), (30, 0)]] {
            let mut stream = connected();
            for (place, times) in requests.iter().enumerate() {
                sleep(if place > 0 { Duration::from_secs(70) } else { Duration::ZERO }).await;
                ask_slowly(&mut stream, *times).await;
            }
            let since = Instant::now();
            assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
            let idle = since.elapsed();
            assert!((IDLE..=IDLE + IDLE / LOOKS).contains(&idle), "{idle:?} {requests:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_speaks_http_2_and_asks_nothing_is_not_kept() {
        let (mut stream, since) = (connected(), Instant::now());
        stream.write_all(&preface()).await.unwrap();
        let (mut head, mut pings) = ([0; 9], 0);
        while stream.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; usize::from(head[2])];
            stream.read_exact(&mut payload).await.unwrap();
            if head[3] == 6 && head[4] == 0 {
                pings += 1;
                stream.write_all(&frame([6, 1], 0, &payload)).await.ok();
            }
        }
        assert!(pings > 0, "it was asked whether it is there");
        let kept = since.elapsed();
        assert!((IDLE..IDLE + 3 * HEAD_GRACE).contains(&kept), "{kept:?}");
    }

    #[tokio::test]
    async fn a_request_takes_one_turn() {
        let polls = polls(100, false).await;
        assert!(polls < 150, "{polls} for 100 requests");
    }

    #[tokio::test]
    async fn a_request_over_http_2_has_a_task_where_it_is_not_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (at_once, with_tasks) in [(1, 0), (8, 8)] {
            let asking = thread::spawn(move || ask_over_http_2(address, (100, at_once)));
            let polled = timeout(Duration::from_secs(30), polls_of(&listener)).await;
            let (polls, most) = polled.expect("it ends with its client");
            asking.join().unwrap();
            assert_eq!(most, with_tasks);
            assert!(polls < 300, "{polls} for {at_once} times 100 requests");
        }
    }

    #[tokio::test]
    async fn requests_that_come_at_once_take_several_turns() {
        let polls = polls(100, true).await;
        // hyper goes round sixteen times in one.
        assert!(polls > 100 / 16, "{polls} for 100 requests");
    }
}
