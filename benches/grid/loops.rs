//! The direct loop of each model, in every setting that could be the best.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cell::Plan;
use super::direct::{Direct, Engine};
use super::load::Sample;
use super::zoo::Model;

/// Items of one run.
const BATCHES: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// Settings that are measured in each round: the best of those that were tried before the rounds.
const KEPT: usize = 3;

/// How far two answers may be apart, beside a share of them: batches add in another order.
const APART: f32 = 1e-4;

pub(crate) struct Loops {
    model: Model,
    /// A session for each core, whose runs have one thread.
    plain: Direct,
    /// One session whose runs have a thread for each core.
    wide: Direct,
    /// What is worth measuring.
    pub(crate) plans: Vec<Plan>,
}

impl Loops {
    /// Opens the sessions, and finds out which settings are worth measuring.
    pub(crate) fn open(
        engine: &Engine,
        (model, graph): (Model, &Path),
        duration: Duration,
    ) -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let plain = Direct::open(engine, graph, (cores, 1))?;
        let wide = Direct::open(engine, graph, (1, cores))?;
        let mut loops = Self { model, plain, wide, plans: Vec::new() };
        loops.check()?;
        loops.choose(cores, duration)?;
        Ok(loops)
    }

    /// What the model answers to its first item.
    pub(crate) fn answer(&mut self) -> Result<Vec<f32>> {
        self.plain.answer(&self.model.inputs(0, 1))
    }

    /// Of items, not of runs.
    pub(crate) fn measure(&mut self, plan: Plan, duration: Duration) -> Result<Sample> {
        let inputs = self.model.inputs(0, plan.batch);
        let direct = if plan.threads == 1 { &mut self.plain } else { &mut self.wide };
        let mut sample = direct.measure(&inputs, plan.callers, duration)?;
        sample.requests *= plan.batch as u64;
        sample.warm_up *= plan.batch as u64;
        Ok(sample)
    }

    /// A batch has to answer what its items answer one by one.
    fn check(&mut self) -> Result<()> {
        let together = self.plain.answer(&self.model.inputs(0, 3))?;
        let apart = (0..3).map(|item| self.plain.answer(&self.model.inputs(item, 1)));
        let apart = apart.collect::<Result<Vec<_>>>()?.concat();
        ensure!(apart[..apart.len() / 3] != apart[apart.len() / 3..][..apart.len() / 3]);
        agree(&together, &apart).with_context(|| format!("{} in batches", self.model.name()))
    }

    fn choose(&mut self, cores: usize, duration: Duration) -> Result<()> {
        let mut rates = Vec::new();
        for plan in plans(cores) {
            rates.push((self.measure(plan, duration)?.rate(), plan));
        }
        rates.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        self.plans = rates.into_iter().take(KEPT).map(|(_, plan)| plan).collect();
        // What a server without batches would call.
        let plain = Plan { callers: cores, threads: 1, batch: 1 };
        if !self.plans.contains(&plain) {
            self.plans.push(plain);
        }
        Ok(())
    }
}

fn plans(cores: usize) -> Vec<Plan> {
    let mut settings = vec![(1, 1), (cores, 1), (1, cores)];
    settings.dedup();
    let with =
        |batch| settings.iter().map(move |&(callers, threads)| Plan { callers, threads, batch });
    BATCHES.into_iter().flat_map(with).collect()
}

/// Whether two answers say the same.
pub(crate) fn agree(given: &[f32], expected: &[f32]) -> Result<()> {
    ensure!(given.len() == expected.len(), "{} numbers, not {}", given.len(), expected.len());
    for (given, expected) in given.iter().zip(expected) {
        let is_near = (given - expected).abs() <= APART * (1.0 + expected.abs());
        ensure!(is_near, "{given} is answered where {expected} is right");
    }
    Ok(())
}
