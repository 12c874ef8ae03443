//! Requests over HTTP/1.1, of which nothing is made anew for the next one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Line;
use super::head::Head;

/// Bytes that one read takes at most; the head of an answer must fit.
const BUFFER: usize = 64 * 1024;

/// What to send, and where.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The server.
    pub(crate) addr: SocketAddr,
    /// One whole HTTP/1.1 request, head and body.
    pub(crate) request: Bytes,
}

/// A `GET`.
pub(crate) fn get(addr: SocketAddr, path: &str) -> Target {
    Target { addr, request: format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\n\r\n").into() }
}

/// A `POST` of `body` as `application/json`.
pub(crate) fn post_json(addr: SocketAddr, path: &str, body: &[u8]) -> Target {
    request("POST", addr, path, body)
}

/// Any method with `body` as `application/json`.
pub(crate) fn request(method: &str, addr: SocketAddr, path: &str, body: &[u8]) -> Target {
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {addr}\r\n");
    Target { addr, request: whole(&head, &[("content-type", "application/json")], body) }
}

/// A `POST` with these headers, which are all but `host` and `content-length`.
pub(crate) fn post(addr: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Target {
    let head = format!("POST {path} HTTP/1.1\r\nhost: {addr}\r\n");
    Target { addr, request: whole(&head, headers, body) }
}

/// A request from its head so far on.
fn whole(head: &str, headers: &[(&str, &str)], body: &[u8]) -> Bytes {
    let lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let end = format!("content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), lines.concat().as_bytes(), end.as_bytes(), body].concat().into()
}

/// Looks at every answer of status 200, those of the warm-up included.
pub(crate) trait Judge: Send + Sync {
    /// Called right before a request is sent; the ticket comes back with its answer.
    fn sends(&self) -> u64;

    /// The answer to the request with this ticket; empty when it is longer than [`BUFFER`].
    fn answered(&self, ticket: u64, body: &[u8]);
}

/// Takes every answer.
struct Lenient;

impl Judge for Lenient {
    fn sends(&self) -> u64 {
        0
    }

    fn answered(&self, _: u64, _: &[u8]) {}
}

/// Sends one request after the other, over at most one connection at a time.
pub(super) struct HttpLine {
    target: Target,
    judge: Arc<dyn Judge>,
    idle: Option<Connection>,
}

impl HttpLine {
    pub(super) fn new(target: &Target, judge: &Arc<dyn Judge>) -> Self {
        Self { target: target.clone(), judge: Arc::clone(judge), idle: None }
    }

    pub(super) fn lenient(target: &Target) -> Self {
        Self::new(target, &(Arc::new(Lenient) as _))
    }
}

impl Line for HttpLine {
    async fn call(&mut self) -> io::Result<bool> {
        let mut connection = match self.idle.take() {
            Some(connection) => connection,
            None => Connection::open(self.target.addr).await?,
        };
        let ticket = self.judge.sends();
        let (head, body) = connection.exchange(&self.target.request).await?;
        let is_right = head.status == 200;
        if is_right {
            self.judge.answered(ticket, body);
        }
        self.idle = head.keep_alive.then_some(connection);
        Ok(is_right)
    }
}

/// Sends one request on a connection of its own; the status and the body of its answer, which is at
/// most [`BUFFER`] long, head included.
pub(crate) async fn ask(target: &Target) -> io::Result<(u16, Vec<u8>)> {
    let mut connection = Connection::open(target.addr).await?;
    let (head, body) = connection.exchange(&target.request).await?;
    if head.answer > BUFFER { Err(malformed("too long")) } else { Ok((head.status, body.to_vec())) }
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
}

impl Connection {
    async fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Ok(Self { stream, buffer })
    }

    /// Sends one request and reads its whole answer, whose body is empty when it is too long for the
    /// buffer. After an error the connection is of no use.
    async fn exchange(&mut self, request: &[u8]) -> io::Result<(Head, &[u8])> {
        self.stream.write_all(request).await?;
        let (head, mut received) = self.read_head().await?;
        let fits = head.answer <= self.buffer.len();
        while received < head.answer {
            received += self.read(if fits { received } else { 0 }).await?;
        }
        if received > head.answer {
            return Err(malformed("more than one answer"));
        }
        let body = if fits { &self.buffer[head.length..head.answer] } else { &[] };
        Ok((head, body))
    }

    /// The head, and the bytes received so far, of which some may be the body's.
    async fn read_head(&mut self) -> io::Result<(Head, usize)> {
        let mut received = 0;
        loop {
            received += self.read(received).await?;
            if let Some(head) = Head::parse(&self.buffer[..received])? {
                return Ok((head, received));
            }
        }
    }

    /// One read into the buffer from `at` on.
    async fn read(&mut self, at: usize) -> io::Result<usize> {
        match self.stream.read(&mut self.buffer[at..]).await? {
            0 if at == self.buffer.len() => Err(malformed("a head without end")),
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

pub(super) fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
