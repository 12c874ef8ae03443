//! The configuration file's JSON Schema.

use serde_json::{Map, Value as Tree, json};

use super::settings::{SETTINGS, Setting};

/// What a configuration file has to be, as a JSON Schema of the draft 2020-12. It is stricter than the
/// server in spelling: a list is a list, and no text with commas.
pub fn schema() -> Tree {
    let mut sections = Map::new();
    for setting in SETTINGS {
        let (section, name) = setting.names();
        let section = sections.entry(section).or_insert_with(|| {
            json!({
                // A section whose lines are all comments is nothing.
                "type": ["object", "null"],
                "additionalProperties": false,
                "properties": {},
            })
        });
        section["properties"][name] = property(setting);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of Onward",
        "description": "Made from the server's table of settings.",
        "type": ["object", "null"],
        "additionalProperties": false,
        "properties": sections,
    })
}

fn property(setting: &Setting) -> Tree {
    let mut schema = (setting.schema)(setting.bounds);
    let range = setting.bounds.map(|(low, high)| format!(" From {low} to {high}."));
    let reload = if setting.reloadable { " Changed by a reload." } else { "" };
    let range = range.unwrap_or_default();
    schema["description"] = json!(format!("{}.{range}{reload}", capitalised(setting.help)));
    schema["default"] = (setting.show)(&super::Config::default());
    if setting.secret {
        schema["writeOnly"] = json!(true);
    }
    schema
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}
