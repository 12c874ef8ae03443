//! One span.

use std::time::SystemTime;

use bytes::Bytes;

use super::context::{SpanId, TraceId};

/// Longer texts of attributes are cut short: a client can make up the path of a request.
const LONGEST: usize = 1024;

/// Something that was done, from when to when.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Where in its trace it is.
    pub place: Place,
    /// What was done, such as `queue`.
    pub name: String,
    /// Whether it is the answer to a request from outside.
    pub serves: bool,
    /// When it began, and when it ended.
    pub time: (SystemTime, SystemTime),
    /// What there is to tell of it.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Why it failed, where it did.
    pub failure: Option<String>,
}

/// Where in a trace a span is.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The trace.
    pub trace: TraceId,
    /// The span's own id.
    pub span: SpanId,
    /// The span that it is a part of.
    pub parent: Option<SpanId>,
    /// Whether that is another program's.
    pub is_remote: bool,
    /// What came with the trace for other tracing systems.
    pub state: Option<String>,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A text.
    Text(Text),
    /// A number.
    Number(i64),
}

/// A text, which may be shared.
#[derive(Debug, Clone, PartialEq)]
pub enum Text {
    /// One of the program's own.
    Static(&'static str),
    /// One that was made.
    Owned(String),
    /// One that others have too; what of it is not UTF-8 is replaced.
    Shared(Bytes),
}

impl Text {
    /// The text, with no more than a kilobyte.
    pub fn into_string(self) -> String {
        cut(match self {
            Self::Static(text) => text.to_owned(),
            Self::Owned(text) => text,
            Self::Shared(text) => String::from_utf8_lossy(&text).into_owned(),
        })
    }
}

/// A text with no more than a kilobyte, and no room for more: many wait where a collector is slow.
pub(super) fn cut(text: String) -> String {
    if text.len() <= LONGEST { text } else { text[..text.floor_char_boundary(LONGEST)].to_owned() }
}

impl From<&'static str> for Attribute {
    fn from(text: &'static str) -> Self {
        Self::Text(Text::Static(text))
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(Text::Owned(cut(text)))
    }
}

impl From<Bytes> for Attribute {
    fn from(text: Bytes) -> Self {
        Self::Text(Text::Shared(text))
    }
}

impl From<u32> for Attribute {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for Attribute {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        let cut = |text: &str| Text::Owned(text.to_owned()).into_string();
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"x".repeat(2000)).len(), 1024);
        assert_eq!(cut(&format!("x{}", "ü".repeat(1000))).len(), 1023);
    }
}
