//! A stream that knows whether its peer is behind with reading, and whether it says anything.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Passes everything through, and remembers whether the last write had to wait and how much was read.
#[derive(Debug)]
pub(super) struct WatchedStream<S> {
    inner: S,
    peer: Peer,
}

/// What there is to tell of the peer.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    behind: Arc<AtomicBool>,
    heard: Arc<AtomicUsize>,
}

impl<S> WatchedStream<S> {
    pub(super) fn new(inner: S) -> (Self, Peer) {
        let peer = Peer::default();
        (Self { inner, peer: peer.clone() }, peer)
    }

    fn watch<T>(&self, result: Poll<T>) -> Poll<T> {
        self.peer.behind.store(result.is_pending(), Ordering::Relaxed);
        result
    }
}

impl Peer {
    /// Whether bytes wait for it.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }

    /// How many bytes have come from it so far.
    pub(super) fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.peer.heard.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watch(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
