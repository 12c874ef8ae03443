//! How a setting's text becomes its value.

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use crate::lifecycle::EventKind;
use crate::model::ModelName;

/// A number of bytes, written `64MiB`, `1GB` or plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many times 1,048,576 bytes.
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// So many times 1,073,741,824 bytes.
    pub const fn gibibytes(count: u64) -> Self {
        Self(count << 30)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bytes, or the largest that this machine can address.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An endpoint's `http` or `https` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookUrl(String);

impl WebhookUrl {
    /// The address as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A share of something, from `0%` to `100%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
    /// So many hundredths; more than all is all.
    pub const fn new(hundredths: u8) -> Self {
        Self(if hundredths > 100 { 100 } else { hundredths })
    }

    /// The number of hundredths.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// What log lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For humans.
    Text,
    /// One JSON object a line.
    Json,
}

/// A type that a setting may have.
pub(super) trait Value: Sized {
    /// Reads the text; the error tells what was expected.
    fn parse(text: &str) -> Result<Self, String>;
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("expected a path".to_owned()) } else { Ok(Self::from(text)) }
    }
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "expected true or false".to_owned())
    }
}

impl Value for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| "expected an address and a port, such as 127.0.0.1:8000".to_owned())
    }
}

impl Value for NonZeroUsize {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "expected a whole number of 1 or more".to_owned())
    }
}

impl Value for NonZeroU32 {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "expected a whole number of 1 or more".to_owned())
    }
}

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        let longest = Duration::from_hours(365 * 24);
        match humantime::parse_duration(text) {
            Ok(duration) if duration <= longest => Ok(duration),
            Ok(_) => Err("expected a duration of a year at most".to_owned()),
            Err(_) => Err("expected a duration with its unit, such as 30s or 500ms".to_owned()),
        }
    }
}

impl Value for ByteSize {
    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim() {
            "" | "B" => Some(1),
            "kB" | "KB" => Some(1000),
            "MB" => Some(1000_u64.pow(2)),
            "GB" => Some(1000_u64.pow(3)),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let bytes = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| "expected a size, such as 64MiB".to_owned())
    }
}

impl Value for Percent {
    fn parse(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
        let number = number.filter(|number| *number <= 100);
        number.map(Self).ok_or_else(|| "expected a percentage from 0% to 100%".to_owned())
    }
}

impl Value for LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json".to_owned()),
        }
    }
}

impl Value for ModelName {
    fn parse(text: &str) -> Result<Self, String> {
        Self::new(text).map_err(|error| error.to_string())
    }
}

impl Value for WebhookUrl {
    fn parse(text: &str) -> Result<Self, String> {
        match url::Url::parse(text) {
            Ok(url) if ["http", "https"].contains(&url.scheme()) => Ok(Self(text.to_owned())),
            _ => Err("expected an http or https address".to_owned()),
        }
    }
}

impl Value for EventKind {
    fn parse(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::from_name(text).ok_or_else(|| format!("expected some of {}", known()))
    }
}

/// Separated by commas; nothing for none.
impl<T: Value> Value for Vec<T> {
    fn parse(text: &str) -> Result<Self, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(T::parse).collect()
    }
}

/// `auto` for a choice of the server's own.
impl<T: Value> Value for Option<T> {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(None);
        }
        T::parse(text).map(Some).map_err(|expected| format!("{expected}, or auto"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("7", 7), ("2kB", 2000), ("64MiB", 64 << 20), ("1 GiB", 1 << 30)] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "1.5GB", "-1", "1TiB", "99999999999GiB"] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percentages_have_their_sign() {
        for (text, number) in [("0%", 0), ("90%", 90), ("100 %", 100)] {
            assert_eq!(Percent::parse(text), Ok(Percent::new(number)), "{text}");
        }
        for text in ["", "%", "90", "101%", "-1%", "0.9%", "90%%"] {
            assert!(Percent::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_and_automatic_values() {
        let names: Vec<ModelName> = Value::parse("a, b,").unwrap();
        assert_eq!(names.iter().map(ModelName::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(Option::<NonZeroUsize>::parse("auto"), Ok(None));
        assert_eq!(Option::<NonZeroUsize>::parse("3"), Ok(NonZeroUsize::new(3)));
        assert!(Option::<NonZeroUsize>::parse("0").unwrap_err().contains("or auto"));
    }
}
