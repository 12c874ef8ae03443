//! Bodies of 1 KB to 64 MB, as JSON and as bytes, whose numbers the model adds up: beside the empty handler,
//! which reads the same bodies to their end.

use std::net::SocketAddr;

use anyhow::Result;

use super::body::Body;
use super::floor::Floor;
use super::input::{Data, Input};
use super::load::{self, Sample, Target};
use super::onnx::{Attribute, Dim, Elem, Graph, Node};
use super::options::Options;
use super::report::{Plot, Report, Table, median, number};
use super::served::Served;
use super::store::{Store, path};

/// Numbers of four bytes each: 1 KB, 16 KB, 256 KB, 4 MB and 64 MB.
const NUMBERS: [usize; 5] = [250, 4_000, 64_000, 1_000_000, 16_000_000];

/// A number as JSON has about three times the bytes.
const OF_JSON: usize = 3;

/// One for each of two cores.
const CONNECTIONS: usize = 2;

/// Bodies of one length.
struct Step {
    name: String,
    bytes: usize,
    server: Target,
    handler: Target,
    pairs: Vec<(Sample, Sample)>,
}

impl Step {
    fn of(name: &str, body: &Body, (server, handler): (SocketAddr, SocketAddr)) -> Self {
        Self {
            name: name.to_owned(),
            bytes: body.length(),
            server: body.post(server, &path()),
            handler: body.post(handler, "/binary"),
            pairs: Vec::new(),
        }
    }

    async fn measure(&mut self, options: &Options) {
        let server = load::run(&self.server, CONNECTIONS, options.duration).await;
        let handler = load::run(&self.handler, CONNECTIONS, options.duration).await;
        self.pairs.push((server, handler));
    }

    fn rate(&self) -> f64 {
        median(self.pairs.iter().map(|(server, _)| server.rate()))
    }

    fn ratio(&self) -> f64 {
        median(self.pairs.iter().map(|(server, handler)| server.rate() / handler.rate()))
    }

    /// In 10^6 bytes a second.
    #[expect(clippy::cast_precision_loss, reason = "no body has 2^52 bytes")]
    fn throughput(&self) -> f64 {
        self.rate() * self.bytes as f64 / 1e6
    }

    fn failures(&self) -> u64 {
        self.pairs.iter().map(|(server, handler)| server.failures + handler.failures).sum()
    }
}

pub(crate) async fn add(report: &mut Report, options: &Options) -> Result<()> {
    let store = Store::of(&sum(), (1, ""))?;
    let (onward, floor) = (store.serve()?, Floor::start()?);
    let mut steps = steps(&onward, &floor);
    for _ in 0..options.rounds {
        for step in &mut steps {
            step.measure(options).await;
        }
    }
    report.failures += steps.iter().map(Step::failures).sum::<u64>();
    report.tables.push(table(&steps));
    report.plots.push(plot(&steps));
    for step in &steps {
        let name = format!("{}, {} bytes: of the handler", step.name, step.bytes);
        report.ratios.push((name, step.ratio()));
    }
    Ok(())
}

fn steps(onward: &Served, floor: &Floor) -> Vec<Step> {
    let addresses = (onward.address(), floor.address());
    let binary = NUMBERS.map(|count| Step::of("binary", &Body::binary(&[row(count)]), addresses));
    let json =
        NUMBERS.map(|count| Step::of("json", &Body::json(&[row(count / OF_JSON)]), addresses));
    binary.into_iter().chain(json).collect()
}

/// `x` FP32 `[batch, length]` -> `y` FP32 `[batch, 1]`, the mean of each row.
fn sum() -> Vec<u8> {
    let batch = Dim::Symbolic("batch");
    let over = Attribute::Ints(vec![1]);
    Graph::new("mean")
        .input("x", Elem::Float, &[batch, Dim::Symbolic("length")])
        .output("y", Elem::Float, &[batch, Dim::Fixed(1)])
        .node(&Node::new("ReduceMean", &["x"], &["y"]).attribute("axes", &over))
        .into_model()
}

/// Numbers with as many digits as such numbers have.
fn row(length: usize) -> Input {
    let data = (0_u16..).step_by(7919).map(|number| f32::from(number) / 65_537.0);
    let data = data.take(8).collect::<Vec<_>>().into_iter().cycle().take(length).collect();
    Input { name: "x", shape: vec![1, length], data: Data::Floats(data) }
}

fn table(steps: &[Step]) -> Table {
    let columns = ["body", "bytes", "requests/s", "MB/s", "of the handler", "failed"];
    let mut table = Table::new("Size of a request", &columns);
    for step in steps {
        table.row(vec![
            step.name.clone(),
            step.bytes.to_string(),
            number(step.rate(), 1),
            number(step.throughput(), 0),
            number(step.ratio(), 3),
            step.failures().to_string(),
        ]);
    }
    table
}

fn plot(steps: &[Step]) -> Plot {
    let (binary, json) = steps.split_at(NUMBERS.len());
    let line = |steps: &[Step]| steps.iter().map(|step| Some(step.throughput())).collect();
    Plot {
        name: "growth-payload".to_owned(),
        title: "bytes of a request, read and added up".to_owned(),
        unit: "MB/s",
        places: ["1 KB", "16 KB", "256 KB", "4 MB", "64 MB"].map(str::to_owned).into(),
        series: vec![("binary".to_owned(), line(binary)), ("json".to_owned(), line(json))],
    }
}
