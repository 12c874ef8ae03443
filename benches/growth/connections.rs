//! 1 to 1,000 connections that ask the tiny model: the rate, the time, and the memory of a connection.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::load::{self, Sample, Target};
use super::options::Options;
use super::process::Memory;
use super::report::{Plot, Report, Table, median, number};
use super::store::{Store, tiny};
use super::zoo::Model;

const COUNTS: [u32; 4] = [1, 10, 100, 1000];

/// The rounds with so many connections.
struct Step {
    count: u32,
    samples: Vec<Sample>,
    /// While they ask, in megabytes.
    resident: f64,
}

impl Step {
    fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(figure))
    }

    fn micros(&self, share: f64) -> f64 {
        self.median(|sample| sample.latencies.percentile(share).as_secs_f64() * 1e6)
    }

    fn failures(&self) -> u64 {
        self.samples.iter().map(|sample| sample.failures).sum()
    }
}

pub(crate) async fn add(report: &mut Report, options: &Options) -> Result<()> {
    let store = Store::of(&Model::Mlp.graph(), (1, ""))?;
    let onward = store.serve()?;
    let mut steps: Vec<Step> =
        COUNTS.map(|count| Step { count, samples: Vec::new(), resident: 0.0 }).into();
    for _ in 0..options.rounds {
        for step in &mut steps {
            let (sample, resident) =
                watched(&tiny(&onward), step.count, (onward.process(), options.duration)).await?;
            step.samples.push(sample);
            step.resident = resident;
        }
    }
    report.failures += steps.iter().map(Step::failures).sum::<u64>();
    report.tables.push(table(&steps));
    report.plots.push(plot(&steps));
    Ok(())
}

/// The load, and what the server has of memory in the midst of it.
async fn watched(
    target: &Target,
    connections: u32,
    (process, duration): (u32, Duration),
) -> Result<(Sample, f64)> {
    let memory = async {
        sleep(duration / 2).await;
        Memory::of(process)
    };
    let (sample, memory) = tokio::join!(load::run(target, connections as usize, duration), memory);
    Ok((sample, memory?.resident))
}

fn table(steps: &[Step]) -> Table {
    let columns = ["connections", "requests/s", "p50 us", "p99 us", "server MB", "failed"];
    let mut table = Table::new("Connections", &columns);
    for step in steps {
        table.row(vec![
            step.count.to_string(),
            number(step.median(Sample::rate), 0),
            number(step.micros(0.5), 0),
            number(step.micros(0.99), 0),
            number(step.resident, 1),
            step.failures().to_string(),
        ]);
    }
    table
}

fn plot(steps: &[Step]) -> Plot {
    let rates = steps.iter().map(|step| Some(step.median(Sample::rate))).collect();
    Plot {
        name: "growth-connections".to_owned(),
        title: "the tiny model by connections".to_owned(),
        unit: "requests/s",
        places: steps.iter().map(|step| step.count.to_string()).collect(),
        series: vec![("server, binary".to_owned(), rates)],
    }
}
