//! 1 to 1,000 models: their memory beside as many bare sessions, and the rate of one of them beside that of
//! one that is alone.

use anyhow::Result;

use super::bare::Bare;
use super::load::{self, Sample};
use super::options::Options;
use super::process::Memory;
use super::report::{Plot, Report, Table, Target, Wanted, median, number};
use super::served::Served;
use super::store::{Store, tiny};
use super::zoo::Model;

const COUNTS: [usize; 4] = [1, 10, 100, 1000];

/// Connections that ask the one model.
const CONNECTIONS: usize = 8;

/// What the server's memory may be of that of bare sessions, and what of its rate one of many keeps.
const MEMORY: f64 = 1.2;
const RATE: f64 = 0.95;

/// With so many models.
struct Step {
    count: usize,
    server: f64,
    bare: f64,
    /// The rate of one of them, and the median of its ratios to that of one alone.
    rate: f64,
    kept: f64,
    failures: u64,
}

pub(crate) async fn add(report: &mut Report, options: &Options) -> Result<()> {
    let graph = Model::Mlp.graph();
    let store = Store::of(&graph, (1, ""))?;
    let alone = store.serve()?;
    let mut steps = Vec::new();
    for count in COUNTS {
        steps.push(step(&graph, count, (&alone, options)).await?);
    }
    report.failures += steps.iter().map(|step| step.failures).sum::<u64>();
    report.tables.push(table(&steps));
    report.plots.push(plot(&steps));
    // The costs of the process itself are a part of what few models take.
    report.targets.extend(steps.last().into_iter().flat_map(targets));
    for step in &steps {
        let name = format!("{} models: bare sessions' memory of the server's", step.count);
        report.ratios.push((name, step.bare / step.server));
        let name = format!("{} models: rate of one of them, of one alone", step.count);
        report.ratios.push((name, step.kept));
    }
    Ok(())
}

async fn step(graph: &[u8], count: usize, (alone, options): (&Served, &Options)) -> Result<Step> {
    let store = Store::of(graph, (count, ""))?;
    let onward = store.serve()?;
    let server = Memory::of(onward.process())?.resident;
    let bare = {
        // As many as the server has: one for each core.
        let sessions = count * std::thread::available_parallelism()?.get();
        let bare = Bare::start(sessions, &store.graph())?;
        Memory::of(bare.process())?.resident
    };
    let pairs = rates((&onward, alone), options).await;
    let rate = median(pairs.iter().map(|(many, _)| many.rate()));
    let kept = median(pairs.iter().map(|(many, one)| many.rate() / one.rate()));
    let failures = pairs.iter().map(|(many, one)| many.failures + one.failures).sum();
    Ok(Step { count, server, bare, rate, kept, failures })
}

/// Of one of many, and of one alone, in turns.
async fn rates((many, alone): (&Served, &Served), options: &Options) -> Vec<(Sample, Sample)> {
    let (many, alone) = (tiny(many), tiny(alone));
    let mut pairs = Vec::new();
    for _ in 0..options.rounds {
        let of_many = load::run(&many, CONNECTIONS, options.duration).await;
        pairs.push((of_many, load::run(&alone, CONNECTIONS, options.duration).await));
    }
    pairs
}

fn table(steps: &[Step]) -> Table {
    let columns = [
        "models",
        "server MB",
        "bare sessions MB",
        "ratio",
        "requests/s of one",
        "of one alone",
        "failed",
    ];
    let mut table = Table::new("Models", &columns);
    for Step { count, server, bare, rate, kept, failures } in steps {
        table.row(vec![
            count.to_string(),
            number(*server, 1),
            number(*bare, 1),
            number(server / bare, 2),
            number(*rate, 0),
            number(*kept, 3),
            failures.to_string(),
        ]);
    }
    table
}

fn targets(step: &Step) -> [Target; 2] {
    let name = |what| format!("{} models: {what}", step.count);
    let memory = Target {
        name: name("memory of bare sessions'"),
        value: step.server / step.bare,
        wanted: Wanted::AtMost(MEMORY),
    };
    let rate =
        Target { name: name("rate of one alone"), value: step.kept, wanted: Wanted::AtLeast(RATE) };
    [memory, rate]
}

fn plot(steps: &[Step]) -> Plot {
    let line = |name: &str, value: fn(&Step) -> f64| {
        (name.to_owned(), steps.iter().map(|step| Some(value(step))).collect())
    };
    Plot {
        name: "growth-models".to_owned(),
        title: "resident memory by models".to_owned(),
        unit: "MB",
        places: steps.iter().map(|step| step.count.to_string()).collect(),
        series: vec![line("server", |step| step.server), line("bare sessions", |step| step.bare)],
    }
}
