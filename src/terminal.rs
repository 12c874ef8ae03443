//! Texts from elsewhere, as a terminal may be given them: what would act on it, or mislead who reads, is escaped.

use std::borrow::Cow;

use serde_json::Value;

/// A text in one line.
pub(crate) fn safe(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let escape =
        |c: char| if is_unsafe(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

/// A value, each of whose texts is in one line.
pub(crate) fn safe_value(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(safe(text).into_owned()),
        Value::Array(values) => values.iter().map(safe_value).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            fields.map(|(name, value)| (safe(name).into_owned(), safe_value(value))).collect()
        }
        other => other.clone(),
    }
}

/// JSON for humans and programs, with a line's end.
pub(crate) fn json(value: &Value) -> String {
    let escape = |c: char| match c {
        '\n' => c.to_string(),
        // Outside of texts there are none, and inside JSON has the same escape.
        c if is_unsafe(c) => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    format!("{value:#}\n").chars().map(escape).collect()
}

/// Whether it does something to a terminal, or turns the direction of what comes after it.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_acts_on_a_terminal() {
        assert_eq!(safe("größe 😀"), "größe 😀");
        assert_eq!(safe("a\u{1b}[2J\nb\u{9b}c\u{202e}"), r"a\u{1b}[2J\nb\u{9b}c\u{202e}");
        let value = json!({ "a\u{7f}": ["\u{1b}", 1, null] });
        assert_eq!(safe_value(&value), json!({ r"a\u{7f}": [r"\u{1b}", 1, null] }));
        let text = json(&value);
        assert!(!text.contains(|c: char| c != '\n' && is_unsafe(c)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
