//! The report: a table and a plot for each model, targets, and the ratios that later runs are held to.

use super::cell::{By, Cell, Row};
use super::options::Options;
use super::report::{Plot, Report, Table, number};
use super::request::Protocol;
use super::rounds::Rounds;
use super::targets::{cpu, handler, p50, p99, rate, tail_of, targets};
use super::zoo::Model;

const COLUMNS: [&str; 10] = [
    "",
    "items/s",
    "p50 us",
    "p99 us",
    "p99/p50",
    "cpu us",
    "of the loop",
    "of the handler",
    "of that by axum",
    "failed",
];

pub(crate) fn report(rounds: &Rounds, options: &Options, version: &str) -> Report {
    Report {
        notes: notes(options, version),
        tables: options.models.iter().map(|&model| table(rounds, model)).collect(),
        plots: options.models.iter().map(|&model| plot(rounds, options, model)).collect(),
        targets: targets(rounds),
        ratios: ratios(rounds),
        failures: rounds.failures(),
        ..Report::of("grid")
    }
}

fn notes(options: &Options, version: &str) -> Vec<String> {
    let Options { rounds, duration, .. } = options;
    vec![
        format!("{version}; rounds: {rounds}, in turns; each figure is a median."),
        format!(
            "A measurement takes {duration:?} for the tiny model and three times that for the others. \
             Each request has one item, so that items are requests."
        ),
        "cpu is the processor's time of an item, of the process that answers: what other work on the machine \
         disturbs least."
            .to_owned(),
        "The client runs on the same cores, and what it costs counts. It makes nothing anew for a request, \
         over HTTP/1.1 and over gRPC alike."
            .to_owned(),
    ]
}

/// The rows of one model; those of the handler belong to the tiny one.
fn rows(rounds: &Rounds, model: Model) -> impl Iterator<Item = Row> + '_ {
    rounds.rows().filter(move |row| match row {
        Row::Direct(of, _) | Row::Server(Cell { model: of, .. }) => *of == model,
        Row::Handler(..) => model == Model::Mlp,
    })
}

fn table(rounds: &Rounds, model: Model) -> Table {
    let mut table = Table::new(model.name(), &COLUMNS);
    for row in rows(rounds, model) {
        let of =
            |other: Option<Row>| other.map_or(f64::NAN, |other| rounds.ratio(row, other, rate));
        table.row(vec![
            row.to_string(),
            number(rounds.median(row, rate), 0),
            number(rounds.median(row, p50), 0),
            number(rounds.median(row, p99), 0),
            number(rounds.median(row, tail_of), 2),
            number(rounds.median(row, cpu), 1),
            number(of(loop_beside(rounds, row)), 4),
            number(of(handler_beside(row, By::Us)), 3),
            number(of(handler_beside(row, By::Axum)), 3),
            rounds.failures_of(row).to_string(),
        ]);
    }
    table
}

/// What a row of the server is compared with.
fn loop_beside(rounds: &Rounds, row: Row) -> Option<Row> {
    let Row::Server(cell) = row else { return None };
    rounds.best(cell.model).map(|(_, row)| row)
}

fn handler_beside(row: Row, by: By) -> Option<Row> {
    match row {
        Row::Server(Cell { model: Model::Mlp, connections, protocol, .. }) => {
            Some(Row::Handler(by, handler(protocol), connections))
        }
        _ => None,
    }
}

/// By name, what the rate is of the best loop's and of the handler's; and what the processor's time of these is
/// of the server's, on which other work on the machine has less of a hold.
fn ratios(rounds: &Rounds) -> Vec<(String, f64)> {
    let cells = rounds.rows().filter_map(|row| match row {
        Row::Server(cell) => Some((row, cell.name())),
        _ => None,
    });
    let of = |(row, name): (Row, String)| {
        let handler = handler_beside(row, By::Us);
        let beside = [(loop_beside(rounds, row), "of the loop"), (handler, "of the handler")];
        let of = move |(other, what): (Option<Row>, &str)| {
            let other = other?;
            let name = format!("{name}: {what}");
            let times = (format!("{name}, time for time"), rounds.ratio(other, row, cpu));
            Some([(name, rounds.ratio(row, other, rate)), times])
        };
        beside.into_iter().filter_map(of).flatten().collect::<Vec<_>>()
    };
    cells.flat_map(of).collect()
}

/// The rate by protocol and connections, beside the loop and the handler.
fn plot(rounds: &Rounds, options: &Options, model: Model) -> Plot {
    let (batching, connections) = (options.batching[0], &options.connections);
    let line = |row: &dyn Fn(usize) -> Option<Row>| {
        let value = |row| Some(rounds.median(row, rate)).filter(|value| value.is_finite());
        connections.iter().map(|&connections| row(connections).and_then(value)).collect()
    };
    let mut series = Vec::new();
    for &protocol in &options.protocols {
        let row = |connections| Some(Row::Server(Cell { model, connections, batching, protocol }));
        series.push((protocol.name().to_owned(), line(&row)));
    }
    if model == Model::Mlp {
        let row = |by| move |connections| Some(Row::Handler(by, Protocol::Json, connections));
        series.push(("empty handler, json".to_owned(), line(&row(By::Us))));
        series.push(("the same by axum".to_owned(), line(&row(By::Axum))));
    } else {
        let row = |_| rounds.best(model).map(|(_, row)| row);
        series.push(("best loop".to_owned(), line(&row)));
    }
    let places = connections.iter().map(ToString::to_string).collect();
    let title = format!("{}: items a second by connections", model.name());
    Plot { name: format!("grid-{}", model.name()), title, unit: "items/s", places, series }
}
