//! Where the processor's time of a request for the tiny model goes, as `perf` sees it. Linux, with `perf`.
//!
//! The load runs twice: once to tell the time of a request, and once beside `perf`, whose samples
//! `scripts/stacks.py` reads.
//!
//! `cargo bench --bench profile -- --connections 8 --seconds 5 --json target/bench/profile.json`

mod body;
mod input;
mod load;
#[path = "../tests/it/support/onnx.rs"]
mod onnx;
mod options;
mod process;
mod report;
mod served;
mod zoo;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use body::Body;
use load::Sample;
use options::Options;
use report::{Report, Table, number};
use served::Served;
use tokio::task::spawn_blocking;
use zoo::Model;

/// Samples a second of each core; not a round number, so that they march in step with nothing.
const FREQUENCY: &str = "499";

/// Of each stack, 64 KB are looked at: futures are large.
const STACKS: &str = "dwarf,65528";

fn main() -> Result<ExitCode> {
    let defaults =
        Options { connections: 8, duration: Duration::from_secs(5), ..Options::default() };
    let options = defaults.with(std::env::args().skip(1))?;
    let json = options.json.clone().context("--json FILE says where to write to")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(profiled(&options, &json))?;
    report.print();
    report.write(&json)?;
    Ok(ExitCode::SUCCESS)
}

async fn profiled(options: &Options, json: &Path) -> Result<Report> {
    let repository = tempfile::TempDir::new()?;
    let graph = repository.path().join("mlp/1/model.onnx");
    std::fs::create_dir_all(graph.parent().context("the graph has a folder")?)?;
    std::fs::write(&graph, Model::Mlp.graph())?;
    let onward = Served::start(repository.path())?;
    let target =
        Body::json(&Model::Mlp.inputs(0, 1)).post(onward.address(), "/v2/models/mlp/infer");
    let load = || load::run(&target, options.connections, options.duration);

    let before = process::Time::of(onward.process())?;
    let sample = load().await;
    let after = process::Time::of(onward.process())?;
    let (process, duration, json) = (onward.process(), options.duration, json.to_owned());
    let recording = spawn_blocking(move || record(process, duration, &json));
    let (beside, recorded) = tokio::join!(load(), recording);
    recorded??;
    let table = table(&sample, after.since(before))?;
    let notes = format!(
        "The tiny model over JSON, {} connections: {} requests without perf beside them.",
        options.connections, sample.requests
    );
    let failures = sample.failures + beside.failures;
    Ok(Report { notes: vec![notes], tables: vec![table], failures, ..Report::of("profile") })
}

/// The server's own time for a request. The warm-up is in its time and not in its requests, and is short.
#[expect(clippy::cast_precision_loss, reason = "no run has 2^52 requests")]
fn table(sample: &Sample, time: process::Time) -> Result<Table> {
    ensure!(sample.requests > 0, "no request was answered");
    let each = |seconds: f64| number(seconds * 1e6 / sample.requests as f64, 1);
    let mut table = Table::new("Processor time of a request", &["", "us"]);
    table.row(vec!["in the program".to_owned(), each(time.user)]);
    table.row(vec!["in the kernel for it".to_owned(), each(time.system)]);
    Ok(table)
}

/// Samples the server, and leaves the stacks as text beside the report.
fn record(process: u32, duration: Duration, json: &Path) -> Result<()> {
    let data = json.with_extension("data");
    let seconds = (duration.as_secs_f64() * 0.8).to_string();
    let mut record = Command::new("perf");
    record.args(["record", "--quiet", "-F", FREQUENCY, "--call-graph", STACKS, "-p"]);
    record.arg(process.to_string()).arg("-o").arg(&data).args(["--", "sleep", &seconds]);
    done(&mut record)?;
    let stacks = std::fs::File::create(json.with_extension("stacks"))?;
    let mut script = Command::new("perf");
    script.args(["script", "--no-inline", "-F", "comm,ip,sym,dso", "-i"]).arg(&data);
    done(script.stdout(stacks).stderr(Stdio::null()))
}

fn done(command: &mut Command) -> Result<()> {
    let status = command.status().context("there is no perf")?;
    ensure!(status.success(), "perf has failed: {status}");
    Ok(())
}
