//! How much of ONNX Runtime's speed is left behind the server's REST interface.
//!
//! In one run, in turns: a plain loop over ONNX Runtime, an HTTP handler that computes nothing, and
//! the server, all on the same model and the same request. A figure is the median over the rounds.
//!
//! `cargo bench --bench serve -- --rounds 5 --seconds 1`

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

mod direct;
mod floor;
mod load;
#[path = "../tests/it/support/onnx.rs"]
mod onnx;
mod options;
mod served;
mod table;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use load::Sample;
use options::Options;
use serde_json::{Value, json};
use table::{Row, Table};

/// Connections that ask at once.
const CONCURRENCY: [usize; 3] = [1, 8, 32];

/// The model's shape: small, so that the cost of serving shows.
const MODEL: (usize, usize, usize) = (64, 32, 10);

fn main() -> Result<ExitCode> {
    let options = Options::read(std::env::args().skip(1))?;
    if options.floor {
        floor::serve()?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(compare(&options))
}

async fn compare(options: &Options) -> Result<ExitCode> {
    let (inputs, hidden, outputs) = MODEL;
    let repository = tempfile::TempDir::new()?;
    let graph = repository.path().join("mlp/1/model.onnx");
    std::fs::create_dir_all(graph.parent().context("the graph has a folder")?)?;
    std::fs::write(&graph, onnx::mlp(inputs, hidden, outputs))?;
    let input: Vec<f32> = (0..64_u8).map(|i| f32::from(i) / 16.0 - 2.0).collect();
    let body = json!({ "inputs": [
        { "name": "x", "shape": [1, inputs], "datatype": "FP32", "data": input }
    ] });
    let body = body.to_string();
    let cores = std::thread::available_parallelism()?.get();
    let mut direct = direct::Direct::open(&graph, &input, cores)?;
    let onward = served::Served::start(repository.path())?;
    let floor = floor::Floor::start()?;
    check(&onward, &body, &direct.answer()?).await?;
    println!("{cores} cores, mlp{MODEL:?}, {} bytes of JSON a request", body.len());
    println!("{}{}", direct.library().display(), version_beside(direct.library()));
    println!("{} rounds of {:?} each, in turns", options.rounds, options.duration);

    let mut table = Table::default();
    let infer = load::post_json(onward.address(), "/v2/models/mlp/infer", body.as_bytes());
    let handler = load::post_json(floor.address(), "/", body.as_bytes());
    for round in 0..options.rounds {
        for threads in if cores == 1 { vec![1] } else { vec![1, cores] } {
            let sample = direct.measure(threads, options.duration)?;
            table.add(Row::Direct { threads }, &sample);
        }
        for connections in CONCURRENCY {
            let mut pair =
                [(Row::Handler { connections }, &handler), (Row::Server { connections }, &infer)];
            // Neither is always the one that comes after a rest.
            pair.rotate_left(round % 2);
            for (row, target) in pair {
                table.add(row, &load::run(target, connections, options.duration).await);
            }
        }
    }
    table.print(cores);
    Ok(if table.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What `make onnxruntime` noted of the library, if it was that which fetched it.
fn version_beside(library: &Path) -> String {
    let noted = std::fs::read_to_string(library.with_file_name("VERSION")).unwrap_or_default();
    noted.lines().next().map_or(String::new(), |line| format!(" ({line})"))
}

/// The server must compute what the loop computes, or there is nothing to compare.
async fn check(onward: &served::Served, body: &str, expected: &[f32]) -> Result<()> {
    let url = format!("http://{}/v2/models/mlp/infer", onward.address());
    // The client asks for one, though it speaks no TLS here.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer = client.post(url).body(body.to_owned()).send().await?.error_for_status()?;
    let answer: Value = answer.json().await?;
    let given: Vec<f32> = serde_json::from_value(answer["outputs"][0]["data"].clone())?;
    ensure!(given == expected, "the server answers {given:?}, the loop {expected:?}");
    Ok(())
}
