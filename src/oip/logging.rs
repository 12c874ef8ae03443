//! Triton's logging extension: what of the log is written.

use super::parameters::Parameter;
use super::refusal::Refusal;
use crate::lifecycle::{LogChange, LogControl, LogSettings};

/// The form of every line's time.
pub(crate) const FORMAT: &str = "ISO8601";

/// Changes what of the log is written; what is so then.
///
/// # Errors
/// What makes no sense, or is not done; then nothing is changed.
pub(crate) fn change<'a>(
    log: &dyn LogControl,
    given: impl IntoIterator<Item = (&'a str, Parameter)>,
) -> Result<LogSettings, Refusal> {
    let mut change = LogChange::default();
    for (name, value) in given {
        match name {
            "log_info" => change.info = Some(switch(name, &value)?),
            "log_warning" => change.warning = Some(switch(name, &value)?),
            "log_error" => change.error = Some(switch(name, &value)?),
            "log_verbose_level" => change.verbose = Some(level(name, &value)?),
            "log_file" => is_standard_error(&value)?,
            "log_format" => is_the_format(&value)?,
            _ => return Err(Refusal::invalid(format!("there is no setting '{name}' of the log"))),
        }
    }
    log.change(change).map_err(Refusal::unsupported)?;
    Ok(log.settings())
}

fn switch(name: &str, value: &Parameter) -> Result<bool, Refusal> {
    match value {
        Parameter::Bool(value) => Ok(*value),
        other => Err(wrong(name, "true or false", other)),
    }
}

fn level(name: &str, value: &Parameter) -> Result<u32, Refusal> {
    let level = match value {
        Parameter::Uint(level) => u32::try_from(*level).ok(),
        Parameter::Int(level) => u32::try_from(*level).ok(),
        _ => None,
    };
    level.ok_or_else(|| wrong(name, "a number, 0 or more", value))
}

fn is_standard_error(value: &Parameter) -> Result<(), Refusal> {
    match value {
        Parameter::Text(text) if text.is_empty() => Ok(()),
        Parameter::Text(_) => {
            let text = "'log_file' is not supported: the log goes to standard error";
            Err(Refusal::unsupported(text))
        }
        other => Err(wrong("log_file", "a string", other)),
    }
}

fn is_the_format(value: &Parameter) -> Result<(), Refusal> {
    match value {
        Parameter::Text(text) if text == FORMAT => Ok(()),
        Parameter::Text(text) if text == "default" => {
            let text = "'log_format' is always ISO8601: 'default' is Triton's own";
            Err(Refusal::unsupported(text))
        }
        other => Err(wrong("log_format", "default or ISO8601", other)),
    }
}

fn wrong(name: &str, expected: &str, got: &Parameter) -> Refusal {
    Refusal::invalid(format!("'{name}' is {expected}, got {got}"))
}
