//! Calls over gRPC whose message is encoded once: tonic's client, without its messages.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use bytes::{Buf, BufMut, Bytes};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::load::{self, Line, Sample};

const METHOD: &str = "/inference.GRPCInferenceService/ModelInfer";

/// The most connections; callers take turns on them, as the streams of HTTP/2 allow.
pub(crate) const CONNECTIONS: usize = 8;

/// What to send, and where.
#[derive(Clone)]
pub(crate) struct GrpcTarget {
    pub(crate) address: SocketAddr,
    /// An encoded `ModelInferRequest`.
    pub(crate) message: Bytes,
}

impl GrpcTarget {
    /// [`load::run`] with this.
    pub(crate) async fn run(&self, callers: usize, duration: Duration) -> Result<Sample> {
        let channels = (0..callers.min(CONNECTIONS)).map(|_| self.caller());
        let lines = channels.collect::<Result<Vec<_>>>()?;
        let callers = (0..callers).map(|number| lines[number % lines.len()].clone());
        Ok(load::run_lines(callers.collect::<Vec<_>>().into_iter(), duration).await)
    }

    /// Sends one request; the encoded answer.
    pub(crate) async fn ask(&self) -> Result<Bytes> {
        Ok(self.caller()?.ask().await?)
    }

    /// One caller on a connection of its own.
    pub(crate) fn line(&self) -> Result<impl Line> {
        self.caller()
    }

    fn caller(&self) -> Result<GrpcLine> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))?;
        let client = Grpc::new(endpoint.connect_lazy());
        Ok(GrpcLine { client, message: self.message.clone() })
    }
}

#[derive(Clone)]
struct GrpcLine {
    client: Grpc<Channel>,
    message: Bytes,
}

impl GrpcLine {
    async fn ask(&mut self) -> io::Result<Bytes> {
        self.client.ready().await.map_err(io::Error::other)?;
        let request = Request::new(self.message.clone());
        let path = PathAndQuery::from_static(METHOD);
        let answer = self.client.unary(request, path, Encoded).await;
        answer.map(tonic::Response::into_inner).map_err(io::Error::other)
    }
}

impl Line for GrpcLine {
    async fn call(&mut self) -> io::Result<bool> {
        self.ask().await.map(|_| true)
    }
}

/// Messages that are encoded already.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
