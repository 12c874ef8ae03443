//! Codes of errors, the same over every protocol.

macro_rules! codes {
    ($($code:ident $name:literal,)*) => {
        /// What programs may rely on: an error's code never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code {
            $($code,)*
        }

        impl Code {
            /// Every code.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$code,)*];

            /// The code's name, such as `unknown_model`.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)*
                }
            }
        }
    };
}

impl Code {
    /// Whether the text of such an error may have something of the request's body, such as an element of a tensor,
    /// which is for nobody but the caller.
    pub(crate) const fn quotes_body(self) -> bool {
        matches!(self, Self::InvalidRequest)
    }
}

codes! {
    InvalidRequest "invalid_request",
    InvalidName "invalid_name",
    LoadFailed "load_failed",
    UnknownModel "unknown_model",
    UnknownVersion "unknown_version",
    UnknownAlias "unknown_alias",
    UnknownOperation "unknown_operation",
    ModelNotLoaded "model_not_loaded",
    VersionNotLoaded "version_not_loaded",
    UnknownCheck "unknown_check",
    UnknownResource "unknown_resource",
    NotFound "not_found",
    MethodNotAllowed "method_not_allowed",
    CrossSite "cross_site",
    Unauthenticated "unauthenticated",
    InvalidCredential "invalid_credential",
    Forbidden "forbidden",
    RequestTimeout "request_timeout",
    ChangeInProgress "change_in_progress",
    AlreadyCurrent "already_current",
    VersionInUse "version_in_use",
    NothingBefore "nothing_before",
    FilesChanged "files_changed",
    Incompatible "incompatible",
    RolledBack "rolled_back",
    VerificationFailed "verification_failed",
    Leased "leased",
    TooManyLeases "too_many_leases",
    UnknownLease "unknown_lease",
    InsufficientMemory "insufficient_memory",
    NoSamples "no_samples",
    KeyReused "key_reused",
    OperationCancelled "operation_cancelled",
    OperationCommitted "operation_committed",
    ResourceInUse "resource_in_use",
    NotRunning "not_running",
    GenerationMismatch "generation_mismatch",
    PayloadTooLarge "payload_too_large",
    UnsupportedEncoding "unsupported_encoding",
    Overloaded "overloaded",
    RateLimited "rate_limited",
    Internal "internal",
    Unsupported "unsupported",
    ModelUnavailable "model_unavailable",
    RepositoryUnavailable "repository_unavailable",
    ResourceUnavailable "resource_unavailable",
    ShuttingDown "shutting_down",
    Cancelled "cancelled",
    DeadlineExceeded "deadline_exceeded",
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
