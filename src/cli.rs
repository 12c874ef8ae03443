//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use onward::config::{Layers, SETTINGS, Setting};

/// What the process was started to do.
pub(crate) enum Task {
    /// Serve models.
    Serve(Layers),
    /// Ask the server that has the same configuration how it is.
    Health {
        /// What it is configured with.
        layers: Layers,
        /// The probe to ask.
        probe: &'static str,
    },
}

/// Reads the command line.
///
/// # Errors
/// What is to be printed instead: an error, the help, or the version.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Vec<(OsString, OsString)>,
) -> Result<Task, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let (name, matches) = matches.subcommand().expect("a subcommand is required");
    let layers = layers(matches, environment);
    if name == "serve" {
        return Ok(Task::Serve(layers));
    }
    let probe = if matches.get_flag("live") { "/livez" } else { "/readyz" };
    Ok(Task::Health { layers, probe })
}

fn command() -> Command {
    let live = Arg::new("live")
        .long("live")
        .action(ArgAction::SetTrue)
        .help("ask whether it is alive rather than whether it is ready");
    let serve = with_settings(Command::new("serve").about("serve models until SIGTERM or SIGINT"));
    let health = Command::new("health")
        .about("ask the server of the same configuration whether it is ready; exit 0 if it is");
    Command::new("onward")
        .version(env!("CARGO_PKG_VERSION"))
        .about("An ONNX model server")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve)
        .subcommand(with_settings(health).arg(live))
}

/// Adds `--config` and one flag for each setting.
fn with_settings(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("the configuration file; also ONWARD_CONFIG");
    let settings = SETTINGS.iter().map(|setting| {
        Arg::new(setting.key)
            .long(setting.key)
            .value_name(setting.placeholder)
            .help(help(setting))
            .help_heading("Settings")
    });
    command.arg(config).args(settings)
}

fn help(setting: &Setting) -> String {
    format!("{} [{}]; also {}", setting.help, setting.default_text(), setting.variable())
}

fn layers(matches: &ArgMatches, environment: Vec<(OsString, OsString)>) -> Layers {
    let flags = SETTINGS.iter().filter_map(|setting| {
        let text = matches.get_one::<String>(setting.key)?;
        Some((setting.key.to_owned(), text.clone()))
    });
    Layers {
        file: matches.get_one::<PathBuf>("config").cloned(),
        environment,
        flags: flags.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_sound() {
        command().debug_assert();
    }
}
