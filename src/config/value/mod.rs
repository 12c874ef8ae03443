//! How a setting's text becomes its value, and a value text again.

mod kinds;
mod lists;

use serde_json::{Value as Tree, json};

pub use kinds::{
    ByteSize, HttpUrl, LoadMode, LogFilter, LogFormat, OtlpHeader, OtlpProtocol, Percent, Profile,
    Ratio, Words,
};
pub use lists::{Auto, Switch};

/// What a layer says of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// A text, or a number or truth value as text.
    One(String),
    /// A list in a file.
    Many(Vec<String>),
}

/// Why a text is not a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What it should have been.
    pub(super) expected: String,
    /// What it is.
    pub(super) got: String,
}

/// The smallest and the largest value, as texts.
pub(super) type Bounds = Option<(&'static str, &'static str)>;

/// A type that a setting may have.
///
/// What [`Value::show`] gives is read back as an equal value.
pub(super) trait Value: Sized + Clone + PartialEq {
    /// Whether values must not be shown.
    const SECRET: bool = false;

    /// What a text has to be, such as `a whole number from 1 to 8`.
    fn expected(bounds: Bounds) -> String;

    /// Reads a text; `None` also for a value out of bounds.
    fn parse(text: &str, bounds: Bounds) -> Option<Self>;

    /// The value as in a file.
    fn show(&self) -> Tree;

    /// The values' JSON Schema.
    fn schema(bounds: Bounds) -> Tree;

    /// Reads what a layer says.
    fn read(raw: &Raw, bounds: Bounds) -> Result<Self, Wrong> {
        let (read, got) = match raw {
            Raw::One(text) => (Self::parse(text, bounds), shorten(text)),
            Raw::Many(_) => (None, "a list".to_owned()),
        };
        read.ok_or_else(|| Wrong { expected: Self::expected(bounds), got })
    }
}

/// The value where it is within the bounds.
fn within<T: Value + PartialOrd>(value: T, bounds: Bounds) -> Option<T> {
    let bound = |text| T::parse(text, None).expect("a test reads the table's bounds");
    let inside = bounds.is_none_or(|(low, high)| bound(low) <= value && value <= bound(high));
    inside.then_some(value)
}

/// What is expected, with its bounds.
fn ranging(what: &str, bounds: Bounds) -> String {
    bounds.map_or_else(|| what.to_owned(), |(low, high)| format!("{what} from {low} to {high}"))
}

/// A text in quotes, as it may stand in one line of a log.
pub(super) fn shorten(text: &str) -> String {
    const LONGEST: usize = 80;
    let escaped: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    let rest = if text.chars().nth(LONGEST).is_some() { "..." } else { "" };
    format!("'{escaped}{rest}'")
}

/// A schema for either what `schema` admits or the text `word`.
fn or_word(schema: &Tree, word: &str) -> Tree {
    json!({ "anyOf": [{ "const": word }, schema] })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::model::ModelName;

    fn one<T: Value>(text: &str) -> Result<T, Wrong> {
        T::read(&Raw::One(text.to_owned()), None)
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("7", 7), ("2kB", 2000), ("64MiB", 64 << 20), ("1 GiB", 1 << 30)] {
            assert_eq!(one::<ByteSize>(text).unwrap().bytes(), bytes, "{text}");
        }
        for text in ["", "MiB", "1.5GB", "-1", "1TiB", "99999999999GiB", "18446744073709551616"] {
            assert!(one::<ByteSize>(text).is_err(), "{text}");
        }
        for text in ["1GB", "64MiB", "1500kB", "1537B", "0B", "1024GiB"] {
            assert_eq!(one::<ByteSize>(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn percentages_have_their_sign() {
        for (text, number) in [("0%", 0), ("90%", 90), ("100 %", 100)] {
            assert_eq!(one::<Percent>(text).unwrap().get(), number, "{text}");
        }
        for text in ["", "%", "90", "101%", "-1%", "0.9%", "90%%"] {
            assert!(one::<Percent>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ratios_are_parts_of_one() {
        for (text, millionths) in [("0", 0), ("1", 1_000_000), ("0.01", 10_000), ("1e-6", 1)] {
            assert_eq!(one::<Ratio>(text).unwrap().millionths(), millionths, "{text}");
        }
        for text in ["", "-0.1", "1.1", "1%", "NaN", "inf"] {
            assert!(one::<Ratio>(text).is_err(), "{text}");
        }
        assert_eq!(one::<Ratio>("0.25").unwrap().show(), json!(0.25));
    }

    #[test]
    fn headers_are_names_with_values() {
        let header = one::<OtlpHeader>("api-key = a=b c").unwrap();
        assert_eq!((header.name(), header.value()), ("api-key", "a=b c"));
        assert_eq!(format!("{header:?}"), "OtlpHeader(\"api-key\")");
        const { assert!(<Vec<OtlpHeader> as Value>::SECRET) };
        for text in ["", "a", "=b", "a b=c", "a=", "A-ü=1", "a=\u{1}", "grpc-timeout=1", "host=x"]
        {
            assert!(one::<OtlpHeader>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_and_words_for_nothing() {
        let names: Vec<ModelName> = one("a, b,").unwrap();
        assert_eq!(names.iter().map(ModelName::as_str).collect::<Vec<_>>(), ["a", "b"]);
        let many = Raw::Many(vec!["a,b".to_owned()]);
        assert_eq!(Vec::<ModelName>::read(&many, None).unwrap()[0].as_str(), "a,b");
        assert_eq!(one("auto"), Ok(Auto::<NonZeroUsize>::Chosen));
        assert_eq!(one("3"), Ok(Auto::Given(NonZeroUsize::new(3).unwrap())));
        let wrong = one::<Auto<NonZeroUsize>>("0").unwrap_err();
        assert!(wrong.expected.ends_with("or auto"), "{wrong:?}");
        assert_eq!(one("off"), Ok(Switch::<NonZeroUsize>::Off));
        assert_eq!(one::<Option<PathBuf>>("none"), Ok(None));
        assert_eq!(one("./none"), Ok(Some(PathBuf::from("./none"))));
    }

    #[test]
    fn what_is_wrong_is_told_in_one_line() {
        let wrong =
            Vec::<ModelName>::read(&Raw::Many(vec!["a".to_owned(), "b/c".to_owned()]), None);
        assert_eq!(wrong.unwrap_err().got, "'b/c'");
        assert_eq!(PathBuf::read(&Raw::Many(Vec::new()), None).unwrap_err().got, "a list");
        assert_eq!(one::<PathBuf>("a\0b").unwrap_err().got, "'a\\0b'");
        assert_eq!(one::<bool>(&"x\n".repeat(100)).unwrap_err().got.len(), 80 + 40 + 5);
    }

    #[test]
    fn bounds_are_told_and_held() {
        let bounds = Some(("1ms", "1h"));
        let read = |text: &str| Auto::<Duration>::read(&Raw::One(text.to_owned()), bounds);
        assert!(read("1ms").is_ok() && read("60m").is_ok());
        for text in ["0s", "61m", "soon"] {
            let wrong = read(text).unwrap_err();
            assert!(wrong.expected.ends_with(" from 1ms to 1h, or auto"), "{wrong:?}");
        }
    }
}
