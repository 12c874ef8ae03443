//! A client of gRPC, generated from the same files as the server.

use std::net::SocketAddr;

use futures_util::stream;
use serde_json::Value;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::Server;
use proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use proto::model_infer_request::InferInputTensor;
use proto::{ModelInferRequest, ModelStreamInferResponse};

#[allow(clippy::all, clippy::pedantic, clippy::clone_on_ref_ptr, dead_code, reason = "generated")]
#[allow(unreachable_pub, unused_qualifications, reason = "generated")]
pub(crate) mod proto {
    include!(concat!(env!("OUT_DIR"), "/client/inference.rs"));
}

#[allow(clippy::all, clippy::pedantic, clippy::clone_on_ref_ptr, dead_code, reason = "generated")]
#[allow(unreachable_pub, unused_qualifications, reason = "generated")]
pub(crate) mod health {
    include!(concat!(env!("OUT_DIR"), "/client/grpc.health.v1.rs"));
}

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

impl Server {
    /// A client on the port that is gRPC's alone.
    pub(crate) async fn grpc(&self) -> Client {
        connect(self.grpc_address().await).await
    }

    /// The address that is gRPC's alone.
    pub(crate) async fn grpc_address(&self) -> SocketAddr {
        let line = self.process.logged(&["\"listening for gRPC\""]).await;
        let line: Value = serde_json::from_str(&line).unwrap();
        line["address"].as_str().unwrap().parse().unwrap()
    }
}

pub(crate) async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.expect("the server listens")
}

pub(crate) async fn connect(address: SocketAddr) -> Client {
    let client = Client::new(channel(address).await);
    client.max_decoding_message_size(usize::MAX)
}

/// A request without parameters whose inputs are raw.
pub(crate) fn raw(model: &str, inputs: &[(&str, &str, &[i64], &[u8])]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: inputs
            .iter()
            .map(|(name, datatype, shape, _)| input(name, datatype, shape))
            .collect(),
        raw_input_contents: inputs.iter().map(|(.., bytes)| bytes.to_vec().into()).collect(),
        ..ModelInferRequest::default()
    }
}

/// An input without contents.
pub(crate) fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

pub(crate) fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// One FP32 input `x`.
pub(crate) fn x(model: &str, shape: &[i64], values: &[f32]) -> ModelInferRequest {
    raw(model, &[("x", "FP32", shape, &floats(values))])
}

/// The same with a request that is to take no longer than this.
pub(crate) fn within(milliseconds: u64, request: ModelInferRequest) -> Request<ModelInferRequest> {
    let mut request = Request::new(request);
    request.set_timeout(std::time::Duration::from_millis(milliseconds));
    request
}

/// Checks the status and the code of an error, and that its message has all of these.
#[track_caller]
pub(crate) fn refused(status: &Status, (code, name): (Code, &str), texts: &[&str]) {
    let told = status.metadata().get("onward-error-code").map(|name| name.to_str().unwrap());
    assert_eq!((status.code(), told), (code, Some(name)), "{status:?}");
    for text in texts {
        assert!(status.message().contains(text), "no {text:?} in {:?}", status.message());
    }
}

/// A stream whose requests are sent one by one.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) requests: mpsc::UnboundedSender<ModelInferRequest>,
    pub(crate) answers: Streaming<ModelStreamInferResponse>,
}

impl Stream {
    pub(crate) async fn open(client: &mut Client) -> Self {
        Self::open_with(client, None).await
    }

    /// Opens it with a credential, where there is one.
    pub(crate) async fn open_with(client: &mut Client, key: Option<&str>) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        let sent = stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await?, receiver))
        });
        let mut request = Request::new(sent);
        if let Some(key) = key {
            let bearer = format!("Bearer {key}").parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        let answers = client.model_stream_infer(request).await.unwrap().into_inner();
        Self { requests, answers }
    }

    pub(crate) fn send(&self, id: &str, request: ModelInferRequest) {
        self.requests.send(ModelInferRequest { id: id.to_owned(), ..request }).unwrap();
    }

    pub(crate) async fn answer(&mut self) -> ModelStreamInferResponse {
        self.answers.message().await.unwrap().expect("the stream goes on")
    }
}

/// A call as its bytes, which may be wrong.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

impl Frame {
    /// Bytes in the place of a message to `ModelInfer`.
    pub(crate) fn bytes(body: &[u8]) -> Self {
        let path = "/inference.GRPCInferenceService/ModelInfer".to_owned();
        Self { path, headers: Vec::new(), body: body.to_vec() }
    }

    /// The bytes of one message.
    pub(crate) fn message(message: &[u8]) -> Self {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        Self::bytes(&[&[0], &length[..], message].concat())
    }

    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same of which only so many bytes come.
    pub(crate) fn cut(&self, length: usize) -> Self {
        Self { body: self.body[..length].to_vec(), ..self.clone() }
    }

    /// To another call.
    pub(crate) fn of(self, call: &str) -> Self {
        self.to(&format!("/inference.GRPCInferenceService/{call}"))
    }

    /// To another path.
    pub(crate) fn to(self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self }
    }

    /// The error that it is answered with.
    pub(crate) async fn send(&self, address: SocketAddr) -> Status {
        let answer = self.asked(address).await;
        assert_eq!(answer.status(), 200);
        Status::from_header_map(answer.headers()).expect("the answer is an error")
    }

    /// The bytes that it is answered with.
    pub(crate) async fn answer(&self, address: SocketAddr) -> Vec<u8> {
        self.asked(address).await.bytes().await.expect("the answer is whole").to_vec()
    }

    async fn asked(&self, address: SocketAddr) -> reqwest::Response {
        let request = http2().post(format!("http://{address}{}", self.path));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let headers = self.headers.iter();
        let request = headers.fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(self.body.clone()).send().await.expect("the server answers")
    }
}

/// A client that begins with HTTP/2.
pub(crate) fn http2() -> reqwest::Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge();
    client.build().expect("the client is sound")
}
