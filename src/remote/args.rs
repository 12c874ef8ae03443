//! What the command line asks of a server.

use std::ffi::OsString;
use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use clap::error::ErrorKind;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::bench::Plan;
use super::client::{Place, Server};
use super::commands::{KEY_VARIABLE, URL_VARIABLE, USUAL_URL};
use super::order::{Change, Order, Question, lifecycle};
use super::{Request, show};
use crate::terminal::safe;

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
    Ok(Request { server: server(given, environment)?, order, json: given.get_flag("json") })
}

fn plan(given: &ArgMatches) -> Plan {
    let number = |name: &str| {
        let number = given.get_one::<u64>(name).and_then(|number| usize::try_from(*number).ok());
        number.and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
    };
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
    let url = match given.get_one::<String>("url") {
        Some(url) => Some(url.clone()),
        None => variable(environment, URL_VARIABLE)?,
    };
    let file = given.get_one::<PathBuf>("api-key-file");
    let key = match file {
        Some(path) => {
            let key = fs::read_to_string(path);
            Some(key.map_err(|error| refuse(&format!("{}: {error}", path.display())))?)
        }
        None => variable(environment, KEY_VARIABLE)?,
    };
    let key = key.as_deref().map(str::trim);
    if let (Some(""), Some(path)) = (key, file) {
        return Err(refuse(&format!("{}: there is no key in it", path.display())));
    }
    let place = Place {
        url: url.as_deref().unwrap_or(USUAL_URL),
        authority: given.get_one::<PathBuf>("ca-certificate").map(PathBuf::as_path),
        key,
    };
    Server::new(&place).map_err(|error| refuse(&error.to_string()))
}

/// What a variable says; `None` where it says nothing.
fn variable(
    environment: &[(OsString, OsString)],
    wanted: &str,
) -> Result<Option<String>, clap::Error> {
    let found = environment.iter().find(|(name, value)| name == wanted && !value.is_empty());
    let Some((_, value)) = found else { return Ok(None) };
    let text = value.to_str().map(str::to_owned);
    text.map(Some).ok_or_else(|| refuse(&format!("{wanted} is not valid UTF-8")))
}

fn refuse(text: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{}\n", safe(text)))
}

fn of_models(action: &str, given: &ArgMatches) -> Order {
    let text = |name: &str| given.get_one::<String>(name).map(String::as_str);
    let Some(model) = text("model") else {
        let path = lifecycle(&["models"]);
        return Order::Ask(Question { path, has: "models", show: show::models });
    };
    let change = |method, path: &[&str]| Change::of_model(method, model, path);
    let removed = is_set(given, "remove");
    let change = match action {
        "ls" => {
            let path = lifecycle(&["models", model]);
            return Order::Ask(Question { path, has: "name", show: show::model });
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
    };
    Order::Change(Change { is_waited_for: !is_set(given, "no-wait"), ..change })
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
        ("cancel", Some(id)) => {
            let is_waited_for = !is_set(given, "no-wait");
            Order::Change(Change { is_waited_for, ..Change::cancelling(id) })
        }
        (_, Some(id)) => {
            let path = lifecycle(&["operations", id]);
            Order::Ask(Question { path, has: "id", show: show::operation })
        }
        (_, None) => {
            let path = lifecycle(&["operations"]);
            Order::Ask(Question { path, has: "operations", show: show::operations })
        }
    }
}
