//! The command line of what concerns a server that runs.

use std::ffi::OsString;
use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::bench::{Plan, Shape};
use super::client::{Place, Server};
use super::order::{Change, Order, Question, operation_path};
use super::{Request, Style, show};

/// The variables that say which server, and who asks.
const URL_VARIABLE: &str = "ONWARD_URL";
const KEY_VARIABLE: &str = "ONWARD_API_KEY";

/// Where the server is where nothing says it.
const USUAL_URL: &str = "http://127.0.0.1:8000";

/// The commands.
pub(crate) fn commands() -> [Command; 3] {
    [models(), operations(), bench()].map(with_place)
}

fn models() -> Command {
    let model = || Arg::new("model").value_name("MODEL").required(true).help("the model's name");
    let version = |help: &'static str| Arg::new("version").value_name("VERSION").help(help);
    let ls = Command::new("ls").about("list models, or tell of one").arg(
        Arg::new("model").value_name("MODEL").help("the model to tell of; all where none is given"),
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
        .subcommands([ls, load, unload, swap(model()), rollback, verify])
        .subcommands(routing(&model))
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
        Arg::new("alias").value_name("ALIAS").required(true).help("the name"),
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
                .value_parser(value_parser!(f64))
                .required_unless_present("remove")
                .help("how many of a hundred requests"),
            remove("copy no more").conflicts_with_all(["version", "percent"]),
        ]);
    [alias, traffic, shadow]
}

fn operations() -> Command {
    let id = || Arg::new("id").value_name("ID");
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
        .subcommands([ls, cancel])
}

fn bench() -> Command {
    let number = |name: &'static str, usual: &'static str, help: &'static str| {
        let parser = value_parser!(NonZeroUsize);
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
            Arg::new("model").value_name("MODEL").required(true).help("the model's name"),
            Arg::new("version")
                .long("version")
                .value_name("VERSION")
                .help("a version of it, or an alias"),
            number("connections", "8", "how many requests there are at once"),
            Arg::new("duration")
                .long("duration")
                .value_name("DURATION")
                .default_value("10s")
                .value_parser(humantime::parse_duration)
                .help("for how long"),
            number("batch", "1", "entries of each request's batch, where the model takes batches"),
            shape.conflicts_with("body"),
            flag("json-tensors", "send tensors as JSON rather than as bytes"),
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
    let no_wait = flag("no-wait", "only begin a change, and tell its operation");
    let json = flag("json", "print what the server answers");
    let places = [url, key, authority].map(|arg| arg.global(true).help_heading(heading));
    command.args(places).args([no_wait, json].map(|arg| arg.global(true)))
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn duration(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("DURATION").help(help)
}

/// `2=90`
fn weight(text: &str) -> Result<(String, f64), String> {
    let wrong = || format!("expected a version and its percent, such as 2=90, got '{text}'");
    let (version, percent) = text.split_once('=').ok_or_else(wrong)?;
    let percent = percent.trim_end_matches('%').parse().map_err(|_| wrong())?;
    Ok((version.to_owned(), percent))
}

/// What one of the commands asks for.
///
/// # Errors
/// What is to be printed instead.
pub(crate) fn read(
    (name, matches): (&str, &ArgMatches),
    environment: &[(OsString, OsString)],
) -> Result<Request, clap::Error> {
    let action = matches.subcommand();
    let given = action.map_or(matches, |(_, given)| given);
    let order = match (name, action) {
        ("models", Some((action, given))) => of_models(action, given),
        (_, Some((action, given))) => of_operations(action, given),
        (_, None) => Order::Bench(plan(matches)),
    };
    let style = Style { json: given.get_flag("json"), wait: !given.get_flag("no-wait") };
    Ok(Request { server: server(given, environment)?, order, style })
}

fn plan(given: &ArgMatches) -> Plan {
    let number = |name: &str| given.get_one(name).copied().unwrap_or(NonZeroUsize::MIN);
    let text = |name: &str| given.get_one::<String>(name).cloned();
    Plan {
        model: text("model").unwrap_or_default(),
        version: text("version"),
        connections: number("connections"),
        duration: given.get_one::<Duration>("duration").copied().unwrap_or_default(),
        batch: number("batch"),
        shapes: given.get_many("shape").unwrap_or_default().cloned().collect(),
        as_json: given.get_flag("json-tensors"),
        body: given.get_one("body").cloned(),
    }
}

fn server(given: &ArgMatches, environment: &[(OsString, OsString)]) -> Result<Server, clap::Error> {
    let variable = |wanted: &str| {
        let found = environment.iter().find(|(name, _)| name == wanted);
        found.and_then(|(_, value)| value.to_str()).map(str::to_owned)
    };
    let refuse = |text: String| clap::Error::raw(ErrorKind::ValueValidation, format!("{text}\n"));
    let url = given.get_one::<String>("url").cloned().or_else(|| variable(URL_VARIABLE));
    let key = match given.get_one::<PathBuf>("api-key-file") {
        None => variable(KEY_VARIABLE),
        Some(path) => {
            let key = fs::read_to_string(path);
            Some(key.map_err(|error| refuse(format!("{}: {error}", path.display())))?)
        }
    };
    let place = Place {
        url: url.as_deref().unwrap_or(USUAL_URL),
        authority: given.get_one::<PathBuf>("ca-certificate").map(PathBuf::as_path),
        key: key.as_deref().map(str::trim),
    };
    Server::new(&place).map_err(|error| refuse(error.to_string()))
}

fn of_models(action: &str, given: &ArgMatches) -> Order {
    let text = |name: &str| given.get_one::<String>(name).map(String::as_str);
    let Some(model) = text("model") else {
        let path = ["lifecycle", "models"].map(str::to_owned).to_vec();
        return Order::Ask(Question { path, show: show::models });
    };
    let change = |method, path: &[&str]| Change::of_model(method, model, path);
    let removed = is_set(given, "remove");
    Order::Change(match action {
        "ls" => {
            let path = ["lifecycle", "models", model].map(str::to_owned).to_vec();
            return Order::Ask(Question { path, show: show::model });
        }
        "alias" if removed => {
            change(Method::DELETE, &["aliases", text("alias").unwrap_or_default()])
        }
        "alias" => change(Method::PUT, &["aliases", text("alias").unwrap_or_default()])
            .with(json!({ "version": text("version") })),
        "traffic" | "shadow" if removed => change(Method::DELETE, &[action]),
        "traffic" => {
            let weights = given.get_many::<(String, f64)>("weights").unwrap_or_default();
            let weights: Map<String, Value> =
                weights.map(|(version, percent)| (version.clone(), json!(percent))).collect();
            change(Method::PUT, &[action]).with(json!({ "weights": weights }))
        }
        "shadow" => {
            let percent = given.get_one::<f64>("percent");
            change(Method::PUT, &[action])
                .with(json!({ "version": text("version"), "percent": percent }))
        }
        _ => change(Method::POST, &[action]).with(options(given)),
    })
}

/// Whether a flag is given, which not every command has.
fn is_set(given: &ArgMatches, flag: &str) -> bool {
    given.try_get_one::<bool>(flag).ok().flatten() == Some(&true)
}

/// The options of a change as its body has them; those that are not given are left to the server.
fn options(given: &ArgMatches) -> Value {
    let mut body = Map::new();
    for (flag, key, value) in [
        ("allow-incompatible", "allow_incompatible", true),
        ("allow-changed", "allow_changed", true),
        ("no-verify", "verify", false),
    ] {
        if is_set(given, flag) {
            body.insert(key.to_owned(), value.into());
        }
    }
    for (name, key) in [
        ("to", "to"),
        ("version", "version"),
        ("strategy", "strategy"),
        ("drain-timeout", "drain_timeout"),
        ("keep-previous", "keep_previous"),
        ("bake", "bake"),
    ] {
        if let Ok(Some(text)) = given.try_get_one::<String>(name) {
            let value = match text.as_str() {
                "forever" if name == "keep-previous" => true.into(),
                "no" if name == "keep-previous" => false.into(),
                text => text.into(),
            };
            body.insert(key.to_owned(), value);
        }
    }
    Value::Object(body)
}

fn of_operations(action: &str, given: &ArgMatches) -> Order {
    match (action, given.get_one::<String>("id")) {
        ("cancel", Some(id)) => Order::Change(Change::cancelling(id)),
        (_, Some(id)) => Order::Ask(Question { path: operation_path(id), show: show::operation }),
        (_, None) => {
            let path = ["lifecycle", "operations"].map(str::to_owned).to_vec();
            Order::Ask(Question { path, show: show::operations })
        }
    }
}
