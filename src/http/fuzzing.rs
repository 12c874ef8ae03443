//! What of REST is fuzzed.

pub use super::infer::fuzzing::{body_coding, infer_binary, infer_json};
pub use super::tfs::fuzzing::tfs_predict;
