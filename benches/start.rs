//! How long it takes from the start of the process until the sample models are ready, and until the first
//! answer; and what of memory the server takes that ONNX Runtime alone does not. Linux only.
//!
//! The files are in the system's cache: one start before the others sees to that.
//!
//! `cargo bench --bench start -- --rounds 20`

mod bare;
mod direct;
mod input;
mod load;
mod options;
mod process;
mod report;
mod served;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use bare::Bare;
use options::Options;
use process::Memory;
use report::{Report, Table, Target, Wanted, median, number};
use served::Served;

/// The sample models, and a request for one of them.
const MODELS: &str = "models";
const SAMPLE: &str = "models/digits/samples/digit-7.json";
const PATH: &str = "/v2/models/digits/infer";

/// What a start should take at most, in milliseconds.
const SOON: f64 = 300.0;

/// What the server may take beyond ONNX Runtime alone, in megabytes.
const LITTLE: f64 = 25.0;

fn main() -> Result<ExitCode> {
    let defaults = Options { rounds: 20, ..Options::default() };
    let options = defaults.with(std::env::args().skip(1))?;
    if options.role.as_deref() == Some(bare::ROLE) {
        bare::hold(&options.terms)?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(measured(&options))?;
    report.print();
    options.json.as_deref().map_or(Ok(()), |path| report.write(path))?;
    Ok(ExitCode::SUCCESS)
}

async fn measured(options: &Options) -> Result<Report> {
    let mut starts = Vec::new();
    for _ in 0..=options.rounds {
        starts.push(Start::once().await?);
    }
    let starts = &starts[1..];
    let memory = Footprint::measured()?;
    Ok(Report {
        notes: vec![format!(
            "Starts: {}, with the files in the system's cache; the server has the sample models digits, \
             language and wine. Memory is resident, after the start.",
            starts.len()
        )],
        tables: vec![of_starts(starts), memory.table()],
        targets: targets(starts, &memory),
        ratios: vec![("memory of ONNX Runtime alone, of the server's".into(), memory.ratio())],
        ..Report::of("start")
    })
}

/// From the start of the process, in milliseconds.
struct Start {
    ready: f64,
    answered: f64,
}

impl Start {
    async fn once() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let body = std::fs::read(root.join(SAMPLE))?;
        let began = Instant::now();
        let millis = || began.elapsed().as_secs_f64() * 1e3;
        let onward = Served::start(&root.join(MODELS))?;
        let ready = millis();
        let (status, _) = load::ask(&load::post_json(onward.address(), PATH, &body)).await?;
        ensure!(status == 200, "the first answer has status {status}");
        Ok(Self { ready, answered: millis() })
    }
}

fn of_starts(starts: &[Start]) -> Table {
    let mut table = Table::new("Start", &["", "median ms", "fastest ms", "slowest ms"]);
    let ready: Vec<f64> = starts.iter().map(|start| start.ready).collect();
    let answered: Vec<f64> = starts.iter().map(|start| start.answered).collect();
    for (name, times) in [("ready", ready), ("first answer", answered)] {
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let most = times.iter().copied().fold(0.0, f64::max);
        let cells = [median(times.iter().copied()), least, most].map(|value| number(value, 1));
        table.row([&[name.to_owned()], &cells[..]].concat());
    }
    table
}

/// Resident memory, in megabytes.
struct Footprint {
    server: Memory,
    alone: Memory,
}

impl Footprint {
    fn measured() -> Result<Self> {
        let empty = tempfile::TempDir::new()?;
        let onward = Served::start(empty.path())?;
        let bare = Bare::start(0, empty.path())?;
        Ok(Self { server: Memory::of(onward.process())?, alone: Memory::of(bare.process())? })
    }

    fn ratio(&self) -> f64 {
        self.alone.resident / self.server.resident
    }

    fn table(&self) -> Table {
        let mut table = Table::new("Memory", &["", "resident MB", "of it not of files MB"]);
        for (name, memory) in [
            ("the server, no model", self.server),
            ("ONNX Runtime and its environment", self.alone),
        ] {
            let cells = [memory.resident, memory.anonymous].map(|value| number(value, 1));
            table.row([&[name.to_owned()], &cells[..]].concat());
        }
        table
    }
}

fn targets(starts: &[Start], memory: &Footprint) -> Vec<Target> {
    let target = |name: &str, value, most| Target {
        name: name.to_owned(),
        value,
        wanted: Wanted::AtMost(most),
    };
    let more = memory.server.resident - memory.alone.resident;
    vec![
        target("ready, ms", median(starts.iter().map(|start| start.ready)), SOON),
        target("first answer, ms", median(starts.iter().map(|start| start.answered)), SOON),
        target("memory beyond ONNX Runtime's, MB", more, LITTLE),
    ]
}
