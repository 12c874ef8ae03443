//! How the program starts, and how it refuses to.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::onnx::{add_constant, slow};
use crate::support::process::{Process, blocking, onward, run};
use crate::support::{Repository, Server, project, text, x};

#[test]
fn help_and_version_are_printed() {
    let (code, help, _) = run(onward().arg("--help"));
    assert_eq!(code, 0);
    assert!(help.contains("serve") && help.contains("health"), "{help}");
    let (code, version, _) = run(onward().arg("--version"));
    assert_eq!((code, version.trim()), (0, concat!("onward ", env!("CARGO_PKG_VERSION"))));
    let (code, _, error) = run(onward().arg("server"));
    assert_eq!(code, 2);
    assert!(error.contains("serve"), "{error}");
    let (code, _, error) = run(onward().args(["serve", "--server.listn", "127.0.0.1:0"]));
    assert_eq!(code, 2);
    assert!(error.contains("--server.listen"), "{error}");
}

#[test]
fn the_command_line_tells_of_itself() {
    for (shell, part) in
        [("bash", "_onward()"), ("zsh", "#compdef onward"), ("fish", "complete -c onward")]
    {
        let (code, script, _) = run(onward().args(["completions", shell]));
        assert_eq!(code, 0);
        assert!(script.contains(part) && script.contains("rollback"), "{shell}: {script}");
    }
    let (code, page, _) = run(onward().arg("man"));
    assert_eq!(code, 0);
    for part in [".TH onward", "onward models swap", "keep-previous", "server.listen"] {
        assert!(page.replace('\\', "").contains(part), "no {part} in {page}");
    }
}

/// Every command of the program is in the table, and the other way round.
#[test]
fn the_page_of_the_command_line_has_every_command() {
    let (_, help, _) = run(onward().arg("--help"));
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let commands: BTreeSet<&str> = commands
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    let page = text("docs/cli.md");
    let rows = page.lines().skip_while(|line| !line.starts_with("| Command")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let told: BTreeSet<&str> = rows
        .flat_map(|row| row.split("`onward ").skip(1).filter_map(|rest| rest.split('`').next()))
        .collect();
    assert_eq!(told, commands);
}

#[test]
fn every_mistake_of_the_configuration_is_told_at_once() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("onward.yaml");
    std::fs::write(&file, "server:\n  listn: x\nmodels:\n  load_threads: 0\n").unwrap();
    let mut command = onward();
    command.args(["serve", "--server.request_timeout", "5", "--config"]).arg(&file);
    command.env("ONWARD_SERVER_LISTEN", "nowhere").env("ONWARD_MODEL_REPOSITORY", "x");
    let (code, _, error) = run(&mut command);
    assert_eq!(code, 78, "{error}");
    for told in [
        "5 mistakes",
        "server.listn",
        "did you mean server.listen?",
        "models.load_threads",
        "--server.request_timeout",
        "ONWARD_SERVER_LISTEN",
        "ONWARD_MODEL_REPOSITORY",
        "did you mean ONWARD_MODELS_REPOSITORY?",
    ] {
        assert!(error.contains(told), "no {told:?} in {error}");
    }
}

#[test]
fn a_reachable_address_needs_a_word() {
    let (code, _, error) = run(onward().args(["serve", "--server.listen", "0.0.0.0:0"]));
    assert_eq!(code, 78);
    assert!(error.contains("server.allow_unauthenticated_management"), "{error}");
}

#[test]
fn a_bad_log_filter_is_a_mistake_of_the_configuration() {
    let (code, _, error) = run(onward().args(["serve", "--telemetry.log_level", "a=b=c"]));
    assert_eq!(code, 78);
    assert!(error.contains("telemetry.log_level"), "{error}");
}

/// The port is taken, so a server that came as far as binding it would say so.
#[test]
fn a_missing_or_wrong_library_is_told_before_any_port_is_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = |library: &str| {
        let mut command = onward();
        command.args(["serve", "--server.listen", &address, "--onnxruntime.library", library]);
        run(&mut command)
    };
    let (code, _, error) = serve("/nowhere/libonnxruntime.so");
    assert_eq!(code, 69);
    assert!(
        error.contains("/nowhere/libonnxruntime.so") && error.contains("make onnxruntime"),
        "{error}"
    );
    let (code, _, error) = serve(project("Cargo.toml").to_str().unwrap());
    assert_eq!(code, 69);
    assert!(error.contains("cannot be used") && error.contains("make onnxruntime"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_port_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, error) = run(onward().args(["serve", "--server.listen", &address]));
    assert_eq!(code, 1);
    assert!(error.contains(&address) && error.contains("server.listen"), "{error}");
}

#[test]
fn a_missing_repository_is_told() {
    let (code, _, error) = run(onward().args(["serve", "--models.repository", "/nowhere"]));
    assert_eq!(code, 1);
    assert!(error.contains("/nowhere") && error.contains("models.repository"), "{error}");
}

#[test]
fn a_required_model_that_fails_ends_the_start() {
    let repository = Repository::of("bad", b"broken").and("good", 1, &add_constant(1.0));
    let mut command = onward();
    command.args(["serve", "--server.listen", "127.0.0.1:0", "--models.required", "bad"]);
    let (code, _, error) = run(command.arg("--models.repository").arg(repository.path()));
    assert_eq!(code, 1);
    assert!(error.contains("ERROR") && error.contains("failed to load 'bad/1'"), "{error}");
}

#[tokio::test]
async fn the_port_file_tells_the_address() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("port");
    let settings = [("server.port_file", file.to_str().unwrap())];
    let server = Server::start_with(Repository::empty(), &settings).await;
    let told = std::fs::read_to_string(&file).unwrap();
    assert_eq!(told.trim(), server.address.to_string());
}

#[tokio::test]
async fn health_asks_the_server_of_the_same_configuration() {
    let settings = [("models.required", "add")];
    let server = Server::start_with(Repository::of("add", &add_constant(1.0)), &settings).await;
    let address = server.address.to_string();
    let ask = async |arguments: &[&str]| {
        let mut command = onward();
        command.arg("health").args(arguments).env("ONWARD_SERVER_LISTEN", &address);
        blocking(move || run(&mut command)).await
    };
    assert_eq!(ask(&[]).await.0, 0);
    assert_eq!(ask(&["--live"]).await.0, 0);
    let unload = "/v2/repository/models/add/unload";
    assert_eq!(server.post(unload, &serde_json::json!({})).await.status, 200);
    let (code, _, error) = ask(&[]).await;
    assert_eq!(code, 1);
    assert!(error.contains("required_models"), "{error}");
    assert_eq!(ask(&["--live"]).await.0, 0);
    assert_eq!(server.stop().await, 0);
    assert_eq!(ask(&["--live"]).await.0, 1);
}

/// Half a minute of warm-up: far longer than this test may take.
#[tokio::test]
async fn probes_answer_while_models_load_and_a_signal_is_heard() {
    let repository = Repository::of("good", &add_constant(1.0)).and("slow", 1, &slow(36_000_000));
    let mut server = Server::launch(repository, &[]).await;
    server.process.logged(&["\"slow\"", "\"WARMING\""]).await;
    server.process.logged(&["\"good\"", "\"READY\""]).await;
    assert_eq!(server.get("/livez").await.status, 200);
    assert_eq!(server.get("/readyz").await.status, 503);
    assert_eq!(server.get("/startupz").await.status, 503);
    assert_eq!(server.get("/metrics").await.status, 200);
    assert_eq!(server.get("/lifecycle").await.ok()["state"], "STARTING");
    let answer = server.infer("good", &x(&[1, 4], &[0.0; 4])).await;
    assert_eq!(answer.output("y")[0], 1.0);
    server.infer("slow", &x(&[1], &[0.0])).await.refused(503, "model_unavailable", &["WARMING"]);
    let asked = Instant::now();
    server.process.signal("TERM");
    assert_eq!(server.process.exit_code().await, 0, "{}", server.process.log());
    assert!(asked.elapsed() < Duration::from_secs(15), "the load was waited for");
}

#[tokio::test]
async fn two_servers_on_one_port_do_not_disturb_each_other() {
    let server = Server::start(Repository::empty()).await;
    let mut command = onward();
    command.args(["serve", "--server.listen", &server.address.to_string()]);
    let mut second = Process::spawn(&mut command);
    assert_eq!(second.exit_code().await, 1);
    assert_eq!(server.get("/livez").await.status, 200);
}

#[test]
fn numbers_beyond_reason_are_mistakes() {
    for (flag, value, told) in [
        ("--server.workers", "100000", "from 1 to 1024"),
        ("--models.load_threads", "2305843009213693952", "from 1 to 256"),
        ("--inference.instances", "20000", "from 1 to 256"),
        ("--server.request_timeout", "500000000000y", "a duration"),
        ("--server.request_timeout", "0s", "from 1ms to 365days"),
        ("--lifecycle.health_interval", "0s", "from 1ms to 365days"),
        ("--events.history", "18446744073709551615", "from 1 to 1048576"),
    ] {
        let (code, _, error) = run(onward().args(["serve", flag, value]));
        assert_eq!(code, 78, "{flag} {value}: {error}");
        assert!(error.contains(told), "{error}");
    }
}
