//! The same fields in JSON, as protocol buffers map them: names in snake case or camel case, and numbers
//! and enumerators as texts too.

use serde_json::Value as Json;

use super::text::{Field, Message, Value};

/// Fields that are maps, of which an empty one says nothing.
const EMPTY_MAPS: [&str; 3] = ["cc_model_filenames", "metric_tags", "parameters"];

/// Maps whose entries are read, each as a message of its own.
const MAPS: [&str; 2] = ["input_map", "output_map"];

/// Reads a text.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn read(text: &str) -> Result<Message, String> {
    let json: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match json {
        Json::Object(_) => Ok(message(json)),
        _ => Err("expected an object".to_owned()),
    }
}

fn message(json: Json) -> Message {
    let Json::Object(fields) = json else { return Message::default() };
    let mut read = Vec::with_capacity(fields.len());
    for (name, json) in fields {
        let name = snake_case(&name);
        match json {
            Json::Object(entries) if MAPS.contains(&name.as_str()) => {
                read.extend(entries.into_iter().map(|entry| map_entry(&name, entry)));
            }
            Json::Array(items) => {
                read.extend(items.into_iter().filter_map(|item| field(&name, item)));
            }
            json => read.extend(field(&name, json)),
        }
    }
    Message(read)
}

/// `None` where it says nothing.
fn field(name: &str, json: Json) -> Option<Field> {
    let value = match json {
        Json::Null => return None,
        Json::Bool(value) => Value::Word(value.to_string()),
        Json::Number(number) => Value::Word(number.to_string()),
        Json::String(text) => Value::Either(text),
        Json::Object(fields) if fields.is_empty() && EMPTY_MAPS.contains(&name) => return None,
        json @ (Json::Object(_) | Json::Array(_)) => Value::Message(message(json)),
    };
    Some(Field { name: name.to_owned(), value, line: None })
}

fn map_entry(name: &str, (key, value): (String, Json)) -> Field {
    let key = Field { name: "key".to_owned(), value: Value::Either(key), line: None };
    let entry = [Some(key), field("value", value)].into_iter().flatten().collect();
    Field { name: name.to_owned(), value: Value::Message(Message(entry)), line: None }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len());
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
