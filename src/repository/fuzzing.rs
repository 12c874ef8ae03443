//! What of a repository's files is fuzzed.

pub use super::config_pbtxt::fuzzing::config_pbtxt;
pub use super::golden::fuzzing::golden;
pub use super::manifest::fuzzing::manifest;
pub use super::model_yaml::fuzzing::model_yaml;

/// A folder of labels with one file in it.
pub(super) fn labels(file: &str) -> Result<Vec<String>, String> {
    match file {
        "labels.txt" => Ok(vec!["a".to_owned(), "b".to_owned()]),
        _ => Err("there is no such file".to_owned()),
    }
}
