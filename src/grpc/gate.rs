//! Who is let in: the rule of each call, held before its message is read; and of which model it is, once
//! the message tells.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};
use axum::response::Response;
use tonic::Status;

use super::call_id::CallId;
use super::front::answer;
use super::status::refused;
use super::{Parts, counts};
use crate::auth::{Access, Act, Audit, Deed, Denied, Guard, Presented, Reach, Rule, is_denied};
use crate::oip::Refusal;
use crate::trail::Trail;

/// The metadata that has a key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The codes of gRPC for what is denied.
const UNAUTHENTICATED: u16 = 16;
const PERMISSION_DENIED: u16 = 7;

/// That for calls that are not offered.
const UNIMPLEMENTED: u16 = 12;

const DESCRIBE: Rule = Rule::Needs(Deed::Describe, Reach::Visible);
const DESCRIBE_MODEL: Rule = Rule::Needs(Deed::Describe, Reach::Model);
const READ: Rule = Rule::Needs(Deed::Read, Reach::Visible);
const INFER: Rule = Rule::Needs(Deed::Infer, Reach::Model);
const MANAGE_MODEL: Rule = Rule::Needs(Deed::Manage, Reach::Model);
const MANAGE_SERVER: Rule = Rule::Needs(Deed::Manage, Reach::Server);

/// What has no row: nobody but who may do everything.
const UNLISTED: Rule = MANAGE_SERVER;

/// The path of a call of the protocol.
macro_rules! protocol {
    ($call:literal) => {
        concat!("/inference.GRPCInferenceService/", $call)
    };
}

/// Every call with who may make it. Settings are read and changed by one call.
const CALLS: [(&str, Rule); 24] = [
    (protocol!("ServerLive"), Rule::Open),
    (protocol!("ServerReady"), Rule::Open),
    (protocol!("ModelReady"), DESCRIBE_MODEL),
    (protocol!("ServerMetadata"), DESCRIBE),
    (protocol!("ModelMetadata"), DESCRIBE_MODEL),
    (protocol!("ModelInfer"), INFER),
    (protocol!("ModelStreamInfer"), INFER),
    (protocol!("ModelConfig"), DESCRIBE_MODEL),
    (protocol!("ModelStatistics"), DESCRIBE),
    (protocol!("RepositoryIndex"), DESCRIBE),
    (protocol!("RepositoryModelLoad"), MANAGE_MODEL),
    (protocol!("RepositoryModelUnload"), MANAGE_MODEL),
    (protocol!("SystemSharedMemoryStatus"), MANAGE_SERVER),
    (protocol!("SystemSharedMemoryRegister"), MANAGE_SERVER),
    (protocol!("SystemSharedMemoryUnregister"), MANAGE_SERVER),
    (protocol!("CudaSharedMemoryStatus"), MANAGE_SERVER),
    (protocol!("CudaSharedMemoryRegister"), MANAGE_SERVER),
    (protocol!("CudaSharedMemoryUnregister"), MANAGE_SERVER),
    (protocol!("TraceSetting"), MANAGE_MODEL),
    (protocol!("LogSettings"), MANAGE_SERVER),
    ("/grpc.health.v1.Health/Check", Rule::Open),
    ("/grpc.health.v1.Health/Watch", Rule::Open),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", READ),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", READ),
];

/// The paths of all calls, with who may make them.
pub fn rules() -> Vec<(&'static str, Rule)> {
    CALLS.to_vec()
}

/// The largest message of a call that has no tensors and no files, in bytes: room is made for a message before
/// it comes.
const SMALL: usize = 64 * 1024;

/// The calls whose messages may be as large as a body.
const LARGE: [&str; 3] = [
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/inference.GRPCInferenceService/RepositoryModelLoad",
];

/// How large a message of a call may be, where those with tensors may have so many bytes.
pub(super) fn largest(path: &str, most: usize) -> usize {
    if LARGE.contains(&path) { most } else { most.min(SMALL) }
}

fn rule(path: &str) -> Rule {
    CALLS.iter().find(|(known, _)| *known == path).map_or(UNLISTED, |(_, rule)| *rule)
}

/// Whoever makes a call, as its handler knows them.
#[derive(Debug, Clone)]
pub(super) struct Caller(Option<Arc<Known>>);

#[derive(Debug)]
struct Known {
    guard: Option<Arc<Guard>>,
    audit: Arc<Audit>,
    access: Access,
    deed: Deed,
    place: Place,
    /// The model that the message has named.
    model: OnceLock<String>,
    /// The message has asked for nothing to be changed.
    only_reads: AtomicBool,
}

/// Where a call comes from, and what it is.
#[derive(Debug, Clone)]
struct Place {
    path: String,
    peer: SocketAddr,
    id: Option<CallId>,
}

impl Caller {
    /// That of a call that [`guarded`] has let through. Where callers are asked for a credential and this
    /// one was not, there is none.
    ///
    /// # Errors
    /// What the call is told then.
    pub(super) fn of<T>(parts: &Parts, request: &tonic::Request<T>) -> Result<Self, Status> {
        match (request.extensions().get::<Self>(), &parts.guard) {
            (Some(caller), _) => Ok(caller.clone()),
            (None, None) => Ok(Self(None)),
            (None, Some(_)) => Err(denied(Denied::Missing)),
        }
    }

    /// Whether the caller may see this model.
    pub(super) fn sees(&self, model: &str) -> bool {
        self.0.as_ref().is_none_or(|known| known.access.sees(model))
    }

    /// Notes that the call, by which something could be changed, changes nothing.
    pub(super) fn only_reads(&self) {
        if let Some(known) = &self.0 {
            known.only_reads.store(true, Ordering::Relaxed);
        }
    }

    /// # Errors
    /// Where the call is not for a caller of some models.
    pub(super) fn on_server(&self) -> Result<(), Status> {
        let Some(known) = &self.0 else { return Ok(()) };
        known.access.on_server().map_err(denied)
    }

    /// # Errors
    /// Where the caller may not make the call with this model.
    pub(super) fn on_model(&self, model: &str) -> Result<(), Status> {
        let Some(known) = &self.0 else { return Ok(()) };
        known.model.get_or_init(|| model.to_owned());
        known.access.on_model(model).map_err(denied)
    }

    /// The same for one message of a stream, which may last longer than the credential: it is looked at
    /// anew, and what is denied is written down.
    ///
    /// # Errors
    /// The same.
    pub(super) fn still_on_model(&self, model: &str) -> Result<(), Refusal> {
        let Some(known) = &self.0 else { return Ok(()) };
        let Some(guard) = &known.guard else { return Ok(()) };
        let again = guard.again(&known.access, known.deed);
        again.and_then(|access| access.on_model(model)).map_err(|denied| {
            let code = code(&denied);
            let act = known.place.act(known.access.who(), Some(model.to_owned()));
            known.audit.denied(act, code, &denied.to_string());
            Refusal::from(denied)
        })
    }
}

impl Place {
    fn act(&self, who: String, model: Option<String>) -> Act {
        let (path, method) = (self.path.clone(), "gRPC".to_owned());
        let id = self.id.as_ref().map(CallId::settle);
        let request_id = id.map(|id| id.as_str().to_owned());
        Act { who, method, path, model, peer: self.peer, request_id }
    }
}

/// Lets a call through whose caller may make such calls; its handler asks for the model. Without a guard
/// everybody may, and changes are written down.
pub(super) async fn guarded<B, F: Future<Output = Response>>(
    (guard, audit): (Option<&Arc<Guard>>, &Arc<Audit>),
    (request, peer): (Request<B>, SocketAddr),
    next: impl FnOnce(Request<B>) -> F,
) -> Response {
    let (deed, reach) = match rule(request.uri().path()) {
        Rule::Needs(deed, reach) if guard.is_some() || deed == Deed::Manage => (deed, reach),
        Rule::Needs(..) | Rule::Open => return next(request).await,
    };
    let id = request.extensions().get().cloned();
    let place = Place { path: request.uri().path().to_owned(), peer, id };
    let admit = |guard: &Arc<Guard>| guard.admit(presented(request.headers()), deed);
    let admitted = guard.map_or(Ok(Access::EVERYTHING), admit).and_then(|access| {
        if reach == Reach::Server {
            access.on_server()?;
        }
        Ok(access)
    });
    match admitted {
        Ok(access) => {
            if let Some(trail) = request.extensions().get::<Trail>() {
                trail.is_by(access.who());
            }
            let (guard, audit, model) = (guard.cloned(), Arc::clone(audit), OnceLock::new());
            let only_reads = AtomicBool::new(false);
            let known = Known { guard, audit, access, deed, place, model, only_reads };
            called(Arc::new(known), request, next).await
        }
        Err(denied) => {
            let who = denied.who().unwrap_or("unknown").to_owned();
            audit.denied(place.act(who, None), code(&denied), &denied.to_string());
            answer(&refused(&Refusal::from(denied)))
        }
    }
}

/// Has the call made, and writes down what there is to write of it.
async fn called<B, F: Future<Output = Response>>(
    known: Arc<Known>,
    mut request: Request<B>,
    next: impl FnOnce(Request<B>) -> F,
) -> Response {
    let act = |known: &Known| known.place.act(known.access.who(), known.model.get().cloned());
    let change = (known.deed == Deed::Manage).then(|| known.audit.change(act(&known)));
    request.extensions_mut().insert(Caller(Some(Arc::clone(&known))));
    let response = next(request).await;
    let status = counts::code(&response);
    let changes_nothing = status == UNIMPLEMENTED || known.only_reads.load(Ordering::Relaxed);
    match change {
        Some(change) if changes_nothing => change.withdraw(),
        Some(mut change) => {
            known.model.get().inspect(|model| change.named(model));
            change.answered(status);
        }
        None if is_denied(status) => {
            known.audit.denied(act(&known), status, "not for this caller");
        }
        None => {}
    }
    response
}

fn presented(headers: &HeaderMap) -> Presented<'_> {
    let values = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    Presented::read(values(AUTHORIZATION), values(API_KEY))
}

fn code(denied: &Denied) -> u16 {
    if denied.asks_for_credential() { UNAUTHENTICATED } else { PERMISSION_DENIED }
}

fn denied(denied: Denied) -> Status {
    refused(&Refusal::from(denied))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every call of `proto/`.
    fn described() -> Vec<String> {
        let sources =
            [include_str!("../../proto/inference.proto"), include_str!("../../proto/health.proto")];
        let mut calls = Vec::new();
        for source in sources {
            let (mut package, mut service) = ("", "");
            for line in source.lines() {
                let mut words = line.split([' ', '(', ';', '{']).filter(|word| !word.is_empty());
                match (words.next(), words.next()) {
                    (Some("package"), Some(name)) => package = name,
                    (Some("service"), Some(name)) => service = name,
                    (Some("rpc"), Some(name)) => calls.push(format!("/{package}.{service}/{name}")),
                    _ => {}
                }
            }
        }
        calls
    }

    #[test]
    fn every_call_has_a_rule() {
        let listed: BTreeSet<&str> = CALLS.iter().map(|(path, _)| *path).collect();
        assert_eq!(listed.len(), CALLS.len());
        let described = described();
        let described: BTreeSet<&str> = described.iter().map(String::as_str).collect();
        let unlisted: Vec<_> = described.difference(&listed).collect();
        assert!(unlisted.is_empty(), "{unlisted:?}");
        let of_others = listed.difference(&described);
        assert!(of_others.clone().all(|path| path.starts_with("/grpc.reflection.")));
        assert_eq!(rule("/inference.GRPCInferenceService/Other"), MANAGE_SERVER);
    }
}
