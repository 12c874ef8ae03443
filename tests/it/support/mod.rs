//! What the tests have in common.

pub(crate) mod certificates;
pub(crate) mod collector;
pub(crate) mod connection;
pub(crate) mod contract;
pub(crate) mod grpc;
pub(crate) mod in_process;
pub(crate) mod onnx;
pub(crate) mod process;
pub(crate) mod repository;
pub(crate) mod samples;
pub(crate) mod server;
pub(crate) mod stores;

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) use in_process::InProcess;
pub(crate) use repository::Repository;
pub(crate) use server::{Answer, Server};

/// A file of this project.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of this project.
#[track_caller]
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `{"inputs":[..]}` with one FP32 input `x`.
pub(crate) fn x(shape: &[usize], data: &[f32]) -> serde_json::Value {
    serde_json::json!({
        "inputs": [{ "name": "x", "shape": shape, "datatype": "FP32", "data": data }]
    })
}
