//! Whether a health check that is stuck makes the probes slow.
//!
//! Three servers alike, but for one more check: none, one that blocks a thread of its own for ten
//! seconds again and again, and one that wrongly blocks a thread that serves. In turns each of them is
//! put under load, and asked for its probes meanwhile. A figure is the median over the rounds, but the
//! longest time, which is that of all rounds: a connection that shares a blocked thread waits for it.
//!
//! `cargo bench --bench probes -- --rounds 7 --seconds 2`

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod load;
#[path = "../tests/it/support/onnx.rs"]
mod onnx;
mod options;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use load::{Sample, get};
use onward::app::{App, Configuration};
use onward::config::Layers;
use onward::lifecycle::{Check, CheckKind, CheckResult, HealthRegistry, SignalSource};
use onward::onnx::{LibrarySearch, OnnxRuntime};
use onward::telemetry;
use options::Options;
use serde_json::json;
use tokio::time::sleep;

/// Connections that ask for inferences meanwhile.
const LOAD: usize = 8;

/// The check for stalls is left out: it is right to fail where a thread that serves is blocked.
const PROBES: [&str; 2] = ["/livez?exclude=runtime", "/readyz"];

/// Between two looks at a server that starts.
const LOOK: Duration = Duration::from_millis(20);

/// The check that one server has and the others do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stuck {
    Nothing,
    Blocking,
    Async,
}

impl Stuck {
    const ALL: [Self; 3] = [Self::Nothing, Self::Blocking, Self::Async];

    fn register(self, health: &HealthRegistry) {
        let (name, kind) = ("stuck", CheckKind::Readiness);
        let check = match self {
            Self::Nothing => return,
            Self::Blocking => Check::blocking(name, kind, hang),
            Self::Async => Check::new(name, kind, || async { hang() }),
        };
        let second = Duration::from_secs(1);
        health.register(check.interval(second).not_critical());
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "no check is stuck",
            Self::Blocking => "a blocking check is stuck",
            Self::Async => "an async check blocks",
        })
    }
}

#[expect(clippy::disallowed_methods, clippy::unnecessary_wraps, reason = "what is to be measured")]
fn hang() -> CheckResult {
    std::thread::sleep(Duration::from_secs(10));
    Ok(())
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let [word, stuck, repository, port_file] = arguments.as_slice()
        && word == "--serve"
    {
        let stuck = Stuck::ALL[stuck.parse::<usize>()?];
        runtime.block_on(serve(stuck, repository, port_file))?;
        return Ok(ExitCode::SUCCESS);
    }
    runtime.block_on(compare(&Options::read(arguments.into_iter())?))
}

async fn compare(options: &Options) -> Result<ExitCode> {
    let repository = tempfile::TempDir::new()?;
    let graph = repository.path().join("mlp/1/model.onnx");
    std::fs::create_dir_all(graph.parent().context("the graph has a folder")?)?;
    std::fs::write(&graph, onnx::mlp(64, 32, 10))?;
    let input = json!({ "name": "x", "shape": [1, 64], "datatype": "FP32", "data": vec![0.5; 64] });
    let body = json!({ "inputs": [input] }).to_string();
    let mut servers = Vec::new();
    for stuck in 0..Stuck::ALL.len() {
        servers.push(Server::start(repository.path(), stuck).await?);
    }
    let Options { rounds, duration, .. } = options;
    println!(
        "{rounds} rounds of {duration:?} each, in turns, beside {LOAD} connections that infer"
    );

    let mut table = Table::default();
    for round in 0..options.rounds {
        let mut turn = Stuck::ALL;
        // Nobody is always the first.
        turn.rotate_left(round % Stuck::ALL.len());
        for stuck in turn {
            let server = &servers[stuck as usize];
            let infer = load::post_json(server.address, "/v2/models/mlp/infer", body.as_bytes());
            let probes = PROBES.map(|path| get(server.address, path));
            let (load, live, ready) = tokio::join!(
                load::run(&infer, LOAD, options.duration),
                load::run(&probes[0], 1, options.duration),
                load::run(&probes[1], 1, options.duration),
            );
            table.add((PROBES[0], stuck), live);
            table.add((PROBES[1], stuck), ready);
            table.add(("inference", stuck), load);
        }
    }
    table.print();
    Ok(if table.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The server in a process of its own; killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    async fn start(repository: &Path, stuck: usize) -> Result<Self> {
        let port_file = repository.join(format!("port-{stuck}"));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--serve").arg(stuck.to_string()).arg(repository).arg(&port_file);
        let child = command.stderr(Stdio::null()).spawn().context("this program starts again")?;
        // From here on it is killed whatever fails.
        let mut server = Self { child, address: SocketAddr::from(([0; 4], 0)) };
        while !port_file.exists() {
            ensure!(server.child.try_wait()?.is_none(), "the server ended at once");
            sleep(LOOK).await;
        }
        server.address = std::fs::read_to_string(port_file)?.trim().parse()?;
        let ready = get(server.address, "/readyz");
        while load::run(&ready, 1, LOOK).await.requests == 0 {}
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Is one of the servers.
async fn serve(stuck: Stuck, repository: &str, port_file: &str) -> Result<()> {
    let settings = [
        ("server.listen", "127.0.0.1:0"),
        ("server.grpc_listen", "off"),
        ("server.port_file", port_file),
        ("models.repository", repository),
    ];
    let flags = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let layers = Layers { flags, ..Layers::default() };
    let effective = layers.read()?;
    let logs = telemetry::init(&effective.config().telemetry)?;
    let engine = OnnxRuntime::load(&LibrarySearch {
        working_directory: Some(PathBuf::from(env!("CARGO_MANIFEST_DIR"))),
        ..LibrarySearch::default()
    })?;
    let app = App::assemble(Configuration::new(layers, effective, logs), engine)?;
    stuck.register(app.health());
    app.run(SignalSource::of_process()?).await;
    Ok(())
}

/// Medians over rounds.
#[derive(Default)]
struct Table {
    rows: BTreeMap<(&'static str, Stuck), Vec<Sample>>,
    failures: u64,
}

impl Table {
    fn add(&mut self, row: (&'static str, Stuck), sample: Sample) {
        self.failures += sample.failures;
        self.rows.entry(row).or_default().push(sample);
    }

    fn print(&self) {
        let head = ["", "", "per second", "p50 us", "p99 us", "p99 of the first", "longest ms"];
        let [what, check, rate, p50, p99, ratio, longest] = head;
        println!("{what:<26}{check:<28}{rate:>12}{p50:>10}{p99:>10}{ratio:>18}{longest:>12}");
        for ((what, stuck), samples) in &self.rows {
            let micros = |samples: &[Sample], share| {
                let of = |sample: &Sample| sample.latencies.percentile(share).as_secs_f64() * 1e6;
                median(samples.iter().map(of).collect())
            };
            let rate = median(samples.iter().map(Sample::rate).collect());
            let p99 = micros(samples, 0.99);
            let ratio = p99 / micros(&self.rows[&(*what, Stuck::Nothing)], 0.99);
            let longest = samples.iter().map(|sample| sample.latencies.percentile(1.0)).max();
            println!(
                "{what:<26}{:<28}{rate:>12.0}{:>10.1}{p99:>10.1}{ratio:>18.3}{:>12}",
                stuck.to_string(),
                micros(samples, 0.5),
                longest.unwrap_or_default().as_millis()
            );
        }
        println!("failed requests: {}", self.failures);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
