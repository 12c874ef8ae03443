//! What a benchmark has found: tables, targets, and ratios that a later run is held to; printed, and
//! written as JSON for `scripts/performance.py`.

#![allow(dead_code, reason = "each benchmark takes its pick")]

mod machine;
mod table;

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

#[allow(unused_imports, reason = "each benchmark takes its pick")]
pub(crate) use table::{Table, median, number};

/// All that one benchmark has found.
#[derive(Default)]
pub(crate) struct Report {
    /// The benchmark's name.
    pub(crate) bench: &'static str,
    /// What a reader of the figures has to know, in sentences.
    pub(crate) notes: Vec<String>,
    pub(crate) tables: Vec<Table>,
    pub(crate) plots: Vec<Plot>,
    pub(crate) targets: Vec<Target>,
    /// Names with what they were, the more the better.
    pub(crate) ratios: Vec<(String, f64)>,
    /// Requests that failed.
    pub(crate) failures: u64,
}

/// Groups of bars, or lines where the places are numbers.
pub(crate) struct Plot {
    pub(crate) name: String,
    pub(crate) title: String,
    /// Of the values.
    pub(crate) unit: &'static str,
    /// What stands below the values, in order.
    pub(crate) places: Vec<String>,
    /// Each with a value for every place, or none.
    pub(crate) series: Vec<(String, Vec<Option<f64>>)>,
}

/// What a figure should be.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) wanted: Wanted,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    /// One that could not be measured is missed.
    fn is_reached(&self) -> bool {
        match self.wanted {
            Wanted::AtLeast(bound) => self.value >= bound,
            Wanted::AtMost(bound) => self.value <= bound,
        }
    }

    fn cells(&self) -> Vec<String> {
        let (word, bound) = match self.wanted {
            Wanted::AtLeast(bound) => ("at least", bound),
            Wanted::AtMost(bound) => ("at most", bound),
        };
        let verdict = if self.is_reached() { "reached" } else { "missed" };
        vec![
            self.name.clone(),
            format!("{word} {bound}"),
            format!("{:.2}", self.value),
            verdict.to_owned(),
        ]
    }
}

impl Report {
    pub(crate) fn of(bench: &'static str) -> Self {
        Self { bench, ..Self::default() }
    }

    /// To standard output.
    #[expect(clippy::print_stdout, reason = "a benchmark prints its tables")]
    pub(crate) fn print(&self) {
        for note in &self.notes {
            println!("{note}");
        }
        for table in self.all_tables() {
            println!("\n{table}");
        }
        println!("failed requests: {}", self.failures);
    }

    /// To a file, for the script.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(std::fs::write(path, format!("{:#}\n", self.to_json()?))?)
    }

    /// The targets as one more table, if there are any.
    fn all_tables(&self) -> Vec<Table> {
        let mut tables = self.tables.clone();
        if !self.targets.is_empty() {
            let mut table = Table::new("Targets", &["figure", "wanted", "measured", ""]);
            self.targets.iter().for_each(|target| table.row(target.cells()));
            tables.push(table);
        }
        tables
    }

    fn to_json(&self) -> Result<Value> {
        let ratios = self.ratios.iter().filter(|(_, value)| value.is_finite());
        let ratios: serde_json::Map<String, Value> =
            ratios.map(|(name, value)| (name.clone(), json!(value))).collect();
        Ok(json!({
            "bench": self.bench,
            "taken": machine::now()?,
            "machine": machine::described(),
            "command": machine::command(self.bench),
            "notes": self.notes,
            "tables": self.all_tables().iter().map(Table::to_json).collect::<Vec<_>>(),
            "plots": self.plots.iter().map(Plot::to_json).collect::<Vec<_>>(),
            "ratios": ratios,
            "failures": self.failures,
        }))
    }
}

impl Plot {
    fn to_json(&self) -> Value {
        let series = self.series.iter();
        let series: Vec<_> =
            series.map(|(name, values)| json!({ "name": name, "values": values })).collect();
        json!({
            "name": self.name,
            "title": self.title,
            "unit": self.unit,
            "places": self.places,
            "series": series,
        })
    }
}
