//! Panics as lines of the log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{PanicHookInfo, set_hook};
use std::thread;
use std::time::Duration;

use tracing::error;
use tracing::field::display;

use super::lines::Lines;

/// What the line of a panic is under.
pub(super) const TARGET: &str = "onward::panic";

/// How long a panic, which may be the end of the process, waits for who reads its log.
const LAST_LINES: Duration = Duration::from_millis(100);

/// Has panics logged from now on, with a backtrace where the environment asks for one, as the standard library has
/// it: that would write them itself, and wait where standard error is not read.
pub(super) fn log(lines: Lines) {
    set_hook(Box::new(move |panic| {
        tell(panic);
        lines.flush(LAST_LINES);
    }));
}

fn tell(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| display(&backtrace));
    let (thread, message) = (thread::current(), panic.payload_as_str().unwrap_or("it has no text"));
    let (thread, place) = (thread.name(), panic.location().map(display));
    error!(target: TARGET, thread, place, backtrace, "panic: {message}");
}
