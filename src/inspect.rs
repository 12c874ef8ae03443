//! `onward config`: the configuration, looked at and not used.

use onward::config::{self, ConfigError, Layers};
use serde_json::{Value, json};

/// What is asked about the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// What it is.
    Print(Format),
    /// Whether it is sound.
    Check(Format),
    /// What a configuration file has to be.
    Schema,
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For humans, and for the server to read back.
    Yaml,
    /// For programs.
    Json,
}

/// What goes to standard output, and whether the configuration is sound.
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) sound: bool,
}

/// Answers a question about the configuration. Nothing is started and nothing is written.
///
/// # Errors
/// What is wrong with the configuration, where humans are to be told.
pub(crate) fn answer(layers: &Layers, question: Question) -> Result<Answer, ConfigError> {
    let sound = |text| Ok(Answer { text, sound: true });
    let (format, read) = match question {
        Question::Schema => return sound(pretty(&config::schema())),
        Question::Print(format) | Question::Check(format) => (format, layers.read()),
    };
    match (question, format, read) {
        (_, Format::Json, Err(error)) => Ok(Answer { text: pretty(&error.json()), sound: false }),
        (_, Format::Yaml, Err(error)) => Err(error),
        (Question::Check(_), Format::Yaml, Ok(_)) => sound("the configuration is sound\n".into()),
        (Question::Check(_), Format::Json, Ok(_)) => {
            sound(pretty(&json!({ "valid": true, "mistakes": [] })))
        }
        (_, Format::Yaml, Ok(effective)) => sound(effective.yaml()),
        (_, Format::Json, Ok(effective)) => sound(pretty(&effective.json())),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
