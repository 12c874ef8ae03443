//! What answers requests of REST: the router, and what is around it.

use std::future::ready;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::Either;
use hyper::body::Incoming;
use tower::ServiceExt as _;

use super::error::ApiError;
use super::server::Answers;
use super::target::Target;
use super::{Parts, Services, finish, gate, infer, routes};
use crate::admission::Client;
use crate::oip::{Refusal, RequestId};

/// The REST interface. Clones share everything.
#[derive(Debug, Clone)]
pub struct Rest {
    services: Arc<Services>,
    router: Router,
}

impl Rest {
    /// That over what it is given.
    pub fn new(parts: Parts) -> Self {
        let services = Arc::new(Services::new(parts));
        let router = routes::router(Arc::clone(&services));
        Self { services, router }
    }

    /// What a request is told that is not let in.
    pub(crate) async fn refuse(
        &self,
        request: axum::http::Request<Incoming>,
        refusal: Refusal,
    ) -> Response {
        let told = ApiError::from(refusal).into_response();
        finish::finish(&self.services, request, |_, _| async { told }).await
    }

    /// The handler's answer. What comes most is not sent through the router, which takes about as long as
    /// all that is around it.
    fn handled(
        &self,
        mut request: Request,
        (id, peer): (RequestId, SocketAddr),
    ) -> impl Future<Output = Response> {
        let inference = routes::inference(request.method(), request.uri().path());
        if let Some((model, version)) = inference {
            let Parts { guard, audit, .. } = &self.services.parts;
            if let Some(guard) = guard
                && let Err(denied) = gate::inference((guard, audit), (&request, model), (&id, peer))
            {
                return Either::Right(Either::Right(ready(ApiError::from(denied).into_response())));
            }
            let target = Target::new(model, version);
            // On the heap: it is some kilobytes, which all around it would move on, and for which each connection
            // would have room also while it is idle.
            let answer = Box::pin(infer::answer(&self.services, target, request, Some(id)));
            return Either::Left(answer.map(IntoResponse::into_response));
        }
        request.extensions_mut().insert(id);
        request.extensions_mut().insert(peer);
        let answer = self.router.clone().oneshot(request);
        Either::Right(Either::Left(
            answer.map(|answer| answer.unwrap_or_else(|never| match never {})),
        ))
    }
}

impl Answers for Rest {
    async fn answer(&self, request: Request<Incoming>, client: Client) -> Response {
        finish::finish(&self.services, request, |request, id| async {
            // What a handler has shared with others is as safe from its panic as their own locks make it.
            let begin = AssertUnwindSafe(|| self.handled(request, (id, client.peer)));
            let handled = match catch_unwind(begin) {
                Ok(handling) => AssertUnwindSafe(handling).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            handled.unwrap_or_else(|panic| finish::panicked(panic.as_ref()))
        })
        .await
    }
}
