//! Who answers what comes over one listener.

use axum::http::{Request, Version};
use axum::response::Response;
use hyper::body::Incoming;

use crate::admission::{Client, Gate};
use crate::grpc::{Grpc, is_grpc};
use crate::http::{Answers, InFlight, Rest};

/// gRPC, and REST where it is served beside it.
#[derive(Debug, Clone)]
pub(super) struct Front {
    rest: Option<Rest>,
    grpc: Grpc,
    /// Counts the calls of gRPC; REST does so itself.
    in_flight: InFlight,
    gate: Gate,
}

impl Front {
    /// gRPC alone.
    pub(super) fn of_grpc(grpc: Grpc, in_flight: InFlight) -> Self {
        Self { rest: None, grpc, in_flight, gate: Gate::default() }
    }

    /// REST, and gRPC where a request says that it is one: over HTTP/2, which gRPC needs.
    pub(super) fn with_rest(self, rest: Rest) -> Self {
        Self { rest: Some(rest), ..self }
    }

    /// The same, of which only so much is let in.
    pub(super) fn behind(self, gate: Gate) -> Self {
        Self { gate, ..self }
    }

    /// Who answers this request where it is not gRPC.
    fn rest(&self, request: &Request<Incoming>) -> Option<&Rest> {
        let is_call = request.version() == Version::HTTP_2 && is_grpc(request.headers());
        self.rest.as_ref().filter(|_| !is_call)
    }
}

impl Answers for Front {
    async fn answer(&self, request: Request<Incoming>, client: Client) -> Response {
        let refusal = self.gate.refusal(request.uri().path(), client);
        match (self.rest(&request), refusal) {
            (Some(rest), None) => rest.answer(request, client).await,
            // On the heap, where it is out of the way of what is let in.
            (Some(rest), Some(refusal)) => Box::pin(rest.refuse(request, refusal)).await,
            (None, Some(refusal)) if is_grpc(request.headers()) => {
                self.grpc.refuse(request.uri().path(), &refusal)
            }
            (None, _) => {
                let _counted = self.in_flight.enter();
                self.grpc.answer(request, client.peer).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::http;

    #[test]
    fn every_route_is_for_everybody_or_for_operators() {
        let gate = Gate { is_public: true, rates: None };
        let client = Client { peer: (Ipv4Addr::LOCALHOST, 1).into(), is_spare: false };
        let paths = http::routes().into_iter().map(|(_, path)| path);
        let public: Vec<&str> = paths.filter(|path| gate.refusal(path, client).is_none()).collect();
        let expected = [
            "/livez",
            "/readyz",
            "/startupz",
            "/v2",
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models",
            "/v2/models/{model}",
            "/v2/models/{model}/versions/{version}",
            "/v2/models/{model}/ready",
            "/v2/models/{model}/versions/{version}/ready",
            "/v2/models/{model}/config",
            "/v2/models/{model}/versions/{version}/config",
            "/v2/models/{model}/infer",
            "/v2/models/{model}/versions/{version}/infer",
            "/v1/models/{model}:predict",
            "/v1/models/{model}/versions/{version}:predict",
            "/v1/models/{model}/labels/{label}:predict",
            "/v1/models/{model}",
            "/v1/models/{model}/versions/{version}",
            "/v1/models/{model}/labels/{label}",
            "/v1/models/{model}/metadata",
            "/v1/models/{model}/versions/{version}/metadata",
            "/v1/models/{model}/labels/{label}/metadata",
        ];
        assert_eq!(public, expected);
    }
}
