//! The server under test: the real binary.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;

use anyhow::{Context, Result};
use serde_json::Value;

/// Killed when dropped.
pub(crate) struct Served {
    child: Child,
    address: SocketAddr,
}

impl Served {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(repository: &Path) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onward"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ONWARD_") {
                command.env_remove(name);
            }
        }
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.args([
            "serve",
            "--server.listen",
            "127.0.0.1:0",
            "--server.grpc_listen",
            "off",
            "--telemetry.log_format",
            "json",
        ]);
        command.arg("--models.repository").arg(repository);
        let child = command.stderr(Stdio::piped()).spawn().context("the binary was built")?;
        // From here on it is killed whatever fails.
        let address = SocketAddr::from(([0; 4], 0));
        let mut served = Self { child, address };
        let mut log = BufReader::new(served.child.stderr.take().context("a pipe")?).lines();
        let line: Value = serde_json::from_str(&wait_for(&mut log, "\"listening\"")?)?;
        served.address = line["address"].as_str().context("the line has an address")?.parse()?;
        wait_for(&mut log, "\"RUNNING\"")?;
        // Read on, so that the server never waits for its log.
        thread::spawn(move || log.for_each(drop));
        Ok(served)
    }

    /// The number of its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn wait_for(log: &mut Lines<BufReader<ChildStderr>>, text: &str) -> Result<String> {
    let mut said = Vec::new();
    for line in log {
        let line = line?;
        if line.contains(text) {
            return Ok(line);
        }
        said.push(line);
    }
    anyhow::bail!("the server ended before it logged {text}: {said:#?}")
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
