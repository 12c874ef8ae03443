//! What can be wrong with a configuration, and where its values come from.

use std::fmt;
use std::path::PathBuf;

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// In the file.
    File {
        /// The file's path, as it was given.
        path: PathBuf,
        /// The line, from 1; `None` for the file as a whole.
        line: Option<u64>,
    },
    /// In the environment.
    Environment {
        /// The variable's name.
        variable: String,
    },
    /// On the command line.
    Flag {
        /// The flag without its dashes.
        flag: String,
    },
}

impl Origin {
    /// The layer's name: `default`, `file`, `environment` or `flag`.
    pub const fn layer(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File { .. } => "file",
            Self::Environment { .. } => "environment",
            Self::Flag { .. } => "flag",
        }
    }

    /// Where it stands among others: by layer, and in a file by line.
    pub(super) fn rank(&self) -> (u8, Option<u64>) {
        match self {
            Self::Default => (0, None),
            Self::File { line, .. } => (1, *line),
            Self::Environment { .. } => (2, None),
            Self::Flag { .. } => (3, None),
        }
    }

    /// Where in its layer; `None` for a default.
    pub fn place(&self) -> Option<String> {
        match self {
            Self::Default => None,
            _ => Some(self.to_string()),
        }
    }
}

impl fmt::Display for Origin {
    /// In one line, whatever the path is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => {
                let path = path.display().to_string();
                path.chars().flat_map(escape).try_for_each(|c| write!(f, "{c}"))?;
                line.map_or(Ok(()), |line| write!(f, ":{line}"))
            }
            Self::Environment { variable } => write!(f, "{}", variable.escape_debug()),
            Self::Flag { flag } => write!(f, "--{flag}"),
        }
    }
}

/// A character as it may stand in one line.
fn escape(c: char) -> impl Iterator<Item = char> {
    let line_break = ['\u{2028}', '\u{2029}', '\u{85}'].contains(&c);
    let (escaped, plain) = if c.is_control() || line_break {
        (Some(c.escape_default()), None)
    } else {
        (None, Some(c))
    };
    escaped.into_iter().flatten().chain(plain)
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub origin: Origin,
    /// The dotted key, where the place does not tell it.
    pub key: Option<String>,
    /// What, and what was expected.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        match &self.key {
            Some(key) => write!(f, "{}: {}", key.escape_debug(), self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Mistake>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(mistakes) = self;
        let noun = if mistakes.len() == 1 { "mistake" } else { "mistakes" };
        write!(f, "{} {noun} in the configuration", mistakes.len())?;
        mistakes.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_one_line() {
        let file = |path: &str, line| Origin::File { path: PathBuf::from(path), line }.to_string();
        assert_eq!(file("/etc/onward.yaml", Some(3)), "/etc/onward.yaml:3");
        assert_eq!(file("ü b.yaml", None), "ü b.yaml");
        assert_eq!(file("a\nb\u{2028}c", Some(1)), "a\\nb\\u{2028}c:1");
        assert_eq!(Origin::Default.to_string(), "default");
        assert_eq!(
            Origin::Flag { flag: "server.listen".to_owned() }.to_string(),
            "--server.listen"
        );
    }
}
