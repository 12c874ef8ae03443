//! The configuration in effect, as text.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value as Tree, json};
use serde_saphyr::FlowSeq;

use super::effective::{Effective, Row};
use super::mistake::{ConfigError, Mistake, Origin};

/// The column from which on origins stand, where values leave room.
const COLUMN: usize = 48;

impl Effective {
    /// As a file that the server reads as the same configuration, secrets apart. A comment tells
    /// where each value comes from.
    pub fn yaml(&self) -> String {
        let (mut text, mut current) = (String::new(), "");
        for Row { setting, value, origin, .. } in self.rows() {
            let (section, name) = setting.names();
            if section != current {
                current = section;
                text.extend([section, ":\n"]);
            }
            let line = format!("  {name}: {}", scalar_or_list(&value));
            writeln!(text, "{line:COLUMN$} # {origin}").expect("a string takes every text");
        }
        text
    }

    /// As `{"settings": [...]}`, the same that `GET /lifecycle/config` answers.
    pub fn json(&self) -> Tree {
        let settings: Vec<Tree> = self.rows().iter().map(row).collect();
        json!({ "settings": settings })
    }
}

impl ConfigError {
    /// As `{"valid": false, "mistakes": [...]}`.
    pub fn json(&self) -> Tree {
        let mistakes: Vec<Tree> = self.0.iter().map(mistake).collect();
        json!({ "valid": false, "mistakes": mistakes })
    }
}

fn row(row: &Row) -> Tree {
    json!({
        "key": row.setting.key,
        "value": row.value,
        "origin": { "layer": row.origin.layer(), "place": row.origin.place() },
        "reloadable": row.setting.reloadable,
        "pending": row.pending,
    })
}

fn mistake(mistake: &Mistake) -> Tree {
    let Mistake { origin, key, problem } = mistake;
    let line = match origin {
        Origin::File { line, .. } => *line,
        Origin::Default | Origin::Environment { .. } | Origin::Flag { .. } => None,
    };
    let place = origin.place();
    json!({ "layer": origin.layer(), "place": place, "line": line, "key": key, "problem": problem })
}

/// A value in one line of YAML.
fn scalar_or_list(value: &Tree) -> String {
    match value {
        Tree::Array(items) => yaml(&FlowSeq(items)),
        other => yaml(other),
    }
}

fn yaml(value: &impl Serialize) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = serde_saphyr::to_string_with_options(value, options);
    let text = text.expect("texts, numbers and truth values can be written");
    // A line's end, not every white space: a path may be made of some.
    text.trim_end_matches('\n').to_owned()
}

#[cfg(test)]
mod tests;
