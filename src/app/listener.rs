//! The sockets that are listened on, as resources.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::front::Front;
use crate::http::{self, InFlight, Served};
use crate::lifecycle::{Deadline, Drained};

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}, the setting {setting}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Where it comes from.
        setting: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file that tells the address cannot be written.
    #[error("cannot write {}, the setting server.port_file", path.display())]
    PortFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where to listen, and what is told of it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The resource's name.
    pub(super) name: &'static str,
    pub(super) listen: SocketAddr,
    pub(super) setting: &'static str,
    pub(super) port_file: Option<PathBuf>,
    /// What the log says once it is listened on.
    pub(super) told: &'static str,
}

/// Listens, serves, and lets what it serves finish.
#[derive(Debug)]
pub(super) struct Listener {
    place: Place,
    served: Served<Front>,
    in_flight: InFlight,
    address: OnceLock<SocketAddr>,
    stop: CancellationToken,
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl Listener {
    /// One that begins to drain when `stop` is cancelled.
    pub(super) fn new(
        place: Place,
        served: Served<Front>,
        in_flight: InFlight,
        stop: CancellationToken,
    ) -> Self {
        Self { place, served, in_flight, address: OnceLock::new(), stop, serving: Mutex::default() }
    }

    /// The name of the resource that it is.
    pub(super) fn name(&self) -> &'static str {
        self.place.name
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address.get().copied()
    }

    /// Binds the socket and begins to serve.
    pub(super) fn open(&self) -> Result<(), ListenError> {
        let Place { listen, setting, told, .. } = self.place.clone();
        let bound = bind(listen);
        let refused = |source| ListenError::Bind { address: listen, setting, source };
        let listener = bound.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        self.address.get_or_init(|| address);
        let serving = http::serve(listener, self.served.clone(), self.stop.clone());
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokio::spawn(serving));
        info!(%address, "{told}");
        match &self.place.port_file {
            Some(path) => tell(path, address),
            None => Ok(()),
        }
    }

    /// Takes no new connection and waits until every request is answered and its answer sent.
    /// Connections without a request are closed.
    pub(super) async fn drain(&self, deadline: Deadline) -> Drained {
        self.stop.cancel();
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(serving) = serving else {
            return Ok(());
        };
        match deadline.bound(serving).await {
            Some(Ok(())) => Ok(()),
            Some(Err(panic)) => Err(format!("serving connections ended in a panic: {panic}")),
            None => match self.in_flight.count() {
                0 => Err("an answer is not read to its end".to_owned()),
                requests => Err(format!("{requests} requests are not answered")),
            },
        }
    }
}

/// Binds as tokio's own `bind` does, with room for a burst of connections.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(http::BACKLOG)
}

/// Writes the address to a file that is there only once it is complete.
fn tell(path: &Path, address: SocketAddr) -> Result<(), ListenError> {
    let failed = |source| ListenError::PortFile { path: path.to_owned(), source };
    let mut draft = path.as_os_str().to_owned();
    draft.push(".tmp");
    std::fs::write(&draft, format!("{address}\n")).map_err(failed)?;
    std::fs::rename(&draft, path).map_err(failed)
}
