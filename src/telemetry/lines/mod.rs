//! Lines of the log on their way to standard error.
//!
//! Whoever has a line writes it, so that what the process has said last is there even where it is killed. Where
//! there is no room, as in a pipe that nobody reads, nobody waits: that line and those after it are kept, within
//! bounds, for a thread that does. What is lost is counted, and fails a check.

mod out;
mod pen;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use out::{Out, Patience};
use pen::{Pen, Piece};
pub(super) use watch::{TARGET, check};

/// Bytes of lines that may wait for room.
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

struct Shared {
    state: Mutex<State>,
    /// Taken by who holds the state while it is not busy, and by the thread that waits while it is.
    pen: Mutex<Pen>,
    /// There are lines to wait with.
    waiting: Condvar,
    /// There are none any more.
    done: Condvar,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    waiting: VecDeque<Piece>,
    /// Bytes of them, and of that which the thread has.
    size: usize,
    /// The thread has a line, or is to have one: who has another comes after.
    is_busy: bool,
    report: LinesReport,
    /// Why lines are lost, until one is written.
    trouble: Option<Trouble>,
}

enum Trouble {
    Full,
    Failed(io::Error),
}

impl Lines {
    /// Starts the thread that waits, which nothing ends.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn to(out: impl Out + 'static) -> io::Result<Self> {
        let (state, waiting, done) = Default::default();
        let pen = Mutex::new(Pen::new(out));
        let shared = Arc::new(Shared { state, pen, waiting, done });
        let waits = Arc::clone(&shared);
        thread::Builder::new().name("onward-log".to_owned()).spawn(move || waits.wait())?;
        Ok(Self(shared))
    }

    pub(super) fn report(&self) -> LinesReport {
        locked(&self.0.state).report
    }

    /// Waits until no line waits any more, for this long at most.
    pub(super) fn flush(&self, timeout: Duration) {
        let state = locked(&self.0.state);
        drop(self.0.done.wait_timeout_while(state, timeout, |state| state.is_busy));
    }

    /// Why lines are lost at the moment.
    fn trouble(&self) -> Option<String> {
        let state = locked(&self.0.state);
        let why = match state.trouble.as_ref()? {
            Trouble::Full => "what reads them has stopped",
            Trouble::Failed(error) => &error.to_string(),
        };
        Some(format!("{} lines of the log are lost by now: {why}", state.report.lost()))
    }
}

impl Shared {
    /// Takes a line. Waits for nobody but those that do the same.
    fn put(&self, line: &[u8]) {
        let mut state = locked(&self.state);
        let mut piece = Piece::of(line);
        if state.is_busy {
            return state.keep(piece);
        }
        match locked(&self.pen).write(&mut piece, Patience::Never) {
            Ok(false) => {
                state.is_busy = true;
                state.keep(piece);
                self.waiting.notify_one();
            }
            written => state.settle(written.map(drop)),
        }
    }

    /// Writes what is kept, for ever.
    fn wait(&self) {
        let mut state = locked(&self.state);
        loop {
            while let Some(mut piece) = state.waiting.pop_front() {
                let size = piece.len();
                drop(state);
                let written = locked(&self.pen).write(&mut piece, Patience::Forever);
                state = locked(&self.state);
                state.size -= size;
                state.settle(written.map(drop));
            }
            state.is_busy = false;
            self.done.notify_all();
            let idle = |state: &mut State| !state.is_busy;
            let woken = self.waiting.wait_while(state, idle);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    /// Has a line wait. The first has room whatever its size.
    fn keep(&mut self, piece: Piece) {
        if self.size > 0 && self.size + piece.len() > ROOM {
            self.report.full += 1;
            self.trouble = Some(Trouble::Full);
            return;
        }
        self.size += piece.len();
        self.waiting.push_back(piece);
    }

    /// Notes what became of a line.
    fn settle(&mut self, written: io::Result<()>) {
        match (written, &self.trouble) {
            (Err(error), _) => {
                self.report.failed += 1;
                self.trouble = Some(Trouble::Failed(error));
            }
            // With lines that wait there may be no room for another.
            (Ok(()), Some(Trouble::Full)) if !self.waiting.is_empty() => {}
            (Ok(()), _) => self.trouble = None,
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// Takes one line.
pub(super) struct Line<'a>(&'a Shared);

impl io::Write for Line<'_> {
    /// Takes it whole, and never fails: that the log cannot be written is told by the check.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
