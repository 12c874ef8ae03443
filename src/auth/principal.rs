//! Who makes a request.

use std::fmt;
use std::time::SystemTime;

use super::role::Roles;
use super::scope::Scope;

/// The longest name of anybody, in bytes.
const LONGEST: usize = 256;

/// Whether this may be the name of somebody: it is written into logs.
pub(super) fn is_name(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// By what somebody is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Key,
    Token,
    Nothing,
}

/// Somebody, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Principal {
    pub(super) known: Known,
    pub(super) name: String,
    pub(super) roles: Roles,
    pub(super) scope: Scope,
    /// From then on, nobody.
    pub(super) until: Option<SystemTime>,
}

impl Principal {
    /// Whoever presents nothing.
    pub(super) fn anonymous(roles: Roles) -> Self {
        let name = String::new();
        Self { known: Known::Nothing, name, roles, scope: Scope::Everything, until: None }
    }

    pub(super) fn is_valid(&self) -> bool {
        self.until.is_none_or(|until| SystemTime::now() < until)
    }
}

/// The name, and by what it is known: whoever issues tokens cannot give somebody the name of a key.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known {
            Known::Key => write!(f, "key:{}", self.name),
            Known::Token => write!(f, "jwt:{}", self.name),
            Known::Nothing => f.write_str("anonymous"),
        }
    }
}
