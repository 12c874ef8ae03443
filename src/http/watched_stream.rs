//! A stream that knows whether its peer is behind with reading, whether it says anything, and how long it
//! takes over the head of a request.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What begins HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is read: nothing yet that belongs to a request; a part of its head; what comes after that; or
/// HTTP/2, in which heads have their bounds elsewhere.
const IDLE: u8 = 0;
const HEAD: u8 = 1;
const ASKED: u8 = 2;
const HTTP_2: u8 = 3;

/// Passes everything through, and remembers whether the last write had to wait and how much was read and written. A head
/// that has begun and does not come to its end is an error.
#[derive(Debug)]
pub(super) struct WatchedStream<S> {
    inner: S,
    peer: Peer,
    head_timeout: Duration,
    /// Whether all that was read so far begins HTTP/2.
    is_preface: bool,
    /// Of the head that is being waited for.
    late: Option<Pin<Box<Sleep>>>,
}

/// What there is to tell of the peer.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    behind: AtomicBool,
    /// Bytes, which only the connection counts.
    heard: AtomicUsize,
    sent: AtomicUsize,
    reading: AtomicU8,
}

impl<S> WatchedStream<S> {
    pub(super) fn new(inner: S, head_timeout: Duration) -> (Self, Peer) {
        let peer = Peer::default();
        (Self { inner, peer: peer.clone(), head_timeout, is_preface: true, late: None }, peer)
    }

    fn watch<T>(&self, result: Poll<T>) -> Poll<T> {
        self.peer.0.behind.store(result.is_pending(), Ordering::Relaxed);
        result
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = result {
            add(&self.peer.0.sent, count);
        }
        self.watch(result)
    }

    /// What was read while nothing was asked yet.
    fn heard_of_head(&mut self, read: &[u8], before: usize) {
        let rest = PREFACE.get(before..).unwrap_or_default();
        let same = rest.len().min(read.len());
        self.is_preface &= same > 0 && rest[..same] == read[..same];
        let is_http_2 = self.is_preface && before + same == PREFACE.len();
        self.peer.0.reading.store(if is_http_2 { HTTP_2 } else { HEAD }, Ordering::Relaxed);
    }

    /// Waits for as long as the head may take that has begun.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let timeout = self.head_timeout;
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(timeout)));
        late.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Peer {
    /// Whether bytes wait for it.
    pub(super) fn is_behind(&self) -> bool {
        self.0.behind.load(Ordering::Relaxed)
    }

    /// How many bytes have come from it so far.
    pub(super) fn heard(&self) -> usize {
        self.0.heard.load(Ordering::Relaxed)
    }

    /// Tells that the head of a request has come to its end.
    pub(super) fn has_asked(&self) {
        // Nothing was read for it where it came with the one before.
        if self.reading() != HTTP_2 {
            self.0.reading.store(ASKED, Ordering::Relaxed);
        }
    }

    /// Tells that it was answered, so that what comes next is another head.
    pub(super) fn is_answered(&self) {
        if self.reading() == ASKED {
            self.0.reading.store(IDLE, Ordering::Relaxed);
        }
    }

    /// How many bytes were sent to it so far.
    pub(super) fn sent(&self) -> usize {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Whether it has begun with the head of a request.
    pub(super) fn is_asking(&self) -> bool {
        self.reading() == HEAD
    }

    fn reading(&self) -> u8 {
        self.0.reading.load(Ordering::Relaxed)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let reading = self.peer.reading();
        if reading != HEAD {
            self.late = None;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        let heard = add(&self.peer.0.heard, count);
        match reading {
            HEAD if read.is_pending() => self.poll_late(context),
            IDLE | HEAD if count > 0 => {
                self.heard_of_head(&buffer.filled()[before..], heard);
                read
            }
            _ => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is encrypted waits here. It is asked for only once all that was written has been taken.
        let result = Pin::new(&mut self.inner).poll_flush(context);
        self.watch(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written may still be on its way.
        let result = Pin::new(&mut self.inner).poll_shutdown(context);
        self.watch(result)
    }
}

/// Adds to what nobody else adds to; what it was before.
fn add(sum: &AtomicUsize, count: usize) -> usize {
    let before = sum.load(Ordering::Relaxed);
    sum.store(before.wrapping_add(count), Ordering::Relaxed);
    before
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, advance, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watched() -> (DuplexStream, WatchedStream<DuplexStream>, Peer) {
        let (client, server) = duplex(1024);
        let (stream, peer) = WatchedStream::new(server, SECOND);
        (client, stream, peer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_has_begun_has_so_long_in_all() {
        let (mut client, mut stream, peer) = watched();
        let mut buffer = [0; 64];
        let nothing = timeout(100 * SECOND, stream.read(&mut buffer)).await;
        assert!(nothing.is_err(), "nothing has begun");
        for _ in 0..3 {
            client.write_all(b"GET /").await.unwrap();
            assert_eq!(stream.read(&mut buffer).await.unwrap(), 5);
            peer.has_asked();
            let body = timeout(100 * SECOND, stream.read(&mut buffer)).await;
            assert!(body.is_err(), "it is a body that is waited for");
            peer.is_answered();
        }
        // It came with the one before, but for its body.
        peer.has_asked();
        client.write_all(b"body").await.unwrap();
        stream.read_exact(&mut buffer[..4]).await.unwrap();
        assert!(timeout(100 * SECOND, stream.read(&mut buffer)).await.is_err());
        peer.is_answered();
        client.write_all(b"GET").await.unwrap();
        stream.read_exact(&mut buffer[..3]).await.unwrap();
        let begun = Instant::now();
        let trickle = async {
            for _ in 0..9 {
                advance(SECOND / 5).await;
                client.write_all(b"x").await.ok();
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        };
        let read = async {
            loop {
                if let Err(error) = stream.read(&mut buffer).await {
                    return error.kind();
                }
            }
        };
        tokio::select! {
            () = trickle => unreachable!("it never ends"),
            kind = read => assert_eq!(kind, io::ErrorKind::TimedOut),
        }
        assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_begins_as_http_2_may_be_idle_once_it_has_begun() {
        let (mut client, mut stream, _) = watched();
        let mut buffer = [0; 64];
        for part in [&PREFACE[..7], &PREFACE[7..], b"\0\0\0\x04\0\0\0\0\0"] {
            client.write_all(part).await.unwrap();
            stream.read_exact(&mut buffer[..part.len()]).await.unwrap();
        }
        assert!(timeout(100 * SECOND, stream.read(&mut buffer)).await.is_err());
        let (mut client, mut stream, _) = watched();
        client.write_all(&PREFACE[..7]).await.unwrap();
        stream.read_exact(&mut buffer[..7]).await.unwrap();
        assert!(timeout(2 * SECOND, stream.read(&mut buffer)).await.unwrap().is_err());
    }
}
