//! Putting the layers together: file, environment, flags.

use std::ffi::OsString;
use std::path::PathBuf;

use super::effective::Effective;
use super::file::{self, suggest};
use super::mistake::{ConfigError, Mistake, Origin};
use super::nearest;
use super::settings::{SETTINGS, Setting};
use super::value::Raw;

/// The prefix of the environment variables that are read.
const PREFIX: &str = "ONWARD_";

/// The variable that names the configuration file; the flag is `--config`.
const CONFIG_VARIABLE: &str = "ONWARD_CONFIG";

/// What commands read that ask a server; the server has no use for it.
const OF_COMMANDS: [&str; 2] = ["ONWARD_URL", "ONWARD_API_KEY"];

/// What the configuration is made from.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The file that the flag `--config` names.
    pub file: Option<PathBuf>,
    /// The environment; settings are names that begin with `ONWARD_`.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags: a setting's key and its text.
    pub flags: Vec<(String, String)>,
}

/// What one layer says of one setting.
pub(super) struct Said<'a> {
    pub(super) setting: &'a Setting,
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

impl Layers {
    /// Reads all layers; a later one replaces what an earlier one says.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake there is, also in what is replaced.
    pub fn read(&self) -> Result<Effective, ConfigError> {
        self.read_by(SETTINGS)
    }

    pub(super) fn read_by(&self, table: &'static [Setting]) -> Result<Effective, ConfigError> {
        let (variables, mut mistakes) = self.variables();
        let named = variables.iter().find(|(name, _)| name == CONFIG_VARIABLE);
        let file = self.file.clone().or_else(|| named.map(|(_, path)| PathBuf::from(path)));
        let (mut said, wrong) = file.map(|file| file::read(&file, table)).unwrap_or_default();
        mistakes.extend(wrong);
        let mut heard = |result: Result<Option<_>, _>| match result {
            Ok(heard) => said.extend(heard),
            Err(mistake) => mistakes.push(mistake),
        };
        for (name, value) in &variables {
            heard(of_variable(name, value, table));
        }
        for (key, text) in &self.flags {
            heard(of_flag(key, text, table).map(Some));
        }
        let mut effective = Effective::defaults(table);
        let assigned = said.into_iter().map(|said| effective.assign(said));
        mistakes.extend(assigned.filter_map(Result::err));
        mistakes.extend(effective.contradictions());
        mistakes.sort_by_key(|mistake| mistake.origin.rank());
        if mistakes.is_empty() { Ok(effective) } else { Err(ConfigError(mistakes)) }
    }

    /// The variables with the prefix, by name, and those that cannot be read.
    fn variables(&self) -> (Vec<(String, String)>, Vec<Mistake>) {
        let (mut ours, mut mistakes) = (Vec::new(), Vec::new());
        for (name, value) in &self.environment {
            let lossy = name.to_string_lossy();
            if !lossy.starts_with(PREFIX) {
                continue;
            }
            match (name.to_str(), value.to_str()) {
                (Some(name), Some(value)) => ours.push((name.to_owned(), value.to_owned())),
                (name, _) => {
                    let what = if name.is_some() { "its value" } else { "its name" };
                    let origin = Origin::Environment { variable: lossy.into_owned() };
                    let problem = format!("{what} is not valid UTF-8");
                    mistakes.push(Mistake { origin, key: None, problem });
                }
            }
        }
        ours.sort();
        (ours, mistakes)
    }
}

/// What a variable says; nothing where it is not one of a setting and no mistake either.
fn of_variable<'a>(
    name: &str,
    value: &str,
    table: &'a [Setting],
) -> Result<Option<Said<'a>>, Mistake> {
    let origin = Origin::Environment { variable: name.to_owned() };
    if let Some(setting) = table.iter().find(|setting| setting.variable() == name) {
        return Ok(Some(Said { setting, raw: Raw::One(value.to_owned()), origin }));
    }
    let is_known = name == CONFIG_VARIABLE || OF_COMMANDS.contains(&name);
    if is_known || is_service_link(name, value) {
        return Ok(None);
    }
    let near = nearest::variable(name, table, PREFIX);
    Err(Mistake { origin, key: None, problem: suggest("unknown variable", near.as_deref()) })
}

fn of_flag<'a>(key: &str, text: &str, table: &'a [Setting]) -> Result<Said<'a>, Mistake> {
    let origin = Origin::Flag { flag: key.to_owned() };
    if let Some(setting) = table.iter().find(|setting| setting.key == key) {
        return Ok(Said { setting, raw: Raw::One(text.to_owned()), origin });
    }
    let problem = suggest("unknown setting", nearest::key(key, table));
    Err(Mistake { origin, key: None, problem })
}

/// Whether Kubernetes sets the variable for a Service called `onward` or `onward-...`, as in
/// `ONWARD_SERVICE_HOST`, `ONWARD_PORT=tcp://10.0.0.1:80` and `ONWARD_PORT_8000_TCP_ADDR`.
fn is_service_link(name: &str, value: &str) -> bool {
    let service = name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT");
    let (_, port) = name.split_once("_PORT").unwrap_or_default();
    let link = name.ends_with("_PORT") && value.contains("://");
    service || link || port.contains("_TCP") || port.contains("_UDP") || port.contains("_SCTP")
}

#[cfg(test)]
mod tests;
