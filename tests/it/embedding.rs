//! The lifecycle core in a program that is no model server: `examples/embed.rs`.

use std::path::PathBuf;
use std::process::Command;

use crate::support::process::{Process, run};

/// Cargo builds examples beside the tests' own folder.
fn embed() -> Command {
    let test = std::env::current_exe().unwrap();
    let example: PathBuf = test.ancestors().nth(2).unwrap().join("examples/embed");
    Command::new(example)
}

#[test]
fn it_ends_by_itself_in_order() {
    let (code, said, _) = run(embed().args(["--jobs", "12"]));
    assert_eq!(code, 0, "{said}");
    let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("no {text:?} in {said}"));
    let order = [
        at("opened connection 1"),
        at("to: Running"),
        at("job 12 was done"),
        at("to: Stopping"),
        at("closed connection 1"),
        at("to: Stopped"),
        at("Clean end after 12 queries"),
    ];
    assert!(order.is_sorted(), "{said}");
    let count = |text: &str| said.lines().filter(|line| line.starts_with(text)).count();
    let opened = count("opened connection");
    assert!((2..=4).contains(&opened), "{said}");
    assert_eq!(count("closed connection"), opened, "{said}");
}

#[tokio::test]
async fn a_signal_ends_it_with_every_job_done() {
    let mut process = Process::spawn_telling(&mut embed());
    process.logged(&["job 5 was done"]).await;
    process.signal("TERM");
    assert_eq!(process.exit_code().await, 0, "{}", process.log());
    let log = process.log();
    let done = log.lines().filter(|line| line.contains(" was done on connection")).count();
    assert!(log.contains(&format!("Clean end after {done} queries")), "{log}");
    assert!(log.contains("closed connection 1"), "{log}");
}
