//! Whether swaps under load cost a request, an answer of the wrong version, or time.
//!
//! Two versions of one model add 1 and 2 to what they are given, so that an answer's numbers tell
//! which version computed them. In rounds: a loop over ONNX Runtime, the load without swaps, and the
//! same load while the two versions are swapped for each other, evenly spread. Every answer is judged.
//! A figure is the median over the rounds, but the longest time, which is that of all rounds.
//!
//! `cargo bench --bench swap -- --connections 64 --seconds 60 --swaps 200`

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod control;
mod direct;
mod input;
mod load;
#[path = "../tests/it/support/onnx.rs"]
mod onnx;
mod options;
mod served;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use control::{Control, median, put};
use direct::{Direct, Engine};
use input::{Data, Input, json_body};
use load::{Judge, Sample, Target};
use options::Options;
use serde::Deserialize;
use served::Served;
use tokio::time::sleep_until;

const MODEL: &str = "add";

/// The input is zeros, so that each output is the number that the version adds: its own.
const INPUT: [f32; 4] = [0.0; 4];

/// What answers before the first swap.
const FIRST: u32 = 1;

/// The version that answers once this many swaps are done.
fn version_after(swaps: u64) -> u32 {
    FIRST + u32::from(!swaps.is_multiple_of(2))
}

/// Judges answers while versions change.
///
/// `epoch` is twice the number of swaps that have returned, and one more while a swap is under way:
/// the swapper adds one right before it sends the swap, and one right after its answer came. So who
/// reads an even number before a request is sent, and the same number after the answer came, knows
/// that no swap began in between, and that the version of the last one must have answered. With any
/// other pair of numbers a swap may have been under way, and both versions are right.
///
/// All reads and writes are `SeqCst`: an addition is then seen by whoever reads later in the one order
/// that all threads agree on, and a swap's first addition stands before all that its request causes.
#[derive(Debug, Default)]
struct Verdicts {
    epoch: AtomicU64,
    /// Answers that were looked at.
    judged: AtomicU64,
    /// Those of them for which one version alone was right.
    bound: AtomicU64,
    /// Answers of the old version to requests that were sent after a swap had returned.
    stale: AtomicU64,
    /// Answers whose numbers are not those of the version that they name, and unreadable ones.
    mixed: AtomicU64,
}

#[derive(Deserialize)]
struct Answer<'a> {
    model_version: &'a str,
    outputs: [Output; 1],
}

#[derive(Deserialize)]
struct Output {
    data: [f64; INPUT.len()],
}

/// The version that an answer is of, if its numbers and its name agree.
fn version_of(body: &[u8]) -> Option<u32> {
    let Answer { model_version, outputs: [Output { data }] } = serde_json::from_slice(body).ok()?;
    let version: u32 = model_version.parse().ok()?;
    let is_known = [version_after(0), version_after(1)].contains(&version);
    #[expect(clippy::float_cmp, reason = "small whole numbers are exact")]
    let agrees = data == [f64::from(version); INPUT.len()];
    (is_known && agrees).then_some(version)
}

impl Judge for Verdicts {
    fn sends(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    fn answered(&self, sent: u64, body: &[u8]) {
        let received = self.epoch.load(Ordering::SeqCst);
        self.judged.fetch_add(1, Ordering::SeqCst);
        let Some(version) = version_of(body) else {
            self.mixed.fetch_add(1, Ordering::SeqCst);
            return;
        };
        if sent == received && sent.is_multiple_of(2) {
            self.bound.fetch_add(1, Ordering::SeqCst);
            if version != version_after(sent / 2) {
                self.stale.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// Swaps one version for the other, and tells the judge.
struct Swapper {
    control: Control,
    verdicts: Arc<Verdicts>,
    done: u64,
    /// Of each swap, until it had returned.
    took: Vec<Duration>,
}

impl Swapper {
    /// Swaps `count` times, evenly spread over `duration`; late ones follow at once, unless `duration`
    /// is over.
    async fn swap(&mut self, count: u32, duration: Duration) -> Result<()> {
        let started = Instant::now();
        let apart = duration / count.max(1);
        for index in 0..count {
            let due = started + apart * index + apart / 2;
            sleep_until(due.into()).await;
            if started.elapsed() >= duration {
                break;
            }
            let began = Instant::now();
            self.verdicts.epoch.fetch_add(1, Ordering::SeqCst);
            self.control.swap(MODEL, version_after(self.done + 1)).await?;
            self.verdicts.epoch.fetch_add(1, Ordering::SeqCst);
            self.took.push(began.elapsed());
            self.done += 1;
        }
        Ok(())
    }
}

fn main() -> Result<ExitCode> {
    let defaults = Options { duration: Duration::from_mins(1), ..Options::default() };
    let options = defaults.with(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(compare(&options))
}

async fn compare(options: &Options) -> Result<ExitCode> {
    let repository = tempfile::TempDir::new()?;
    put(repository.path(), (MODEL, 1), &onnx::add_constant(1.0))?;
    put(repository.path(), (MODEL, 2), &onnx::add_constant(2.0))?;
    let settings = repository.path().join(MODEL).join("model.yaml");
    std::fs::write(settings, format!("version_policy: {{ specific: [{FIRST}] }}\n"))?;
    let cores = std::thread::available_parallelism()?.get();
    let graph = repository.path().join(MODEL).join("1/model.onnx");
    let mut direct = Direct::open(&Engine::start()?, &graph, (cores, 1))?;
    let onward = Served::start(repository.path())?;
    let inputs = [Input { name: "x", shape: vec![1, 4], data: Data::Floats(INPUT.to_vec()) }];
    let path = format!("/v2/models/{MODEL}/infer");
    let target = load::post_json(onward.address(), &path, &json_body(&inputs));
    let Options { rounds, duration, connections, swaps, .. } = options;
    println!("{cores} cores, {connections} connections, {rounds} rounds in turns, in all:");
    println!("{duration:?} with {swaps} swaps, and a third of that without");

    let mut table = Table::default();
    let verdicts = Arc::<Verdicts>::default();
    let control = Control(onward.address());
    let mut swapper =
        Swapper { control, verdicts: Arc::clone(&verdicts), done: 0, took: Vec::new() };
    for round in 0..u32::try_from(*rounds)? {
        table.direct.push(direct.measure(&inputs, cores, Duration::from_secs(1))?);
        measure((round, options), &target, &mut swapper, &mut table).await?;
    }
    table.print(&verdicts, &swapper);
    Ok(if table.wrong(&verdicts) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One round: without swaps, then with its share of them.
async fn measure(
    (round, options): (u32, &Options),
    target: &Target,
    swapper: &mut Swapper,
    table: &mut Table,
) -> Result<()> {
    let rounds = u32::try_from(options.rounds)?;
    let duration = options.duration / rounds;
    let swaps = options.swaps * (round + 1) / rounds - options.swaps * round / rounds;
    let judge: Arc<dyn Judge> = Arc::<Verdicts>::clone(&swapper.verdicts);
    let connections = options.connections;
    table.quiet.push(load::run_judged(target, connections, duration / 3, &judge).await);
    let load = load::run_judged(target, connections, duration, &judge);
    let (sample, done) = tokio::join!(load, swapper.swap(swaps, duration));
    table.swapping.push(sample);
    done
}

#[derive(Default)]
struct Table {
    direct: Vec<Sample>,
    quiet: Vec<Sample>,
    swapping: Vec<Sample>,
}

impl Table {
    /// Requests that were not answered, or wrongly.
    fn wrong(&self, verdicts: &Verdicts) -> u64 {
        self.failed() + of(&verdicts.stale) + of(&verdicts.mixed)
    }

    fn failed(&self) -> u64 {
        self.quiet.iter().chain(&self.swapping).map(|sample| sample.failures).sum()
    }

    fn print(&self, verdicts: &Verdicts, swapper: &Swapper) {
        let [what, rate, p50, p99, longest] = ["", "per second", "p50 us", "p99 us", "longest ms"];
        println!("{what:<26}{rate:>12}{:>13}{p50:>10}{p99:>10}{longest:>12}", "of the loop");
        self.print_row("ONNX Runtime loop", &self.direct);
        self.print_row("without swaps", &self.quiet);
        self.print_row("with swaps", &self.swapping);
        let ratio = |of: &dyn Fn(&Sample) -> f64| {
            let pairs = self.swapping.iter().zip(&self.quiet);
            median(pairs.map(|(swapping, quiet)| of(swapping) / of(quiet)))
        };
        println!(
            "{:<26}{:>12.3}{:>13}{:>10.3}{:>10.3}{:>12.3}",
            "with / without, by round",
            ratio(&Sample::rate),
            "",
            ratio(&|sample| micros(sample, 0.5)),
            ratio(&|sample| micros(sample, 0.99)),
            ratio(&|sample| micros(sample, 1.0)),
        );
        let seconds: f64 = self.swapping.iter().map(|sample| sample.elapsed.as_secs_f64()).sum();
        let took = swapper.took.iter().map(|took| took.as_secs_f64() * 1e3);
        let swaps = u32::try_from(swapper.done).map_or(f64::NAN, f64::from);
        println!("swaps: {swaps}, {:.2} a second, {:.1} ms each", swaps / seconds, median(took));
        println!(
            "answers judged: {}, of which one version alone was right for {}",
            of(&verdicts.judged),
            of(&verdicts.bound)
        );
        let (stale, mixed) = (of(&verdicts.stale), of(&verdicts.mixed));
        println!("failed: {}, stale: {stale}, mixed: {mixed}", self.failed());
    }

    fn print_row(&self, what: &str, samples: &[Sample]) {
        let rate = median(samples.iter().map(Sample::rate));
        let longest = samples.iter().map(|sample| micros(sample, 1.0) / 1e3).fold(0.0, f64::max);
        println!(
            "{what:<26}{rate:>12.0}{:>13.3}{:>10.1}{:>10.1}{longest:>12.1}",
            rate / median(self.direct.iter().map(Sample::rate)),
            median(samples.iter().map(|sample| micros(sample, 0.5))),
            median(samples.iter().map(|sample| micros(sample, 0.99))),
        );
    }
}

fn micros(sample: &Sample, share: f64) -> f64 {
    sample.latencies.percentile(share).as_secs_f64() * 1e6
}

fn of(count: &AtomicU64) -> u64 {
    count.load(Ordering::SeqCst)
}
