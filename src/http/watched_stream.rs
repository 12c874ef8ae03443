//! A stream that knows whether its peer is behind with reading.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Passes everything through, and remembers whether the last write had to wait.
#[derive(Debug)]
pub(super) struct WatchedStream<S> {
    inner: S,
    behind: Arc<AtomicBool>,
}

/// Tells whether bytes wait for the peer.
#[derive(Debug, Clone)]
pub(super) struct Backlog(Arc<AtomicBool>);

impl<S> WatchedStream<S> {
    pub(super) fn new(inner: S) -> (Self, Backlog) {
        let behind = Arc::new(AtomicBool::new(false));
        (Self { inner, behind: Arc::clone(&behind) }, Backlog(behind))
    }

    fn watch<T>(&self, result: Poll<T>) -> Poll<T> {
        self.behind.store(result.is_pending(), Ordering::Relaxed);
        result
    }
}

impl Backlog {
    pub(super) fn exists(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
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
