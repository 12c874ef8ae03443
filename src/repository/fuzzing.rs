//! What of a repository's files is fuzzed.

pub use super::config_pbtxt::fuzzing::config_pbtxt;
pub use super::golden::fuzzing::golden;
pub use super::manifest::fuzzing::manifest;
pub use super::model_yaml::fuzzing::model_yaml;
