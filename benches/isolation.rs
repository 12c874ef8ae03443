//! Whether a large model that is loaded makes the answers of another model slow.
//!
//! In turns: a tiny model under load with nothing beside it, and the same load while a model of 500 MB
//! is loaded and unloaded again and again. A figure is the median over the rounds, and the ratio that
//! of each round's two phases.
//!
//! `cargo bench --bench isolation -- --rounds 15 --seconds 3`

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod control;
mod load;
#[path = "../tests/it/support/onnx.rs"]
mod onnx;
mod options;
mod served;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use control::{Control, median, put};
use load::{Pace, Sample, Target};
use options::Options;
use serde_json::json;
use served::Served;

/// The model that is asked, and the one that comes and goes.
const TINY: &str = "tiny";
const LARGE: &str = "large";

/// Of the large model: 125 million numbers of four bytes.
const SHAPE: [usize; 3] = [12_500, 9_990, 10];

/// How the tiny model is asked: by one connection and by eight that take turns, which leave the cores time
/// for others, by four that keep both of two cores busy, and by eight that all ask at the same moments.
const CALLERS: [Callers; 4] = [
    Callers { connections: 1, pace: None },
    Callers {
        connections: 8,
        pace: Some(Pace { period: Duration::from_millis(8), at_once: false }),
    },
    Callers { connections: 4, pace: None },
    Callers {
        connections: 8,
        pace: Some(Pace { period: Duration::from_millis(2), at_once: true }),
    },
];

#[derive(Clone, Copy)]
struct Callers {
    connections: u32,
    /// Without it, each asks again as soon as it has its answer.
    pace: Option<Pace>,
}

impl Callers {
    /// Whether the ratio of these is to stay below the target. Requests that all come at once do not: the
    /// kernel keeps them on the core that is idle when the first comes, while the load has the other.
    fn are_judged(self) -> bool {
        self.pace.is_none_or(|pace| !pace.at_once)
    }
}

/// What the median ratio of the 99th percentiles should stay below.
const TARGET: f64 = 1.5;

/// Loads without requests beside them, before and after the others.
const ALONE: usize = 3;

fn main() -> Result<ExitCode> {
    let defaults = Options { rounds: 15, duration: Duration::from_secs(3), ..Options::default() };
    let options = defaults.with(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(compare(&options))
}

async fn compare(options: &Options) -> Result<ExitCode> {
    let repository = tempfile::TempDir::new()?;
    put(repository.path(), (TINY, 1), &onnx::mlp(64, 32, 10))?;
    let onward = Served::start(repository.path())?;
    let control = Control(onward.address());
    put(repository.path(), (LARGE, 1), &onnx::mlp_of(0, SHAPE))?;
    std::fs::write(repository.path().join(LARGE).join("model.yaml"), "instances: 1\n")?;
    let mut loads = Loads::default();
    for _ in 0..ALONE {
        loads.one(control).await?;
    }
    println!("one load with nothing beside it: {:.2} s", loads.median());
    let input = json!({ "name": "x", "shape": [1, 64], "datatype": "FP32", "data": vec![0.5; 64] });
    let body = json!({ "inputs": [input] }).to_string();
    let path = format!("/v2/models/{TINY}/infer");
    let target = load::post_json(onward.address(), &path, body.as_bytes());
    println!("{} rounds of two phases of {:?} each", options.rounds, options.duration);

    let (mut worst, mut failures) = (0.0, 0);
    for callers in CALLERS {
        let mut table = Table::default();
        for _ in 0..options.rounds {
            table.quiet.push(ask(&target, callers, options.duration).await);
            let phase = (callers, options.duration);
            table.loading.push(beside_loads(control, &target, phase, &mut table.loads).await?);
        }
        table.print(callers);
        failures += table.failures();
        if callers.are_judged() {
            worst = f64::max(worst, table.ratio(0.99));
        }
    }
    println!(
        "failed requests: {failures}; the ratio of p99 should be {TARGET} at most, except at once"
    );
    Ok(if failures == 0 && worst <= TARGET { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn ask(target: &Target, callers: Callers, duration: Duration) -> Sample {
    let Callers { connections, pace } = callers;
    match pace {
        Some(pace) => load::run_paced(target, (connections, pace), duration).await,
        None => load::run(target, connections as usize, duration).await,
    }
}

/// The load while the large model comes and goes.
async fn beside_loads(
    control: Control,
    target: &Target,
    (callers, duration): (Callers, Duration),
    loads: &mut Loads,
) -> Result<Sample> {
    let over = AtomicBool::new(false);
    let load = async {
        let sample = ask(target, callers, duration).await;
        over.store(true, Ordering::SeqCst);
        sample
    };
    let (sample, loaded) = tokio::join!(load, loads.until(&over, control));
    loaded.map(|()| sample)
}

/// How long each load of the large model took.
#[derive(Default)]
struct Loads(Vec<f64>);

impl Loads {
    async fn until(&mut self, over: &AtomicBool, control: Control) -> Result<()> {
        while !over.load(Ordering::SeqCst) {
            self.one(control).await?;
        }
        Ok(())
    }

    /// Loads and unloads once.
    async fn one(&mut self, control: Control) -> Result<()> {
        let began = Instant::now();
        control.load(LARGE).await?;
        self.0.push(began.elapsed().as_secs_f64());
        control.unload(LARGE).await?;
        control.unloaded(LARGE, 1).await
    }

    fn median(&self) -> f64 {
        median(self.0.iter().copied())
    }
}

#[derive(Default)]
struct Table {
    quiet: Vec<Sample>,
    loading: Vec<Sample>,
    loads: Loads,
}

impl Table {
    fn failures(&self) -> u64 {
        self.quiet.iter().chain(&self.loading).map(|sample| sample.failures).sum()
    }

    /// The ratio of a percentile while loading to that of the quiet phase before, by round.
    fn ratios(&self, share: f64) -> Vec<f64> {
        let pairs = self.loading.iter().zip(&self.quiet);
        pairs.map(|(loading, quiet)| micros(loading, share) / micros(quiet, share)).collect()
    }

    fn ratio(&self, share: f64) -> f64 {
        median(self.ratios(share))
    }

    fn print(&self, callers: Callers) {
        let Callers { connections, pace } = callers;
        let pace = pace.map_or(String::new(), |Pace { period, at_once }| {
            format!(" {} {period:?}", if at_once { "at once every" } else { "in turn in" })
        });
        let [what, rate, p50, p99, longest] = [
            format!("{connections} connections{pace}"),
            "per second".into(),
            "p50 us".into(),
            "p99 us".into(),
            "longest ms".into(),
        ];
        println!("{what:<30}{rate:>12}{p50:>10}{p99:>10}{longest:>12}");
        for (what, samples) in [("nothing beside", &self.quiet), ("loads beside", &self.loading)] {
            let of = |share| median(samples.iter().map(|sample| micros(sample, share)));
            let rate = median(samples.iter().map(Sample::rate));
            let (p50, p99, longest) = (of(0.5), of(0.99), of(1.0) / 1e3);
            println!("{what:<30}{rate:>12.0}{p50:>10.1}{p99:>10.1}{longest:>12.1}");
        }
        let rate = self.loading.iter().zip(&self.quiet).map(|(a, b)| a.rate() / b.rate());
        let (p50, p99, longest) = (self.ratio(0.5), self.ratio(0.99), self.ratio(1.0));
        let what = "ratio, by round";
        println!("{what:<30}{:>12.3}{p50:>10.3}{p99:>10.3}{longest:>12.3}", median(rate));
        let p99s: Vec<String> = self.ratios(0.99).iter().map(|p99| format!("{p99:.2}")).collect();
        println!("ratio of p99 in each round: {}", p99s.join(" "));
        println!(
            "one load beside the requests: {:.2} s, {} in all",
            self.loads.median(),
            self.loads.0.len()
        );
    }
}

fn micros(sample: &Sample, share: f64) -> f64 {
    sample.latencies.percentile(share).as_secs_f64() * 1e6
}
