//! What is wrong with a request, and the code that says so.

use std::sync::Arc;
use std::time::Duration;

use super::code::Code;
use crate::auth::Denied;
use crate::inference::{BackendError, InferError, RunError};
use crate::model::{ChangeError, LoadError, LookupError, NameError, SourceError, StateKind};

/// Why a request is not answered, whatever has carried it here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error(transparent)]
    Change(#[from] Arc<ChangeError>),
    #[error(transparent)]
    Infer(#[from] InferError),
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The request makes sense, but asks for what this server does not do.
    #[error("{0}")]
    Unsupported(String),
    /// It is answered by another listener.
    #[error("{path} is not answered here, only on the address of server.management_listen")]
    Elsewhere { path: String },
    /// There are so many connections that only probes are answered on those that come.
    #[error("there are more connections than server.max_connections, ask again later")]
    Crowded,
    /// The client has asked too often.
    #[error("more requests than server.rate_limit lets through, ask again later")]
    TooOften { retry_after: Duration },
}

impl Refusal {
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    pub(crate) fn unsupported(text: impl Into<String>) -> Self {
        Self::Unsupported(text.into())
    }

    /// The same, with the output's name where it is the request that makes no sense.
    pub(crate) fn of_output(self, name: &str) -> Self {
        self.of(&format!("output '{name}'"))
    }

    /// The same, with the input's name.
    pub(crate) fn of_input(self, name: &str) -> Self {
        self.of(&format!("input '{name}'"))
    }

    fn of(self, what: &str) -> Self {
        match self {
            Self::Invalid(text) => Self::invalid(format!("{what}: {text}")),
            other => other,
        }
    }

    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Name(_) => Code::InvalidName,
            Self::Lookup(error) => of_lookup(error),
            Self::Change(error) => of_change(error),
            Self::Infer(error) => of_infer(error),
            Self::Denied(Denied::Missing) => Code::Unauthenticated,
            Self::Denied(Denied::Invalid(_)) => Code::InvalidCredential,
            Self::Denied(_) => Code::Forbidden,
            Self::Invalid(_) => Code::InvalidRequest,
            Self::Unsupported(_) => Code::Unsupported,
            Self::Elsewhere { .. } => Code::NotFound,
            Self::Crowded => Code::Overloaded,
            Self::TooOften { .. } => Code::RateLimited,
        }
    }

    /// What only the log is told.
    pub(crate) fn secret(&self) -> Option<&str> {
        match self {
            Self::Change(change) => match &**change {
                ChangeError::Panicked(message) => Some(message),
                _ => None,
            },
            _ => None,
        }
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        Self::Change(Arc::new(error))
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
        ChangeError::Unsettled { .. } => Code::ModelUnavailable,
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
        | LoadError::Batching(_)
        | LoadError::Declared(_)
        | LoadError::Ensemble(_)
        | LoadError::TimedOut(_)
        | LoadError::WarmUp(_)
        | LoadError::Panicked(_) => Code::LoadFailed,
        LoadError::Step { source, .. } => match source.as_deref().map(of_change) {
            Some(code @ (Code::InsufficientMemory | Code::ChangeInProgress)) => code,
            _ => Code::LoadFailed,
        },
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

pub(super) fn of_infer(error: &InferError) -> Code {
    match error {
        InferError::Step { error, .. } => of_infer(error),
        InferError::Input(_) | InferError::Run(RunError::Rejected(_)) => Code::InvalidRequest,
        InferError::Overloaded { .. } => Code::Overloaded,
        InferError::DeadlineExceeded => Code::DeadlineExceeded,
        InferError::Stopped => Code::ModelUnavailable,
        InferError::Run(RunError::Cancelled) => Code::Cancelled,
        InferError::Run(RunError::Engine(_) | RunError::Panicked(_)) => Code::Internal,
    }
}
