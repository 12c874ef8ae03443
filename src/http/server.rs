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
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::connection::{HEAD_GRACE, NEXT_GRACE, connection};
use super::in_flight::InFlight;
use super::newcomers::turn_away;
use super::room::{Place, Room};
use crate::admission::Client;
use crate::tls::Tls;

/// How long to wait after the system had no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that the system may hold for a listener until they are taken; it has a limit of its own.
pub const BACKLOG: u32 = 4096;

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

/// Serves connections from `listener` until `stop` is cancelled; then takes those that the system has connected already,
/// or is connecting, and no new one, lets all finish the request they are in or are about to send, and returns when all
/// are closed.
///
/// Cancel safe: dropping the future closes the listener; connections that are open go on until the
/// runtime ends.
pub async fn serve<A: Answers>(listener: TcpListener, served: Served<A>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let accepting = accept(&listener, &served, (&connections, &stop));
    if let Some(never) = stop.run_until_cancelled(accepting).await {
        match never {}
    }
    accept_last(listener, &served, (&connections, &stop)).await;
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

/// Takes whom the system has connected or is connecting, and closes the listener.
async fn accept_last<A: Answers>(
    listener: TcpListener,
    served: &Served<A>,
    (connections, stop): (&TaskTracker, &CancellationToken),
) {
    if let Err(error) = turn_away(&listener) {
        debug!(%error, "who connects at the last moment may be reset");
    }
    let take = |arrived| {
        let around = (served.clone(), connections.clone());
        drop(connections.spawn(accepted(Arrived::new(arrived, None), around, stop.child_token())));
    };
    let begin = Instant::now();
    let mut end = begin + NEXT_GRACE;
    while let Ok(next) = timeout_at(end, listener.accept()).await {
        match next {
            Ok(arrived) => take(arrived),
            Err(error) if of_one_connection(&error) => {}
            Err(error) => {
                // Too many open files, most likely. Connections that end make room.
                debug!(%error, "cannot accept a connection");
                end = begin + HEAD_GRACE;
                sleep(ACCEPT_PAUSE / 10).await;
                if Instant::now() >= end {
                    break;
                }
            }
        }
    }
    if let Err(error) = accept_connected(listener, take) {
        warn!(%error, "whoever has connected last is not answered");
    }
}

/// Takes whom the system has connected and nobody has accepted, and closes the listener.
fn accept_connected(
    listener: TcpListener,
    take: impl Fn((TcpStream, SocketAddr)),
) -> io::Result<()> {
    let listener = listener.into_std()?;
    // No more can be left; where nobody is turned away, others would come for ever.
    for _ in 0..BACKLOG {
        match listener.accept() {
            Ok((stream, address)) => take((adopt(stream)?, address)),
            Err(error) if of_one_connection(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
        Kind::ConnectionRefused
            | Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::HostUnreachable
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

// Elsewhere nobody is turned away.
#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::sync::mpsc::{Sender, channel};
    use std::thread;

    use axum::routing::get;
    use tokio::task::block_in_place;

    use super::*;

    /// Connects and asks again and again until nobody takes its connection, and tells of the first answer. Whoever was
    /// connected has to get one.
    fn ask_until_refused(address: SocketAddr, is_answered: &Sender<()>) -> Result<(), String> {
        let patience = Duration::from_millis(100);
        while let Ok(mut stream) = std::net::TcpStream::connect_timeout(&address, patience) {
            let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            let mut answer = String::new();
            let asked = stream.write_all(request).and_then(|()| stream.read_to_string(&mut answer));
            if !answer.ends_with("here") {
                return Err(format!("{asked:?}: {answer:?}"));
            }
            // Only the first is waited for.
            is_answered.send(()).ok();
        }
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_connects_while_the_listener_is_closed_is_answered_or_refused() {
        let router = Arc::new(Router::new().route("/", get(|| async { "here" })));
        for _ in 0..30 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (stop, served) =
                (CancellationToken::new(), Served::new(Arc::clone(&router), Protocols::Http1And2));
            let serving = tokio::spawn(serve(listener, served, stop.clone()));
            let asking = [(); 4].map(|()| {
                let (tell, told) = channel();
                (thread::spawn(move || ask_until_refused(address, &tell)), told)
            });
            sleep(Duration::from_millis(10)).await;
            for (_, told) in &asking {
                block_in_place(|| told.recv()).expect("it is answered");
            }
            stop.cancel();
            serving.await.unwrap();
            for (asking, _told) in asking {
                asking.join().unwrap().unwrap();
            }
        }
    }
}
