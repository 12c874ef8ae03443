//! What is left to others while a model computes half a second for each request and is never idle.
//!
//! In turns, a tiny model alone and the same while the slow one has more requests than it can answer; the
//! liveness probe is asked all the time. A figure is the median over the rounds. It fails where the tiny
//! model keeps less than 40% of its rate, or the probe's p99 is 20 ms or more, or a request fails.
//!
//! `cargo bench --bench starvation -- --rounds 5 --seconds 3`

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod load;
#[path = "../tests/it/support/onnx.rs"]
mod onnx;
mod options;
mod served;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use load::{Pace, Sample, Target, get, post_json};
use options::Options;
use serde_json::{Value, json};
use tokio::join;

/// Connections that ask the slow model, those that ask the tiny one, and those that ask the probe.
const SLOW: usize = 8;
const TINY: usize = 4;
const PROBES: u32 = 2;

/// Between two questions of a connection for the probe.
const PERIOD: Duration = Duration::from_millis(10);

/// Additions, of a bit less than a microsecond each.
const SLOW_ITERATIONS: i64 = 600_000;

/// What has to be kept.
const LEAST_RATE: f64 = 0.4;
const LARGEST_P99: Duration = Duration::from_millis(20);

/// One phase.
struct Seen {
    tiny: Sample,
    probe: Sample,
    slow: Option<Sample>,
}

struct Targets {
    tiny: Target,
    slow: Target,
    probe: Target,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let defaults = Options { duration: Duration::from_secs(3), ..Options::default() };
    let options = defaults.with(std::env::args().skip(1))?;
    let repository = tempfile::TempDir::new()?;
    put(repository.path(), "tiny", &onnx::mlp(64, 32, 10))?;
    put(repository.path(), "slow", &onnx::slow(SLOW_ITERATIONS))?;
    let server = served::Served::start(repository.path())?;
    let infer = |model: &str, shape: [usize; 2]| {
        let dims: Vec<usize> = shape.into_iter().filter(|size| *size > 0).collect();
        let data = vec![0.5; dims.iter().product()];
        let input = json!({ "name": "x", "shape": dims, "datatype": "FP32", "data": data });
        let body: Value = json!({ "inputs": [input] });
        let path = format!("/v2/models/{model}/infer");
        post_json(server.address(), &path, body.to_string().as_bytes())
    };
    let targets = Targets {
        tiny: infer("tiny", [1, 64]),
        slow: infer("slow", [1, 0]),
        probe: get(server.address(), "/livez"),
    };
    println!(
        "{:<24}{:>14}{:>14}{:>14}{:>12}",
        "", "tiny/s", "tiny p99 us", "livez p99 us", "slow/s"
    );
    let (mut rates, mut probes, mut failures) = (Vec::new(), Vec::new(), 0);
    for round in 0..options.rounds {
        let (mut alone, mut beside) = (None, None);
        for turn in [round % 2, 1 - round % 2] {
            let seen = phase(&targets, turn == 1, options.duration).await;
            print(&seen);
            failures += seen.tiny.failures + seen.probe.failures;
            failures += seen.slow.as_ref().map_or(0, |slow| slow.failures);
            *(if turn == 1 { &mut beside } else { &mut alone }) = Some(seen);
        }
        let (alone, beside) = alone.zip(beside).context("both phases were measured")?;
        rates.push(beside.tiny.rate() / alone.tiny.rate());
        probes.push(beside.probe.latencies.percentile(0.99).as_secs_f64());
    }
    let (rate, probe) = (median(&mut rates), median(&mut probes));
    println!("the tiny model keeps {rate:.3} of its rate; /livez p99 is {:.2} ms", probe * 1e3);
    println!("failed requests: {failures}");
    let kept = rate >= LEAST_RATE && probe < LARGEST_P99.as_secs_f64() && failures == 0;
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn put(repository: &Path, model: &str, graph: &[u8]) -> Result<()> {
    let folder = repository.join(model).join("1");
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join("model.onnx"), graph)?)
}

async fn phase(targets: &Targets, is_busy: bool, duration: Duration) -> Seen {
    let pace = Pace { period: PERIOD, at_once: false };
    let tiny = load::run(&targets.tiny, TINY, duration);
    let probe = load::run_paced(&targets.probe, (PROBES, pace), duration);
    let slow =
        async { if is_busy { Some(load::run(&targets.slow, SLOW, duration).await) } else { None } };
    let (tiny, probe, slow) = join!(tiny, probe, slow);
    Seen { tiny, probe, slow }
}

fn print(seen: &Seen) {
    let micros = |sample: &Sample| sample.latencies.percentile(0.99).as_secs_f64() * 1e6;
    let name = if seen.slow.is_some() { "beside the slow model" } else { "alone" };
    let slow = seen.slow.as_ref().map_or(0.0, Sample::rate);
    let (rate, tiny, probe) = (seen.tiny.rate(), micros(&seen.tiny), micros(&seen.probe));
    println!("{name:<24}{rate:>14.0}{tiny:>14.0}{probe:>14.0}{slow:>12.1}");
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
