//! `config.pbtxt`, fuzzed: what is read comes back when it is written, as text and as JSON.

use std::collections::BTreeMap;
use std::str;

use serde_json::Value as Json;

use super::text::{self, Message, Value};
use super::{parse, parse_json};
use crate::model::{MOST_INSTANCES, ModelName, ModelSettings};
use crate::repository::fuzzing::labels;

/// The text of a configuration, or its JSON.
pub fn config_pbtxt(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let name = ModelName::new("m").expect("it is a name");
    judged(&parse_json(text, (&name, &labels)));
    let settings = parse(text, (&name, &labels));
    let Ok(message) = text::read(text) else {
        let problem = settings.expect_err("it cannot be read");
        return assert!(problem.starts_with("line "), "{problem}");
    };
    let again = written(&message);
    assert_eq!(text::read(&again).map(|message| written(&message)), Ok(again));
    judged(&settings);
    if let Ok(settings) = settings {
        means_the_same(&settings, &parse_json(&json(&message).to_string(), (&name, &labels)));
    }
}

fn judged(settings: &Result<ModelSettings, String>) {
    match settings {
        Ok(settings) => sound(settings),
        Err(problem) => assert!(!problem.is_empty()),
    }
}

fn sound(settings: &ModelSettings) {
    assert!(settings.instances.is_none_or(|count| count.get() <= MOST_INSTANCES));
    let declared = settings.declared.as_ref().expect("it may be empty, and is there");
    let tensors = declared.inputs.iter().chain(&declared.outputs);
    tensors.for_each(|tensor| assert!(!tensor.name.is_empty()));
}

#[track_caller]
fn means_the_same(settings: &ModelSettings, json: &Result<ModelSettings, String>) {
    let json = json.as_ref().expect("it can be read from text");
    assert_eq!(json.declared, settings.declared);
    assert_eq!(json.version_policy, settings.version_policy);
    assert_eq!(json.labels, settings.labels);
    assert_eq!(
        (json.instances, json.max_batch_size),
        (settings.instances, settings.max_batch_size)
    );
}

/// A message in one form of the many that mean the same.
fn written(message: &Message) -> String {
    let field = |field: &text::Field| match &field.value {
        Value::Word(word) => format!("{}:{word}\n", field.name),
        Value::Text(text) | Value::Either(text) => {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{}:\"{escaped}\"\n", field.name)
        }
        Value::Message(message) => format!("{}{{{}}}\n", field.name, written(message)),
    };
    message.0.iter().map(field).collect()
}

/// A message with each field as an array.
fn json(message: &Message) -> Json {
    let mut fields: BTreeMap<&str, Vec<Json>> = BTreeMap::new();
    for field in &message.0 {
        let value = match &field.value {
            Value::Word(word) if word == "true" || word == "false" => Json::Bool(word == "true"),
            Value::Word(text) | Value::Text(text) | Value::Either(text) => text.clone().into(),
            Value::Message(message) => json(message),
        };
        fields.entry(&field.name).or_default().push(value);
    }
    serde_json::json!(fields)
}
