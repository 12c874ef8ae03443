//! A process that has ONNX Runtime and so many sessions of a model, and nothing else.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::direct::{Direct, Engine};

/// The argument that makes this program one.
pub(crate) const ROLE: &str = "--bare";

/// What it says once it has what it should.
const READY: &str = "ready";

/// Killed when dropped.
pub(crate) struct Bare(Child);

impl Bare {
    /// Starts one with `sessions` of the model in this file, and waits until it has them.
    pub(crate) fn start(sessions: usize, graph: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ROLE).arg(sessions.to_string()).arg(graph);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut bare = Self(child.context("this program can be started again")?);
        let mut line = String::new();
        BufReader::new(bare.0.stdout.take().context("a pipe")?).read_line(&mut line)?;
        ensure!(line.trim() == READY, "the process with bare sessions has failed");
        Ok(bare)
    }

    /// The number of its process.
    pub(crate) fn process(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Is one, until standard input ends.
pub(crate) fn hold(terms: &[String]) -> Result<()> {
    let [sessions, graph] = terms else { anyhow::bail!("{ROLE} takes a number and a file") };
    let engine = Engine::start()?;
    let sessions = Direct::open(&engine, Path::new(graph), (sessions.parse()?, 1))?;
    writeln!(std::io::stdout(), "{READY}")?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(sessions);
    Ok(())
}
