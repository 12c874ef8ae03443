//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use onward::auth::{Role, Wish};
use onward::config::{Layers, SETTINGS, Setting};

use crate::check::Subject;
use crate::inspect::{Format, Question};
use crate::remote;

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
    /// Make a key.
    Key(Wish),
    /// Tell about the configuration.
    Config {
        /// What it is made from.
        layers: Layers,
        /// What is to be told.
        question: Question,
    },
    /// Tell what a server would make of models.
    Check(Subject),
    /// Print what is made of the command line itself.
    Print(Vec<u8>),
    /// Ask a server that runs, or tell it what to do.
    Remote(remote::Request),
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
    if matches!(name, "bench" | "models" | "operations") {
        return remote::read((name, matches), &environment).map(Task::Remote);
    }
    match name {
        "completions" => return Ok(Task::Print(completions(matches))),
        "key" => return Ok(Task::Key(wish(matches))),
        "man" => return Ok(Task::Print(manual())),
        _ => {}
    }
    let layers = layers(matches, environment);
    Ok(match name {
        "serve" => Task::Serve(layers),
        "config" => Task::Config { layers, question: question(matches) },
        "check" => Task::Check(subject(layers, matches)?),
        _ => {
            let probe = if matches.get_flag("live") { "/livez" } else { "/readyz" };
            Task::Health { layers, probe }
        }
    })
}

/// A script with which a shell completes the command line.
fn completions(matches: &ArgMatches) -> Vec<u8> {
    let (mut command, mut script) = (command(), Vec::new());
    if let Some(shell) = matches.get_one::<Shell>("shell") {
        clap_complete::generate(*shell, &mut command, "onward", &mut script);
    }
    script
}

/// The manual page, in troff, with a section for each command.
fn manual() -> Vec<u8> {
    let (mut command, mut page) = (command(), Vec::new());
    command.build();
    write_manual(&command, "onward", &mut page);
    page
}

/// The sections of a command and of all below it.
fn write_manual(command: &Command, name: &str, page: &mut Vec<u8>) {
    let whole = command.clone().display_name(name.to_owned()).bin_name(name.to_owned());
    clap_mangen::Man::new(whole).render(page).expect("a buffer takes everything");
    for part in command.get_subcommands().filter(|part| part.get_name() != "help") {
        write_manual(part, &format!("{name} {}", part.get_name()), page);
    }
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

fn wish(matches: &ArgMatches) -> Wish {
    let all = |name: &str| matches.get_many::<String>(name).into_iter().flatten().cloned();
    let roles = all("role").filter_map(|role| Role::from_name(&role)).collect();
    let name = matches.get_one::<String>("name").expect("it is required").clone();
    let expires = matches.get_one::<String>("expires").cloned();
    Wish { name, roles, models: all("model").collect(), expires }
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
        .subcommand(check())
        .subcommand(key())
        .subcommands(remote::commands())
        .subcommands(of_itself())
}

fn check() -> Command {
    let path = Arg::new("path")
        .value_name("PATH")
        .value_parser(value_parser!(PathBuf))
        .help("a repository, a model's folder in one, or its file [that of the configuration]");
    let json =
        Arg::new("json").long("json").action(ArgAction::SetTrue).help("print it for programs");
    let about = "load models as a server would, and tell what becomes of them; exit 1 if one fails";
    with_settings(Command::new("check").about(about)).args([path, json])
}

fn subject(layers: Layers, matches: &ArgMatches) -> Result<Subject, clap::Error> {
    let path = matches.get_one::<PathBuf>("path").map(PathBuf::as_path);
    let subject = Subject::new(layers, path, matches.get_flag("json"));
    subject.map_err(|error| clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n")))
}

/// The commands that print what is made of the command line itself.
fn of_itself() -> [Command; 2] {
    let shell = Arg::new("shell")
        .value_name("SHELL")
        .required(true)
        .value_parser(value_parser!(Shell))
        .help("the shell that is to complete");
    let about = "print a script with which a shell completes the command line";
    let completions = Command::new("completions").about(about).arg(shell);
    [completions, Command::new("man").about("print the manual page, for `man -l -`")]
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

fn key() -> Command {
    let argument = |name: &'static str, value| Arg::new(name).long(name).value_name(value);
    let name = argument("name", "NAME").required(true).help("whose it is, as logs are to tell it");
    let role = argument("role", "ROLE")
        .required(true)
        .action(ArgAction::Append)
        .value_parser(Role::ALL.map(Role::name))
        .help("what they may do; may be given several times");
    let model = argument("model", "PATTERN")
        .action(ArgAction::Append)
        .help("only these models, such as 'fraud-*'; may be given several times");
    let expires = argument("expires", "TIME").help("until when, such as 2030-01-31T00:00:00Z");
    Command::new("key")
        .about(
            "make an API key: the first line is the key, the others its entry for auth.keys_file",
        )
        .args([name, role, model, expires])
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
