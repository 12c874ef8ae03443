//! Who sends a batch, over gRPC or over HTTP.

use std::time::Duration;

use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{StatusCode, Url};
use tokio::time::timeout;
use tonic::Code;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::OtlpError;
use super::proto::trace_service_client::TraceServiceClient;
use super::proto::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use crate::causes;
use crate::config::{OtlpHeader, OtlpProtocol, TelemetryConfig};

const USER_AGENT: &str = concat!("onward/", env!("CARGO_PKG_VERSION"));

/// What the address ends with, for messages over HTTP.
const PATH: &str = "/v1/traces";

/// The longest answer that is read over HTTP.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Sends batches to one collector.
pub(super) struct Client {
    by: By,
    headers: Vec<OtlpHeader>,
    timeout: Duration,
    shown: String,
}

enum By {
    Grpc(TraceServiceClient<Channel>),
    Http(reqwest::Client, Url),
}

/// Why a batch was not taken.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) cause: String,
    /// Whether the same batch may be taken another time.
    pub(super) may_pass: bool,
}

/// What the collector did not want of a batch.
pub(super) type Rejected = Option<ExportTracePartialSuccess>;

impl Refused {
    fn passing(cause: String) -> Self {
        Self { cause, may_pass: true }
    }
}

impl Client {
    /// # Errors
    /// [`OtlpError`].
    pub(super) fn new(endpoint: &str, config: &TelemetryConfig) -> Result<Self, OtlpError> {
        // The process may have a provider already; any does.
        rustls::crypto::ring::default_provider().install_default().ok();
        let timeout = config.otlp_timeout;
        let (by, shown) = match config.otlp_protocol {
            OtlpProtocol::Grpc => (By::Grpc(grpc(endpoint, timeout)?), endpoint.to_owned()),
            OtlpProtocol::HttpProtobuf => {
                let url = traces(endpoint);
                let shown = url.to_string();
                (By::Http(http(timeout)?, url), shown)
            }
        };
        // A key may be in the query.
        let shown = shown.split(['?', '#']).next().unwrap_or_default().to_owned();
        Ok(Self { by, headers: config.otlp_headers.clone(), timeout, shown })
    }

    /// The collector's address without what may be secret in it.
    pub(super) fn shown(&self) -> String {
        self.shown.clone()
    }

    /// Sends a batch, and waits until it is taken. Cancel safe.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) async fn send(
        &self,
        batch: &ExportTraceServiceRequest,
    ) -> Result<Rejected, Refused> {
        let answer = timeout(self.timeout, async {
            match &self.by {
                By::Grpc(client) => self.call(client.clone(), batch.clone()).await,
                By::Http(client, url) => self.post(client, (url, batch)).await,
            }
        });
        let late = |_| Refused::passing(format!("no answer came in {:?}", self.timeout));
        Ok(answer.await.map_err(late)??.partial_success)
    }

    async fn call(
        &self,
        mut client: TraceServiceClient<Channel>,
        batch: ExportTraceServiceRequest,
    ) -> Result<ExportTraceServiceResponse, Refused> {
        let mut request = tonic::Request::new(batch);
        for header in &self.headers {
            let key = AsciiMetadataKey::from_bytes(header.name().as_bytes());
            let value = AsciiMetadataValue::try_from(header.value());
            if let (Ok(key), Ok(mut value)) = (key, value) {
                value.set_sensitive(true);
                request.metadata_mut().insert(key, value);
            }
        }
        let answer = client.export(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| Refused {
            cause: causes::of_error(&status),
            may_pass: may_pass(status.code()),
        })
    }

    async fn post(
        &self,
        client: &reqwest::Client,
        (url, batch): (&Url, &ExportTraceServiceRequest),
    ) -> Result<ExportTraceServiceResponse, Refused> {
        let mut request = client.post(url.clone()).header(CONTENT_TYPE, "application/x-protobuf");
        for header in &self.headers {
            if let Ok(mut value) = HeaderValue::from_str(header.value()) {
                value.set_sensitive(true);
                request = request.header(header.name(), value);
            }
        }
        let lost = |error: reqwest::Error| Refused::passing(causes::of_error(&error.without_url()));
        let mut answer = request.body(batch.encode_to_vec()).send().await.map_err(lost)?;
        let status = answer.status();
        if !status.is_success() {
            let cause = format!("it answered {status}");
            return Err(Refused { cause, may_pass: is_passing(status) });
        }
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(lost)? {
            if body.len() + part.len() > LONGEST_ANSWER {
                break;
            }
            body.extend_from_slice(&part);
        }
        // It was taken, whatever is said beside that.
        Ok(ExportTraceServiceResponse::decode(&*body).unwrap_or_default())
    }
}

fn grpc(endpoint: &str, timeout: Duration) -> Result<TraceServiceClient<Channel>, OtlpError> {
    let channel = Endpoint::from_shared(endpoint.to_owned())?;
    let channel = channel.user_agent(USER_AGENT)?.connect_timeout(timeout);
    let channel = if endpoint.to_ascii_lowercase().starts_with("https:") {
        channel.tls_config(ClientTlsConfig::new().with_native_roots())?
    } else {
        channel
    };
    Ok(TraceServiceClient::new(channel.connect_lazy()))
}

fn http(timeout: Duration) -> reqwest::Result<reqwest::Client> {
    let client = reqwest::Client::builder().timeout(timeout).user_agent(USER_AGENT);
    // The environment is read in one place, and not by a client; and spans are nobody else's business.
    client.no_proxy().redirect(Policy::none()).build()
}

/// Where messages go to, at a collector's address.
fn traces(endpoint: &str) -> Url {
    let mut url = Url::parse(endpoint).expect("the configuration was checked");
    let path = url.path().trim_end_matches('/').to_owned();
    if !path.ends_with(PATH) {
        url.set_path(&format!("{path}{PATH}"));
    }
    url
}

/// By the protocol's specification.
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            // What the library has for a connection that breaks.
            | Code::Unknown
    )
}

/// The same.
fn is_passing(status: StatusCode) -> bool {
    let later = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    later.contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_to_their_path() {
        for (endpoint, expected) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("http://c/otlp", "http://c/otlp/v1/traces"),
            ("http://c/v1/traces", "http://c/v1/traces"),
            ("http://c/x?key=1", "http://c/x/v1/traces?key=1"),
        ] {
            assert_eq!(traces(endpoint).as_str(), expected);
        }
    }
}
