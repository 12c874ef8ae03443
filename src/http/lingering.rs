//! A stream whose end loses nothing of what was written to it.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::server::TlsStream;

/// How long the peer has to be quiet before it is left: one that has said nothing since the end of what is
/// written to it, and one that may be in the middle of a body that nobody wants.
const QUIET: Duration = Duration::from_millis(50);
const QUIET_TALKER: Duration = Duration::from_millis(500);

/// How long a peer may go on that has everything, and one that takes nothing of what waits for it.
const TALK: Duration = Duration::from_secs(5);
const STUCK: Duration = Duration::from_secs(5);

/// What is read at once of what nobody wants any more.
const SCRAP: usize = 16 * 1024;

/// Tells how much of what was written to it waits for the peer.
pub(super) trait Unsent {
    /// In bytes; 0 where the system does not tell.
    fn unsent(&self) -> usize;
}

/// Passes everything through. Once it is shut down, what the peer still says is read and forgotten until it
/// has all that was written, or does not want it: a system that is sent something on a stream that is
/// closed already tells the peer so, and throws away what waits for it.
#[derive(Debug)]
pub(super) struct Lingering<S> {
    inner: S,
    farewell: Option<Pin<Box<Farewell>>>,
}

/// What is between the end of what is written and that of the stream.
#[derive(Debug)]
struct Farewell {
    look: Pin<Box<Sleep>>,
    /// When the last look was.
    looked: Instant,
    scrap: Box<[u8]>,
    /// Whether the peer has said anything since the last look, and ever.
    heard: bool,
    talks: bool,
    unsent: usize,
    /// For how long it has been quiet, gone on although it has everything, or taken nothing.
    quiet: Duration,
    talk: Duration,
    stuck: Duration,
}

impl<S> Lingering<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, farewell: None }
    }
}

impl Farewell {
    fn new(unsent: usize) -> Self {
        let none = Duration::ZERO;
        Self {
            look: Box::pin(sleep(QUIET)),
            looked: Instant::now(),
            scrap: vec![0; SCRAP].into(),
            heard: false,
            talks: false,
            unsent,
            quiet: none,
            talk: none,
            stuck: none,
        }
    }

    /// Whether this is the end, where so much is unsent.
    fn is_over(&mut self, unsent: usize) -> bool {
        let now = Instant::now();
        let since = now - mem::replace(&mut self.looked, now);
        let heard = mem::take(&mut self.heard);
        self.talks |= heard;
        let takes = unsent < self.unsent;
        self.unsent = unsent;
        self.stuck = if unsent > 0 && !takes { self.stuck + since } else { Duration::ZERO };
        self.quiet = if unsent > 0 || heard { Duration::ZERO } else { self.quiet + since };
        self.talk = if unsent == 0 { self.talk + since } else { Duration::ZERO };
        let enough = if self.talks { QUIET_TALKER } else { QUIET };
        self.quiet >= enough || self.talk >= TALK || self.stuck >= STUCK
    }
}

impl<S: AsyncRead + AsyncWrite + Unsent + Unpin> Lingering<S> {
    fn poll_farewell(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self { inner, farewell } = self;
        let farewell = farewell.get_or_insert_with(|| Box::pin(Farewell::new(inner.unsent())));
        loop {
            // At first: a peer that talks on and on leaves no time for it later.
            if farewell.look.as_mut().poll(context).is_ready() {
                if farewell.is_over(inner.unsent()) {
                    return Poll::Ready(());
                }
                farewell.look = Box::pin(sleep(QUIET));
                continue;
            }
            let mut scrap = ReadBuf::new(&mut farewell.scrap);
            match ready!(Pin::new(&mut *inner).poll_read(context, &mut scrap)) {
                Ok(()) if !scrap.filled().is_empty() => farewell.heard = true,
                // It has closed its side, or is gone.
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unsent + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.farewell.is_none() {
            ready!(Pin::new(&mut self.inner).poll_shutdown(context))?;
        }
        self.poll_farewell(context).map(Ok)
    }
}

impl Unsent for TcpStream {
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "the standard library has no function for it")]
    fn unsent(&self) -> usize {
        use std::os::fd::AsRawFd as _;
        let mut unsent: libc::c_int = 0;
        // SAFETY: the descriptor is open for as long as the stream is, and the call writes one integer.
        let failed = unsafe { libc::ioctl(self.as_raw_fd(), libc::TIOCOUTQ, &raw mut unsent) };
        if failed == 0 { usize::try_from(unsent).unwrap_or_default() } else { 0 }
    }

    #[cfg(not(target_os = "linux"))]
    fn unsent(&self) -> usize {
        0
    }
}

impl<S: Unsent> Unsent for TlsStream<S> {
    fn unsent(&self) -> usize {
        self.get_ref().0.unsent()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{advance, timeout};

    use super::*;

    /// Of which nothing, or always as much, is unsent.
    struct Pipe(DuplexStream, usize);

    impl Unsent for Pipe {
        fn unsent(&self) -> usize {
            self.1
        }
    }

    impl AsyncRead for Pipe {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Pipe {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(context, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(context)
        }

        fn poll_shutdown(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(context)
        }
    }

    /// The peer, and how long the farewell takes beside what it does.
    async fn farewell(unsent: usize, peer: impl AsyncFnOnce(&mut DuplexStream)) -> Duration {
        let (mut client, server) = duplex(64);
        let mut server = Lingering::new(Pipe(server, unsent));
        let begun = Instant::now();
        let closing = async {
            server.shutdown().await.unwrap();
            begun.elapsed()
        };
        let beside = async {
            peer(&mut client).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            took = closing => took,
            () = beside => unreachable!("it never ends"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_peer_that_has_everything_is_left_at_once() {
        assert!(farewell(0, async |_| {}).await <= 2 * QUIET);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_talks_is_heard_until_it_is_quiet() {
        let took = farewell(0, async |client| {
            for _ in 0..10 {
                client.write_all(&[0; 1000]).await.unwrap();
                sleep(4 * QUIET).await;
            }
        });
        let took = took.await;
        assert!(took >= 36 * QUIET + QUIET_TALKER && took <= TALK, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_come_to_an_end_is_left() {
        let talker = farewell(0, async |client| {
            while client.write_all(&[0; 1000]).await.is_ok() {
                sleep(QUIET).await;
            }
        });
        let took = talker.await;
        assert!(took >= TALK && took <= TALK + 2 * QUIET, "{took:?}");
        let took = farewell(1, async |_| {}).await;
        assert!(took >= STUCK && took <= STUCK + 2 * QUIET, "{took:?}");
    }

    /// Says something whenever it is listened to, as long as the runtime lets the listener.
    struct Talker;

    impl Unsent for Talker {
        fn unsent(&self) -> usize {
            0
        }
    }

    impl AsyncRead for Talker {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut tokio::io::repeat(b'x')).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Talker {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_draws_breath_is_left() {
        let begun = Instant::now();
        let closing = tokio::spawn(async { Lingering::new(Talker).shutdown().await });
        while !closing.is_finished() {
            assert!(begun.elapsed() < 2 * TALK, "it is listened to for ever");
            advance(QUIET).await;
        }
        assert!(begun.elapsed() >= TALK);
        closing.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_closes_is_not_waited_for() {
        let (client, server) = duplex(64);
        drop(client);
        let mut server = Lingering::new(Pipe(server, 1));
        timeout(QUIET / 2, server.shutdown()).await.unwrap().unwrap();
        assert!(timeout(QUIET / 2, server.read(&mut [0])).await.is_ok());
    }
}
