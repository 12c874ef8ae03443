//! Accepting connections, and letting them finish.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::SetOnce;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::in_flight::InFlight;
use super::watched_stream::WatchedStream;

/// How long a client may take over the head of a request, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// At the end of the server, how long a new connection may take to send its first request, and any
/// to send the rest of a head.
const HEAD_GRACE: Duration = Duration::from_secs(1);

/// At the end of the server, how long a connection that was open already may take to send another
/// request: one that is on its way shall not find it closed.
const NEXT_GRACE: Duration = Duration::from_millis(20);

/// How long to wait after the system had no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections from `listener` until `stop` is cancelled; then takes those that the system has
/// connected already and no new one, lets all finish the request they are in or are about to send,
/// and returns when all are closed.
///
/// Cancel safe: dropping the future closes the listener; connections that are open go on until the
/// runtime ends.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let accepting = accept(&listener, &router, (&connections, &stop));
    if let Some(never) = stop.run_until_cancelled(accepting).await {
        match never {}
    }
    for stream in connected(listener) {
        connections.spawn(connection(stream, router.clone(), stop.child_token()));
    }
    connections.close();
    connections.wait().await;
}

async fn accept(
    listener: &TcpListener,
    router: &Router,
    (connections, stop): (&TaskTracker, &CancellationToken),
) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, router.clone(), stop.child_token()));
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

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    // Small answers must not wait for the acknowledgement of an earlier one.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY could not be set");
    }
    let (stream, backlog) = WatchedStream::new(stream);
    let requests = InFlight::default();
    let (counted, asked) = (requests.clone(), Arc::new(SetOnce::new()));
    let first = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Incoming>| {
        // All but the first find it set.
        if !first.initialized() {
            first.set(()).ok();
        }
        let (entered, answer) = (counted.enter(), router.clone().oneshot(request));
        async move {
            let _entered = entered;
            answer.await
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = lingering(&stop, &asked) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                served = connection.as_mut() => served,
                () = idle(|| requests.count() == 0 && !backlog.exists()) => Ok(()),
            }
        }
    };
    if let Err(error) = served {
        debug!(%error, "connection ended with an error");
    }
}

/// Waits for the end of the server, and then for a request that may be on its way.
async fn lingering(stop: &CancellationToken, asked: &SetOnce<()>) {
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
