//! Answers of the server as humans read them.

use std::time::{Duration, SystemTime};
use std::{iter, slice};

use serde_json::Value;

use super::table::{Head, Table};

/// What stands for what there is not.
const NOTHING: &str = "-";

/// The text at a place, empty where there is none.
pub(super) fn text<'a>(value: &'a Value, place: &str) -> &'a str {
    value.pointer(place).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The entries of an object with their values' texts.
fn entries<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value[key].as_object().into_iter().flatten()
}

/// All models, a version a line.
pub(super) fn models(answer: &Value, now: SystemTime) -> String {
    let models = list(answer, "models");
    let mut table = versions_table(true);
    for model in models {
        add(&mut table, (model, true), now);
    }
    if table.is_empty() {
        return "no models\n".to_owned();
    }
    table.text() + &problems(models)
}

/// One model, with everything that concerns its requests.
pub(super) fn model(model: &Value, now: SystemTime) -> String {
    let mut table = versions_table(false);
    add(&mut table, (model, false), now);
    let parked = model["parked_version"].as_str();
    let parked = parked.map(|version| format!("parked, for a rollback: version {version}"));
    let leases = list(model, "leases").iter().map(|lease| {
        let (holder, until) = (text(lease, "/holder"), text(lease, "/expires"));
        format!("held by {holder} until {until}")
    });
    let history = list(model, "history").iter().map(|tenure| {
        let (version, cause) = (text(tenure, "/version"), text(tenure, "/cause"));
        let (since, digest) = (text(tenure, "/since"), text(tenure, "/digest"));
        format!("  {since}  version {version} by {cause}  {}", short(digest))
    });
    let traffic = format!("traffic: {}", rules(&model["traffic"]));
    let rest: Vec<String> = iter::once(traffic)
        .chain(parked)
        .chain(leases)
        .chain(iter::once("history:".to_owned()))
        .chain(history)
        .collect();
    let (name, table) = (text(model, "/name"), table.text());
    format!("{name}\n\n{table}\n{}\n{}", rest.join("\n"), problems(slice::from_ref(model)))
}

fn versions_table(with_model: bool) -> Table {
    let model = with_model.then_some(Head::Text("MODEL"));
    let rest = [
        Head::Text("VERSION"),
        Head::Text("STATE"),
        Head::Text("SHARE"),
        Head::Number("INSTANCES"),
        Head::Text("BATCHING"),
        Head::Number("REQUESTS"),
        Head::Number("FAILED"),
        Head::Number("P50"),
        Head::Number("P99"),
        Head::Number("MEMORY"),
        Head::Text("LAST USE"),
    ];
    Table::new(model.into_iter().chain(rest).collect())
}

/// Adds the versions of a model, or that it has none.
fn add(table: &mut Table, (model, with_model): (&Value, bool), now: SystemTime) {
    let name = with_model.then(|| text(model, "/name").to_owned());
    let versions = list(model, "versions");
    let rows: Vec<Vec<String>> = match versions {
        [] => vec![
            [NOTHING, "NOT LOADED"].into_iter().chain([NOTHING; 9]).map(str::to_owned).collect(),
        ],
        some => some.iter().map(|version| cells(model, version, now)).collect(),
    };
    for row in rows {
        table.row(name.iter().cloned().chain(row).collect());
    }
}

fn cells(model: &Value, version: &Value, now: SystemTime) -> Vec<String> {
    let nothing = || NOTHING.to_owned();
    let number =
        |key: &str| version[key].as_u64().map_or_else(nothing, |number| number.to_string());
    let time = |key: &str| version["latency"][key].as_f64().map_or_else(nothing, milliseconds);
    let batching = &version["batching"];
    let sizes = batching["size"].as_u64().zip(batching["max_size"].as_u64());
    let batching = match (text(version, "/batching/state"), sizes) {
        ("on", Some((size, most))) => format!("{size} of {most}"),
        ("", _) => nothing(),
        (state, _) => state.to_owned(),
    };
    let id = text(version, "/version");
    let mark = if model["current_version"] == id { " *" } else { "" };
    vec![
        format!("{id}{mark}"),
        text(version, "/state").to_owned(),
        share(model, id),
        number("instances"),
        batching,
        number("requests"),
        number("failures"),
        time("p50_ms"),
        time("p99_ms"),
        version["memory_bytes"].as_u64().map_or_else(nothing, bytes),
        last_use(text(version, "/last_access"), now),
    ]
}

/// How much of the requests that name no version a version gets, and under which aliases it is known.
fn share(model: &Value, version: &str) -> String {
    let weights = &model["traffic"]["weights"];
    let is_current = model["current_version"] == version;
    let weight = match weights.as_object().filter(|weights| !weights.is_empty()) {
        Some(weights) => weights.get(version).and_then(Value::as_f64).unwrap_or(0.0),
        None if is_current => 100.0,
        None => 0.0,
    };
    let aliases = entries(&model["traffic"], "aliases");
    let named = aliases.filter(|(_, of)| *of == version).map(|(alias, _)| alias.as_str());
    iter::once(format!("{weight}%").as_str()).chain(named).collect::<Vec<_>>().join(" ")
}

/// What is wrong, and what of the models is only warned of.
fn problems(models: &[Value]) -> String {
    let of_model = |model: &Value| {
        let name = text(model, "/name").to_owned();
        let failed = list(model, "versions").iter().filter(|version| version["state"] == "FAILED");
        let failed = failed.map(|version| {
            format!("{name} {}: {}\n", text(version, "/version"), text(version, "/reason"))
        });
        let problem = model["problem"].as_str().map(|problem| format!("{name}: {problem}\n"));
        let warnings = list(model, "warnings").iter().filter_map(Value::as_str);
        let warnings = warnings.map(|warning| format!("{name}: warning: {warning}\n"));
        failed.chain(problem).chain(warnings).collect::<String>()
    };
    let told: String = models.iter().map(of_model).collect();
    if told.is_empty() { told } else { format!("\n{told}") }
}

/// The rules by which requests are routed, in words.
fn rules(traffic: &Value) -> String {
    let percent = |percent: &Value| percent.as_f64().unwrap_or_default();
    let weights = entries(traffic, "weights")
        .map(|(version, weight)| format!("{}% to version {version}", percent(weight)));
    let aliases = entries(traffic, "aliases").map(|(alias, version)| {
        format!("{alias} is version {}", version.as_str().unwrap_or_default())
    });
    let shadow = &traffic["shadow"];
    let shadow = shadow.as_object().map(|_| {
        let version = text(shadow, "/version");
        let count = |key: &str| shadow[key].as_u64().unwrap_or_default();
        let (compared, agreed) = (count("compared"), count("agreed"));
        let share = percent(&shadow["percent"]);
        format!("{share}% copied to version {version}, {agreed} of {compared} agree")
    });
    let rules: Vec<String> = weights.chain(aliases).chain(shadow).collect();
    if rules.is_empty() { "all to the current version".to_owned() } else { rules.join(", ") }
}

/// All operations, the last at the end.
pub(super) fn operations(answer: &Value, _: SystemTime) -> String {
    let heads = ["ID", "OPERATION", "MODEL", "STATE", "STARTED", "ENDED"];
    let mut table = Table::new(heads.into_iter().map(Head::Text).collect());
    for operation in list(answer, "operations") {
        let cell = |place: &str| match text(operation, place) {
            "" => NOTHING.to_owned(),
            text => text.to_owned(),
        };
        let places = ["/id", "/operation", "/model", "/state", "/started", "/ended"];
        table.row(places.map(cell).to_vec());
    }
    if table.is_empty() { "no operations\n".to_owned() } else { table.text() }
}

/// One operation, as it is now.
pub(super) fn operation(operation: &Value, _: SystemTime) -> String {
    let (kind, model, state) =
        (text(operation, "/operation"), text(operation, "/model"), text(operation, "/state"));
    let step = |step: &Value| {
        format!("  {}  {} {}\n", text(step, "/at"), text(step, "/version"), text(step, "/what"))
    };
    let steps: String = list(operation, "steps").iter().map(step).collect();
    let error = text(operation, "/error/error");
    let end = if error.is_empty() { outcome(operation) } else { format!("{error}\n") };
    format!("{kind} of {model}: {state}\n{steps}{end}")
}

/// What an operation has done; empty where it has done nothing.
pub(super) fn outcome(operation: &Value) -> String {
    let result = &operation["result"];
    if result.is_null() {
        return String::new();
    }
    let model = text(operation, "/model");
    let took = result["total_seconds"].as_f64().map(|seconds| format!(" in {seconds:.2} s"));
    let took = took.unwrap_or_default();
    let versions = |key: &str| {
        let versions: Vec<&str> = list(result, key).iter().filter_map(Value::as_str).collect();
        if versions.is_empty() { "none".to_owned() } else { versions.join(", ") }
    };
    let told = match text(operation, "/operation") {
        "load" => {
            let current = text(result, "/current_version");
            format!("version {current} answers; loaded{took}: {}", versions("loaded"))
        }
        "unload" => format!("unloaded: {}{}", versions("versions"), undrained(result)),
        "swap" | "rollback" => {
            let (from, to) = (text(result, "/from"), text(result, "/to"));
            let kept = match text(result, "/kept_until") {
                "" => String::new(),
                until => format!("; version {from} is kept until {until}"),
            };
            format!("version {to} answers in place of {from}{took}{}{kept}", undrained(result))
        }
        "verify" => {
            let (version, samples) = (text(result, "/version"), list(result, "samples").len());
            let samples = counted(samples, "sample");
            format!("version {version} answers {samples} as it should{took}")
        }
        _ => rules(result),
    };
    let unsaved = match operation["unsaved"].as_str() {
        Some(why) => format!("{model}: this will not outlast the server: {why}\n"),
        None => String::new(),
    };
    format!("{model}: {told}\n{unsaved}")
}

/// So many of something.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn undrained(result: &Value) -> &'static str {
    if result["drained"] == false { " before all of its requests had ended" } else { "" }
}

fn milliseconds(number: f64) -> String {
    match number {
        _ if number < 10.0 => format!("{number:.2} ms"),
        _ if number < 10_000.0 => format!("{number:.0} ms"),
        _ => format!("{:.1} s", number / 1000.0),
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are told of it")]
fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let (mut scaled, mut unit) = (number as f64 / 1024.0, 0);
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(scaled < 100.0);
    format!("{scaled:.digits$} {}", UNITS[unit])
}

fn last_use(time: &str, now: SystemTime) -> String {
    let Ok(then) = humantime::parse_rfc3339(time) else { return NOTHING.to_owned() };
    let ago = now.duration_since(then).unwrap_or_default();
    let whole = Duration::from_secs(match ago.as_secs() {
        seconds @ 0..=119 => seconds,
        seconds @ 120..=7199 => seconds / 60 * 60,
        seconds => seconds / 3600 * 3600,
    });
    format!("{} ago", humantime::format_duration(whole))
}

/// The beginning of a digest, by which humans tell it.
fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn models_are_told_a_version_a_line() {
        let now = humantime::parse_rfc3339("2026-01-01T00:10:00Z").unwrap();
        let serving = json!({
            "version": "2", "state": "READY", "instances": 2, "requests": 1234, "failures": 1,
            "batching": { "state": "on", "size": 8, "max_size": 32 }, "memory_bytes": 1_572_864,
            "latency": { "p50_ms": 0.5, "p99_ms": 123.4 }, "last_access": "2026-01-01T00:07:30Z",
        });
        let answer = json!({ "models": [
            {
                "name": "digits", "current_version": "2", "problem": null, "warnings": ["old opset"],
                "traffic": { "aliases": { "stable": "2" }, "weights": { "2": 90.0, "1": 10.0 } },
                "versions": [{ "version": "1", "state": "FAILED", "reason": "no graph" }, serving],
            },
            { "name": "wine", "current_version": null, "problem": "no files", "versions": [] },
        ]});
        let told = models(&answer, now);
        let lines: Vec<Vec<&str>> = told
            .lines()
            .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
            .collect();
        assert_eq!(lines[1][..4], ["digits", "1", "FAILED", "10%"]);
        let cells = [
            "digits",
            "2 *",
            "READY",
            "90% stable",
            "2",
            "8 of 32",
            "1234",
            "1",
            "0.50 ms",
            "123 ms",
            "1.5 MiB",
            "2m ago",
        ];
        assert_eq!(lines[2], cells);
        assert_eq!(lines[3][..3], ["wine", "-", "NOT LOADED"]);
        for problem in ["digits 1: no graph", "digits: warning: old opset", "wine: no files"] {
            assert!(told.lines().any(|line| line == problem), "{told}");
        }
        assert_eq!(models(&json!({ "models": [] }), now), "no models\n");
    }

    #[test]
    fn what_was_done_is_told_in_a_line() {
        let done = |operation: &str, result: Value| {
            outcome(&json!({ "operation": operation, "model": "m", "result": result }))
        };
        let swapped = json!({ "from": "1", "to": "2", "total_seconds": 0.25, "drained": true, "kept_until": "T" });
        let told = "m: version 2 answers in place of 1 in 0.25 s; version 1 is kept until T\n";
        assert_eq!(done("swap", swapped), told);
        let loaded = json!({ "current_version": "2", "loaded": ["1", "2"], "total_seconds": 1.0 });
        assert_eq!(done("load", loaded), "m: version 2 answers; loaded in 1.00 s: 1, 2\n");
        let unloaded = json!({ "versions": ["1"], "drained": false });
        assert_eq!(
            done("unload", unloaded),
            "m: unloaded: 1 before all of its requests had ended\n"
        );
        let verified = json!({ "version": "2", "samples": ["a", "b"], "total_seconds": 0.0 });
        assert_eq!(
            done("verify", verified),
            "m: version 2 answers 2 samples as it should in 0.00 s\n"
        );
        let rules = json!({ "weights": { "1": 10.0, "2": 90.0 }, "aliases": { "stable": "1" } });
        assert_eq!(
            done("route", rules),
            "m: 10% to version 1, 90% to version 2, stable is version 1\n"
        );
        assert_eq!(done("route", Value::Null), "");
    }

    #[test]
    fn measures_are_told_in_their_units() {
        assert_eq!(
            [0, 1023, 1024, 1_572_864, 120 << 30].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "120 GiB"]
        );
        assert_eq!([0.123, 12.3, 12_345.0].map(milliseconds), ["0.12 ms", "12 ms", "12.3 s"]);
        let now = humantime::parse_rfc3339("2026-01-01T12:00:00Z").unwrap();
        assert_eq!(last_use("2026-01-01T09:30:00Z", now), "2h ago");
        assert_eq!(last_use("2026-01-01T11:59:59Z", now), "1s ago");
        assert_eq!(last_use("", now), "-");
    }
}
