//! `onward models` and `onward operations`, against a server that runs.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::onnx::{add_constant, slow};
use crate::support::process::{blocking, onward, run};
use crate::support::{Repository, Server, x};

/// A command for a server, by its words: the exit code, and what was said on either output.
async fn ask(server: &Server, words: &str) -> (i32, String, String) {
    let (url, words) = (format!("http://{}", server.address), words.to_owned());
    let mut command = onward();
    command.args(words.split(' ')).env("ONWARD_URL", url);
    blocking(move || run(&mut command)).await
}

/// The same for a command that does what it is asked to.
#[track_caller]
fn done((code, out, error): (i32, String, String)) -> String {
    assert_eq!(code, 0, "{out}{error}");
    out
}

/// The cells of the line for a version, or a model, in a table.
fn cells<'a>(table: &'a str, beginning: &[&str]) -> Vec<&'a str> {
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = lines.into_iter().find(|cells| cells.starts_with(beginning));
    found.unwrap_or_else(|| panic!("no line begins with {beginning:?} in\n{table}"))
}

fn versions(of: &[f32]) -> Repository {
    let numbered = (1..).zip(of);
    numbered.fold(Repository::empty(), |repository, (version, constant)| {
        repository.and("add", version, &add_constant(*constant))
    })
}

#[tokio::test]
async fn models_are_listed_changed_and_rolled_back() {
    let settings = [("models.keep_previous", "1h")];
    let server = Server::start_with(versions(&[1.0, 2.0]), &settings).await;
    assert_eq!(server.infer("add", &x(&[1, 4], &[0.0; 4])).await.output("y")[0], 2.0);
    let table = done(ask(&server, "models ls").await);
    let line = cells(&table, &["add", "2", "*", "READY", "100%"]);
    assert_eq!(line[line.len() - 10..].first(), Some(&"1"), "one request: {table}");

    let (code, out, progress) = ask(&server, "models swap add --to 1 --no-verify").await;
    assert_eq!(code, 0, "{progress}");
    assert!(out.contains("add: version 1 answers in place of 2"), "{out}");
    assert!(progress.contains("add 1 WARMING") && progress.contains("add 2 DRAIN"), "{progress}");
    assert_eq!(server.infer("add", &x(&[1, 4], &[0.0; 4])).await.output("y")[0], 1.0);

    let told = done(ask(&server, "models alias add stable 2").await);
    assert_eq!(told, "add: stable is version 2\n");
    let told = done(ask(&server, "models traffic add 1=25 2=75").await);
    assert!(told.contains("25% to version 1, 75% to version 2"), "{told}");
    done(ask(&server, "models shadow add 2 10").await);
    let detail = done(ask(&server, "models ls add").await);
    for part in ["75% stable", "10% copied to version 2", "version 1 by swap"] {
        assert!(detail.contains(part), "no {part:?} in\n{detail}");
    }
    for words in ["shadow add", "traffic add", "alias add stable"] {
        done(ask(&server, &format!("models {words} --remove")).await);
    }
    let told = done(ask(&server, "models rollback add").await);
    assert!(told.contains("version 2 answers in place of 1"), "{told}");
    let told = done(ask(&server, "models unload add").await);
    assert!(told.starts_with("add: unloaded: "), "{told}");
    let table = done(ask(&server, "models ls").await);
    assert!(!table.contains("READY"), "{table}");
    let told = done(ask(&server, "models load add").await);
    assert!(told.starts_with("add: version 2 answers; loaded in "), "{told}");
}

#[tokio::test]
async fn programs_get_what_the_server_answers() {
    let server = Server::start(versions(&[1.0, 2.0])).await;
    let json = |text: String| serde_json::from_str::<Value>(&text).expect("it is JSON");
    let models = json(done(ask(&server, "models ls --json").await));
    assert_eq!(models["models"][0]["current_version"], "2");
    let swap = json(done(ask(&server, "models swap add --to 1 --json").await));
    assert_eq!((&swap["state"], &swap["result"]["to"]), (&json!("succeeded"), &json!("1")));
    let begun = json(done(ask(&server, "models verify add --json --no-wait").await));
    let id = begun["id"].as_str().expect("an operation has an id");
    let operation = json(done(ask(&server, &format!("operations ls {id} --json")).await));
    assert_eq!(operation["operation"], "verify");
    let (code, out, _) = ask(&server, "models swap add --to 9 --json").await;
    assert_eq!((code, &json(out)["error"]["code"]), (1, &json!("unknown_version")));
}

#[tokio::test]
async fn what_fails_is_told_with_a_code() {
    let server = Server::start(versions(&[1.0])).await;
    let (code, out, error) = ask(&server, "models swap add --to 9").await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.contains("no version 9") && error.contains("[unknown_version]"), "{error}");
    let (code, _, error) = ask(&server, "models ls nothing").await;
    assert_eq!(code, 1);
    assert!(error.contains("'nothing' is not found [unknown_model]"), "{error}");
    let (code, _, error) = ask(&server, "models traffic add 1=half").await;
    assert_eq!(code, 2, "{error}");
    let (code, _, error) = ask(&server, "models ls --url ftp://127.0.0.1").await;
    assert_eq!(code, 2);
    assert!(error.contains("such as http://127.0.0.1:8000"), "{error}");
    let (code, _, error) = ask(&server, "models ls --url http://127.0.0.1:1").await;
    assert_eq!(code, 69);
    assert!(error.contains("http://127.0.0.1:1/: "), "{error}");
    let (code, _, error) = ask(&server, "models ls --api-key-file /nowhere").await;
    assert_eq!(code, 2);
    assert!(error.contains("/nowhere"), "{error}");
}

/// The load takes far longer than this test may.
#[tokio::test]
async fn a_change_is_cancelled() {
    let server = Server::start(versions(&[1.0])).await;
    server.repository.put("slow", 1, &slow(36_000_000));
    let begun = done(ask(&server, "models load slow --no-wait").await);
    let id = begun.trim().rsplit(' ').next().expect("it tells the operation").to_owned();
    while !done(ask(&server, &format!("operations ls {id}")).await).contains("WARMING") {
        sleep(Duration::from_millis(50)).await;
    }
    let table = done(ask(&server, "operations ls").await);
    assert_eq!(cells(&table, &[&id])[1..4], ["load", "slow", "running"], "{table}");
    done(ask(&server, &format!("operations cancel {id}")).await);
    let told = done(ask(&server, &format!("operations ls {id}")).await);
    assert!(told.starts_with("load of slow: cancelled"), "{told}");
    let (code, _, error) = ask(&server, &format!("operations cancel {id}")).await;
    assert_eq!(code, 1, "{error}");
}

#[tokio::test]
async fn a_model_is_measured_under_load() {
    let server = Server::start(versions(&[1.0])).await;
    let told = done(ask(&server, "bench add --connections 3 --duration 300ms --batch 2").await);
    for part in [
        "add: x FP32 [2, 4] as bytes, 3 connections",
        " 0 shed, 0 failed",
        "p99.9",
        "in the server",
    ] {
        assert!(told.contains(part), "no {part:?} in\n{told}");
    }
    let words = "bench add --version 1 --json-tensors --json --duration 200ms";
    let measured: Value = serde_json::from_str(&done(ask(&server, words).await)).unwrap();
    assert_eq!((&measured["failed"], &measured["version"]), (&json!(0), &json!("1")));
    let counted = server.get("/v2/models/add/stats").await.ok();
    let answered = measured["answered"].as_u64().unwrap();
    let success = &counted["model_stats"][0]["inference_stats"]["success"]["count"];
    assert!(answered > 0 && success.as_u64().unwrap() > answered, "{measured} {counted}");
    let (code, _, error) = ask(&server, "bench add --shape x=3,5 --duration 1s").await;
    assert_eq!(code, 1);
    assert!(error.contains("input 'x' must have shape [-1,4]"), "{error}");
    let (code, _, error) = ask(&server, "bench nothing").await;
    assert_eq!(code, 1);
    assert!(error.contains("'nothing'"), "{error}");
}

#[tokio::test]
async fn a_key_is_shown_and_who_has_none_is_told() {
    let home = TempDir::new().unwrap();
    let (code, made, _) = run(onward().args(["key", "--name", "ci", "--role", "read"]));
    assert_eq!(code, 0);
    let (key, entry) = made.split_once('\n').expect("the key has a line for itself");
    let (keys, shown) = (home.path().join("keys.yaml"), home.path().join("key"));
    std::fs::write(&keys, format!("keys:\n{entry}")).unwrap();
    std::fs::write(&shown, format!("{key}\n")).unwrap();
    let settings = [("auth.keys_file", keys.to_str().unwrap())];
    let server = Server::start_with(versions(&[1.0]), &settings).await;
    let (code, _, error) = ask(&server, "models ls").await;
    assert_eq!(code, 77, "{error}");
    let with_key = format!("--api-key-file {}", shown.display());
    let table = done(ask(&server, &format!("models ls {with_key}")).await);
    cells(&table, &["add", "1"]);
    let (code, _, error) = ask(&server, &format!("models unload add {with_key}")).await;
    assert_eq!(code, 77, "{error}");
    assert!(!error.contains(key), "{error}");
}

/// What answers as this server does not, with whatever it is asked for.
fn stranger(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = BufReader::new(&stream).lines();
            head.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    url
}

#[test]
fn strangers_are_told_from_servers_and_do_nothing_to_a_terminal() {
    let ask = |url: &str, words: &str| run(onward().args(words.split(' ')).args(["--url", url]));
    let other = stranger("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"hello\":\"world\"}");
    for words in ["models ls", "models ls m", "models load m", "operations ls", "bench m"] {
        let (code, out, error) = ask(&other, words);
        assert_eq!((code, out.as_str()), (1, ""), "{words}: {error}");
        assert!(error.contains("does not answer as this server does"), "{words}: {error}");
    }
    let page = stranger("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>");
    assert_eq!(ask(&page, "models ls").0, 1);
    let silent = stranger("");
    assert_eq!(ask(&silent, "models ls").0, 69);
    let rude = stranger(
        "HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n{\"error\":\"\\u001b[2J\\nonward: all is well\"}",
    );
    let (code, out, error) = ask(&rude, "models ls --json");
    assert_eq!(code, 77);
    assert!(!error.contains('\u{1b}') && error.lines().count() == 1, "{error}");
    assert!(serde_json::from_str::<Value>(&out).is_ok() && !out.contains('\u{1b}'), "{out}");
}

#[test]
fn what_is_no_name_and_no_address_is_refused_before_anybody_is_asked() {
    for words in ["models ls ..", "operations cancel .", "models alias m .. 1", "bench ."] {
        let (code, _, error) = run(onward().args(words.split(' ')));
        assert_eq!(code, 2, "{words}: {error}");
    }
    for url in ["http://user:secret@127.0.0.1:1", "http://127.0.0.1:1/?a=secret", "127.0.0.1:8000"]
    {
        let (code, _, error) = run(onward().args(["models", "ls", "--url", url]));
        assert_eq!(code, 2, "{url}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    for words in ["--duration 0s", "--duration 1000years", "--connections 0", "--batch 99999999"] {
        let (code, _, error) = run(onward().args(["bench", "m"]).args(words.split(' ')));
        assert_eq!(code, 2, "{words}: {error}");
    }
}

/// Who sets them for commands may start servers in the same shell.
#[tokio::test]
async fn a_server_takes_no_offence_at_the_variables_of_commands() {
    let mut command = onward();
    command.env("ONWARD_URL", "http://127.0.0.1:1").env("ONWARD_API_KEY", "x");
    let server = Server::start_by(command, Repository::empty(), &[]).await;
    assert_eq!(server.get("/livez").await.status, 200);
    assert_eq!(done(ask(&server, "models ls").await), "no models\n");
}
