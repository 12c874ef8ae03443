//! The server under test: the real binary.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use anyhow::{Context, Result};
use serde_json::Value;

/// Killed when dropped.
pub(crate) struct Served {
    child: Child,
    address: SocketAddr,
    grpc: Option<SocketAddr>,
}

impl Served {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(repository: &Path) -> Result<Self> {
        Self::start_with(repository, &["--server.grpc_listen", "off"])
    }

    /// [`Served::start`] with gRPC on a port of its own.
    pub(crate) fn start_with_grpc(repository: &Path) -> Result<Self> {
        Self::start_with(repository, &["--server.grpc_listen", "127.0.0.1:0"])
    }

    /// [`Served::start`] with other flags.
    pub(crate) fn start_with(repository: &Path, flags: &[&str]) -> Result<Self> {
        Self::spawn(command(&[env!("CARGO_BIN_EXE_onward"), "serve"], repository).args(flags))
    }

    /// Another program that serves, from its command on.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let child = command.stderr(Stdio::piped()).spawn().context("the program was built")?;
        // From here on it is killed whatever fails.
        let mut served = Self { child, address: SocketAddr::from(([0; 4], 0)), grpc: None };
        let mut log = BufReader::new(served.child.stderr.take().context("a pipe")?).lines();
        let said = until_running(&mut log)?;
        served.address = listens(&said, "listening").context("it says where it listens")?;
        served.grpc = listens(&said, "listening for gRPC");
        // Read on, so that the server never waits for its log.
        thread::spawn(move || log.for_each(drop));
        Ok(served)
    }

    /// Its standard input and output, where these are pipes.
    pub(crate) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        self.child.stdin.take().zip(self.child.stdout.take())
    }

    /// The number of its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that is gRPC's alone.
    pub(crate) fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc
    }
}

/// A server of this repository on a free port, begun by these words, whose log can be read.
pub(crate) fn command(words: &[&str], repository: &Path) -> Command {
    let mut command = Command::new(words[0]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ONWARD_") {
            command.env_remove(name);
        }
    }
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(&words[1..]);
    command.args(["--server.listen", "127.0.0.1:0", "--telemetry.log_format", "json"]);
    command.arg("--models.repository").arg(repository);
    command
}

/// The lines of the log until the server is ready.
fn until_running(log: &mut Lines<BufReader<ChildStderr>>) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for line in log {
        said.push(line?);
        if said.last().is_some_and(|line| line.contains("\"RUNNING\"")) {
            return Ok(said);
        }
    }
    anyhow::bail!("the server ended before it was ready: {said:#?}")
}

/// The address in the line with this message.
fn listens(said: &[String], message: &str) -> Option<SocketAddr> {
    let line = said.iter().find(|line| line.contains(&format!("\"{message}\"")))?;
    serde_json::from_str::<Value>(line).ok()?["address"].as_str()?.parse().ok()
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
