//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use onward::config::{Layers, SETTINGS, Setting};

use crate::inspect::{Format, Question};

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
    /// Tell about the configuration.
    Config {
        /// What it is made from.
        layers: Layers,
        /// What is to be told.
        question: Question,
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
    Ok(match name {
        "serve" => Task::Serve(layers),
        "config" => Task::Config { layers, question: question(matches) },
        _ => {
            let probe = if matches.get_flag("live") { "/livez" } else { "/readyz" };
            Task::Health { layers, probe }
        }
    })
}

fn question(matches: &ArgMatches) -> Question {
    let json = matches.get_one::<String>("format").is_some_and(|format| format == "json");
    let format = if json { Format::Json } else { Format::Yaml };
    match (matches.get_flag("schema"), matches.get_flag("check")) {
        (true, _) => Question::Schema,
        (false, true) => Question::Check(format),
        (false, false) => Question::Print(format),
    }
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
        .subcommand(config())
}

fn config() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let check = flag("check").help("only tell whether it is sound; exit 78 if it is not");
    let schema = flag("schema").help("print the JSON Schema of a configuration file");
    let format = Arg::new("format")
        .long("format")
        .value_name("FORMAT")
        .value_parser(["yaml", "json"])
        .default_value("yaml")
        .help("how to print it");
    let about = "print the configuration in effect, with the origin of each value; start nothing";
    with_settings(Command::new("config").about(about))
        .arg(check.conflicts_with("schema"))
        .args([schema, format])
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
