//! Logs, by `tracing`, to standard error; and spans, to a collector.

mod filter;
mod lines;
mod otlp;
mod panics;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{LogFilter, LogFormat, TelemetryConfig};
use crate::lifecycle::{Check, LogChange, LogControl, LogSettings};
use filter::Filter;
use lines::Lines;
pub use lines::LinesReport;
pub use otlp::{Exporter, OtlpError, export};

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("telemetry.log_level is no filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process has logs already.
    #[error("logs were set up twice")]
    AlreadySet(#[from] tracing_subscriber::util::TryInitError),
    /// There are no logs any more.
    #[error("what is logged cannot be changed")]
    Gone(#[from] reload::Error),
    /// The system has no thread left.
    #[error("logs cannot be written")]
    Thread(#[from] io::Error),
}

impl TelemetryError {
    /// Whether a setting is to be put right.
    pub const fn is_of_configuration(&self) -> bool {
        matches!(self, Self::Filter(_))
    }
}

/// The logs of this process. Decides what of them is written: what the filter `telemetry.log_level` lets
/// through, and over that what operators have switched on or off since it was set.
#[derive(Clone)]
pub struct Logs {
    lines: Lines,
    handle: reload::Handle<Filter, Registry>,
    /// Held while the filter is changed, so that it is what it says.
    decided: Arc<Mutex<Decided>>,
}

#[derive(Debug, Clone)]
struct Decided {
    level: LogFilter,
    switched: LogChange,
}

impl Logs {
    /// Writes what `level` lets through from now on; what was switched before is forgotten.
    ///
    /// # Errors
    /// [`TelemetryError`]; then everything is as before.
    pub fn set(&self, level: &LogFilter) -> Result<(), TelemetryError> {
        let switched = LogChange::default();
        self.decide(&mut self.decided(), Decided { level: level.clone(), switched })
    }

    /// A readiness check `log`, not critical, that fails while lines are lost.
    pub fn check(&self) -> Check {
        lines::check(&self.lines)
    }

    /// What has become of lines that were not written.
    pub fn lost(&self) -> LinesReport {
        self.lines.report()
    }

    /// Waits until what was logged is written, for this long at most.
    pub fn flush(&self, timeout: Duration) {
        self.lines.flush(timeout);
    }

    fn decide(&self, held: &mut Decided, next: Decided) -> Result<(), TelemetryError> {
        self.handle.reload(filter::of(&next.level, next.switched)?)?;
        *held = next;
        Ok(())
    }

    fn decided(&self) -> MutexGuard<'_, Decided> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogControl for Logs {
    fn settings(&self) -> LogSettings {
        let Decided { level, switched } = self.decided().clone();
        filter::settings(&level, switched)
    }

    fn change(&self, change: LogChange) -> Result<(), String> {
        let mut held = self.decided();
        let next = Decided { level: held.level.clone(), switched: change.over(held.switched) };
        self.decide(&mut held, next).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").field("decided", &self.decided).finish_non_exhaustive()
    }
}

/// Sends the logs of this process, and what panics say, to standard error from now on.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(config: &TelemetryConfig) -> Result<Logs, TelemetryError> {
    let decided = Decided { level: config.log_level.clone(), switched: LogChange::default() };
    let (filter, handle) = reload::Layer::new(filter::of(&decided.level, decided.switched)?);
    let lines = Lines::to(io::stderr())?;
    // What is wrong with a line would be told on standard error by itself.
    let layer = tracing_subscriber::fmt::layer().log_internal_errors(false);
    let layer = layer.with_writer(lines.clone());
    let logs = tracing_subscriber::registry();
    match config.log_format {
        LogFormat::Text => logs.with(layer.with_ansi(false).with_filter(filter)).try_init()?,
        LogFormat::Json => {
            logs.with(layer.json().flatten_event(true).with_filter(filter)).try_init()?;
        }
    }
    panics::log(lines.clone());
    Ok(Logs { lines, handle, decided: Arc::new(Mutex::new(decided)) })
}
