//! Names of models and numbers of versions, checked where they enter.

use std::borrow::Borrow;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::Arc;

/// The longest model name, in bytes: what a file name may have.
const LONGEST: usize = 255;

/// The longest alias, in bytes.
const LONGEST_ALIAS: usize = 64;

/// A model's name: 1 to 255 bytes, no control character, no `/` or `\`, not starting with a dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName(Arc<str>);

/// Why a text is not a model's name or a version's number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty or too long.
    #[error("a model name has 1 to {LONGEST} bytes, got {0}")]
    Length(usize),
    /// The name could leave the repository's folder or hide in it.
    #[error(
        "a model name has no '/', no '\\', no control character and does not start with '.', \
         got {0:?}"
    )]
    Character(String),
    /// The text is no positive integer in its shortest form.
    #[error("failed to get model version from specified version string '{0}'")]
    Version(String),
    /// The text is no alias either.
    #[error(
        "an alias has 1 to {LONGEST_ALIAS} letters, digits, '_', '-' and '.' and begins with a \
         letter, got {0:?}"
    )]
    Alias(String),
}

impl ModelName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError::Length`] and [`NameError::Character`].
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() || name.len() > LONGEST {
            return Err(NameError::Length(name.len()));
        }
        let forbidden = |c: char| c == '/' || c == '\\' || c.is_control();
        if name.starts_with('.') || name.contains(forbidden) {
            return Err(NameError::Character(name.to_owned()));
        }
        Ok(Self(Arc::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A version's number, 1 or more. The highest is the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(NonZeroU64);

impl Version {
    /// The lowest there is.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The version with this number; `None` for zero.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number.
    pub fn number(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for Version {
    type Err = NameError;

    /// Reads decimal digits without a sign or leading zeros, so that a version has one spelling.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        let number = text.parse().ok().filter(|_| canonical);
        number.map(Self).ok_or_else(|| NameError::Version(text.to_owned()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A movable name for a version, such as `stable`: 1 to 64 ASCII letters, digits, `_`, `-` and `.`,
/// the first of which is a letter, so that no alias looks like a version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AliasName(Arc<str>);

impl AliasName {
    /// The alias as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AliasName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let begins = text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic());
        if begins && text.len() <= LONGEST_ALIAS && text.bytes().all(allowed) {
            return Ok(Self(Arc::from(text)));
        }
        Err(NameError::Alias(text.to_owned()))
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A version by its number or by one of its aliases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionRef {
    /// Its number.
    Number(Version),
    /// A name that was given to it.
    Alias(AliasName),
}

impl FromStr for VersionRef {
    type Err = NameError;

    /// What does not begin with a letter is meant to be a number.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic()) {
            return text.parse().map(Self::Alias);
        }
        text.parse().map(Self::Number)
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(version) => version.fmt(f),
            Self::Alias(alias) => alias.fmt(f),
        }
    }
}

/// One version of one model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId {
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.model, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_repository_are_refused() {
        for bad in ["", ".", "..", ".hidden", "a/b", "a\\b", "nul\0", "line\n", &"x".repeat(256)] {
            assert!(ModelName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["digits", "a b", "ünï", "v1.2", &"x".repeat(255)] {
            assert_eq!(ModelName::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn an_alias_never_looks_like_a_version() {
        for bad in ["", "1", "-x", "_x", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(bad.parse::<AliasName>().is_err(), "{bad:?}");
        }
        let good = ["stable", "v1.2-rc_3", &"x".repeat(64)];
        assert!(good.iter().all(|good| good.parse::<AliasName>().is_ok()));
        let number = "7".parse::<VersionRef>().unwrap();
        assert_eq!(number, VersionRef::Number(Version::new(7).unwrap()));
        assert!(matches!("stable".parse(), Ok(VersionRef::Alias(_))));
        assert_eq!("01".parse::<VersionRef>(), Err(NameError::Version("01".to_owned())));
        assert!(matches!("a b".parse::<VersionRef>(), Err(NameError::Alias(_))));
    }

    #[test]
    fn a_version_has_one_spelling() {
        for bad in ["", "0", "01", "+1", "-1", "1.0", "one", "18446744073709551616"] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
        let largest = "18446744073709551615".parse::<Version>().unwrap();
        assert_eq!(largest.number(), u64::MAX);
    }
}
