//! Medians over rounds, and the ratios between them.

use std::collections::BTreeMap;
use std::fmt;

use super::Sample;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    Direct { threads: usize },
    Handler { connections: usize },
    Server { connections: usize },
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct { threads } => write!(f, "ONNX Runtime loop, {threads} threads"),
            Self::Handler { connections } => write!(f, "empty handler, {connections} connections"),
            Self::Server { connections } => write!(f, "onward, {connections} connections"),
        }
    }
}

/// The rounds of one row.
#[derive(Debug, Default)]
struct Rounds {
    rates: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<Row, Rounds>,
    failures: u64,
}

impl Table {
    pub(crate) fn add(&mut self, row: Row, sample: &Sample) {
        let micros = |share| sample.latencies.percentile(share).as_secs_f64() * 1e6;
        let rounds = self.rows.entry(row).or_default();
        rounds.rates.push(sample.rate());
        rounds.p50_us.push(micros(0.5));
        rounds.p99_us.push(micros(0.99));
        self.failures += sample.failures;
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    /// Prints the rows. One connection is compared with one thread of the loop, more with as many
    /// threads as there are cores.
    pub(crate) fn print(&self, cores: usize) {
        let head = ["", "per second", "p50 us", "p99 us", "of the loop", "of the handler"];
        println!(
            "{:<30}{:>12}{:>10}{:>10}{:>13}{:>16}",
            head[0], head[1], head[2], head[3], head[4], head[5]
        );
        for (row, rounds) in &self.rows {
            let (direct, handler) = match *row {
                Row::Direct { .. } => (None, None),
                Row::Handler { connections } => (Some(connections), None),
                Row::Server { connections } => (Some(connections), Some(connections)),
            };
            let rate = median(&rounds.rates);
            let of = |other: Option<Row>| {
                let other = other.and_then(|other| self.rows.get(&other));
                other.map_or(String::new(), |other| format!("{:.3}", rate / median(&other.rates)))
            };
            let threads = |connections| if connections == 1 { 1 } else { cores };
            let direct = direct.map(|connections| Row::Direct { threads: threads(connections) });
            let handler = handler.map(|connections| Row::Handler { connections });
            println!(
                "{:<30}{:>12.0}{:>10.1}{:>10.1}{:>13}{:>16}",
                row.to_string(),
                rate,
                median(&rounds.p50_us),
                median(&rounds.p99_us),
                of(direct),
                of(handler),
            );
        }
        println!("failed requests: {}", self.failures);
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
