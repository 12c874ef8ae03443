//! The bodies of inference requests and answers, for benchmarks and fuzzing only: no part of the API.

use bytes::Bytes;

use super::infer::{self, Coding};
use crate::inference::NamedTensor;
use crate::model::{ModelName, Version, VersionId};
use crate::oip::Inputs;

/// Reads the body of a request whose JSON has `header` bytes; all of it where that is `None`. A raw body
/// gives no tensors.
///
/// # Errors
/// What a client is told.
pub fn decode(body: Bytes, header: Option<usize>) -> Result<Vec<NamedTensor>, String> {
    match infer::decode(body, header, &model()).map_err(|error| error.to_string())? {
        Inputs::Tensors(tensors) => Ok(tensors),
        Inputs::Raw(_) => Ok(Vec::new()),
    }
}

/// Undoes the compression of a body, up to a limit in bytes.
///
/// # Errors
/// That it is too large or damaged, or that there is no such coding.
pub fn decompress(coding: &str, body: &[u8], limit: usize) -> Result<Bytes, String> {
    let coding = Coding::from_name(coding).ok_or_else(|| format!("there is no coding {coding}"))?;
    coding.decode(body, limit).map_err(|error| format!("{error:?}"))
}

/// Writes the body of an answer, with all outputs as bytes or none; the buffers are sent one after the
/// other.
///
/// # Errors
/// What a client is told.
pub fn encode(outputs: &[NamedTensor], is_binary: bool) -> Result<Vec<Bytes>, String> {
    let id = VersionId { model: model(), version: Version::FIRST };
    infer::encode(&id, outputs, is_binary).map_err(|error| error.to_string())
}

fn model() -> ModelName {
    ModelName::new("m").expect("it is a name")
}
