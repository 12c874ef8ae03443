//! Lines of the log on their way to standard error.
//!
//! A thread writes them, so that nobody else waits where standard error is not read, or its disk does not answer.
//! Lines wait within bounds. What is lost is counted, and fails a check.

mod batch;
#[cfg(test)]
mod tests;
mod watch;

use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use batch::{Batch, Out};
pub(super) use watch::{TARGET, check};

/// Bytes of lines that may wait, beside those that are being written.
const ROOM: usize = 1 << 20;

/// What has become of lines of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinesReport {
    /// Those that were not written, as too many waited.
    pub full: u64,
    /// Those that could not be written.
    pub failed: u64,
}

impl LinesReport {
    const fn lost(self) -> u64 {
        self.full.saturating_add(self.failed)
    }
}

/// Where the lines of the log go. Clones share it.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There are lines to write.
    ready: Condvar,
    /// There are none any more.
    done: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Batch,
    is_writing: bool,
    loss: Loss,
}

/// What is lost by now.
#[derive(Debug, Clone, Default)]
struct Loss {
    lines: LinesReport,
    /// Notes that lines were lost, which are lost too.
    notes: u64,
    /// Why the last was.
    reason: String,
}

impl Lines {
    /// Starts the thread that writes, which nothing ends.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn to(out: impl io::Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (writes, out) = (Arc::clone(&shared), Out::new(out));
        thread::Builder::new().name("onward-log".to_owned()).spawn(move || writes.write(out))?;
        Ok(Self(shared))
    }

    pub(super) fn report(&self) -> LinesReport {
        self.0.state().loss.lines
    }

    /// Waits until everything is written, for this long at most.
    pub(super) fn flush(&self, timeout: Duration) {
        let has_lines = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        drop(self.0.done.wait_timeout_while(self.0.state(), timeout, has_lines));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: &[u8], is_note: bool) {
        let mut state = self.state();
        if !state.waiting.is_empty() && state.waiting.len() + line.len() > ROOM {
            let loss = &mut state.loss;
            *(if is_note { &mut loss.notes } else { &mut loss.lines.full }) += 1;
            "what reads standard error has stopped, or is too slow".clone_into(&mut loss.reason);
            return;
        }
        state.waiting.add(line, is_note);
        if !state.is_writing {
            self.ready.notify_one();
        }
    }

    /// Writes what comes, for ever.
    fn write(&self, mut out: Out) {
        let mut batch = Batch::default();
        let mut state = self.state();
        loop {
            if state.waiting.is_empty() {
                state.is_writing = false;
                self.done.notify_all();
                let none = |state: &mut State| state.waiting.is_empty();
                let woken = self.ready.wait_while(state, none);
                state = woken.unwrap_or_else(PoisonError::into_inner);
            }
            state.is_writing = true;
            mem::swap(&mut batch, &mut state.waiting);
            drop(state);
            let failure = out.write(&batch).err();
            state = self.state();
            if let Some(failure) = failure {
                state.loss.lines.failed += failure.lines;
                state.loss.notes += failure.notes;
                state.loss.reason = failure.error.to_string();
            }
            batch.clear();
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: &self.0, is_note: false }
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Line<'a> {
        Line { lines: &self.0, is_note: line.target() == TARGET }
    }
}

/// Takes one line.
pub(super) struct Line<'a> {
    lines: &'a Shared,
    is_note: bool,
}

impl io::Write for Line<'_> {
    /// Takes it whole, and never fails: what is lost the check tells.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.put(line, self.is_note);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
