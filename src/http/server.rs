//! Accepting connections, and letting them finish.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Version};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::SetOnce;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::held::Held;
use super::in_flight::{Entered, InFlight};
use super::watched_stream::WatchedStream;

/// How long a client may take over the head of a request, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// At the end of the server, how long a new connection may take to send its first request, and any
/// to send the rest of a head.
const HEAD_GRACE: Duration = Duration::from_secs(1);

/// At the end of the server, how long a connection that was open already may take to send another
/// request: one that is on its way shall not find it closed.
const NEXT_GRACE: Duration = Duration::from_millis(20);

/// How often a peer that speaks HTTP/2 and says nothing is asked whether it is still there, and how long
/// it may take to answer.
const PING_INTERVAL: Duration = Duration::from_mins(1);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Requests that one connection may have under way at once over HTTP/2.
const STREAMS: u32 = 1024;

/// How long to wait after the system had no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address of a peer that has none any more.
const UNKNOWN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// What connections may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/1.1; or HTTP/2, where the peer begins with it.
    Http1And2,
    /// HTTP/2 alone, begun by the peer.
    Http2,
}

/// Who answers requests.
///
/// As a tower service, but for what every service costs that is one of many: a future on the heap, and a
/// copy of all that is in it.
pub trait Answers: Send + Sync + 'static {
    /// Answers a request of `peer`. What is dropped before its end has not answered.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response> + Send;
}

impl Answers for Router {
    async fn answer(&self, mut request: Request<Incoming>, peer: SocketAddr) -> Response {
        request.extensions_mut().insert(peer);
        self.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    }
}

/// What is served.
#[derive(Debug)]
pub struct Served<A> {
    /// Who answers requests.
    pub answers: Arc<A>,
    /// What they come over.
    pub protocols: Protocols,
    /// Counts the connections that are open.
    pub open: InFlight,
}

impl<A> Clone for Served<A> {
    fn clone(&self) -> Self {
        let (answers, open) = (Arc::clone(&self.answers), self.open.clone());
        Self { answers, protocols: self.protocols, open }
    }
}

/// Serves connections from `listener` until `stop` is cancelled; then takes those that the system has
/// connected already and no new one, lets all finish the request they are in or are about to send,
/// and returns when all are closed.
///
/// Cancel safe: dropping the future closes the listener; connections that are open go on until the
/// runtime ends.
pub async fn serve<A: Answers>(listener: TcpListener, served: Served<A>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let accepting = accept(&listener, &served, (&connections, &stop));
    if let Some(never) = stop.run_until_cancelled(accepting).await {
        match never {}
    }
    for stream in connected(listener) {
        let around = (served.clone(), connections.clone());
        connections.spawn(connection(stream, around, stop.child_token()));
    }
    connections.close();
    connections.wait().await;
}

async fn accept<A: Answers>(
    listener: &TcpListener,
    served: &Served<A>,
    (connections, stop): (&TaskTracker, &CancellationToken),
) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let around = (served.clone(), connections.clone());
                connections.spawn(connection(stream, around, stop.child_token()));
            }
            Err(error) if of_one_connection(&error) => debug!(%error, "connection lost"),
            Err(error) => {
                // Too many open files, most likely. Connections that end make room.
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What the system has connected and nobody has accepted; the listener is closed.
fn connected(listener: TcpListener) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    let Ok(listener) = listener.into_std() else { return streams };
    loop {
        match listener.accept() {
            Ok((stream, _)) => streams.extend(adopt(stream).ok()),
            Err(error) if of_one_connection(&error) => {}
            Err(_) => return streams,
        }
    }
}

fn adopt(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Whether the error concerns only the connection that was to be accepted.
fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionRefused | Kind::ConnectionAborted | Kind::ConnectionReset
    )
}

async fn connection<A: Answers>(
    stream: TcpStream,
    (served, tasks): (Served<A>, TaskTracker),
    stop: CancellationToken,
) {
    // Small answers must not wait for the acknowledgement of an earlier one.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY could not be set");
    }
    // One that has gone meanwhile sends no request either.
    let address = stream.peer_addr().unwrap_or(UNKNOWN);
    let (stream, peer) = WatchedStream::new(stream);
    let requests = InFlight::default();
    let (counted, asked) = (requests.clone(), Arc::new(SetOnce::new()));
    let first = Arc::clone(&asked);
    let Served { answers, protocols, open } = served;
    let _open = open.enter();
    let service = service_fn(move |request: Request<Incoming>| {
        // All but the first find it set.
        if !first.initialized() {
            first.set(request.version()).ok();
        }
        answered(Arc::clone(&answers), (request, address), counted.enter())
    });
    let builder = builder(protocols, tasks);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = ending(&stop, &asked) => {
            connection.as_mut().graceful_shutdown();
            let (over_http_2, before) = (asked.get() == Some(&Version::HTTP_2), peer.heard());
            // Over HTTP/2 the peer is asked for an answer. Whoever gives it takes what is left, however
            // slowly, and the connection ends by itself.
            let is_there = || over_http_2 && peer.heard() > before;
            tokio::select! {
                served = connection.as_mut() => served,
                () = idle(|| requests.count() == 0 && !peer.is_behind() && !is_there()) => Ok(()),
            }
        }
    };
    if let Err(error) = served {
        debug!(%error, "connection ended with an error");
    }
}

fn builder(protocols: Protocols, tasks: TaskTracker) -> auto::Builder<Tasks> {
    let mut builder = auto::Builder::new(Tasks(tasks));
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS);
    match protocols {
        Protocols::Http1And2 => builder,
        Protocols::Http2 => builder.http2_only(),
    }
}

/// Where the requests of a connection that speaks HTTP/2 run, each on its own.
#[derive(Debug, Clone)]
struct Tasks(TaskTracker);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, request: F) {
        self.0.spawn(request);
    }
}

/// Over HTTP/1.1, a request counts until the head of its answer, as what comes after it shows in the
/// backlog. Over HTTP/2, a peer can stop one answer without stopping the connection.
async fn answered(
    answers: Arc<impl Answers>,
    (request, peer): (Request<Incoming>, SocketAddr),
    entered: Entered,
) -> Result<Response, Infallible> {
    let version = request.version();
    let answer = answers.answer(request, peer).await;
    Ok(match version {
        Version::HTTP_2 => answer.map(|body| Body::new(Held::new(body, entered))),
        _ => answer,
    })
}

/// Waits until the connection has to end.
async fn ending(stop: &CancellationToken, asked: &SetOnce<Version>) {
    tokio::select! {
        () = lingering(stop, asked) => {}
        () = silence(asked) => {}
    }
}

/// Waits for as long as a head may take, where no request has come by then.
async fn silence(asked: &SetOnce<Version>) {
    if timeout(HEAD_TIMEOUT, asked.wait()).await.is_ok() {
        pending::<()>().await;
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

/// Waits until nothing has been under way for a while: then what keeps the connection is the head of
/// a request that does not come to its end.
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
