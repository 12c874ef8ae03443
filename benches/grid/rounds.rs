//! The measurements, in turns, and medians over the rounds.

use std::collections::BTreeMap;

use anyhow::Result;

use super::cell::{Cell, Plan, Row};
use super::load::Sample;
use super::options::Options;
use super::process::Time;
use super::report::median;
use super::request::Client;
use super::stage::{Stage, duration};
use super::zoo::Model;

/// What one measurement has found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Items per second; those of requests, each of which has one, are requests per second too.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// The processor's time that an item takes, of whoever answers; no number where it cannot be told.
    pub(crate) cpu_us: f64,
    pub(crate) failures: u64,
}

impl Figures {
    /// Of a sample during which a process has had so much of the processor's time.
    #[expect(clippy::cast_precision_loss, reason = "no run has 2^52 requests")]
    fn of(sample: &Sample, spent: f64) -> Self {
        let micros = |share| sample.latencies.percentile(share).as_secs_f64() * 1e6;
        let answered = sample.requests + sample.warm_up + sample.failures;
        Self {
            rate: sample.rate(),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            cpu_us: spent * 1e6 / answered as f64,
            failures: sample.failures,
        }
    }
}

/// The figures of each round.
#[derive(Default)]
pub(crate) struct Rounds(Vec<BTreeMap<Row, Figures>>);

impl Rounds {
    /// Measures everything once, model by model, and of each first the loops.
    pub(crate) async fn add(&mut self, stage: &mut Stage, options: &Options) -> Result<()> {
        let mut round = BTreeMap::new();
        for (&model, loops) in &mut stage.loops {
            for plan in loops.plans.clone() {
                let before = spent(std::process::id());
                let sample = loops.measure(plan, duration(model, options))?;
                let spent = spent(std::process::id()) - before;
                round.insert(Row::Direct(model, plan), Figures::of(&sample, spent));
            }
            for (row, client) in self.in_turn(model, &stage.clients, options) {
                let (_, connections, _) = neighbours(row);
                let process = stage.processes.of(row);
                let before = spent(process);
                let sample = client.run(connections, duration(model, options)).await?;
                round.insert(row, Figures::of(&sample, spent(process) - before));
            }
        }
        self.0.push(round);
        Ok(())
    }

    /// A model's clients, beginning elsewhere than in the round before, so that nothing is always what comes
    /// after a rest.
    fn in_turn<'a>(
        &self,
        model: Model,
        clients: &'a BTreeMap<Row, Client>,
        options: &Options,
    ) -> Vec<(Row, &'a Client)> {
        let clients = clients.iter().map(|(row, client)| (*row, client));
        let mut clients: Vec<_> = clients.filter(|(row, _)| neighbours(*row).0 == model).collect();
        clients.sort_by_key(|(row, _)| neighbours(*row));
        let first = self.0.len() * clients.len() / options.rounds;
        clients.rotate_left(first);
        clients
    }

    /// What was measured, in the order of its kind.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.0.first().into_iter().flat_map(|round| round.keys().copied())
    }

    /// The median over the rounds; no number where it was not measured.
    pub(crate) fn median(&self, row: Row, figure: impl Fn(&Figures) -> f64) -> f64 {
        median(self.0.iter().filter_map(|round| round.get(&row)).map(figure))
    }

    /// The median of each round's ratio of one to another.
    pub(crate) fn ratio(&self, one: Row, other: Row, figure: impl Fn(&Figures) -> f64) -> f64 {
        let pairs = self.0.iter().filter_map(|round| Some((round.get(&one)?, round.get(&other)?)));
        median(pairs.map(|(one, other)| figure(one) / figure(other)))
    }

    /// The loop that was the fastest.
    pub(crate) fn best(&self, model: Model) -> Option<(Plan, Row)> {
        let loops = self.rows().filter_map(|row| match row {
            Row::Direct(of, plan) if of == model => Some((plan, row)),
            _ => None,
        });
        let rate = |row: &Row| self.median(*row, |figures| figures.rate);
        loops.max_by(|(_, one), (_, other)| rate(one).total_cmp(&rate(other)))
    }

    /// Of all rounds.
    pub(crate) fn failures_of(&self, row: Row) -> u64 {
        self.0.iter().filter_map(|round| round.get(&row)).map(|figures| figures.failures).sum()
    }

    pub(crate) fn failures(&self) -> u64 {
        self.rows().map(|row| self.failures_of(row)).sum()
    }
}

/// An order in which what is compared is measured one after the other.
fn neighbours(row: Row) -> (Model, usize, Row) {
    match row {
        Row::Direct(model, _) => (model, 0, row),
        Row::Handler(_, _, connections) => (Model::Mlp, connections, row),
        Row::Server(Cell { model, connections, .. }) => (model, connections, row),
    }
}

/// What a process has had of the processor, in seconds; no number where the system does not tell.
fn spent(process: u32) -> f64 {
    Time::of(process).map_or(f64::NAN, |time| time.user + time.system)
}
