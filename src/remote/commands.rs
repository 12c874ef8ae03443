//! The command line of what concerns a server that runs.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, Command, value_parser};

use super::bench::Shape;

/// The variables that say which server, and who asks.
pub(super) const URL_VARIABLE: &str = "ONWARD_URL";
pub(super) const KEY_VARIABLE: &str = "ONWARD_API_KEY";

/// Where the server is where nothing says it.
pub(super) const USUAL_URL: &str = "http://127.0.0.1:8000";

/// The most requests at once, and the most entries of a batch.
const MOST: u64 = 16 * 1024;

/// The commands.
pub(crate) fn commands() -> [Command; 3] {
    [models(), operations(), bench()].map(with_place)
}

fn models() -> Command {
    let model = || {
        Arg::new("model")
            .value_name("MODEL")
            .value_parser(name)
            .required(true)
            .help("the model's name")
    };
    let version = |help: &'static str| Arg::new("version").value_name("VERSION").help(help);
    let ls = Command::new("ls").about("list models, or tell of one").arg(
        Arg::new("model")
            .value_name("MODEL")
            .value_parser(name)
            .help("the model to tell of; all where none is given"),
    );
    let load = Command::new("load").about("load a model, or what is new of it").args([
        model(),
        flag("allow-incompatible", "even where callers of the version before cannot call it"),
        flag("no-verify", "without the golden samples"),
    ]);
    let unload = Command::new("unload")
        .about("unload a model, or one version of it")
        .args([model(), version("the version; all of them where none is given").long("version")]);
    let rollback =
        Command::new("rollback").about("bring the version back that answered before").args([
            model(),
            flag("allow-changed", "even where its files have changed since"),
            duration("drain-timeout", "how long requests of the version before may take"),
        ]);
    let verify = Command::new("verify").about("ask a version its golden samples").args([
        model(),
        version("the version or alias; the current one where none is given").long("version"),
    ]);
    Command::new("models")
        .about("tell of the models of a server that runs, and change them")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(ls)
        .subcommands([load, unload, swap(model()), rollback, verify].map(change))
        .subcommands(routing(&model).map(change))
}

fn swap(model: Arg) -> Command {
    let strategy = Arg::new("strategy")
        .long("strategy")
        .value_name("STRATEGY")
        .value_parser(["availability", "resource", "canary"])
        .help("load beside the version before, in its place, or let it have a share first");
    Command::new("swap").about("have another version answer, without losing a request").args([
        model,
        Arg::new("to")
            .long("to")
            .value_name("VERSION")
            .required(true)
            .help("the version, or an alias"),
        strategy,
        duration("drain-timeout", "how long requests of the version before may take"),
        Arg::new("keep-previous")
            .long("keep-previous")
            .value_name("DURATION")
            .help("how long the version before is kept for a rollback; 'forever' or 'no' too"),
        duration(
            "bake",
            "how long the new version is watched, to be rolled back where it is worse",
        ),
        flag("allow-incompatible", "even where callers of the version before cannot call it"),
        flag("no-verify", "without the golden samples"),
    ])
}

fn routing(model: &dyn Fn() -> Arg) -> [Command; 3] {
    let remove = |help: &'static str| flag("remove", help);
    let alias = Command::new("alias").about("give a version a name, or take it away").args([
        model(),
        Arg::new("alias").value_name("ALIAS").value_parser(name).required(true).help("the name"),
        Arg::new("version")
            .value_name("VERSION")
            .required_unless_present("remove")
            .help("the version, or another alias"),
        remove("take the name away").conflicts_with("version"),
    ]);
    let weights = Arg::new("weights")
        .value_name("VERSION=PERCENT")
        .num_args(1..)
        .value_parser(weight)
        .required_unless_present("remove")
        .help("what each version gets of the requests that name none, 100 in all");
    let traffic = Command::new("traffic").about("share the requests between versions").args([
        model(),
        weights,
        remove("give all to the current version").conflicts_with("weights"),
    ]);
    let shadow =
        Command::new("shadow").about("copy requests to a version, and compare its answers").args([
            model(),
            Arg::new("version")
                .value_name("VERSION")
                .required_unless_present("remove")
                .help("the version, or an alias"),
            Arg::new("percent")
                .value_name("PERCENT")
                .value_parser(percent)
                .required_unless_present("remove")
                .help("how many of a hundred requests"),
            remove("copy no more").conflicts_with_all(["version", "percent"]),
        ]);
    [alias, traffic, shadow]
}

fn operations() -> Command {
    let id = || Arg::new("id").value_name("ID").value_parser(name);
    let ls = Command::new("ls")
        .about("list changes, or tell of one")
        .arg(id().help("the operation to tell of; all where none is given"));
    let cancel = Command::new("cancel")
        .about("end a change that is under way, so that nothing has changed")
        .arg(id().required(true).help("the operation"));
    Command::new("operations")
        .about("tell of the changes of a server that runs, and cancel them")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([ls, change(cancel)])
}

fn bench() -> Command {
    let number = |name: &'static str, usual: &'static str, help: &'static str| {
        let parser = value_parser!(u64).range(1..=MOST);
        Arg::new(name)
            .long(name)
            .value_name("N")
            .default_value(usual)
            .value_parser(parser)
            .help(help)
    };
    let shape = Arg::new("shape")
        .long("shape")
        .value_name("INPUT=SHAPE")
        .action(ArgAction::Append)
        .value_parser(value_parser!(Shape))
        .help("the shape of an input, such as x=1,3,224,224");
    let body = Arg::new("body")
        .long("body")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("a request in JSON to send as it is, rather than one that is made");
    Command::new("bench").about("measure how much of a model a server answers, and how fast").args(
        [
            Arg::new("model")
                .value_name("MODEL")
                .value_parser(name)
                .required(true)
                .help("the model's name"),
            Arg::new("version")
                .long("version")
                .value_name("VERSION")
                .value_parser(name)
                .help("a version of it, or an alias"),
            number("connections", "8", "how many requests there are at once"),
            Arg::new("duration")
                .long("duration")
                .value_name("DURATION")
                .default_value("10s")
                .value_parser(short)
                .help("for how long, after a tenth of that to warm up"),
            number("batch", "1", "entries of each request's batch, where the model takes batches"),
            shape.conflicts_with("body"),
            flag("json-tensors", "send tensors as JSON rather than as bytes")
                .conflicts_with("body"),
            body,
        ],
    )
}

/// Adds the arguments that say which server, and how its answers are told.
fn with_place(command: Command) -> Command {
    let heading = "Server";
    let url = Arg::new("url")
        .long("url")
        .value_name("URL")
        .help(format!("the server's address [{USUAL_URL}]; also {URL_VARIABLE}"));
    let key = Arg::new("api-key-file")
        .long("api-key-file")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help(format!("a file with the key to show; also the key itself as {KEY_VARIABLE}"));
    let authority = Arg::new("ca-certificate")
        .long("ca-certificate")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("certificates, in PEM, of authorities to trust beside the system's");
    let json = flag("json", "print it for programs");
    let places = [url, key, authority].map(|arg| arg.global(true).help_heading(heading));
    command.args(places).arg(json.global(true))
}

/// Adds what all changes have.
fn change(command: Command) -> Command {
    command.arg(flag("no-wait", "only begin it, and tell its operation"))
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn duration(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("DURATION").help(help)
}

/// `2=90`, or `2=90%`.
fn weight(text: &str) -> Result<(String, f64), String> {
    let wrong = || format!("expected a version and its percent, such as 2=90, got '{text}'");
    let (version, given) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name(version)?, percent(given)?))
}

/// `90`, or `90%`.
fn percent(text: &str) -> Result<f64, String> {
    let given = text.strip_suffix('%').unwrap_or(text).parse();
    let wrong = || format!("expected a number from 0 to 100, got '{text}'");
    given.ok().filter(|percent| (0.0..=100.0).contains(percent)).ok_or_else(wrong)
}

/// What can be one part of a path.
fn name(text: &str) -> Result<String, String> {
    match text {
        "" | "." | ".." => Err("it is no name".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// A time that somebody waits for.
fn short(text: &str) -> Result<Duration, String> {
    let given = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let is_fit = (Duration::from_millis(1)..=Duration::from_hours(24)).contains(&given);
    if is_fit { Ok(given) } else { Err("expected from 1ms to 24h".to_owned()) }
}
