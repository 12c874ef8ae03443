//! A benchmark's command line.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const KNOWN: &str = "--rounds, --seconds, --connections, --swaps and --json";

pub(crate) struct Options {
    /// How often each measurement is taken.
    pub(crate) rounds: usize,
    /// How long one measurement takes.
    pub(crate) duration: Duration,
    /// Connections that ask at once, for benchmarks that have one such number.
    pub(crate) connections: usize,
    /// Swaps in all, for benchmarks that swap.
    pub(crate) swaps: u32,
    /// Where to write the figures to, for benchmarks that have a report.
    pub(crate) json: Option<PathBuf>,
    /// Be another program, rather than the benchmark, of this kind.
    pub(crate) role: Option<String>,
    /// What that one needs to know.
    pub(crate) terms: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        let duration = Duration::from_secs(1);
        Self {
            rounds: 5,
            duration,
            connections: 64,
            swaps: 200,
            json: None,
            role: None,
            terms: Vec::new(),
        }
    }
}

impl Options {
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Result<Self> {
        Self::default().with(arguments)
    }

    /// These, but for what the arguments say.
    pub(crate) fn with(self, mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = self;
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.duration = Duration::try_from_secs_f64(value()?.parse()?)?,
                "--connections" => options.connections = value()?.parse()?,
                "--swaps" => options.swaps = value()?.parse()?,
                "--json" => options.json = Some(PathBuf::from(value()?)),
                role @ ("--floor" | "--bare" | "--counted") => {
                    options.role = Some(role.to_owned());
                    options.terms = arguments.by_ref().collect();
                }
                // Cargo's own word to every benchmark.
                "--bench" => {}
                _ => bail!("unknown argument {argument}; there are {KNOWN}"),
            }
        }
        // Without these there would be no request, and none that failed.
        ensure!(options.rounds > 0, "--rounds must be at least 1");
        ensure!(!options.duration.is_zero(), "--seconds must be more than 0");
        ensure!(options.connections > 0, "--connections must be at least 1");
        Ok(options)
    }
}
