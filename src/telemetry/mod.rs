//! Logs, by `tracing`, to standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, TelemetryConfig};

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
}

/// Sends the logs of this process to standard error from now on.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(format!("{ENGINE_FILTER},{}", config.log_level.as_str()))?;
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => lines.with_ansi(false).finish().try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}
