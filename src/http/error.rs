//! What a client is told when something goes wrong: the one place that chooses statuses and codes.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{self, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::wire::JSON;
use crate::auth::Denied;
use crate::causes;
use crate::inference::InferError;
use crate::json_tensors::JsonError;
use crate::lifecycle::{CheckRunError, NotRunning, ResourceError};
use crate::model::{CancelError, ChangeError, LookupError, ModelName, NameError};
use crate::oip::{Code, Refusal, shortened};

/// How long a client should wait before it asks again, where nothing tells better.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The longest message: a client may have sent a name of any length.
const LONGEST: usize = 4096;

/// Everything that can go wrong with a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Cancel(#[from] CancelError),
    #[error(transparent)]
    CheckRun(#[from] CheckRunError),
    #[error(transparent)]
    Resource(#[from] ResourceError),
    #[error(transparent)]
    NotRunning(#[from] NotRunning),
    #[error("Request for unknown model: '{0}' is not found")]
    NoReport(ModelName),
    #[error("there is no operation '{0}', or it ended long ago")]
    NoOperation(String),
    #[error("the tag {0} is not the model's; its ETag tells")]
    Stale(String),
    #[error("there is no kind of check '{0}', only liveness, readiness and startup")]
    NoCheckKind(String),
    #[error("the body is empty, a JSON object is expected")]
    EmptyBody,
    #[error("the body is larger than {limit} bytes, the setting server.max_body_size")]
    PayloadTooLarge { limit: usize },
    #[error("the body is larger than {limit} bytes, which is more than this needs")]
    ChangeTooLarge { limit: usize },
    #[error("the body did not arrive within {}", humantime::format_duration(*limit))]
    BodyTimeout { limit: Duration },
    #[error("content encoding '{encoding}' is not supported, {instead}")]
    UnsupportedEncoding { encoding: String, instead: &'static str },
    #[error("there is no {0}")]
    NoSuchPath(String),
    #[error("{method} is not possible on {path}, only {}", possible.join(" and "))]
    MethodNotAllowed { method: String, path: String, possible: Vec<String> },
    #[error("a page of another site may not change anything here")]
    CrossSite,
    #[error("the request could not be answered because of a bug in the server")]
    Panicked(String),
}

impl From<JsonError> for ApiError {
    fn from(error: JsonError) -> Self {
        Self::bad_request(error.to_string())
    }
}

/// The status that goes with a code.
const fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidRequest | Code::InvalidName | Code::LoadFailed => StatusCode::BAD_REQUEST,
        Code::UnknownModel
        | Code::UnknownVersion
        | Code::UnknownAlias
        | Code::UnknownOperation
        | Code::UnknownLease
        | Code::ModelNotLoaded
        | Code::UnknownCheck
        | Code::UnknownResource
        | Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::Unauthenticated | Code::InvalidCredential => StatusCode::UNAUTHORIZED,
        Code::CrossSite | Code::Forbidden => StatusCode::FORBIDDEN,
        Code::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Code::ChangeInProgress
        | Code::AlreadyCurrent
        | Code::VersionNotLoaded
        | Code::VersionInUse
        | Code::NothingBefore
        | Code::FilesChanged
        | Code::Incompatible
        | Code::RolledBack
        | Code::VerificationFailed
        | Code::NoSamples
        | Code::Leased
        | Code::TooManyLeases
        | Code::KeyReused
        | Code::OperationCancelled
        | Code::OperationCommitted
        | Code::ResourceInUse
        | Code::NotRunning => StatusCode::CONFLICT,
        Code::GenerationMismatch => StatusCode::PRECONDITION_FAILED,
        Code::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::Overloaded | Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Code::ModelUnavailable
        | Code::RepositoryUnavailable
        | Code::ResourceUnavailable
        | Code::ShuttingDown
        | Code::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::InsufficientMemory => StatusCode::INSUFFICIENT_STORAGE,
    }
}

impl ApiError {
    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self::Refused(Refusal::invalid(text))
    }

    pub(super) fn unsupported(text: impl Into<String>) -> Self {
        Self::Refused(Refusal::unsupported(text))
    }

    /// Used where the status is one of those that go with it.
    fn retry_after(&self) -> Duration {
        match self {
            Self::Resource(ResourceError::BackingOff { retry_in, .. }) => *retry_in,
            Self::Refused(Refusal::TooOften { retry_after }) => *retry_after,
            _ => RETRY_AFTER,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Cancel(_) => Code::OperationCommitted,
            Self::NoOperation(_) => Code::UnknownOperation,
            Self::Stale(_) => Code::GenerationMismatch,
            Self::CheckRun(CheckRunError::Unknown { .. }) | Self::NoCheckKind(_) => {
                Code::UnknownCheck
            }
            Self::CheckRun(CheckRunError::Stopped) => Code::ShuttingDown,
            Self::Resource(error) => of_resource(error),
            Self::NotRunning(_) => Code::NotRunning,
            Self::NoReport(_) => Code::UnknownModel,
            Self::EmptyBody => Code::InvalidRequest,
            Self::PayloadTooLarge { .. } | Self::ChangeTooLarge { .. } => Code::PayloadTooLarge,
            Self::BodyTimeout { .. } => Code::RequestTimeout,
            Self::UnsupportedEncoding { .. } => Code::UnsupportedEncoding,
            Self::NoSuchPath(_) => Code::NotFound,
            Self::MethodNotAllowed { .. } => Code::MethodNotAllowed,
            Self::CrossSite => Code::CrossSite,
            Self::Panicked(_) => Code::Internal,
        }
    }
}

fn of_resource(error: &ResourceError) -> Code {
    match error {
        ResourceError::Unknown(_) => Code::UnknownResource,
        ResourceError::Needed { .. } | ResourceError::Lasting(_) => Code::ResourceInUse,
        ResourceError::Failed { .. }
        | ResourceError::BackingOff { .. }
        | ResourceError::Unavailable { .. } => Code::ResourceUnavailable,
        ResourceError::Order(_) => Code::Internal,
    }
}

/// The answer to a request that failed, before it is known under which id.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    code: Code,
    text: String,
    retry_after: Duration,
    /// What only the log is told.
    pub(super) secret: Option<String>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    code: &'static str,
    request_id: &'a str,
}

macro_rules! refusals {
    ($($error:ty),*) => {
        $(impl From<$error> for ApiError {
            fn from(error: $error) -> Self {
                Self::Refused(error.into())
            }
        })*
    };
}

refusals!(NameError, LookupError, ChangeError, Arc<ChangeError>, InferError, Denied);

impl Failure {
    /// What a request that failed so is told.
    pub(super) fn of(error: ApiError) -> Self {
        let (code, text) = (error.code(), causes::of_error(&error));
        let (text, retry_after) = (shortened(&text, LONGEST).into_owned(), error.retry_after());
        let secret = match error {
            ApiError::Panicked(message) => Some(message),
            ApiError::Refused(refusal) => refusal.secret().map(str::to_owned),
            _ => None,
        };
        Self { code, text, retry_after, secret }
    }

    /// Whether it was given up by who asked for it.
    pub(super) fn is_cancelled(&self) -> bool {
        self.code == Code::OperationCancelled
    }

    /// The body, and the headers that go with it.
    pub(super) fn write(&self, request_id: &str, headers: &mut HeaderMap) -> Vec<u8> {
        let body = ErrorBody { error: &self.text, code: self.code.name(), request_id };
        headers.insert(CONTENT_TYPE, JSON);
        let again = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        if again.contains(&status(self.code)) {
            headers.insert(header::RETRY_AFTER, whole_seconds(self.retry_after));
        }
        if let Some(challenge) = challenge(self.code) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        let mut text = serde_json::to_vec(&body).expect("three texts can be written");
        text.push(b'\n');
        text
    }

    pub(super) fn code(&self) -> &'static str {
        self.code.name()
    }

    /// As of its code.
    pub(super) fn quotes_body(&self) -> bool {
        self.code.quotes_body()
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// What RFC 6750 has a client told of the credential that is needed.
const fn challenge(code: Code) -> Option<&'static str> {
    match code {
        Code::Unauthenticated => Some("Bearer"),
        Code::InvalidCredential => Some("Bearer error=\"invalid_token\""),
        Code::Forbidden => Some("Bearer error=\"insufficient_scope\""),
        _ => None,
    }
}

/// Rounded up, so that nobody comes too early.
fn whole_seconds(duration: Duration) -> HeaderValue {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

impl IntoResponse for ApiError {
    /// The status alone; [`super::finish`] adds the body, which tells the request's id.
    fn into_response(self) -> Response {
        let failure = Failure::of(self);
        let mut response = status(failure.code).into_response();
        response.extensions_mut().insert(failure);
        response
    }
}
