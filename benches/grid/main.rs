//! How much of ONNX Runtime's speed is left behind the server: by model, protocol, number of
//! connections and batching.
//!
//! In one run, in turns: a plain loop over ONNX Runtime, an HTTP handler that computes nothing, and
//! the server, all with the same models and the same requests. A figure is the median over the rounds,
//! a ratio the median of each round's. Before anything is measured, the server has to answer what the
//! loop answers.
//!
//! `cargo bench --bench grid -- --models mlp --protocols json,grpc --connections 8 --rounds 5 --seconds 1`

#[path = "../body.rs"]
mod body;
mod cell;
#[path = "../direct.rs"]
mod direct;
#[path = "../floor.rs"]
mod floor;
#[path = "../grpc.rs"]
mod grpc;
#[path = "../input.rs"]
mod input;
#[path = "../load/mod.rs"]
mod load;
mod loops;
#[path = "../../tests/it/support/onnx.rs"]
mod onnx;
mod options;
#[path = "../process.rs"]
mod process;
#[path = "../report/mod.rs"]
mod report;
#[path = "../request.rs"]
mod request;
mod rounds;
#[path = "../served.rs"]
mod served;
mod stage;
mod summary;
mod targets;
#[path = "../zoo/mod.rs"]
mod zoo;

use std::process::ExitCode;

use anyhow::Result;
use options::Options;
use rounds::Rounds;
use stage::Stage;

fn main() -> Result<ExitCode> {
    let options = Options::read(std::env::args().skip(1))?;
    if options.floor {
        floor::serve()?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(compare(&options))
}

/// Fails when a request does, and when an answer is wrong. What is slow is only told.
async fn compare(options: &Options) -> Result<ExitCode> {
    let mut stage = Stage::set_up(options).await?;
    let mut rounds = Rounds::default();
    for _ in 0..options.rounds {
        rounds.add(&mut stage, options).await?;
    }
    let report = summary::report(&rounds, options, &stage.version);
    report.print();
    if let Some(path) = &options.json {
        report.write(path)?;
    }
    Ok(if report.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
