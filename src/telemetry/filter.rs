//! Which lines are written.

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, LevelFilter, ParseError, filter_fn};
use tracing_subscriber::layer;
use tracing_subscriber::{EnvFilter, Registry};

use crate::config::LogFilter;
use crate::lifecycle::{LogChange, LogSettings};

/// ONNX Runtime tells much at its own `info`; a filter of the user's can ask for it.
const ENGINE_FILTER: &str = "ort=warn,ort::logging=off";

/// Lines that are written whatever else is: of traces and of requests, which have settings of their own, of lines
/// that were lost, and of panics.
const ALWAYS: [&str; 5] = [
    "onward::trace",
    "onward::access",
    "onward::slow",
    super::lines::TARGET,
    super::panics::TARGET,
];

/// Lines that tell who has changed what, and who was denied it.
const AUDIT: &str = "onward::audit";

/// What decides of each line.
pub(super) type Filter = Box<dyn layer::Filter<Registry> + Send + Sync>;

/// What `level` lets through, with what was switched: what is switched on is written of this program's
/// own lines, what is switched off of none.
///
/// # Errors
/// Where `level` is no filter.
pub(super) fn of(level: &LogFilter, switched: LogChange) -> Result<Filter, ParseError> {
    let configured = EnvFilter::try_new(format!("{ENGINE_FILTER},{}", level.as_str()))?;
    let switched_on = filter_fn(move |line| is_own(line) && verdict(switched, line) == Some(true));
    let not_off = filter_fn(move |line| line.is_span() || verdict(switched, line) != Some(false));
    let always = filter_fn(|line| ALWAYS.contains(&line.target()));
    let on = switched_on.with_max_level_hint(most_verbose(switched));
    let not_off = not_off.with_max_level_hint(LevelFilter::TRACE);
    let always = always.with_max_level_hint(LevelFilter::INFO);
    // Nobody may switch off over the network what tells who has done so.
    let audit = EnvFilter::try_new(level.as_str())?.and(filter_fn(|line| line.target() == AUDIT));
    Ok(Box::new(configured.or(on).and(not_off).or(always).or(audit)))
}

/// What is written by that, as switches.
pub(super) fn settings(level: &LogFilter, switched: LogChange) -> LogSettings {
    let configured = EnvFilter::try_new(level.as_str()).ok();
    let configured = configured.and_then(|filter| filter.max_level_hint());
    let most = configured.unwrap_or(LevelFilter::TRACE);
    let is_written = |switch: Option<bool>, level: Level| switch.unwrap_or(most >= level);
    LogSettings {
        info: is_written(switched.info, Level::INFO),
        warning: is_written(switched.warning, Level::WARN),
        error: is_written(switched.error, Level::ERROR),
        verbose: switched.verbose.unwrap_or(match most {
            LevelFilter::TRACE => 2,
            LevelFilter::DEBUG => 1,
            _ => 0,
        }),
    }
}

/// Whether a line is switched on or off; `None` where nobody has said.
fn verdict(switched: LogChange, line: &Metadata<'_>) -> Option<bool> {
    match *line.level() {
        Level::ERROR => switched.error,
        Level::WARN => switched.warning,
        Level::INFO => switched.info,
        Level::DEBUG => switched.verbose.map(|verbose| verbose >= 1),
        Level::TRACE => switched.verbose.map(|verbose| verbose >= 2),
    }
}

/// The most verbose of the levels that are switched on.
fn most_verbose(switched: LogChange) -> LevelFilter {
    match switched {
        LogChange { verbose: Some(2..), .. } => LevelFilter::TRACE,
        LogChange { verbose: Some(1), .. } => LevelFilter::DEBUG,
        LogChange { info: Some(true), .. } => LevelFilter::INFO,
        LogChange { warning: Some(true), .. } => LevelFilter::WARN,
        LogChange { error: Some(true), .. } => LevelFilter::ERROR,
        _ => LevelFilter::OFF,
    }
}

fn is_own(line: &Metadata<'_>) -> bool {
    line.target().split("::").next() == Some("onward")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use tracing::subscriber::with_default;
    use tracing::{debug, error, info, trace, warn};
    use tracing_subscriber::Layer;
    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::config::Config;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that are written of one of each level and origin, by their texts.
    fn written(switched: LogChange) -> String {
        let written = Written::default();
        let writer = written.clone();
        let level = Config::default().telemetry.log_level;
        let lines = fmt::layer().with_writer(move || writer.clone()).with_level(false);
        let lines = lines.without_time().with_target(false).with_ansi(false);
        let logs = tracing_subscriber::registry();
        with_default(logs.with(lines.with_filter(of(&level, switched).unwrap())), || {
            error!(target: "onward::a", "e");
            warn!(target: "onward::a", "w");
            info!(target: "onward::a", "i");
            debug!(target: "onward::a", "d");
            trace!(target: "onward::a", "t");
            info!(target: "other", "I");
            debug!(target: "other", "D");
            info!(target: "onward::trace", "+");
            info!(target: "onward::audit", "!");
        });
        let bytes = written.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).unwrap().split_whitespace().collect()
    }

    #[test]
    fn switches_are_over_the_configured_level() {
        let none = LogChange::default();
        assert_eq!(written(none), "ewiI+!");
        assert_eq!(written(LogChange { verbose: Some(1), ..none }), "ewidI+!");
        assert_eq!(written(LogChange { verbose: Some(7), ..none }), "ewidtI+!");
        assert_eq!(written(LogChange { info: Some(false), ..none }), "ew+!");
        let quiet = LogChange { error: Some(false), warning: Some(false), ..none };
        assert_eq!(written(LogChange { verbose: Some(1), ..quiet }), "idI+!");
    }

    #[test]
    fn what_is_written_is_told() {
        let level = Config::default().telemetry.log_level;
        let told = settings(&level, LogChange::default());
        let expected = LogSettings { info: true, warning: true, error: true, verbose: 0 };
        assert_eq!(told, expected);
        let change = LogChange { info: Some(false), verbose: Some(3), ..LogChange::default() };
        assert_eq!(settings(&level, change), LogSettings { info: false, verbose: 3, ..expected });
    }
}
