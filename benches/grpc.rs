//! Unary calls over HTTP/2, of which nothing is made anew for the next one: as the client over HTTP/1.1, one
//! that costs little next to the server under test. It knows of HTTP/2 what such calls need.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use bytes::{BufMut, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::load::{self, Line, Sample};

const METHOD: &[u8] = b"/inference.GRPCInferenceService/ModelInfer";

/// What begins HTTP/2: the preface, settings by which an answer of any length may come at once, and as much
/// for the connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff\0\0\x04\x08\0\0\0\0\0\x7f\xff\0\0";

/// The kinds of frames (RFC 9113, section 6), and their flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame's head, the largest frame that every peer takes, and the bytes that it takes unasked.
const HEAD: usize = 9;
const LARGEST: usize = 16_384;
const WINDOW: i64 = 65_535;

/// The setting with how much a peer takes of each stream.
const INITIAL_WINDOW_SIZE: u16 = 4;

/// After so many bytes the peer is told that it may send as many again.
const RENEWAL: u32 = 1 << 30;

/// Streams of one connection, which may have 2^30 of a client.
const STREAMS: u32 = 1 << 30;

/// What to send, and where.
#[derive(Clone)]
pub(crate) struct GrpcTarget {
    pub(crate) address: SocketAddr,
    /// An encoded `ModelInferRequest`.
    pub(crate) message: Bytes,
}

impl GrpcTarget {
    /// [`load::run`] with this.
    pub(crate) async fn run(&self, callers: usize, duration: Duration) -> Result<Sample> {
        let callers = (0..callers).map(|_| self.caller());
        Ok(load::run_lines(callers.collect::<Vec<_>>().into_iter(), duration).await)
    }

    /// Sends one request; the encoded answer.
    pub(crate) async fn ask(&self) -> Result<Bytes> {
        let mut connection = Connection::open(self.address).await?;
        anyhow::ensure!(connection.call(&framed(&self.message)).await?, "the call was refused");
        Ok(Bytes::copy_from_slice(&connection.answer[5..]))
    }

    /// One caller on a connection of its own.
    pub(crate) fn line(&self) -> impl Line + use<> {
        self.caller()
    }

    fn caller(&self) -> GrpcLine {
        GrpcLine { address: self.address, message: framed(&self.message), idle: None }
    }
}

/// A message behind what gRPC puts before it: that it is not compressed, and its length.
fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("no message has 4 GiB");
    [&[0], &length.to_be_bytes()[..], message].concat().into()
}

struct GrpcLine {
    address: SocketAddr,
    message: Bytes,
    idle: Option<Connection>,
}

impl Line for GrpcLine {
    async fn call(&mut self) -> io::Result<bool> {
        let mut connection = match self.idle.take() {
            Some(connection) => connection,
            None => Connection::open(self.address).await?,
        };
        let is_right = connection.call(&self.message).await?;
        self.idle = (connection.stream < STREAMS).then_some(connection);
        Ok(is_right)
    }
}

struct Connection {
    socket: TcpStream,
    /// What was read and is yet to be looked at.
    read: Vec<u8>,
    at: usize,
    /// What is to be written at once.
    out: Vec<u8>,
    headers: Vec<u8>,
    /// The last stream.
    stream: u32,
    /// What the peer takes: of a new stream, of this one, and of all together.
    initial: i64,
    window: i64,
    whole: i64,
    /// What has come since it was told last that it may send more.
    taken: u32,
    /// The messages of the answer.
    answer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            read: Vec::with_capacity(4 * LARGEST),
            at: 0,
            out: PREFACE.to_vec(),
            headers: headers(&address.to_string()),
            stream: 0,
            initial: WINDOW,
            window: 0,
            whole: WINDOW,
            taken: 0,
            answer: Vec::new(),
        })
    }

    /// Makes a call; whether a message has come back, as none does with an error.
    async fn call(&mut self, message: &[u8]) -> io::Result<bool> {
        self.stream = if self.stream == 0 { 1 } else { self.stream + 2 };
        self.window = self.initial;
        self.answer.clear();
        let length = self.headers.len();
        frame_head(&mut self.out, length, (HEADERS, END_HEADERS), self.stream);
        self.out.extend_from_slice(&self.headers);
        let mut rest = message;
        while !rest.is_empty() {
            let allowed = usize::try_from(self.window.min(self.whole)).unwrap_or_default();
            let part = rest.len().min(LARGEST).min(allowed);
            if part == 0 {
                self.flush().await?;
                // It may also be refused before all of it was sent.
                if self.next_frame().await? {
                    return Ok(!self.answer.is_empty());
                }
                continue;
            }
            let (now, later) = rest.split_at(part);
            let flags = if later.is_empty() { END_STREAM } else { 0 };
            frame_head(&mut self.out, part, (DATA, flags), self.stream);
            self.out.extend_from_slice(now);
            let sent = i64::try_from(part).expect("a frame is small");
            (self.window, self.whole) = (self.window - sent, self.whole - sent);
            rest = later;
        }
        self.flush().await?;
        while !self.next_frame().await? {}
        Ok(!self.answer.is_empty())
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// Reads a frame, and does what it asks for; whether it ends the answer.
    async fn next_frame(&mut self) -> io::Result<bool> {
        self.fill(HEAD).await?;
        let head = &self.read[self.at..self.at + HEAD];
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags, stream) = (head[3], head[4], number(&head[5..9]));
        self.fill(HEAD + length).await?;
        let content = self.at + HEAD..self.at + HEAD + length;
        self.at = content.end;
        let content = &self.read[content];
        match kind {
            DATA => {
                self.answer.extend_from_slice(content);
                self.taken += u32::try_from(length).expect("a frame is small");
                self.renew();
            }
            SETTINGS if flags & ACK == 0 => {
                for setting in content.chunks_exact(6) {
                    if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                        let initial = i64::from(number(&setting[2..]));
                        self.window += initial - self.initial;
                        self.initial = initial;
                    }
                }
                frame_head(&mut self.out, 0, (SETTINGS, ACK), 0);
            }
            PING if flags & ACK == 0 => {
                frame_head(&mut self.out, length, (PING, ACK), 0);
                self.out.extend_from_slice(content);
            }
            WINDOW_UPDATE if stream == 0 => self.whole += i64::from(number(content)),
            WINDOW_UPDATE if stream == self.stream => self.window += i64::from(number(content)),
            RST_STREAM | GOAWAY => return Err(io::ErrorKind::ConnectionReset.into()),
            _ => {}
        }
        let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        Ok(ends && stream == self.stream)
    }

    /// Tells the peer that it may send more, every now and then.
    fn renew(&mut self) {
        if self.taken >= RENEWAL {
            frame_head(&mut self.out, 4, (WINDOW_UPDATE, 0), 0);
            self.out.put_u32(self.taken);
            self.taken = 0;
        }
    }

    /// Reads until so many bytes are there.
    async fn fill(&mut self, length: usize) -> io::Result<()> {
        if self.at == self.read.len() {
            self.read.clear();
            self.at = 0;
        }
        while self.read.len() - self.at < length {
            if self.at > 0 {
                self.read.drain(..self.at);
                self.at = 0;
            }
            self.read.reserve(length.max(LARGEST));
            if self.socket.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

fn frame_head(to: &mut Vec<u8>, length: usize, (kind, flags): (u8, u8), stream: u32) {
    let length = u32::try_from(length).expect("a frame is small").to_be_bytes();
    to.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    to.extend_from_slice(&stream.to_be_bytes());
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff)
}

/// The headers of a call (RFC 7541): names by their place in the static table where they have one, values as
/// they are, and nothing to be remembered.
fn headers(authority: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let named: [(&[u8], &[u8]); 3] =
        [(&[0x04], METHOD), (&[0x01], authority.as_bytes()), (&[0x0f, 0x10], b"application/grpc")];
    let te: (&[u8], &[u8]) = (b"\0\x02te", b"trailers");
    for (name, value) in named.into_iter().chain([te]) {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).expect("all are short"));
        block.extend_from_slice(value);
    }
    block
}
