//! gRPC's own health protocol: the server, and the one service it has, serve while it is ready.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status};

use super::Parts;
use super::proto::grpc_inference_service_server::SERVICE_NAME;
use super::proto::health::health_check_response::ServingStatus;
use super::proto::health::{HealthCheckRequest, HealthCheckResponse, health_server};
use super::status::status;
use crate::lifecycle::{CheckKind, EventStream};
use crate::oip::Code;

pub(super) struct Health(Arc<Parts>);

impl Health {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self(parts)
    }
}

type Statuses = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if is_known(service) {
            return Ok(Response::new(response(current(&self.0))));
        }
        Err(status(Code::NotFound, &format!("there is no service '{service}'")))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Statuses>, Status> {
        let known = is_known(&request.get_ref().service);
        let watch = Watch::begin(Arc::clone(&self.0), known);
        let statuses = stream::unfold(watch, |mut watch| async move {
            let status = watch.next().await?;
            Some((Ok(response(status)), watch))
        });
        // A stream that ends without an error would tell that the call is over for good.
        let end = stream::once(async { Err(status(Code::ShuttingDown, "the server stops")) });
        Ok(Response::new(statuses.chain(end).boxed()))
    }
}

/// The server under the empty name, and what it offers.
fn is_known(service: &str) -> bool {
    service.is_empty() || service == SERVICE_NAME
}

fn current(parts: &Parts) -> ServingStatus {
    let ready = parts.health.verdict(CheckKind::Readiness).passing;
    if ready { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// A service that is watched.
struct Watch {
    parts: Arc<Parts>,
    events: EventStream,
    known: bool,
    told: Option<ServingStatus>,
}

impl Watch {
    fn begin(parts: Arc<Parts>, known: bool) -> Self {
        let events = parts.events.subscribe();
        Self { parts, events, known, told: None }
    }

    /// The next status that is another one than that which was told; `None` at the end of the server.
    async fn next(&mut self) -> Option<ServingStatus> {
        let closing = self.parts.closing.clone();
        loop {
            let now = if self.known { current(&self.parts) } else { ServingStatus::ServiceUnknown };
            if self.told != Some(now) {
                self.told = Some(now);
                return Some(now);
            }
            // Whatever has happened, or was missed: it is looked again.
            closing.run_until_cancelled(self.events.recv()).await?.ok();
        }
    }
}
