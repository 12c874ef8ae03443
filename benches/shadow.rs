//! Whether a shadow makes the answers of the version that it copies slow.
//!
//! In turns: a model under load by itself, and the same load with all requests copied to another version
//! of the same size. A figure is the median over the rounds, and the ratio that of each round's two phases.
//!
//! `cargo bench --bench shadow -- --rounds 7 --seconds 3`

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod control;
mod load;
#[path = "../tests/it/support/onnx.rs"]
mod onnx;
mod options;
mod served;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use control::{Control, median, put};
use load::{Sample, Target};
use options::Options;
use serde_json::json;
use served::Served;

const MODEL: &str = "m";

/// Connections that ask at once.
const CONCURRENCY: [usize; 3] = [1, 4, 16];

/// What the median ratio of the 99th percentiles should stay below.
const TARGET: f64 = 1.5;

fn main() -> Result<ExitCode> {
    let defaults = Options { rounds: 7, duration: Duration::from_secs(3), ..Options::default() };
    let options = defaults.with(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(compare(&options))
}

async fn compare(options: &Options) -> Result<ExitCode> {
    let repository = tempfile::TempDir::new()?;
    for version in [1, 2] {
        put(repository.path(), (MODEL, version), &onnx::mlp(64, 512, 10))?;
    }
    let settings = "version_policy: all\n";
    std::fs::write(repository.path().join(MODEL).join("model.yaml"), settings)?;
    let onward = Served::start(repository.path())?;
    let control = Control(onward.address());
    let input = json!({ "name": "x", "shape": [1, 64], "datatype": "FP32", "data": vec![0.5; 64] });
    let body = json!({ "inputs": [input] }).to_string();
    let target =
        load::post_json(onward.address(), &format!("/v2/models/{MODEL}/infer"), body.as_bytes());
    println!("{} rounds of two phases of {:?} each", options.rounds, options.duration);
    let mut worst = 0.0;
    for connections in CONCURRENCY {
        let ratio = rounds(control, &target, (connections, options)).await?;
        worst = f64::max(worst, ratio);
    }
    println!("the ratio of p99 should be {TARGET} at most");
    Ok(if worst <= TARGET { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the table for so many connections; the median ratio of the 99th percentiles.
async fn rounds(
    control: Control,
    target: &Target,
    (connections, options): (usize, &Options),
) -> Result<f64> {
    let (mut alone, mut shadowed) = (Vec::new(), Vec::new());
    let mut tally = (0, 0);
    for _ in 0..options.rounds {
        alone.push(load::run(target, connections, options.duration).await);
        control.shadow(MODEL, 1, 100.0).await?;
        shadowed.push(load::run(target, connections, options.duration).await);
        let (due, skipped) = control.unshadow(MODEL).await?;
        tally = (tally.0 + due, tally.1 + skipped);
    }
    let failures: u64 = alone.iter().chain(&shadowed).map(|sample| sample.failures).sum();
    ensure!(failures == 0, "{failures} requests failed");
    let rate = |samples: &[Sample]| median(samples.iter().map(Sample::rate));
    let of = |samples: &[Sample], share| median(samples.iter().map(|sample| micros(sample, share)));
    let ratio = |share| {
        let pairs = shadowed.iter().zip(&alone);
        median(pairs.map(|(with, without)| micros(with, share) / micros(without, share)))
    };
    println!("{connections} connections: per second, p50 us, p99 us");
    for (what, samples) in [("alone", &alone), ("with a shadow", &shadowed)] {
        println!(
            "  {what:<16}{:>10.0}{:>10.1}{:>10.1}",
            rate(samples),
            of(samples, 0.5),
            of(samples, 0.99)
        );
    }
    println!(
        "  {:<16}{:>10.3}{:>10.3}{:>10.3}",
        "ratio",
        rate(&shadowed) / rate(&alone),
        ratio(0.5),
        ratio(0.99)
    );
    println!("  copied {} of {} requests that were due", tally.0 - tally.1, tally.0);
    Ok(ratio(0.99))
}

fn micros(sample: &Sample, share: f64) -> f64 {
    sample.latencies.percentile(share).as_secs_f64() * 1e6
}
