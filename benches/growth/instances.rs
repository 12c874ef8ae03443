//! 1 to 4 instances of a model with 90 MB of weights: what another one takes.

use anyhow::Result;

use super::process::Memory;
use super::report::{Report, Table, number};
use super::store::Store;
use super::zoo::Model;

const COUNTS: [usize; 3] = [1, 2, 4];

pub(crate) fn add(report: &mut Report) -> Result<()> {
    let mut table =
        Table::new("Instances", &["transformer", "file MB", "server MB", "each more MB"]);
    let graph = Model::Transformer.graph();
    let mut first = None;
    for count in COUNTS {
        let resident = resident(&graph, count)?;
        let (of, before) = *first.get_or_insert((count, resident));
        table.row(vec![
            format!("{count} instances"),
            number(megabytes(graph.len()), 1),
            number(resident, 1),
            number((resident - before) / difference(count, of), 1),
        ]);
    }
    report.tables.push(table);
    Ok(())
}

fn resident(graph: &[u8], instances: usize) -> Result<f64> {
    let store = Store::of(graph, (1, &format!("instances: {instances}\n")))?;
    let onward = store.serve()?;
    Ok(Memory::of(onward.process())?.resident)
}

#[expect(clippy::cast_precision_loss, reason = "no file has 2^52 bytes")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "there are few instances")]
fn difference(count: usize, before: usize) -> f64 {
    (count - before) as f64
}
