//! YAML as a tree whose nodes know their line.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Options, Spanned};

/// A node of a document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Nothing.
    Null,
    /// A text, or what is written like a number or a truth value.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A section: keys with their lines, in the order of the file, also those that come twice.
    Map(Vec<(Key, Node)>),
}

/// A key of a section.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    /// Its text; `None` where it is no scalar.
    pub(super) name: Option<String>,
    /// Its line, from 1.
    pub(super) line: u64,
}

/// What makes a file unreadable.
#[derive(Debug)]
pub(super) struct Broken {
    /// Where, from 1, if that is known.
    pub(super) line: Option<u64>,
    /// What it is.
    pub(super) problem: String,
}

/// Reads one document.
///
/// # Errors
/// What is no YAML, more than one document, a merge key, a tag that YAML does not know, and what
/// grows beyond a configuration by aliases or by nesting.
pub(super) fn read(text: &str) -> Result<Node, Broken> {
    let parsed = serde_saphyr::from_str_with_options::<Spanned<Parsed>>(text, options());
    parsed.map(|root| root.value.into_node(text)).map_err(|error| broken(&error))
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 16,
            max_nodes: 10_000,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

fn broken(error: &Error) -> Broken {
    let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
    let told = error.to_string();
    // The line is told beside the text, and the text only needs to say what is there.
    let problem = told.split(" at line ").next().unwrap_or(&told).replace('\n', " ");
    let problem = match told.split(": ").next() {
        Some("budget breached") => format!("too much for a configuration ({problem})"),
        _ => problem,
    };
    Broken { line, problem }
}

/// A node as the library tells it.
#[derive(Debug)]
enum Parsed {
    Null,
    Text(String),
    /// A number that may have been written in another way.
    Float(f64),
    List(Vec<Spanned<Parsed>>),
    Map(Vec<(Spanned<Parsed>, Spanned<Parsed>)>),
}

impl Parsed {
    fn into_node(self, source: &str) -> Node {
        let node = |child: Spanned<Self>| match child.value {
            Self::Float(number) => Node::Scalar(written(&child, source, number)),
            value => value.into_node(source),
        };
        match self {
            Self::Null => Node::Null,
            Self::Text(text) => Node::Scalar(text),
            Self::Float(number) => Node::Scalar(number.to_string()),
            Self::List(items) => Node::List(items.into_iter().map(node).collect()),
            Self::Map(entries) => {
                let entry = |(key, value): (Spanned<Self>, Spanned<Self>)| {
                    let line = key.referenced.line();
                    let name = match node(key) {
                        Node::Scalar(name) => Some(name),
                        Node::Null | Node::List(_) | Node::Map(_) => None,
                    };
                    (Key { name, line }, node(value))
                };
                Node::Map(entries.into_iter().map(entry).collect())
            }
        }
    }
}

/// A number as it stands in the file: a model may be called `1.50`.
fn written<T>(node: &Spanned<T>, source: &str, number: f64) -> String {
    let span = node.defined.span();
    let start = span.byte_offset().and_then(|start| usize::try_from(start).ok());
    let length = span.byte_len().and_then(|length| usize::try_from(length).ok());
    let text = start.zip(length).and_then(|(start, length)| source.get(start..start + length));
    let plain = text.filter(|text| text.parse() == Ok(number));
    plain.map_or_else(|| number.to_string(), str::to_owned)
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Parsed, E> {
        Ok(Parsed::Text(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Parsed, E> {
        Ok(Parsed::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Parsed, E> {
        Ok(Parsed::Text(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Parsed, E> {
        Ok(Parsed::Text(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Parsed, E> {
        Ok(Parsed::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Parsed, E> {
        Ok(Parsed::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Parsed, E> {
        Ok(Parsed::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Parsed, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Parsed::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Parsed, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Parsed::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalars(text: &str) -> Vec<String> {
        let Node::Map(entries) = read(text).unwrap() else { panic!("{text}") };
        let scalar = |(_, node)| match node {
            Node::Scalar(text) => text,
            other => panic!("{other:?}"),
        };
        entries.into_iter().map(scalar).collect()
    }

    #[test]
    fn scalars_are_what_is_written() {
        let text = "a: off\nb: yes\nc: 007\nd: 1.50\ne: 1e3\nf: .nan\ng: 1_000\nh: 'null'\ni: True\n\
                    j: 99999999999999999999999999999999999999999\nk: \"x\\ty\"\nl: &x 2.50\nm: *x\n";
        let long = "99999999999999999999999999999999999999999";
        assert_eq!(
            scalars(text),
            [
                "off", "yes", "007", "1.50", "1e3", ".nan", "1_000", "null", "true", long, "x\ty",
                "2.50", "2.50"
            ]
        );
    }

    #[test]
    fn keys_know_their_lines_and_may_come_twice() {
        let Node::Map(entries) = read("\n# first\na:\n  b: 1\na: 2\n? [c]\n: 3\n").unwrap() else {
            panic!()
        };
        let lines: Vec<_> =
            entries.iter().map(|(key, _)| (key.name.as_deref(), key.line)).collect();
        assert_eq!(lines, [(Some("a"), 3), (Some("a"), 5), (None, 6)]);
    }

    #[test]
    fn nothing_is_nothing() {
        for text in ["", " \n", "# nothing\n", "---\n", "\u{feff}", "~"] {
            assert_eq!(read(text).unwrap(), Node::Null, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        let bomb = ('b'..='z').fold("a: &a [x]\n".to_owned(), |text, name| {
            let before = char::from_u32(u32::from(name) - 1).unwrap();
            format!("{text}{name}: &{name} [*{before}, *{before}, *{before}]\n")
        });
        let deep: Vec<String> = (0..100).map(|depth| " ".repeat(depth) + "a:\n").collect();
        let deep = deep.concat();
        for (text, line, problem) in [
            ("a: 'x\n", 1, "quote"),
            ("a:\n  b: 2\n c: 3\n", 3, "block mapping"),
            ("a: 1\n---\nb: 2\n", 3, "multiple YAML documents"),
            ("a: 1\n<<: {b: 2}\n", 2, "merge keys"),
            ("a: 1\nb: *c\n", 2, "unknown anchor"),
            ("a: 1\nb: !include /etc/passwd\n", 2, "tag"),
            ("a: \u{0}\n", 1, "unexpected character"),
            (&bomb, 9, "too much"),
            (&deep, 17, "too much"),
            (&"[".repeat(1000), 1, "limit"),
        ] {
            let told = read(text).unwrap_err();
            assert_eq!(told.line, Some(line), "{told:?}");
            assert!(told.problem.contains(problem), "{told:?}");
            assert!(!told.problem.contains(" line "), "{told:?}");
        }
    }
}
