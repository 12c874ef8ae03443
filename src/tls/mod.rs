//! TLS of connections that are accepted: what clients are shown, and who they have to be.
//!
//! Certificate, key and the clients' CA are read from files, and read again when those change. A connection
//! keeps what it was opened with; those that come after see the new.

mod asked;
mod files;
mod follow;
mod handshakes;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use asked::over_tls;
pub use files::{TlsError, TlsFiles};

use files::Content;
use handshakes::Handshakes;

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What who speaks HTTP to a port of TLS is told, as other servers do.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: application/json\r\nconnection: close\r\ncontent-length: 92\r\n\r\n\
    {\"error\":\"this port speaks TLS: use https\",\"code\":\"invalid_request\",\"request_id\":\"unknown\"}\n";

/// The TLS of a server, which all its listeners share.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    /// What the files said that are in use.
    in_use: Mutex<Content>,
    config: ArcSwap<rustls::ServerConfig>,
    handshakes: Handshakes,
}

impl Tls {
    /// That of the files as they are now. Blocks while they are read.
    ///
    /// # Errors
    /// [`TlsError`], which names the setting.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let content = files.read()?;
        let config = ArcSwap::from_pointee(content.config(&files)?);
        Ok(Self { files, in_use: Mutex::new(content), config, handshakes: Handshakes::default() })
    }

    /// Reads the files anew, and takes what they say for connections from now on; the settings whose files
    /// say something else than before. Blocks while they are read.
    ///
    /// # Errors
    /// [`TlsError`]; what was in use stays so.
    pub fn reload(&self) -> Result<Vec<&'static str>, TlsError> {
        self.take(self.files.read()?)
    }

    fn take(&self, content: Content) -> Result<Vec<&'static str>, TlsError> {
        let mut in_use = self.in_use();
        let changed = in_use.differences(&content);
        if !changed.is_empty() {
            self.config.store(Arc::new(content.config(&self.files)?));
            *in_use = content;
        }
        Ok(changed)
    }

    /// Does the handshake. Where there are too many at once, the oldest is given up.
    ///
    /// Cancel safe: dropping the future closes the connection.
    ///
    /// # Errors
    /// Whatever ended it: the client, the time, or others.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let turn = self.handshakes.begin();
        let acceptor = TlsAcceptor::from(self.config.load_full());
        let handshake = timeout(PATIENCE, handshake(acceptor, stream));
        match turn.given_up().run_until_cancelled(handshake).await {
            Some(Ok(result)) => result,
            Some(Err(late)) => Err(late.into()),
            None => Err(io::Error::other("too many handshakes at once")),
        }
    }

    fn in_use(&self) -> MutexGuard<'_, Content> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    mut stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    // TLS begins with another byte than a method's name does.
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
        stream.write_all(PLAIN).await?;
        stream.shutdown().await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no TLS"));
    }
    acceptor.accept(stream).await
}
