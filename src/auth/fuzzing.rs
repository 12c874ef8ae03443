//! What of credentials is fuzzed.

pub use super::jwt::fuzzing::credential;
