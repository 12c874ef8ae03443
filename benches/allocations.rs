//! How often the server allocates memory for one request, and how much, beside the empty handler.
//!
//! Both are processes of this program, whose allocator counts; the server is the library's, put together as
//! the program `onward` does. What ONNX Runtime itself takes is not counted.
//!
//! `cargo bench --bench allocations`

mod body;
mod counting;
mod direct;
mod floor;
mod grpc;
mod input;
mod load;
#[path = "../tests/it/support/onnx.rs"]
mod onnx;
mod options;
mod report;
mod request;
mod served;
mod zoo;

use std::io::BufReader;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};
use counting::Counter;
use floor::Floor;
use onward::app::{App, Configuration};
use onward::config::Layers;
use onward::lifecycle::SignalSource;
use onward::onnx::{LibrarySearch, OnnxRuntime};
use options::Options;
use report::{Report, Table, number};
use request::{Client, Protocol};
use served::Served;
use zoo::Model;

/// The argument that makes this program a server.
const ROLE: &str = "--counted";

/// Requests before the count and in it, of a model that is quick and of one that is not.
const REQUESTS: [(Model, u32); 2] = [(Model::Mlp, 2000), (Model::Cnn, 20)];

fn main() -> Result<ExitCode> {
    let options = Options::read(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match options.role.as_deref() {
        Some(floor::ROLE) => {
            counting::tell();
            floor::serve()?;
        }
        Some(ROLE) => {
            counting::tell();
            runtime.block_on(serve(&options.terms))?;
        }
        _ => {
            let report = runtime.block_on(counted())?;
            report.print();
            options.json.as_deref().map_or(Ok(()), |path| report.write(path))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// As `main` of the program does, until it is killed.
async fn serve(flags: &[String]) -> Result<()> {
    let flag = |pair: &[String]| (pair[0].trim_start_matches('-').to_owned(), pair[1].clone());
    let flags = flags.chunks_exact(2).map(flag).collect();
    let layers = Layers { flags, ..Layers::default() };
    let effective = layers.read()?;
    let logs = onward::telemetry::init(&effective.config().telemetry)?;
    let signals = SignalSource::of_process()?;
    let search = LibrarySearch {
        working_directory: Some(PathBuf::from(env!("CARGO_MANIFEST_DIR"))),
        ..LibrarySearch::default()
    };
    let configuration = Configuration::new(layers, effective, logs);
    let app = App::assemble(configuration, OnnxRuntime::load(&search)?)?;
    app.run(signals).await;
    Ok(())
}

/// What one request costs.
struct Cost {
    name: String,
    allocations: f64,
    bytes: f64,
}

impl Cost {
    async fn of(
        name: String,
        client: &Client,
        (counter, requests): (&mut Counter, u32),
    ) -> Result<Self> {
        client.repeat(requests).await?;
        let before = counter.counts()?;
        client.repeat(requests).await?;
        let after = counter.counts()?;
        #[expect(clippy::cast_precision_loss, reason = "no run allocates 2^52 bytes")]
        let each = |before: u64, after: u64| (after - before) as f64 / f64::from(requests);
        let allocations = each(before.allocations, after.allocations);
        Ok(Self { name, allocations, bytes: each(before.bytes, after.bytes) })
    }
}

async fn counted() -> Result<Report> {
    let repository = tempfile::TempDir::new()?;
    for (model, _) in REQUESTS {
        let graph = repository.path().join(model.name()).join("1/model.onnx");
        std::fs::create_dir_all(graph.parent().context("it has a folder")?)?;
        std::fs::write(graph, model.graph())?;
    }
    let program = std::env::current_exe()?;
    let words = [program.to_str().context("its path is text")?, ROLE];
    let mut command = served::command(&words, repository.path());
    command.args(["--server.grpc_listen", "127.0.0.1:0"]);
    let mut onward = Served::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let handler = of_handler().await?;
    let server = of_server(&mut onward).await?;
    Ok(report(&handler, &server))
}

async fn of_handler() -> Result<Vec<Cost>> {
    let mut floor = Floor::start()?;
    let (ask, said) = floor.pipes().context("it has pipes")?;
    let mut counter = Counter { ask, said };
    let mut costs = Vec::new();
    let (model, requests) = REQUESTS[0];
    for (protocol, path) in [(Protocol::Json, "/"), (Protocol::Binary, "/binary")] {
        let target = request::http(protocol, (floor.address(), path), &model.inputs(0, 1));
        let name = format!("empty handler, {}", protocol.name());
        costs.push(Cost::of(name, &Client::Http(target), (&mut counter, requests)).await?);
    }
    Ok(costs)
}

async fn of_server(onward: &mut Served) -> Result<Vec<Cost>> {
    let (ask, said) = onward.pipes().context("it has pipes")?;
    let mut counter = Counter { ask, said: BufReader::new(said) };
    let mut costs = Vec::new();
    for (model, requests) in REQUESTS {
        for protocol in Protocol::ALL {
            let client = client(onward, model, protocol)?;
            let name = format!("{}, {}", model.name(), protocol.name());
            costs.push(Cost::of(name, &client, (&mut counter, requests)).await?);
        }
    }
    Ok(costs)
}

fn client(onward: &Served, model: Model, protocol: Protocol) -> Result<Client> {
    let (name, inputs) = (model.name(), model.inputs(0, 1));
    if protocol == Protocol::Grpc {
        let address = onward.grpc_address().context("it speaks gRPC")?;
        return Ok(Client::Grpc(request::grpc(address, name, &inputs)?));
    }
    let path = format!("/v2/models/{name}/infer");
    Ok(Client::Http(request::http(protocol, (onward.address(), &path), &inputs)))
}

fn report(handler: &[Cost], server: &[Cost]) -> Report {
    let mut table = Table::new("A request", &["", "allocations", "bytes"]);
    for Cost { name, allocations, bytes } in handler.iter().chain(server) {
        table.row(vec![name.clone(), number(*allocations, 1), number(*bytes, 0)]);
    }
    let ratio = |cost: &Cost| {
        let name = format!("{}: allocations of the handler, of the server's", cost.name);
        (name, handler[0].allocations / cost.allocations)
    };
    let notes = "Requests one after the other on one connection; every allocation of the process is counted, \
                 but for those of ONNX Runtime, which has its memory from the C library.";
    Report {
        notes: vec![notes.to_owned()],
        tables: vec![table],
        ratios: server.iter().map(ratio).collect(),
        ..Report::of("allocations")
    }
}
