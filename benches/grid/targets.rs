//! What the server should reach, as ratios to what was measured beside it.

use super::cell::{Batching, By, Cell, Row};
use super::report::{Target, Wanted};
use super::request::Protocol;
use super::rounds::{Figures, Rounds};
use super::zoo::Model;

/// The targets of what was measured.
pub(crate) fn targets(rounds: &Rounds) -> Vec<Target> {
    let cells = rounds.rows().filter_map(|row| match row {
        Row::Server(cell) if cell.batching == Batching::Default => Some(cell),
        _ => None,
    });
    let targets = cells.flat_map(|cell| match (cell.model, cell.connections) {
        (Model::Mlp, connections) => tiny(rounds, cell, connections),
        (Model::Cnn, 8 | 32) => large(rounds, cell),
        (Model::Transformer, 8 | 32) => near_the_loop(rounds, cell, 1.6),
        _ => Vec::new(),
    });
    // What was left out of this run is not missed.
    targets.filter(|target| target.value.is_finite()).collect()
}

/// Beside a handler that computes nothing.
fn tiny(rounds: &Rounds, cell: Cell, connections: usize) -> Vec<Target> {
    let handler = Row::Handler(By::Us, handler(cell.protocol), connections);
    let ratio = |figure: fn(&Figures) -> f64| rounds.ratio(Row::Server(cell), handler, figure);
    let of_rate =
        |least| target(cell, "rate of the handler's", ratio(rate), Wanted::AtLeast(least));
    match (cell.protocol, connections) {
        (Protocol::Grpc, 8) => vec![of_rate(0.45)],
        (Protocol::Grpc, _) => Vec::new(),
        (_, 1) => vec![target(cell, "p50 of the handler's", ratio(p50), Wanted::AtMost(1.6))],
        (_, 8 | 32) => vec![
            of_rate(0.55),
            target(cell, "p99 of the handler's", ratio(p99), Wanted::AtMost(2.0)),
        ],
        _ => Vec::new(),
    }
}

/// An image as bytes should cost nothing, and as JSON not much.
fn large(rounds: &Rounds, cell: Cell) -> Vec<Target> {
    let binary = Row::Server(Cell { protocol: Protocol::Binary, ..cell });
    match cell.protocol {
        Protocol::Binary => near_the_loop(rounds, cell, 1.3),
        Protocol::Json => {
            let ratio = rounds.ratio(Row::Server(cell), binary, rate);
            vec![target(cell, "rate of that with bytes", ratio, Wanted::AtLeast(0.6))]
        }
        Protocol::Grpc => Vec::new(),
    }
}

fn near_the_loop(rounds: &Rounds, cell: Cell, tail: f64) -> Vec<Target> {
    let Some((_, best)) = rounds.best(cell.model) else { return Vec::new() };
    let row = Row::Server(cell);
    let ratio = rounds.ratio(row, best, rate);
    vec![
        target(cell, "rate of the best loop's", ratio, Wanted::AtLeast(0.97)),
        target(cell, "p99 of its p50", rounds.median(row, tail_of), Wanted::AtMost(tail)),
    ]
}

fn target(cell: Cell, what: &str, value: f64, wanted: Wanted) -> Target {
    Target { name: format!("{}: {what}", cell.name()), value, wanted }
}

/// gRPC is compared with the handler that takes the same bytes over HTTP.
pub(crate) const fn handler(protocol: Protocol) -> Protocol {
    match protocol {
        Protocol::Json => Protocol::Json,
        Protocol::Binary | Protocol::Grpc => Protocol::Binary,
    }
}

pub(crate) fn rate(figures: &Figures) -> f64 {
    figures.rate
}

pub(crate) fn p50(figures: &Figures) -> f64 {
    figures.p50_us
}

pub(crate) fn p99(figures: &Figures) -> f64 {
    figures.p99_us
}

pub(crate) fn cpu(figures: &Figures) -> f64 {
    figures.cpu_us
}

/// How much longer than usual the slowest take.
pub(crate) fn tail_of(figures: &Figures) -> f64 {
    figures.p99_us / figures.p50_us
}
