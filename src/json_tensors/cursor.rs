//! A place in a JSON text, from which values are read one after the other, each straight into what it is
//! to be. Small values go through `serde_json`; only the arrays of tensors are read by hand.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;

use crate::inference::Shape;

/// What `serde` says of values, in the words of JSON.
const WORDS: [(&str, &str); 5] = [
    ("invalid type: sequence", "invalid type: array"),
    ("invalid type: map", "invalid type: object"),
    ("invalid type: floating point", "invalid type: number"),
    ("expected a sequence", "expected an array"),
    ("expected a map", "expected an object"),
];

/// A problem that `serde` has found, told to somebody who knows JSON.
pub(crate) fn in_words_of_json(problem: &str) -> String {
    WORDS.iter().fold(problem.to_owned(), |told, (word, other)| told.replace(word, other))
}

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    /// It is no JSON.
    #[error("{} valid JSON: {problem} at line {} column {}", Part(*.part), .place.0, .place.1)]
    Syntax {
        /// How long the text is, where more than that comes after it.
        part: Option<usize>,
        problem: String,
        place: (usize, usize),
    },
    /// It is JSON of something else.
    #[error("the body is not what is expected: {}{problem}", At(.path))]
    Unexpected { path: String, problem: String },
}

struct Part(Option<usize>);

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("the body is not"),
            Some(length) => {
                write!(f, "the first {length} bytes of the body, its JSON part, are not")
            }
        }
    }
}

struct At<'a>(&'a str);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "'{}': ", self.0) }
    }
}

impl JsonError {
    pub(crate) fn unexpected(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Unexpected { path: path.into(), problem: problem.into() }
    }
}

/// A place in a text.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    pub(super) at: usize,
    /// Whether the text is the beginning of a body.
    is_part: bool,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, is_part: false }
    }

    /// A cursor on what stands before the rest of a body, and is said to have this length.
    pub(crate) fn of_part(text: &'a [u8]) -> Self {
        Self { is_part: true, ..Self::new(text) }
    }

    /// What comes next, without what may stand between.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    /// The first byte of what comes next.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Goes past this byte, if it comes next.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// # Errors
    /// [`JsonError::Syntax`] where something comes after the value.
    pub(crate) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.syntax("trailing characters")),
        }
    }

    /// Reads an object: `field` is given each key with its value yet to be read.
    ///
    /// # Errors
    /// [`JsonError`], or what `field` says.
    pub(crate) fn object<E: From<JsonError>>(
        &mut self,
        path: impl fmt::Display,
        mut field: impl FnMut(&mut Self, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        self.begin(&path, (b'{', "an object"))?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.syntax("expected a key").into());
            }
            let key = self.text(&path)?;
            if !self.take(b':') {
                return Err(self.syntax("expected ':'").into());
            }
            field(self, &key)?;
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.syntax("expected ',' or '}'").into());
            }
        }
    }

    /// Reads an array: `element` is given each index with its value yet to be read.
    ///
    /// # Errors
    /// [`JsonError`], or what `element` says.
    pub(crate) fn array<E: From<JsonError>>(
        &mut self,
        path: impl fmt::Display,
        mut element: impl FnMut(&mut Self, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        self.begin(&path, (b'[', "an array"))?;
        if self.take(b']') {
            return Ok(());
        }
        for index in 0.. {
            element(self, index)?;
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.syntax("expected ',' or ']'").into());
            }
        }
        Ok(())
    }

    fn begin(
        &mut self,
        path: &impl fmt::Display,
        (byte, what): (u8, &str),
    ) -> Result<(), JsonError> {
        if self.take(byte) {
            return Ok(());
        }
        match self.peek() {
            None => Err(self.syntax("EOF while parsing a value")),
            // It may be no value at all.
            Some(_) => self.clone().skip().and_then(|()| {
                let problem = format!("expected {what}, got something else");
                Err(JsonError::unexpected(path.to_string(), problem))
            }),
        }
    }

    /// Goes past a value of any kind.
    ///
    /// # Errors
    /// [`JsonError::Syntax`].
    pub(crate) fn skip(&mut self) -> Result<(), JsonError> {
        let begin = self.at;
        self.value::<IgnoredAny>("")?;
        // Texts that nobody reads are not looked at by that.
        str::from_utf8(&self.text[begin..self.at]).map(drop).map_err(|error| {
            self.at = begin + error.valid_up_to();
            self.syntax("a text is not UTF-8")
        })
    }

    /// Goes past a value that is going to be read, of which an array's brackets and quotes are all that is
    /// looked at.
    ///
    /// # Errors
    /// [`JsonError`].
    pub(crate) fn pass_over(&mut self) -> Result<(), JsonError> {
        if self.peek() != Some(b'[') {
            return self.skip();
        }
        let (mut depth, mut after) = (0_usize, self.at);
        while let Some(byte) = self.text.get(after) {
            after += 1;
            match byte {
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth -= 1,
                b'"' => after = self.after_text(after),
                _ => {}
            }
            if depth == 0 {
                self.at = after;
                return Ok(());
            }
        }
        self.at = self.text.len();
        Err(self.syntax("EOF while parsing a list"))
    }

    /// Where a text ends that has begun right before.
    fn after_text(&self, mut at: usize) -> usize {
        while let Some(byte) = self.text.get(at) {
            match byte {
                b'"' => return at + 1,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        self.text.len()
    }

    /// Reads a text. One that is plain, as most are, is not copied.
    ///
    /// # Errors
    /// [`JsonError`].
    pub(crate) fn text(&mut self, path: impl fmt::Display) -> Result<Cow<'a, str>, JsonError> {
        match self.plain_text() {
            Some(text) => Ok(Cow::Borrowed(text)),
            None => self.value(path).map(Cow::Owned),
        }
    }

    /// A text of visible ASCII without an escape, if that comes next.
    fn plain_text(&mut self) -> Option<&'a str> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let rest = &self.rest()[1..];
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        let length = rest.iter().take_while(|byte| is_plain(byte)).count();
        let text =
            str::from_utf8(&rest[..length]).ok().filter(|_| rest.get(length) == Some(&b'"'))?;
        self.at += length + 2;
        Some(text)
    }

    /// Reads an array of sizes, if one comes next that is as plain as most are.
    pub(crate) fn plain_sizes(&mut self) -> Option<Shape> {
        let (mut after, mut sizes) = (self.clone(), Shape::new());
        if !after.take(b'[') {
            return None;
        }
        loop {
            after.peek();
            sizes.push(after.plain_size()?);
            if after.take(b']') {
                *self = after;
                return Some(sizes);
            }
            if !after.take(b',') {
                return None;
            }
        }
    }

    /// A whole number of a few digits, if that comes next.
    fn plain_size(&mut self) -> Option<usize> {
        let rest = self.rest();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) || (digits > 1 && rest[0] == b'0') {
            return None;
        }
        self.at += digits;
        Some(rest[..digits].iter().fold(0, |size, digit| size * 10 + usize::from(digit - b'0')))
    }

    /// Reads a value, which should be small.
    ///
    /// # Errors
    /// [`JsonError`].
    pub(crate) fn value<T: Deserialize<'a>>(
        &mut self,
        path: impl fmt::Display,
    ) -> Result<T, JsonError> {
        let mut values = serde_json::Deserializer::from_slice(self.rest()).into_iter::<T>();
        match values.next() {
            Some(Ok(value)) => {
                self.at += values.byte_offset();
                Ok(value)
            }
            Some(Err(error)) => Err(self.explain::<T>(&path.to_string(), &error)),
            None => Err(self.syntax("EOF while parsing a value")),
        }
    }

    /// Reads again, this time with an eye on where it goes wrong.
    fn explain<T: Deserialize<'a>>(&self, path: &str, error: &serde_json::Error) -> JsonError {
        let problem = error.to_string();
        let problem = problem.rsplit_once(" at line ").map_or(problem.as_str(), |(text, _)| text);
        if error.classify() != Category::Data {
            let before: usize = self
                .rest()
                .split_inclusive(|byte| *byte == b'\n')
                .take(error.line().saturating_sub(1))
                .map(<[u8]>::len)
                .sum();
            let at = self.at + before + error.column().saturating_sub(1);
            return self.syntax_at(problem, at);
        }
        let mut reader = serde_json::Deserializer::from_slice(self.rest());
        let tracked = serde_path_to_error::deserialize::<_, T>(&mut reader).err();
        let inner = tracked.map(|error| error.path().to_string()).unwrap_or_default();
        let joined = match inner.as_str() {
            "." | "" => path.to_owned(),
            inner if inner.starts_with('[') || path.is_empty() => format!("{path}{inner}"),
            inner => format!("{path}.{inner}"),
        };
        JsonError::unexpected(joined, in_words_of_json(problem))
    }

    pub(super) fn syntax(&self, problem: &str) -> JsonError {
        let problem = if self.at >= self.text.len() && !problem.starts_with("EOF") {
            format!("EOF where {problem}")
        } else {
            problem.to_owned()
        };
        self.syntax_at(&problem, self.at)
    }

    fn syntax_at(&self, problem: &str, at: usize) -> JsonError {
        let part = self.is_part.then_some(self.text.len());
        JsonError::Syntax { part, problem: problem.to_owned(), place: self.place(at) }
    }

    /// The line and the column of a byte, both from one.
    fn place(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..at.min(self.text.len())];
        let line = before.split(|byte| *byte == b'\n').count();
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        (line, column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `{"a": [numbers], "b": text}`, whatever else there is.
    fn read(text: &str) -> Result<(Vec<u32>, String), JsonError> {
        let (mut cursor, mut a, mut b) = (Cursor::new(text.as_bytes()), Vec::new(), String::new());
        cursor.object("", |cursor, key| {
            match key {
                "a" => cursor.array("a", |cursor, index| {
                    a.push(cursor.value(format!("a[{index}]"))?);
                    Ok::<_, JsonError>(())
                })?,
                "b" => b = cursor.value("b")?,
                _ => cursor.skip()?,
            }
            Ok::<_, JsonError>(())
        })?;
        cursor.end()?;
        Ok((a, b))
    }

    #[test]
    fn what_is_read_later_is_passed_over() {
        let after = |text: &'static str| {
            let mut cursor = Cursor::new(text.as_bytes());
            cursor.pass_over().map(|()| String::from_utf8_lossy(cursor.rest()).into_owned())
        };
        assert_eq!(after("[1,[2],[]],3").unwrap(), ",3");
        assert_eq!(after(r#"["]",{"a\"]":"\""}]}"#).unwrap(), "}");
        assert_eq!(after("12]").unwrap(), "]");
        for torn in ["", "[1,[2]", r#"["]"#, r#"["\"#] {
            assert!(after(torn).unwrap_err().to_string().contains("EOF"), "{torn}");
        }
    }

    #[test]
    fn sizes_are_read_where_they_are_plain() {
        let read = |text: &'static str| {
            let mut cursor = Cursor::new(text.as_bytes());
            let sizes = cursor.plain_sizes().map(Shape::into_vec);
            (sizes, str::from_utf8(cursor.rest()).unwrap())
        };
        assert_eq!(read("[1,64],2"), (Some(vec![1, 64]), ",2"));
        assert_eq!(read(" [ 0 ,123456789\n] "), (Some(vec![0, 123_456_789]), " "));
        for other in [
            "",
            "[",
            "[]",
            "[1",
            "[1,",
            "[1,]",
            "[01]",
            "[-1]",
            "[1.5]",
            "[1e2]",
            "[1234567890]",
            "1",
        ] {
            assert_eq!(read(other), (None, other));
        }
    }

    #[track_caller]
    fn refused(text: &str, told: &str) {
        assert_eq!(read(text).unwrap_err().to_string(), told, "{text}");
    }

    #[test]
    fn values_are_read_and_others_are_passed_over() {
        let text = r#" { "x": {"a": [[]]}, "a": [1, 2 ,3], "b": "\u00fc\"" , "\u0061": [] } "#;
        assert_eq!(read(text), Ok((vec![1, 2, 3], "ü\"".to_owned())));
        assert_eq!(read("{}"), Ok((vec![], String::new())));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let syntax = |text: &str, problem: &str, line, column| {
            let told =
                format!("the body is not valid JSON: {problem} at line {line} column {column}");
            refused(text, &told);
        };
        syntax("", "EOF while parsing a value", 1, 1);
        syntax("{", "EOF where expected a key", 1, 2);
        syntax("{\"a\"", "EOF where expected ':'", 1, 5);
        syntax("{\"a\": [1 2]}", "expected ',' or ']'", 1, 10);
        syntax("{\"a\": [1],\n \"b\": \"x\" x}", "expected ',' or '}'", 2, 11);
        syntax("{\"b\": \"\\x\"}", "invalid escape", 1, 9);
        syntax("{} x", "trailing characters", 1, 4);
        syntax("{\"a\": }", "expected value", 1, 7);
        let torn = Cursor::of_part(b"{\"a\": [").skip().unwrap_err().to_string();
        let told = "the first 7 bytes of the body, its JSON part, are not valid JSON: EOF while";
        assert!(torn.starts_with(told), "{torn}");
        let ignored = Cursor::new(b" {\"a\": \"\xff\"}").skip().unwrap_err().to_string();
        assert!(ignored.ends_with("a text is not UTF-8 at line 1 column 9"), "{ignored}");
        let unexpected = |text: &str, told: &str| {
            refused(text, &format!("the body is not what is expected: {told}"));
        };
        unexpected("[]", "expected an object, got something else");
        unexpected("{\"a\": 1}", "'a': expected an array, got something else");
        unexpected("{\"a\": [1, -1]}", "'a[1]': invalid value: integer `-1`, expected u32");
        unexpected("{\"b\": 5}", "'b': invalid type: integer `5`, expected a string");
        unexpected("{\"b\": []}", "'b': invalid type: array, expected a string");
    }
}
