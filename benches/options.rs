//! The benchmark's command line.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub(crate) struct Options {
    /// How often each measurement is taken.
    pub(crate) rounds: usize,
    /// How long one measurement takes.
    pub(crate) duration: Duration,
    /// Be the HTTP handler that computes nothing, rather than the benchmark.
    pub(crate) floor: bool,
}

impl Options {
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self { rounds: 5, duration: Duration::from_secs(1), floor: false };
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.duration = Duration::try_from_secs_f64(value()?.parse()?)?,
                "--floor" => options.floor = true,
                // Cargo's own word to every benchmark.
                "--bench" => {}
                _ => bail!("unknown argument {argument}; there are --rounds and --seconds"),
            }
        }
        // Without these there would be no request, and none that failed.
        ensure!(options.rounds > 0, "--rounds must be at least 1");
        ensure!(!options.duration.is_zero(), "--seconds must be more than 0");
        Ok(options)
    }
}
