//! The same request over each protocol, and what its answer says.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prost::Message;
use serde_json::Value;

use super::body::Body;
use super::grpc::GrpcTarget;
use super::input::Input;
use super::load::{self, Sample, Target};
use proto::model_infer_request::InferInputTensor;
use proto::{ModelInferRequest, ModelInferResponse};

#[allow(clippy::all, clippy::pedantic, clippy::clone_on_ref_ptr, dead_code, reason = "generated")]
#[allow(unreachable_pub, unused_qualifications, reason = "generated")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/client/inference.rs"));
}

/// How requests and answers travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// HTTP/1.1 with tensors as JSON.
    Json,
    /// HTTP/1.1 with tensors as bytes after the JSON.
    Binary,
    /// gRPC with raw tensors.
    Grpc,
}

impl Protocol {
    pub(crate) const ALL: [Self; 3] = [Self::Json, Self::Binary, Self::Grpc];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Binary => "binary",
            Self::Grpc => "grpc",
        }
    }
}

/// Asks a server one thing, again and again.
#[derive(Clone)]
pub(crate) enum Client {
    Http(Target),
    Grpc(GrpcTarget),
}

impl Client {
    pub(crate) async fn run(&self, callers: usize, duration: Duration) -> Result<Sample> {
        match self {
            Self::Http(target) => Ok(load::run(target, callers, duration).await),
            Self::Grpc(target) => target.run(callers, duration).await,
        }
    }

    /// Makes so many requests one after the other, all of which have to be answered.
    pub(crate) async fn repeat(&self, count: u32) -> Result<()> {
        match self {
            Self::Http(target) => Ok(load::repeat(load::line(target), count).await?),
            Self::Grpc(target) => Ok(load::repeat(target.line(), count).await?),
        }
    }
}

/// How to send these inputs over HTTP to a path.
pub(crate) fn http(
    protocol: Protocol,
    (address, path): (SocketAddr, &str),
    inputs: &[Input],
) -> Target {
    let body = match protocol {
        Protocol::Json => Body::json(inputs),
        Protocol::Binary | Protocol::Grpc => Body::binary(inputs),
    };
    body.post(address, path)
}

/// How to send these inputs over gRPC to a model.
pub(crate) fn grpc(address: SocketAddr, model: &str, inputs: &[Input]) -> Result<GrpcTarget> {
    let described = |input: &Input| {
        let shape = input.shape.iter().map(|&size| i64::try_from(size));
        Ok::<_, anyhow::Error>(InferInputTensor {
            name: input.name.to_owned(),
            datatype: input.datatype().to_owned(),
            shape: shape.collect::<Result<_, _>>()?,
            ..InferInputTensor::default()
        })
    };
    let request = ModelInferRequest {
        model_name: model.to_owned(),
        inputs: inputs.iter().map(described).collect::<Result<_>>()?,
        raw_input_contents: inputs.iter().map(|input| input.bytes().into()).collect(),
        ..ModelInferRequest::default()
    };
    Ok(GrpcTarget { address, message: request.encode_to_vec().into() })
}

/// What the server answers: the first output, of which `length` numbers are expected.
pub(crate) async fn answer(client: &Client, protocol: Protocol, length: usize) -> Result<Vec<f32>> {
    match client {
        Client::Grpc(target) => {
            let answer = ModelInferResponse::decode(target.ask().await?)?;
            Ok(floats(answer.raw_output_contents.first().context("there is an output")?))
        }
        Client::Http(target) => {
            let (status, body) = load::ask(target).await?;
            ensure!(status == 200, "status {status}: {}", String::from_utf8_lossy(&body));
            match protocol {
                Protocol::Json => from_json(&body),
                Protocol::Binary | Protocol::Grpc => from_tail(&body, length),
            }
        }
    }
}

fn from_json(body: &[u8]) -> Result<Vec<f32>> {
    let answer: Value = serde_json::from_slice(body)?;
    Ok(serde_json::from_value(answer["outputs"][0]["data"].clone())?)
}

/// The bytes come last.
fn from_tail(body: &[u8], length: usize) -> Result<Vec<f32>> {
    let at =
        body.len().checked_sub(length * size_of::<f32>()).context("the answer is long enough")?;
    Ok(floats(&body[at..]))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let chunks = bytes.chunks_exact(size_of::<f32>());
    chunks.map(|chunk| f32::from_le_bytes(chunk.try_into().expect("four bytes"))).collect()
}
