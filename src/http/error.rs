//! What a client is told when something goes wrong: the one place that chooses statuses and codes.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{self, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::wire::JSON;
use crate::causes;
use crate::inference::{BackendError, InferError, RunError};
use crate::lifecycle::{CheckRunError, NotRunning, ResourceError};
use crate::model::{
    CancelError, ChangeError, LoadError, LookupError, ModelName, NameError, SourceError, StateKind,
};

/// How long a client should wait before it asks again, where nothing tells better.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Everything that can go wrong with a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error(transparent)]
    Change(#[from] Arc<ChangeError>),
    #[error(transparent)]
    Cancel(#[from] CancelError),
    #[error(transparent)]
    Infer(#[from] InferError),
    #[error(transparent)]
    CheckRun(#[from] CheckRunError),
    #[error(transparent)]
    Resource(#[from] ResourceError),
    #[error(transparent)]
    NotRunning(#[from] NotRunning),
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The request makes sense, but asks for what this server does not do.
    #[error("{0}")]
    Unsupported(String),
    #[error("Request for unknown model: '{0}' is not found")]
    NoReport(ModelName),
    #[error("there is no operation '{0}', or it ended long ago")]
    NoOperation(String),
    #[error("the tag {0} is not the model's; its ETag tells")]
    Stale(String),
    #[error("there is no kind of check '{0}', only liveness, readiness and startup")]
    NoCheckKind(String),
    #[error("the body is larger than {limit} bytes, the setting server.max_body_size")]
    PayloadTooLarge { limit: usize },
    #[error("the body is larger than {limit} bytes, which is more than this needs")]
    ChangeTooLarge { limit: usize },
    #[error("the body did not arrive within {}", humantime::format_duration(*limit))]
    BodyTimeout { limit: Duration },
    #[error("content encoding '{0}' is not supported, send the body as it is")]
    UnsupportedEncoding(String),
    #[error("there is no {0}")]
    NoSuchPath(String),
    #[error("{method} is not possible on {path}")]
    MethodNotAllowed { method: String, path: String },
    #[error("a page of another site may not change anything here")]
    CrossSite,
    #[error("the request could not be answered because of a bug in the server")]
    Panicked(String),
}

/// What programs may rely on: an error's code never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    InvalidRequest,
    InvalidName,
    LoadFailed,
    UnknownModel,
    UnknownVersion,
    UnknownAlias,
    UnknownOperation,
    ModelNotLoaded,
    VersionNotLoaded,
    UnknownCheck,
    UnknownResource,
    NotFound,
    MethodNotAllowed,
    CrossSite,
    RequestTimeout,
    ChangeInProgress,
    AlreadyCurrent,
    VersionInUse,
    NothingBefore,
    FilesChanged,
    Incompatible,
    RolledBack,
    VerificationFailed,
    Leased,
    TooManyLeases,
    UnknownLease,
    InsufficientMemory,
    NoSamples,
    KeyReused,
    OperationCancelled,
    OperationCommitted,
    ResourceInUse,
    NotRunning,
    GenerationMismatch,
    PayloadTooLarge,
    UnsupportedEncoding,
    Overloaded,
    Internal,
    Unsupported,
    ModelUnavailable,
    RepositoryUnavailable,
    ResourceUnavailable,
    ShuttingDown,
    Cancelled,
    DeadlineExceeded,
}

impl Code {
    const fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidName => "invalid_name",
            Self::LoadFailed => "load_failed",
            Self::UnknownModel => "unknown_model",
            Self::UnknownVersion => "unknown_version",
            Self::UnknownAlias => "unknown_alias",
            Self::UnknownOperation => "unknown_operation",
            Self::ModelNotLoaded => "model_not_loaded",
            Self::VersionNotLoaded => "version_not_loaded",
            Self::UnknownCheck => "unknown_check",
            Self::UnknownResource => "unknown_resource",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::CrossSite => "cross_site",
            Self::RequestTimeout => "request_timeout",
            Self::ChangeInProgress => "change_in_progress",
            Self::AlreadyCurrent => "already_current",
            Self::VersionInUse => "version_in_use",
            Self::NothingBefore => "nothing_before",
            Self::FilesChanged => "files_changed",
            Self::Incompatible => "incompatible",
            Self::RolledBack => "rolled_back",
            Self::VerificationFailed => "verification_failed",
            Self::NoSamples => "no_samples",
            Self::Leased => "leased",
            Self::TooManyLeases => "too_many_leases",
            Self::UnknownLease => "unknown_lease",
            Self::InsufficientMemory => "insufficient_memory",
            Self::KeyReused => "key_reused",
            Self::OperationCancelled => "operation_cancelled",
            Self::OperationCommitted => "operation_committed",
            Self::GenerationMismatch => "generation_mismatch",
            Self::ResourceInUse => "resource_in_use",
            Self::NotRunning => "not_running",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
            Self::Unsupported => "unsupported",
            Self::ModelUnavailable => "model_unavailable",
            Self::RepositoryUnavailable => "repository_unavailable",
            Self::ResourceUnavailable => "resource_unavailable",
            Self::ShuttingDown => "shutting_down",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline_exceeded",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest | Self::InvalidName | Self::LoadFailed => StatusCode::BAD_REQUEST,
            Self::UnknownModel
            | Self::UnknownVersion
            | Self::UnknownAlias
            | Self::UnknownOperation
            | Self::UnknownLease
            | Self::ModelNotLoaded
            | Self::UnknownCheck
            | Self::UnknownResource
            | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::CrossSite => StatusCode::FORBIDDEN,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::ChangeInProgress
            | Self::AlreadyCurrent
            | Self::VersionNotLoaded
            | Self::VersionInUse
            | Self::NothingBefore
            | Self::FilesChanged
            | Self::Incompatible
            | Self::RolledBack
            | Self::VerificationFailed
            | Self::NoSamples
            | Self::Leased
            | Self::TooManyLeases
            | Self::KeyReused
            | Self::OperationCancelled
            | Self::OperationCommitted
            | Self::ResourceInUse
            | Self::NotRunning => StatusCode::CONFLICT,
            Self::GenerationMismatch => StatusCode::PRECONDITION_FAILED,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Self::ModelUnavailable
            | Self::RepositoryUnavailable
            | Self::ResourceUnavailable
            | Self::ShuttingDown
            | Self::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::InsufficientMemory => StatusCode::INSUFFICIENT_STORAGE,
        }
    }
}

impl ApiError {
    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self::BadRequest(text.into())
    }

    pub(super) fn unsupported(text: impl Into<String>) -> Self {
        Self::Unsupported(text.into())
    }

    /// Used where the status is one of those that go with it.
    fn retry_after(&self) -> Duration {
        match self {
            Self::Resource(ResourceError::BackingOff { retry_in, .. }) => *retry_in,
            _ => RETRY_AFTER,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Name(_) => Code::InvalidName,
            Self::Lookup(error) => of_lookup(error),
            Self::Change(error) => of_change(error),
            Self::Cancel(_) => Code::OperationCommitted,
            Self::NoOperation(_) => Code::UnknownOperation,
            Self::Stale(_) => Code::GenerationMismatch,
            Self::Infer(error) => of_infer(error),
            Self::CheckRun(CheckRunError::Unknown { .. }) | Self::NoCheckKind(_) => {
                Code::UnknownCheck
            }
            Self::CheckRun(CheckRunError::Stopped) => Code::ShuttingDown,
            Self::Resource(error) => of_resource(error),
            Self::NotRunning(_) => Code::NotRunning,
            Self::BadRequest(_) => Code::InvalidRequest,
            Self::Unsupported(_) => Code::Unsupported,
            Self::NoReport(_) => Code::UnknownModel,
            Self::PayloadTooLarge { .. } | Self::ChangeTooLarge { .. } => Code::PayloadTooLarge,
            Self::BodyTimeout { .. } => Code::RequestTimeout,
            Self::UnsupportedEncoding(_) => Code::UnsupportedEncoding,
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

fn of_lookup(error: &LookupError) -> Code {
    match error {
        LookupError::Name(_) => Code::InvalidName,
        LookupError::UnknownModel(_) => Code::UnknownModel,
        LookupError::UnknownVersion { .. } => Code::UnknownVersion,
        LookupError::UnknownAlias { .. } => Code::UnknownAlias,
        LookupError::Crowded { .. } => Code::Overloaded,
        LookupError::Late { .. } => Code::DeadlineExceeded,
        LookupError::NotServing { state: StateKind::Unloaded, reason, .. } if reason.is_empty() => {
            Code::ModelNotLoaded
        }
        LookupError::NotServing { .. } => Code::ModelUnavailable,
    }
}

fn of_change(error: &ChangeError) -> Code {
    match error {
        ChangeError::UnknownModel(_) => Code::UnknownModel,
        ChangeError::Source { source, .. } => of_source(source),
        ChangeError::Load { source, .. } | ChangeError::Scan { source, .. } => of_load(source),
        ChangeError::Repository(LoadError::ShuttingDown) | ChangeError::ShuttingDown => {
            Code::ShuttingDown
        }
        ChangeError::Repository(_) => Code::RepositoryUnavailable,
        ChangeError::NoVersions(_) => Code::LoadFailed,
        ChangeError::NotLoaded(_) => Code::ModelNotLoaded,
        ChangeError::AlreadyCurrent(_) => Code::AlreadyCurrent,
        ChangeError::Busy { .. } => Code::ChangeInProgress,
        ChangeError::UnknownAlias { .. } => Code::UnknownAlias,
        ChangeError::VersionNotLoaded(_) => Code::VersionNotLoaded,
        ChangeError::InUse { .. } => Code::VersionInUse,
        ChangeError::NothingBefore(_) => Code::NothingBefore,
        ChangeError::ChangedSince(_) => Code::FilesChanged,
        ChangeError::Weights(_) | ChangeError::Plan(_) => Code::InvalidRequest,
        ChangeError::RolledBack { .. } => Code::RolledBack,
        ChangeError::NothingServes { failure, .. } => of_change(failure),
        ChangeError::Unlike { .. } => Code::VerificationFailed,
        ChangeError::NoSamples(_) => Code::NoSamples,
        ChangeError::Leased { .. } => Code::Leased,
        ChangeError::TooManyLeases(_) => Code::TooManyLeases,
        ChangeError::UnknownLease(_) => Code::UnknownLease,
        ChangeError::Generation { .. } => Code::GenerationMismatch,
        ChangeError::KeyReused(_) => Code::KeyReused,
        ChangeError::Cancelled => Code::OperationCancelled,
        ChangeError::Panicked(_) => Code::Internal,
    }
}

fn of_load(error: &LoadError) -> Code {
    match error {
        LoadError::Source(source) => of_source(source),
        LoadError::Backend(BackendError::Unavailable(_)) => Code::ModelUnavailable,
        LoadError::Backend(_)
        | LoadError::Changed
        | LoadError::Declared(_)
        | LoadError::TimedOut(_)
        | LoadError::WarmUp(_)
        | LoadError::Panicked(_) => Code::LoadFailed,
        LoadError::Incompatible { .. } => Code::Incompatible,
        LoadError::Golden { .. } => Code::VerificationFailed,
        LoadError::NoRoom(_) => Code::InsufficientMemory,
        LoadError::Cancelled => Code::OperationCancelled,
        LoadError::Threads(_) => Code::Internal,
        LoadError::ShuttingDown => Code::ShuttingDown,
    }
}

fn of_source(error: &SourceError) -> Code {
    match error {
        SourceError::UnknownModel(_) => Code::UnknownModel,
        SourceError::UnknownVersion(_) => Code::UnknownVersion,
        SourceError::Invalid { .. } | SourceError::Io { .. } => Code::LoadFailed,
    }
}

fn of_infer(error: &InferError) -> Code {
    match error {
        InferError::Input(_) | InferError::Run(RunError::Rejected(_)) => Code::InvalidRequest,
        InferError::Overloaded { .. } => Code::Overloaded,
        InferError::DeadlineExceeded => Code::DeadlineExceeded,
        InferError::Stopped => Code::ModelUnavailable,
        InferError::Run(RunError::Cancelled) => Code::Cancelled,
        InferError::Run(RunError::Engine(_) | RunError::Panicked(_)) => Code::Internal,
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

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        Self::Change(Arc::new(error))
    }
}

impl Failure {
    /// What a request that failed so is told.
    pub(super) fn of(error: ApiError) -> Self {
        let (code, text, retry_after) =
            (error.code(), causes::of_error(&error), error.retry_after());
        let secret = match error {
            ApiError::Panicked(message) => Some(message),
            ApiError::Change(change) => match &*change {
                ChangeError::Panicked(message) => Some(message.clone()),
                _ => None,
            },
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
        if again.contains(&self.code.status()) {
            headers.insert(header::RETRY_AFTER, whole_seconds(self.retry_after));
        }
        serde_json::to_vec(&body).expect("three texts can be written")
    }

    pub(super) fn code(&self) -> &'static str {
        self.code.name()
    }

    pub(super) fn text(&self) -> &str {
        &self.text
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
        let mut response = failure.code.status().into_response();
        response.extensions_mut().insert(failure);
        response
    }
}
