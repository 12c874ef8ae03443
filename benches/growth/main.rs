//! What grows with the number of models, of instances, of connections, and with the size of a request.
//! Linux only.
//!
//! `cargo bench --bench growth -- --rounds 3 --seconds 1`

#[path = "../bare.rs"]
mod bare;
#[path = "../body.rs"]
mod body;
mod connections;
#[path = "../direct.rs"]
mod direct;
#[path = "../floor.rs"]
mod floor;
#[path = "../input.rs"]
mod input;
mod instances;
#[path = "../load/mod.rs"]
mod load;
mod models;
#[path = "../../tests/it/support/onnx.rs"]
mod onnx;
#[path = "../options.rs"]
mod options;
mod payload;
#[path = "../process.rs"]
mod process;
#[path = "../report/mod.rs"]
mod report;
#[path = "../served.rs"]
mod served;
mod store;
#[path = "../zoo/mod.rs"]
mod zoo;

use std::process::ExitCode;

use anyhow::Result;
use options::Options;
use report::Report;

fn main() -> Result<ExitCode> {
    let defaults = Options { rounds: 3, ..Options::default() };
    let options = defaults.with(std::env::args().skip(1))?;
    match options.role.as_deref() {
        Some(bare::ROLE) => bare::hold(&options.terms)?,
        Some(floor::ROLE) => floor::serve()?,
        _ => return run(&options),
    }
    Ok(ExitCode::SUCCESS)
}

fn run(options: &Options) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(grown(options))?;
    report.print();
    options.json.as_deref().map_or(Ok(()), |path| report.write(path))?;
    Ok(if report.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One after the other.
async fn grown(options: &Options) -> Result<Report> {
    let mut report = Report {
        notes: vec![format!(
            "Rounds: {}, of {:?} a measurement, in turns where two are compared. Memory is resident, and the \
             tiny model is that of the grid.",
            options.rounds, options.duration
        )],
        ..Report::of("growth")
    };
    models::add(&mut report, options).await?;
    instances::add(&mut report)?;
    connections::add(&mut report, options).await?;
    payload::add(&mut report, options).await?;
    Ok(report)
}
