//! Who is let in: the rule of each route, held before its handler is asked and a body is read.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Services;
use super::error::ApiError;
use super::target::param;
use super::tfs;
use crate::auth::{Access, Act, Audit, Deed, Denied, Guard, Presented, Reach};
use crate::oip::RequestId;
use crate::trail::Trail;

/// The header that has a key, where `Authorization` is for a proxy.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What stands before a route.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    /// Who lets requests in; without one, everybody is.
    pub(super) guard: Option<Arc<Guard>>,
    pub(super) audit: Arc<Audit>,
    pub(super) deed: Deed,
    pub(super) reach: Reach,
}

/// Whether an inference that is not sent through the router may be made.
///
/// # Errors
/// [`Denied`], which is written down.
pub(super) fn inference(
    (guard, audit): (&Guard, &Audit),
    (request, model): (&Request, &str),
    (id, peer): (&RequestId, SocketAddr),
) -> Result<(), Denied> {
    let admitted = guard.admit(presented(request), Deed::Infer);
    note(request, &admitted);
    let reached = |access: &Access| access.on_model(model);
    match admitted {
        Ok(access) => reached(&access).inspect_err(|denied| {
            let act = act(request, (Some(&access), Some(model)), (Some(id), peer));
            tell(audit, act, denied);
        }),
        Err(denied) => {
            tell(audit, act(request, (None, Some(model)), (Some(id), peer)), &denied);
            Err(denied)
        }
    }
}

/// Lets a request through to its handler, with what its caller may reach.
pub(super) async fn guarded(
    State(gate): State<Gate>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let Gate { guard, audit, deed, reach } = gate;
    let model = params.ok().and_then(|params| model(&params, &request));
    let peer = request.extensions().get::<SocketAddr>().copied();
    let peer = peer.expect("it was given with the request");
    let admit = |guard: &Guard| guard.admit(presented(&request), deed);
    let admitted = guard.as_deref().map_or(Ok(Access::EVERYTHING), admit);
    note(&request, &admitted);
    let id = request.extensions().get::<RequestId>();
    let act = act(&request, (admitted.as_ref().ok(), model.as_deref()), (id, peer));
    let admitted = admitted.and_then(|access| {
        access.reach(reach, model.as_deref())?;
        Ok(access)
    });
    match admitted {
        Ok(access) => {
            let change = (deed == Deed::Manage).then(|| audit.change(act));
            request.extensions_mut().insert(access);
            let response = next.run(request).await;
            if let Some(change) = change {
                change.answered(response.status().as_u16());
            }
            response
        }
        Err(denied) => {
            tell(&audit, act, &denied);
            ApiError::from(denied).into_response()
        }
    }
}

/// The model that a path names, as its handler reads it.
fn model(params: &RawPathParams, request: &Request) -> Option<String> {
    let model = param(params, "model")?;
    let is_last = param(params, "version").or(param(params, "label")).is_none();
    let predicts = is_last && tfs::predicts(request);
    let name = if predicts { tfs::without_predict(model) } else { model };
    Some(name.to_owned())
}

/// Notes whose request it is.
fn note(request: &Request, admitted: &Result<Access, Denied>) {
    if let (Some(trail), Ok(access)) = (request.extensions().get::<Trail>(), admitted) {
        trail.is_by(access.who());
    }
}

fn presented(request: &Request) -> Presented<'_> {
    let values = |name| request.headers().get_all(name).iter().map(HeaderValue::as_bytes);
    Presented::read(values(AUTHORIZATION), values(API_KEY))
}

fn act(
    request: &Request,
    (access, model): (Option<&Access>, Option<&str>),
    (id, peer): (Option<&RequestId>, SocketAddr),
) -> Act {
    Act {
        who: access.map_or_else(|| "unknown".to_owned(), Access::who),
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        model: model.map(str::to_owned),
        peer,
        request_id: id.map(|id| id.as_str().to_owned()),
    }
}

fn tell(audit: &Audit, act: Act, denied: &Denied) {
    let status = if denied.asks_for_credential() { 401 } else { 403 };
    let who = denied.who().map_or(act.who, str::to_owned);
    audit.denied(Act { who, ..act }, status, &denied.to_string());
}

/// What the caller may reach. Where callers are asked for a credential and this one was not, that is
/// nothing.
impl FromRequestParts<Arc<Services>> for Access {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        services: &Arc<Services>,
    ) -> Result<Self, ApiError> {
        match (parts.extensions.get::<Self>(), &services.parts.guard) {
            (Some(access), _) => Ok(access.clone()),
            (None, None) => Ok(Self::EVERYTHING),
            (None, Some(_)) => Err(Denied::Missing.into()),
        }
    }
}
