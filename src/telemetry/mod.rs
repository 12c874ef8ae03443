//! Logs, by `tracing`, to standard error; and spans, to a collector.

mod filter;
mod otlp;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::fmt as lines;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{LogFilter, LogFormat, TelemetryConfig};
use crate::lifecycle::{LogChange, LogControl, LogSettings};
use filter::Filter;
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
}

/// Decides what of the logs of this process is written: what the filter `telemetry.log_level` lets
/// through, and over that what operators have switched on or off since it was set.
#[derive(Clone)]
pub struct Logs {
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

/// Sends the logs of this process to standard error from now on.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(config: &TelemetryConfig) -> Result<Logs, TelemetryError> {
    let decided = Decided { level: config.log_level.clone(), switched: LogChange::default() };
    let (filter, handle) = reload::Layer::new(filter::of(&decided.level, decided.switched)?);
    // What cannot be written, as on a disk that is full, is lost. Told of on standard error too, it would be
    // a panic of whoever has a line to write.
    let lines = lines::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let logs = tracing_subscriber::registry();
    match config.log_format {
        LogFormat::Text => logs.with(lines.with_ansi(false).with_filter(filter)).try_init()?,
        LogFormat::Json => {
            logs.with(lines.json().flatten_event(true).with_filter(filter)).try_init()?;
        }
    }
    Ok(Logs { handle, decided: Arc::new(Mutex::new(decided)) })
}
