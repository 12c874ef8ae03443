//! `onward config` and the schema of its file.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::{onward, run};
use crate::support::text;

/// A file in a folder of its own.
struct Written {
    home: TempDir,
    path: PathBuf,
}

impl Written {
    fn new(content: &str) -> Self {
        let home = TempDir::new().unwrap();
        let path = home.path().join("onward.yaml");
        fs::write(&path, content).unwrap();
        Self { home, path }
    }
}

/// Exit code, standard output and standard error of `onward config`.
fn config(file: Option<&Path>, arguments: &[&str]) -> (i32, String, String) {
    let mut command = onward();
    command.arg("config").args(arguments);
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    run(&mut command)
}

/// The lines without their comments.
fn values(yaml: &str) -> Vec<&str> {
    yaml.lines().map(|line| line.split(" # ").next().unwrap_or_default().trim_end()).collect()
}

#[test]
fn it_prints_what_is_in_effect_with_the_origin_of_each_value() {
    let file =
        Written::new("server:\n  listen: 127.0.0.1:9000\nmodels: {required: [\"a,b\", 7]}\n");
    let mut command = onward();
    command.args(["config", "--telemetry.log_level", "debug", "--config"]).arg(&file.path);
    command.env("ONWARD_SERVER_WORKERS", "4");
    let (code, yaml, error) = run(&mut command);
    assert_eq!((code, error.as_str()), (0, ""));
    let path = file.path.display();
    for (value, origin) in [
        ("  listen: 127.0.0.1:9000 ", format!("# {path}:2")),
        ("  required: [\"a,b\", \"7\"] ", format!("# {path}:3")),
        ("  workers: 4 ", "# ONWARD_SERVER_WORKERS".to_owned()),
        ("  log_level: debug ", "# --telemetry.log_level".to_owned()),
        ("  port_file: none ", "# default".to_owned()),
    ] {
        let found = yaml.lines().find(|line| line.starts_with(value));
        let line = found.unwrap_or_else(|| panic!("no {value:?} in\n{yaml}"));
        assert!(line.ends_with(&origin), "{line} is not {origin}");
    }
    let again = Written::new(&yaml);
    let (code, back, error) = config(Some(&again.path), &[]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert_eq!(values(&back), values(&yaml));
    assert!(!back.contains("# default"), "{back}");
}

#[test]
fn it_prints_json_for_programs() {
    let file = Written::new("events: {history: 7}\n");
    let (code, printed, _) = config(Some(&file.path), &["--format", "json"]);
    assert_eq!(code, 0);
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let settings = printed["settings"].as_array().unwrap();
    let setting = |key: &str| settings.iter().find(|setting| setting["key"] == key).unwrap();
    let place = format!("{}:1", file.path.display());
    let expected = json!({
        "key": "events.history",
        "value": 7,
        "origin": { "layer": "file", "place": place },
        "reloadable": false,
        "pending": null,
    });
    assert_eq!(setting("events.history"), &expected);
    assert_eq!(setting("models.required")["value"], json!([]));
    assert_eq!(setting("server.port_file")["origin"], json!({ "layer": "default", "place": null }));
}

#[test]
fn a_check_tells_by_its_exit_code_and_starts_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    // Neither port, library nor repository are looked at.
    let settings = [
        ("--server.listen", address.as_str()),
        ("--onnxruntime.library", "/nowhere"),
        ("--models.repository", "/nowhere"),
    ];
    let mut arguments = vec!["--check"];
    arguments.extend(settings.iter().flat_map(|(flag, value)| [*flag, *value]));
    let (code, printed, error) = config(None, &arguments);
    assert_eq!((code, printed.as_str(), error.as_str()), (0, "the configuration is sound\n", ""));
    arguments.extend(["--format", "json"]);
    let (code, printed, _) = config(None, &arguments);
    let expected = json!({ "valid": true, "mistakes": [] });
    assert_eq!((code, serde_json::from_str(&printed).ok()), (0, Some(expected)));
}

#[test]
fn mistakes_are_told_to_humans_and_to_programs() {
    let file = Written::new("server:\n  listn: x\n");
    let path = file.path.display();
    for arguments in [vec![], vec!["--check"]] {
        let (code, printed, error) = config(Some(&file.path), &arguments);
        assert_eq!((code, printed.as_str()), (78, ""));
        let told = format!(
            "onward: 1 mistake in the configuration\n  \
             {path}:2: server.listn: unknown setting, did you mean server.listen?\n"
        );
        assert_eq!(error, told);
    }
    let arguments = ["--check", "--format", "json", "--server.workers", "0"];
    let (code, printed, error) = config(Some(&file.path), &arguments);
    assert_eq!((code, error.as_str()), (78, ""));
    let expected = json!({ "valid": false, "mistakes": [
        {
            "layer": "file",
            "place": format!("{path}:2"),
            "line": 2,
            "key": "server.listn",
            "problem": "unknown setting, did you mean server.listen?",
        },
        {
            "layer": "flag",
            "place": "--server.workers",
            "line": null,
            "key": null,
            "problem": "expected a whole number from 1 to 1024, or auto, got '0'",
        },
    ] });
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), expected);
}

#[test]
fn a_wrong_command_line_is_told_and_a_closed_pipe_is_no_failure() {
    assert_eq!(config(None, &["--check", "--schema"]).0, 2);
    assert_eq!(config(None, &["--format", "toml"]).0, 2);
    let mut command = onward();
    command.args(["config", "--schema"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

/// What the schema has to say of a file.
#[track_caller]
fn check_schema(yaml: &str, valid: bool) {
    let schema: Value = serde_json::from_str(&text("docs/config.schema.json")).unwrap();
    let validator = jsonschema::draft202012::new(&schema).expect("it is a schema");
    let file: Value =
        if yaml.is_empty() { Value::Null } else { serde_saphyr::from_str(yaml).unwrap() };
    assert_eq!(validator.is_valid(&file), valid, "{yaml}: {:?}", validator.validate(&file).err());
    let written = Written::new(yaml);
    let (code, _, error) = config(Some(&written.path), &["--check"]);
    assert_eq!(code, if valid { 0 } else { 78 }, "{yaml}: {error}");
    drop(written.home);
}

#[test]
fn the_schema_admits_what_the_server_reads() {
    for yaml in [
        "",
        "server:\nmodels: {}\n",
        "server: {listen: '[::1]:80', workers: auto, max_body_size: 5, request_timeout: 1m 30s}\n",
        "server: {workers: 4, max_body_size: 2GiB, port_file: /run/onward.port}\n",
        "server: {allow_unauthenticated_management: true}\n",
        "models: {required: [a, 'b c'], repository: /srv/models}\n",
        "webhooks: {urls: ['https://example.com/a,b'], kinds: [health], secret_file: none}\n",
        "health: {max_memory: 95%, min_free_disk: 0, max_stall: 1.5s}\n",
        "webhooks: {kinds: auto}\ntelemetry: {log_format: json, log_level: 'info,onward=debug'}\n",
    ] {
        check_schema(yaml, true);
    }
}

#[test]
fn the_schema_refuses_what_the_server_does() {
    for yaml in [
        "5",
        "[server]",
        "sever: {}",
        "server: {listn: '127.0.0.1:1'}",
        "server: 5",
        "server: [5]",
        "server: {listen: {host: a}}",
        "server: {listen: 5}",
        "server: {listen:}",
        "server: {workers: 0}",
        "server: {workers: 1025}",
        "server: {workers: many}",
        "server: {workers: 1.5}",
        "server: {max_body_size: 2 GiBs}",
        "server: {max_body_size: -1}",
        "server: {request_timeout: 5}",
        "server: {request_timeout: 5 lightyears}",
        "server: {allow_unauthenticated_management: maybe}",
        "models: {required: ['a/b']}",
        "models: {required: [.a]}",
        "models: {required: [[a]]}",
        "models: {required: {a: 1}}",
        "webhooks: {kinds: [everything]}",
        "webhooks: {urls: ['ftp://example.com']}",
        "telemetry: {log_format: xml}",
        "telemetry: {log_level: ''}",
        "health: {max_memory: 101%}",
        "health: {max_memory: 90}",
        "events: {history: 1048577}",
    ] {
        check_schema(yaml, false);
    }
}

#[test]
fn a_configuration_cannot_make_the_server_panic() {
    // Each of them used to end in one: an interval of nothing, a ring too large, a sum too long.
    for (flag, value) in [
        ("--lifecycle.health_interval", "0s"),
        ("--events.history", "1000000000000000000"),
        ("--lifecycle.startup_timeout", "18446744073709551615s 1000ms"),
        ("--server.workers", "18446744073709551615"),
        ("--telemetry.log_level", "a=b=c"),
        ("--webhooks.urls", "https://user:password@example.com"),
        ("--models.repository", ""),
    ] {
        let (code, _, error) = run(onward().args(["serve", flag, value]));
        assert_eq!(code, 78, "{flag}: {error}");
        assert!(error.contains(flag) && error.lines().count() == 2, "{error}");
    }
}
