//! What is asked of the process from outside it.

use tokio::sync::mpsc;

/// What the process was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// To stop.
    Stop(StopSignal),
    /// SIGHUP: to read its configuration anew.
    Reload,
}

/// How the process was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM: an orchestrator; traffic may still be on its way here.
    Terminate,
    /// SIGINT: somebody at a terminal, who does not want to wait.
    Interrupt,
}

/// A stream of signals: the operating system's, or a test's.
#[derive(Debug)]
pub struct SignalSource(mpsc::Receiver<Signal>);

impl SignalSource {
    /// SIGTERM, SIGINT and SIGHUP of this process. From the moment this returns they no longer end it by
    /// themselves. Must be called inside a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// When the system refuses a handler.
    #[cfg(unix)]
    pub fn of_process() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut reload = signal(SignalKind::hangup())?;
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            loop {
                let signal = tokio::select! {
                    Some(()) = terminate.recv() => Signal::Stop(StopSignal::Terminate),
                    Some(()) = interrupt.recv() => Signal::Stop(StopSignal::Interrupt),
                    Some(()) = reload.recv() => Signal::Reload,
                    () = sender.closed() => return,
                };
                // A full channel means that the process was told already.
                sender.try_send(signal).ok();
            }
        });
        Ok(Self(receiver))
    }

    /// A source that a test feeds through the returned sender.
    pub fn injected() -> (mpsc::Sender<Signal>, Self) {
        let (sender, receiver) = mpsc::channel(4);
        (sender, Self(receiver))
    }

    /// Waits for the next signal; for ever once the source is closed. Cancel safe.
    pub async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}
