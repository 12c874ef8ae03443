//! Types with one value.

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Tree, json};
use tracing_subscriber::EnvFilter;

use super::{Bounds, Value, ranging, within};
use crate::auth::Role;
use crate::inference::ExecutionProvider;
use crate::lifecycle::EventKind;
use crate::model::ModelName;
use crate::units;

/// A number of bytes, written `64MiB`, `1GB` or plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// The units of sizes, largest first; the last two are read and never written.
const UNITS: [(&str, u64); 9] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("B", 1),
    ("KB", 1000),
    ("", 1),
];

impl ByteSize {
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
    /// In the largest unit of which it is a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, factor): &(&str, u64)| self.0 >= *factor && self.0.is_multiple_of(*factor);
        let (unit, factor) = UNITS.into_iter().find(whole).unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// What is logged: a filter of `tracing-subscriber`, such as `info,onward::http=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An endpoint's `http` or `https` address, without a user or a password, which would be told to
/// everybody who may ask for the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl(String);

impl HttpUrl {
    /// The address as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A header that goes with what is sent, written `name=value`. Its value is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpHeader {
    name: String,
    value: String,
}

impl OtlpHeader {
    /// Its name, in lower case.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value: visible ASCII, and spaces.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for OtlpHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OtlpHeader").field(&self.name).finish()
    }
}

/// Headers that the protocols have for themselves.
const OF_PROTOCOLS: [&str; 9] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A part of one, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio(u32);

impl Ratio {
    /// How many of a million it is.
    pub const fn millionths(self) -> u32 {
        self.0
    }
}

/// A text in one line, of one character at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(String);

impl Words {
    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A share of something, from `0%` to `100%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
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

/// What spans are sent by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// gRPC.
    Grpc,
    /// Messages in protobuf, by POST.
    HttpProtobuf,
}

/// How the cores are divided among the runs of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As many runs at once as there are cores, each on one.
    Throughput,
    /// One run at a time, on all of them.
    Latency,
}

/// Which models are loaded without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadMode {
    /// All of them at the start, and nothing later.
    None,
    /// What is required or was declared.
    Explicit,
    /// Whatever the repository has, all the time.
    Poll,
    /// The same, at once: the operating system tells of changes.
    Watch,
}

/// Types of which each value is a word.
macro_rules! words {
    ($($type:ident, $expected:literal: $($variant:ident = $word:literal),*;)*) => {$(
        impl Value for $type {
            fn expected(_: Bounds) -> String {
                $expected.to_owned()
            }

            fn parse(text: &str, _: Bounds) -> Option<Self> {
                match text {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }

            fn show(&self) -> Tree {
                match self {
                    $(Self::$variant => json!($word),)*
                }
            }

            fn schema(_: Bounds) -> Tree {
                json!({ "enum": [$($word),*] })
            }
        }
    )*};
}

words! {
    LoadMode, "none, explicit, poll or watch":
        None = "none", Explicit = "explicit", Poll = "poll", Watch = "watch";
    LogFormat, "text or json": Text = "text", Json = "json";
    OtlpProtocol, "grpc or http/protobuf": Grpc = "grpc", HttpProtobuf = "http/protobuf";
    Profile, "throughput or latency": Throughput = "throughput", Latency = "latency";
}

impl Value for bool {
    fn expected(_: Bounds) -> String {
        "true or false".to_owned()
    }

    fn parse(text: &str, _: Bounds) -> Option<Self> {
        text.parse().ok()
    }

    fn show(&self) -> Tree {
        Tree::Bool(*self)
    }

    fn schema(_: Bounds) -> Tree {
        json!({ "type": "boolean" })
    }
}

/// Both read and write themselves in the same way, and neither is the other.
macro_rules! count {
    ($($count:ty),*) => {$(
        impl Value for $count {
            fn expected(bounds: Bounds) -> String {
                ranging("a whole number", bounds)
            }

            fn parse(text: &str, bounds: Bounds) -> Option<Self> {
                within(text.parse().ok()?, bounds)
            }

            fn show(&self) -> Tree {
                json!(self.get())
            }

            fn schema(bounds: Bounds) -> Tree {
                let bound = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
                let (low, high) = bounds.unzip();
                json!({ "type": "integer", "minimum": bound(low), "maximum": bound(high) })
            }
        }
    )*};
}

count!(NonZeroUsize, NonZeroU32);

impl Value for Duration {
    fn expected(bounds: Bounds) -> String {
        ranging("a duration with its unit, such as 30s or 500ms,", bounds)
    }

    fn parse(text: &str, bounds: Bounds) -> Option<Self> {
        within(units::duration(text)?, bounds)
    }

    fn show(&self) -> Tree {
        Tree::String(humantime::format_duration(*self).to_string())
    }

    fn schema(_: Bounds) -> Tree {
        let unit = "(ns|us|ms|s|sec|m|min|h|d|days?|w|weeks?|months?|years?)";
        let part = format!(" *[0-9]+(\\.[0-9]+)? *{unit}");
        json!({ "type": "string", "pattern": format!("^({part})+ *$") })
    }
}

impl Value for ByteSize {
    fn expected(bounds: Bounds) -> String {
        ranging("a size, such as 64MiB,", bounds)
    }

    fn parse(text: &str, bounds: Bounds) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit.trim())?;
        let bytes = number.parse::<u64>().ok()?.checked_mul(factor)?;
        within(Self(bytes), bounds)
    }

    fn show(&self) -> Tree {
        Tree::String(self.to_string())
    }

    fn schema(_: Bounds) -> Tree {
        let units = UNITS.map(|(name, _)| name).join("|");
        let text = json!({ "type": "string", "pattern": format!("^[0-9]+ *({units})$") });
        json!({ "anyOf": [text, { "type": "integer", "minimum": 0 }] })
    }
}

impl Value for Percent {
    fn expected(bounds: Bounds) -> String {
        ranging("a percentage", bounds)
    }

    fn parse(text: &str, bounds: Bounds) -> Option<Self> {
        let number: u8 = text.strip_suffix('%')?.trim_end().parse().ok()?;
        if number > 100 { None } else { within(Self(number), bounds) }
    }

    fn show(&self) -> Tree {
        Tree::String(format!("{}%", self.0))
    }

    fn schema(_: Bounds) -> Tree {
        json!({ "type": "string", "pattern": "^(100|[0-9]{1,2}) *%$" })
    }
}

impl Value for Ratio {
    fn expected(_: Bounds) -> String {
        "a number from 0 to 1".to_owned()
    }

    fn parse(text: &str, _: Bounds) -> Option<Self> {
        let number: f64 = text.parse().ok()?;
        let millionths = (number * 1e6).round();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a whole number, from 0 to a million"
        )]
        (0.0..=1.0).contains(&number).then_some(Self(millionths as u32))
    }

    fn show(&self) -> Tree {
        json!(f64::from(self.0) / 1e6)
    }

    fn schema(_: Bounds) -> Tree {
        json!({ "type": "number", "minimum": 0, "maximum": 1 })
    }
}

impl Value for OtlpHeader {
    const SECRET: bool = true;

    fn expected(_: Bounds) -> String {
        "headers, such as api-key=secret, none of them one of HTTP's or gRPC's own".to_owned()
    }

    fn parse(text: &str, _: Bounds) -> Option<Self> {
        let (name, value) = text.split_once('=')?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = !name.is_empty() && name.chars().all(is_of_name);
        // What ends so has bytes as its value in gRPC.
        let is_theirs = OF_PROTOCOLS.contains(&name.as_str())
            || name.starts_with("grpc-")
            || name.ends_with("-bin");
        let is_value = !value.is_empty() && value.chars().all(|c| matches!(c, ' '..='~'));
        (is_name && !is_theirs && is_value).then(|| Self { name, value: value.to_owned() })
    }

    fn show(&self) -> Tree {
        Tree::String(format!("{}={}", self.name, self.value))
    }

    fn schema(_: Bounds) -> Tree {
        json!({ "type": "string", "pattern": "^ *[A-Za-z0-9._-]+ *= *[^ ].*$" })
    }
}

impl Value for SocketAddr {
    fn expected(_: Bounds) -> String {
        "an address and a port, such as 127.0.0.1:8000".to_owned()
    }

    fn parse(text: &str, _: Bounds) -> Option<Self> {
        text.parse().ok()
    }

    fn show(&self) -> Tree {
        Tree::String(self.to_string())
    }

    fn schema(_: Bounds) -> Tree {
        json!({ "type": "string", "pattern": "^.+:[0-9]+$" })
    }
}

impl Value for PathBuf {
    fn expected(_: Bounds) -> String {
        "a path".to_owned()
    }

    fn parse(text: &str, _: Bounds) -> Option<Self> {
        // The system's paths end at a zero.
        if text.is_empty() || text.contains('\0') { None } else { Some(Self::from(text)) }
    }

    fn show(&self) -> Tree {
        // It was read from a text, so that nothing is lost.
        Tree::String(self.to_string_lossy().into_owned())
    }

    fn schema(_: Bounds) -> Tree {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl Value for LogFilter {
    fn expected(_: Bounds) -> String {
        "a log filter, such as debug or info,onward::http=debug".to_owned()
    }

    fn parse(text: &str, _: Bounds) -> Option<Self> {
        let sound = !text.trim().is_empty() && EnvFilter::try_new(text).is_ok();
        sound.then(|| Self(text.to_owned()))
    }

    fn show(&self) -> Tree {
        Tree::String(self.0.clone())
    }

    fn schema(_: Bounds) -> Tree {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl Value for ModelName {
    fn expected(_: Bounds) -> String {
        "names of models: 1 to 255 bytes, no slash, no backslash, no control character and no dot \
         at the beginning"
            .to_owned()
    }

    fn parse(text: &str, _: Bounds) -> Option<Self> {
        Self::new(text).ok()
    }

    fn show(&self) -> Tree {
        Tree::String(self.to_string())
    }

    fn schema(_: Bounds) -> Tree {
        json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[^./\\][^/\\]*$" })
    }
}

impl Value for HttpUrl {
    fn expected(_: Bounds) -> String {
        "an http or https address without a user and a password".to_owned()
    }

    fn parse(text: &str, _: Bounds) -> Option<Self> {
        let url = url::Url::parse(text).ok()?;
        let open = url.username().is_empty() && url.password().is_none();
        let sound = open && ["http", "https"].contains(&url.scheme());
        sound.then(|| Self(text.to_owned()))
    }

    fn show(&self) -> Tree {
        Tree::String(self.0.clone())
    }

    fn schema(_: Bounds) -> Tree {
        json!({ "type": "string", "pattern": "^https?://" })
    }
}

impl Value for Words {
    fn expected(_: Bounds) -> String {
        "a text in one line".to_owned()
    }

    fn parse(text: &str, _: Bounds) -> Option<Self> {
        let sound = !text.trim().is_empty() && !text.chars().any(char::is_control);
        sound.then(|| Self(text.to_owned()))
    }

    fn show(&self) -> Tree {
        Tree::String(self.0.clone())
    }

    fn schema(_: Bounds) -> Tree {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// Types whose values have names of their own; a setting has some of them.
macro_rules! named {
    ($($kind:ty),*) => {
        $(impl Value for $kind {
            fn expected(_: Bounds) -> String {
                format!("some of {}", Self::ALL.map(Self::name).join(", "))
            }

            fn parse(text: &str, _: Bounds) -> Option<Self> {
                Self::from_name(text)
            }

            fn show(&self) -> Tree {
                json!(self.name())
            }

            fn schema(_: Bounds) -> Tree {
                json!({ "enum": Self::ALL.map(Self::name) })
            }
        })*
    };
}

named!(Role, ExecutionProvider, EventKind);
