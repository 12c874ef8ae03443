//! Logs, by `tracing`, to standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

use crate::config::{LogFilter, LogFormat, TelemetryConfig};

/// ONNX Runtime tells much at its own `info`; a filter of the user's can ask for it.
const ENGINE_FILTER: &str = "ort=warn,ort::logging=off";

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

/// Decides what of the logs of this process is written.
#[derive(Debug, Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl LogLevel {
    /// Writes what `filter` lets through from now on.
    ///
    /// # Errors
    /// [`TelemetryError`]; then everything is as before.
    pub fn set(&self, filter: &LogFilter) -> Result<(), TelemetryError> {
        Ok(self.0.reload(env_filter(filter)?)?)
    }
}

/// Sends the logs of this process to standard error from now on.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(config: &TelemetryConfig) -> Result<LogLevel, TelemetryError> {
    let (filter, handle) = reload::Layer::new(env_filter(&config.log_level)?);
    let logs = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => logs.with(lines.with_ansi(false)).try_init()?,
        LogFormat::Json => logs.with(lines.json().flatten_event(true)).try_init()?,
    }
    Ok(LogLevel(handle))
}

fn env_filter(filter: &LogFilter) -> Result<EnvFilter, TelemetryError> {
    Ok(EnvFilter::try_new(format!("{ENGINE_FILTER},{}", filter.as_str()))?)
}
