//! Who answers what comes over one listener.

use std::net::SocketAddr;

use axum::Router;
use axum::http::{Request, Version};
use axum::response::Response;
use hyper::body::Incoming;

use crate::grpc::is_grpc;
use crate::http::{Answers, InFlight, Rest};

/// gRPC, and REST where it is served beside it.
#[derive(Debug, Clone)]
pub(super) struct Front {
    rest: Option<Rest>,
    grpc: Router,
    /// Counts the calls of gRPC; REST does so itself.
    in_flight: InFlight,
}

impl Front {
    /// gRPC alone.
    pub(super) fn of_grpc(grpc: Router, in_flight: InFlight) -> Self {
        Self { rest: None, grpc, in_flight }
    }

    /// REST, and gRPC where a request says that it is one: over HTTP/2, which gRPC needs.
    pub(super) fn with_rest(self, rest: Rest) -> Self {
        Self { rest: Some(rest), ..self }
    }

    /// Who answers this request where it is not gRPC.
    fn rest(&self, request: &Request<Incoming>) -> Option<&Rest> {
        let is_call = request.version() == Version::HTTP_2 && is_grpc(request.headers());
        self.rest.as_ref().filter(|_| !is_call)
    }
}

impl Answers for Front {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response {
        if let Some(rest) = self.rest(&request) {
            return rest.answer(request, peer).await;
        }
        let _counted = self.in_flight.enter();
        self.grpc.answer(request, peer).await
    }
}
