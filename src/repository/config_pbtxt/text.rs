//! The text format of protocol buffers, without a schema: fields with their lines.
//!
//! As the [specification](https://protobuf.dev/reference/protobuf/textformat-spec/) has it, except for
//! what no `config.pbtxt` needs: extensions and `Any`.

use std::iter::Peekable;
use std::str::CharIndices;

/// How deep messages may be nested.
const DEEPEST: usize = 32;

/// A message: its fields in order; a field that is repeated is there several times.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Message(pub(super) Vec<Field>);

/// A field's name, value and line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) value: Value,
    /// Where it is a text of several lines.
    pub(super) line: Option<usize>,
}

/// What stands behind a field's name.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A number, a truth value or an enumerator, as it is written.
    Word(String),
    Text(String),
    /// A text that may stand for a word.
    Either(String),
    Message(Message),
}

/// Reads a text.
///
/// # Errors
/// The line, and what is wrong there.
pub(super) fn read(text: &str) -> Result<Message, String> {
    let mut reader = Reader { text, chars: text.char_indices().peekable(), line: 1 };
    let message =
        reader.message(None, 0).map_err(|problem| format!("line {}: {problem}", reader.line))?;
    Ok(message)
}

struct Reader<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    line: usize,
}

impl Reader<'_> {
    /// The fields up to `end`, or to the end of the text.
    fn message(&mut self, end: Option<char>, depth: usize) -> Result<Message, String> {
        if depth > DEEPEST {
            return Err(format!("messages are nested deeper than {DEEPEST}"));
        }
        let mut fields = Vec::new();
        loop {
            self.skip();
            match self.peek() {
                None if end.is_none() => return Ok(Message(fields)),
                None => return Err("the text ends inside a message".to_owned()),
                found if found == end => {
                    self.next();
                    return Ok(Message(fields));
                }
                Some(',' | ';') => {
                    self.next();
                }
                Some(_) => self.field(&mut fields, depth)?,
            }
        }
    }

    fn field(&mut self, fields: &mut Vec<Field>, depth: usize) -> Result<(), String> {
        let line = Some(self.line);
        let name = self.word();
        if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
            return Err(format!("expected the name of a field, got '{}'", self.shown(&name)));
        }
        self.skip();
        let colon = self.take(':');
        self.skip();
        let mut add = |value| fields.push(Field { name: name.clone(), value, line });
        if !self.take('[') {
            add(self.value(colon, depth)?);
            return Ok(());
        }
        loop {
            self.skip();
            if self.take(']') {
                return Ok(());
            }
            add(self.value(true, depth)?);
            self.skip();
            if !self.take(',') && self.peek() != Some(']') {
                return Err(format!("the list of '{name}' has no ',' between its items"));
            }
        }
    }

    fn value(&mut self, colon: bool, depth: usize) -> Result<Value, String> {
        match self.peek() {
            Some('{') => {
                self.next();
                self.message(Some('}'), depth + 1).map(Value::Message)
            }
            Some('<') => {
                self.next();
                self.message(Some('>'), depth + 1).map(Value::Message)
            }
            _ if !colon => Err("expected ':' or a message".to_owned()),
            Some('"' | '\'') => self.texts().map(Value::Text),
            _ => {
                let word = self.word();
                if word.is_empty() {
                    return Err(format!("expected a value, got '{}'", self.shown("")));
                }
                Ok(Value::Word(word))
            }
        }
    }

    /// Texts that stand behind each other are one.
    fn texts(&mut self) -> Result<String, String> {
        let mut text = String::new();
        while let Some(quote @ ('"' | '\'')) = self.peek() {
            self.next();
            self.quoted(quote, &mut text)?;
            self.skip();
        }
        Ok(text)
    }

    fn quoted(&mut self, quote: char, text: &mut String) -> Result<(), String> {
        loop {
            match self.next() {
                None | Some('\n') => return Err("a text has no end".to_owned()),
                Some(end) if end == quote => return Ok(()),
                Some('\\') => text.push(self.escaped()?),
                Some(plain) => text.push(plain),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, String> {
        match self.next() {
            Some('n') => Ok('\n'),
            Some('t') => Ok('\t'),
            Some('r') => Ok('\r'),
            Some(same @ ('\\' | '\'' | '"' | '?')) => Ok(same),
            Some(other) => Err(format!("the escape '\\{other}' is not known here")),
            None => Err("a text has no end".to_owned()),
        }
    }

    /// Letters, digits and what else numbers and names are made of.
    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(part) = self.peek() {
            if !(part.is_ascii_alphanumeric() || "_-+.".contains(part)) {
                break;
            }
            word.push(part);
            self.next();
        }
        word
    }

    /// White space and comments.
    fn skip(&mut self) {
        while let Some(next) = self.peek() {
            if next == '#' {
                while self.peek().is_some_and(|next| next != '\n') {
                    self.next();
                }
            } else if next.is_whitespace() {
                self.next();
            } else {
                return;
            }
        }
    }

    fn take(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        if there {
            self.next();
        }
        there
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, next)| *next)
    }

    fn next(&mut self) -> Option<char> {
        let (_, next) = self.chars.next()?;
        self.line += usize::from(next == '\n');
        Some(next)
    }

    /// What was read, or else the next few characters, for messages.
    fn shown(&mut self, word: &str) -> String {
        if !word.is_empty() {
            return word.to_owned();
        }
        let from = self.chars.peek().map_or(self.text.len(), |(at, _)| *at);
        self.text[from..].chars().take(10).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The fields as `name=value`, messages in braces.
    fn flat(message: &Message) -> String {
        let value = |value: &Value| match value {
            Value::Word(word) => word.clone(),
            Value::Text(text) | Value::Either(text) => format!("{text:?}"),
            Value::Message(message) => format!("{{{}}}", flat(message)),
        };
        let fields =
            message.0.iter().map(|field| format!("{}={}", field.name, value(&field.value)));
        fields.collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(flat(&read(text).unwrap()), expected);
    }

    #[track_caller]
    fn refused(text: &str, told: &str) {
        let error = read(text).unwrap_err();
        assert!(error.contains(told), "{error}");
    }

    #[test]
    fn every_form_is_read() {
        check("", "");
        check("# nothing\n", "");
        check("name: \"a\" 'b'\nmax: 8", "name=\"ab\" max=8");
        check("a { b: 1, c: 2; } d: < e: -1.5e3 >", "a={b=1 c=2} d={e=-1.5e3}");
        check("dims: [ 1, -1 ]\ndims: 3", "dims=1 dims=-1 dims=3");
        check(
            "group [ { count: 1 }, { kind: KIND_CPU } ]",
            "group={count=1} group={kind=KIND_CPU}",
        );
        check(r#"t: "a\n\"b\\""#, r#"t="a\n\"b\\""#);
        check("empty: []", "");
    }

    #[test]
    fn mistakes_have_lines() {
        refused("a: 1\nb", "line 2: expected ':'");
        refused("a {\n  b: 1\n", "line 3: the text ends inside a message");
        refused("a: \"x", "line 1: a text has no end");
        refused("a: }", "line 1: expected a value, got '}'");
        refused("\n}", "line 2: expected the name of a field, got '}'");
        refused("a: [1 2]", "no ','");
        refused(&"a{".repeat(100), "nested deeper");
        refused(r#"a: "\x41""#, "escape");
    }

    #[test]
    fn fields_know_their_lines() {
        let message = read("a: 1\n\n# x\nb: 2").unwrap();
        assert_eq!(
            message.0.iter().map(|field| field.line).collect::<Vec<_>>(),
            [Some(1), Some(4)]
        );
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[a-c:{}<>\\[\\]\"'#,; \n\\\\1-]{0,60}") {
            drop(read(&text));
        }
    }
}
