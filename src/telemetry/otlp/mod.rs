//! Spans on their way to a collector, by OpenTelemetry's protocol: over gRPC, or as protobuf over HTTP.
//!
//! One task sends them, in batches. A collector that is away, slow or silent holds nobody up: what does not
//! fit into the queue meanwhile is dropped and counted.

mod client;
mod encoding;
mod outage;
mod proto;
mod sending;

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::TelemetryConfig;
use crate::lifecycle::Deadline;
use crate::trail::{Recorder, Spans};
use client::Client;
use encoding::Encoder;
use outage::Outage;
use sending::Sending;

/// Spans that wait to be sent; some tens of megabytes at most.
const ROOM: usize = 8192;

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// There is no client for HTTP.
    #[error("telemetry.otlp_endpoint: there is no client for it")]
    Http(#[from] reqwest::Error),
    /// There is no client for gRPC.
    #[error("telemetry.otlp_endpoint: there is no client for it")]
    Grpc(#[from] tonic::transport::Error),
}

/// Sends spans until it is told to finish.
#[derive(Debug)]
pub struct Exporter {
    task: JoinHandle<()>,
    finish: CancellationToken,
    timeout: Duration,
}

/// What takes spans by this configuration, and what sends them on; neither does anything where no collector is
/// named. `instance` tells this life of the server from others. Must be called inside a tokio runtime.
///
/// # Errors
/// [`OtlpError`].
pub fn export(
    config: &TelemetryConfig,
    instance: &str,
) -> Result<(Recorder, Option<Exporter>), OtlpError> {
    let Some(endpoint) = &config.otlp_endpoint else { return Ok((Recorder::default(), None)) };
    let client = Client::new(endpoint.as_str(), config)?;
    let (recorder, spans) = Recorder::new(config.trace_sample_ratio.millionths(), ROOM);
    let encoder = Encoder::new(config.service_name.as_str(), instance);
    let outage = Outage::new(client.shown());
    let exporter = Exporter::start(spans, (client, encoder, outage), config.otlp_timeout);
    Ok((recorder, Some(exporter)))
}

impl Exporter {
    fn start(spans: Spans, by: (Client, Encoder, Outage), timeout: Duration) -> Self {
        let finish = CancellationToken::new();
        let sending = Sending::new(spans, by);
        Self { task: tokio::spawn(sending.run(finish.clone())), finish, timeout }
    }

    /// Sends what there is, and ends: within one attempt's time, and half of what is left, as others have work to
    /// do until the deadline too.
    pub async fn finish(mut self, deadline: Deadline) {
        self.finish.cancel();
        let deadline = deadline.at_most(self.timeout).at_most(deadline.remaining() / 2);
        if deadline.bound(&mut self.task).await.is_none() {
            self.task.abort();
            warn!("the collector has not taken the last spans in time, they are dropped");
        }
    }
}
