//! Accepting connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::connection::{HEAD_GRACE, connection};
use super::in_flight::InFlight;
use super::room::{Place, Room};
use crate::admission::Client;
use crate::tls::Tls;

/// How long to wait after the system had no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection may last that was left for a probe.
const SPARE_TIME: Duration = Duration::from_secs(5);

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
    /// Answers a request. What is dropped before its end has not answered.
    fn answer(
        &self,
        request: Request<Incoming>,
        client: Client,
    ) -> impl Future<Output = Response> + Send;
}

impl Answers for Router {
    async fn answer(&self, mut request: Request<Incoming>, client: Client) -> Response {
        request.extensions_mut().insert(client.peer);
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
    /// What they are encrypted by, if they are.
    pub tls: Option<Arc<Tls>>,
    /// What connections may take.
    pub bounds: Bounds,
    /// Counts the connections that are open.
    pub open: InFlight,
}

/// What the connections of a listener may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once, beyond which some are left for probes and all others wait.
    pub connections: usize,
    /// How long the head of a request may take once it has begun.
    pub header_timeout: Duration,
}

impl Default for Bounds {
    /// Those of the default configuration.
    fn default() -> Self {
        Self { connections: 8192, header_timeout: Duration::from_secs(10) }
    }
}

impl<A> Served<A> {
    /// Without TLS, within the default bounds.
    pub fn new(answers: Arc<A>, protocols: Protocols) -> Self {
        Self { answers, protocols, tls: None, bounds: Bounds::default(), open: InFlight::default() }
    }
}

impl<A> Clone for Served<A> {
    fn clone(&self) -> Self {
        Self {
            answers: Arc::clone(&self.answers),
            protocols: self.protocols,
            tls: self.tls.clone(),
            bounds: self.bounds,
            open: self.open.clone(),
        }
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
    for arrived in connected(listener) {
        let around = (served.clone(), connections.clone());
        connections.spawn(accepted(Arrived::new(arrived, None), around, stop.child_token()));
    }
    connections.close();
    connections.wait().await;
}

async fn accept<A: Answers>(
    listener: &TcpListener,
    served: &Served<A>,
    (connections, stop): (&TaskTracker, &CancellationToken),
) -> Infallible {
    let room = Room::new(served.bounds.connections);
    loop {
        // Many who come at once must not be before those who are there.
        yield_now().await;
        // Who comes when there is none waits in the system's backlog.
        let place = room.place().await;
        match listener.accept().await {
            Ok((stream, address)) => {
                let arrived = Arrived::new((stream, address), Some(room.assign(place)));
                let is_spare = arrived.client.is_spare;
                let around = (served.clone(), connections.clone());
                let served = accepted(arrived, around, stop.child_token());
                if is_spare {
                    connections.spawn(timeout(SPARE_TIME, served));
                } else {
                    connections.spawn(served);
                }
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
fn connected(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let mut streams = Vec::new();
    let Ok(listener) = listener.into_std() else { return streams };
    loop {
        match listener.accept() {
            Ok((stream, address)) => streams.extend(adopt(stream).ok().zip(Some(address))),
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

/// What is served, and the tasks of connections.
pub(super) type Around<A> = (Served<A>, TaskTracker);

/// A connection that was accepted, and its place among others.
struct Arrived {
    stream: TcpStream,
    client: Client,
    _place: Option<Place>,
}

impl Arrived {
    fn new((stream, address): (TcpStream, SocketAddr), place: Option<Place>) -> Self {
        let is_spare = place.as_ref().is_some_and(Place::is_spare);
        Self { stream, client: Client { peer: address, is_spare }, _place: place }
    }
}

async fn accepted<A: Answers>(arrived: Arrived, around: Around<A>, stop: CancellationToken) {
    let Arrived { stream, client, _place } = arrived;
    // Small answers must not wait for the acknowledgement of an earlier one.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY could not be set");
    }
    match around.0.tls.clone() {
        None => connection((stream, client), around, stop).await,
        // On the heap, or all connections would have as much room as one with TLS.
        Some(tls) => Box::pin(secured((tls, stream, client), around, stop)).await,
    }
}

async fn secured<A: Answers>(
    (tls, stream, client): (Arc<Tls>, TcpStream, Client),
    around: Around<A>,
    stop: CancellationToken,
) {
    let late = async {
        stop.cancelled().await;
        sleep(HEAD_GRACE).await;
    };
    let secured = tokio::select! {
        secured = tls.accept(stream) => secured,
        () = late => return,
    };
    match secured {
        Ok(stream) => connection((stream, client), around, stop).await,
        Err(error) => debug!(%error, "no connection by TLS"),
    }
}
