//! An operation that is under way, followed to its end.

use std::io::Write;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Failure;
use super::client::{RemoteError, Server};
use super::order::lifecycle;
use super::show::text;
use crate::terminal::safe;

/// The time between two looks: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// For how long a server that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks after an operation until it has ended, and tells its id and each of its steps; as it is at its end.
///
/// Cancel safe: the operation goes on.
///
/// # Errors
/// [`Failure::Lost`] where it cannot be followed any more.
pub(super) async fn follow(
    server: &Server,
    mut operation: Value,
    mut out: impl Write,
) -> Result<Value, Failure> {
    let id = text(&operation, "/id").to_owned();
    // With standard error closed there is nobody to tell.
    writeln!(out, "operation {}", safe(&id)).ok();
    let path = lifecycle(&["operations", &id]);
    let (mut told, mut pause) = (0, FIRST_PAUSE);
    loop {
        let steps = operation["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
        for step in steps.get(told..).unwrap_or_default() {
            writeln!(out, "{}", safe(&shown(&operation, step))).ok();
        }
        told = steps.len();
        if operation["state"] != "running" {
            return Ok(operation);
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let lost = |source| Failure::Lost { id: id.clone(), source };
        operation = look(server, &path).await.map_err(lost)?;
    }
}

/// The operation as it is now. What may pass is waited for.
async fn look(server: &Server, path: &[String]) -> Result<Value, RemoteError> {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = server.get(path).await;
        match found {
            Err(error) if error.may_pass() && Instant::now() < end => sleep(LONGEST_PAUSE).await,
            Err(error) => return Err(error),
            Ok(operation) => return server.is_ours(&operation, "state").map(|()| operation),
        }
    }
}

/// A step as it is told: `12:34:56.789 digits 2 LOADING`.
fn shown(operation: &Value, step: &Value) -> String {
    let time = text(step, "/at").split_once('T').map_or("", |(_, time)| time);
    let (model, version) = (text(operation, "/model"), text(step, "/version"));
    let what = text(step, "/what");
    [time.trim_end_matches('Z'), model, version, what].join(" ")
}

/// Whether an operation has ended in the state that was wanted.
///
/// # Errors
/// How it has ended instead.
pub(super) fn verdict(operation: &Value, wanted: &str) -> Result<(), String> {
    match text(operation, "/state") {
        state if state == wanted => Ok(()),
        "succeeded" => Err("it was too late: the change is made".to_owned()),
        state => {
            let (kind, model) = (text(operation, "/operation"), text(operation, "/model"));
            let error = text(operation, "/error/error");
            let code = text(operation, "/error/code");
            Err(format!("{kind} of {model} {state}: {error} [{code}]"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_and_ends_are_told() {
        let operation = json!({
            "operation": "swap", "model": "m", "state": "failed",
            "error": { "error": "no such file", "code": "load_failed" },
        });
        let step = json!({ "what": "LOADING", "version": "2", "at": "2026-01-02T03:04:05.678Z" });
        assert_eq!(shown(&operation, &step), "03:04:05.678 m 2 LOADING");
        let failed = "swap of m failed: no such file [load_failed]";
        assert_eq!(verdict(&operation, "succeeded"), Err(failed.to_owned()));
        let (done, cancelled) = (json!({ "state": "succeeded" }), json!({ "state": "cancelled" }));
        assert_eq!(verdict(&done, "succeeded"), Ok(()));
        assert_eq!(verdict(&cancelled, "cancelled"), Ok(()));
        assert!(verdict(&done, "cancelled").is_err());
    }
}
