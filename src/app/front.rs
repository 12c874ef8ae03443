//! Who answers what comes over one listener.

use std::future::ready;
use std::net::SocketAddr;

use axum::http::{HeaderMap, HeaderValue, Request, Version};
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::Either;
use hyper::body::{Body as _, Incoming};

use crate::admission::{Client, Gate, is_probe};
use crate::grpc::{self, Grpc, is_grpc};
use crate::http::{Answers, InFlight, Rest};
use crate::trail::{Arriving, Carrier, Parent, Trail, Trails};

/// gRPC, and REST where it is served beside it.
#[derive(Debug, Clone)]
pub(super) struct Front {
    rest: Option<Rest>,
    grpc: Grpc,
    /// Counts the calls of gRPC; REST does so itself.
    in_flight: InFlight,
    gate: Gate,
    trails: Trails,
}

impl Front {
    /// gRPC alone; requests leave behind what `trails` want.
    pub(super) fn of_grpc(grpc: Grpc, in_flight: InFlight, trails: Trails) -> Self {
        Self { rest: None, grpc, in_flight, gate: Gate::default(), trails }
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

    fn carrier(&self, request: &Request<Incoming>) -> Carrier {
        let is_call = self.rest(request).is_none() && is_grpc(request.headers());
        if is_call { Carrier::Grpc } else { Carrier::Http }
    }

    /// What the request leaves behind, if it does.
    fn trail(&self, request: &Request<Incoming>, client: Client) -> Option<Trail> {
        let path = request.uri().path();
        let is_probe = is_probe(path) || path == "/metrics";
        let carrier = self.carrier(request);
        self.trails.begin((parent(request.headers()), is_probe), || Arriving {
            carrier,
            method: request.method().to_string(),
            path: path.to_owned(),
            peer: client.peer,
            bytes: request.body().size_hint().exact(),
        })
    }

    /// None of those who answer is within an async function here: each of these would have room for the request
    /// twice, beside that of the next. What comes seldom is on the heap, out of the way of all else, and so are calls
    /// of gRPC, which are large.
    fn answered(
        &self,
        request: Request<Incoming>,
        client: Client,
    ) -> impl Future<Output = Response> + Send {
        let refusal = self.gate.refusal(request.uri().path(), client);
        match (self.rest(&request), refusal) {
            (Some(rest), None) => Either::Left(Either::Left(rest.answer(request, client))),
            (Some(rest), Some(refusal)) => Either::Right(rest.refuse(request, refusal).boxed()),
            (None, Some(refusal)) if is_grpc(request.headers()) => {
                Either::Right(ready(self.grpc.refuse(&request, &refusal)).boxed())
            }
            (None, _) => Either::Left(Either::Right(Box::pin(self.called(request, client.peer)))),
        }
    }

    async fn called(&self, request: Request<Incoming>, peer: SocketAddr) -> Response {
        let _counted = self.in_flight.enter();
        self.grpc.answer(request, peer).await
    }

    /// Answers, and has the request leave behind what is wanted of it.
    async fn followed(&self, mut request: Request<Incoming>, client: Client) -> Response {
        let Some(trail) = self.trail(&request, client) else {
            return self.answered(request, client).await;
        };
        let carrier = self.carrier(&request);
        request.extensions_mut().insert(trail.clone());
        let response = self.answered(request, client).await;
        let status = match carrier {
            Carrier::Http => response.status().as_u16(),
            Carrier::Grpc => grpc::code(&response),
        };
        trail.answered(status, response.body().size_hint().exact());
        response
    }
}

impl Answers for Front {
    fn answer(
        &self,
        request: Request<Incoming>,
        client: Client,
    ) -> impl Future<Output = Response> + Send {
        if self.trails.is_on() {
            Either::Right(self.followed(request, client).boxed())
        } else {
            Either::Left(self.answered(request, client))
        }
    }
}

/// The trace context that a request or a call has brought.
fn parent(headers: &HeaderMap) -> Option<Parent> {
    let values = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    Parent::read(values("traceparent"), values("tracestate"))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::http;

    #[test]
    fn every_route_is_for_everybody_or_for_operators() {
        let gate = Gate { is_public: true, ..Gate::default() };
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
