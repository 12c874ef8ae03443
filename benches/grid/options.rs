//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::cell::Batching;
use super::request::Protocol;
use super::zoo::Model;

const KNOWN: &str =
    "--models, --protocols, --connections, --batching, --rounds, --seconds and --json";

/// What is measured, and how often.
pub(crate) struct Options {
    pub(crate) models: Vec<Model>,
    pub(crate) protocols: Vec<Protocol>,
    /// Connections that ask at once.
    pub(crate) connections: Vec<usize>,
    pub(crate) batching: Vec<Batching>,
    /// How often each measurement is taken.
    pub(crate) rounds: usize,
    /// How long one measurement of the tiny model takes; the others take three times that.
    pub(crate) duration: Duration,
    /// Where to write the figures to.
    pub(crate) json: Option<PathBuf>,
    /// Be the HTTP handler that computes nothing, rather than the benchmark.
    pub(crate) floor: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            models: Model::ALL.to_vec(),
            protocols: Protocol::ALL.to_vec(),
            connections: vec![1, 8, 32, 128],
            batching: Batching::ALL.to_vec(),
            rounds: 5,
            duration: Duration::from_secs(1),
            json: None,
            floor: false,
        }
    }
}

impl Options {
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--floor" => options.floor = true,
                // Cargo's own word to every benchmark.
                "--bench" => {}
                name => {
                    let value = arguments.next().with_context(|| format!("{name} needs a value"));
                    options.set(name, &value?)?;
                }
            }
        }
        ensure!(options.rounds > 0, "--rounds must be at least 1");
        ensure!(!options.duration.is_zero(), "--seconds must be more than 0");
        ensure!(!options.connections.contains(&0), "--connections must be at least 1");
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "--models" => self.models = named(value, &Model::ALL, Model::name)?,
            "--protocols" => self.protocols = named(value, &Protocol::ALL, Protocol::name)?,
            "--batching" => self.batching = named(value, &Batching::ALL, Batching::name)?,
            "--connections" => self.connections = list(value)?,
            "--rounds" => self.rounds = value.parse()?,
            "--seconds" => self.duration = Duration::try_from_secs_f64(value.parse()?)?,
            "--json" => self.json = Some(PathBuf::from(value)),
            _ => bail!("unknown argument {name}; there are {KNOWN}"),
        }
        Ok(())
    }
}

fn list<T: FromStr<Err: Into<anyhow::Error>>>(value: &str) -> Result<Vec<T>> {
    value.split(',').map(|item| item.parse().map_err(Into::into)).collect()
}

/// Those of `all` whose names are listed.
fn named<T: Copy>(value: &str, all: &[T], name: fn(T) -> &'static str) -> Result<Vec<T>> {
    let find = |item: &str| {
        let found = all.iter().copied().find(|one| name(*one) == item);
        found.with_context(|| {
            let names: Vec<&str> = all.iter().map(|one| name(*one)).collect();
            format!("there is no {item}; there are {}", names.join(", "))
        })
    };
    value.split(',').map(find).collect()
}
