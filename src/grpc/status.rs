//! What a client is told when something goes wrong: the one place that chooses statuses.

use std::any::Any;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code as Grpc, Status};
use tracing::{debug, error};

use super::call_id::CallId;
use crate::causes;
use crate::oip::{Code, Refusal, shortened};
use crate::trail::Ids;

/// The trailer with an error's code, which programs may rely on.
pub(super) const CODE: &str = "onward-error-code";

/// The trailer by which a server tells which encodings it knows, where it refused one.
const ACCEPTED: &str = "grpc-accept-encoding";

/// The longest message: clients take trailers of a few KiB only.
const LONGEST: usize = 1024;

/// The status that goes with a code.
const fn grpc(code: Code) -> Grpc {
    match code {
        Code::InvalidRequest | Code::InvalidName | Code::LoadFailed => Grpc::InvalidArgument,
        Code::UnknownModel
        | Code::UnknownVersion
        | Code::UnknownAlias
        | Code::UnknownOperation
        | Code::UnknownLease
        | Code::ModelNotLoaded
        | Code::UnknownCheck
        | Code::UnknownResource
        | Code::NotFound => Grpc::NotFound,
        Code::Unauthenticated | Code::InvalidCredential => Grpc::Unauthenticated,
        Code::CrossSite | Code::Forbidden => Grpc::PermissionDenied,
        Code::ChangeInProgress | Code::GenerationMismatch => Grpc::Aborted,
        Code::AlreadyCurrent
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
        | Code::OperationCommitted
        | Code::ResourceInUse
        | Code::NotRunning => Grpc::FailedPrecondition,
        Code::PayloadTooLarge | Code::InsufficientMemory | Code::RateLimited => {
            Grpc::ResourceExhausted
        }
        Code::Internal => Grpc::Internal,
        Code::Unsupported | Code::UnsupportedEncoding | Code::MethodNotAllowed => {
            Grpc::Unimplemented
        }
        // As in Triton, where a full queue makes a model unavailable: clients try those again.
        Code::Overloaded
        | Code::ModelUnavailable
        | Code::RepositoryUnavailable
        | Code::ResourceUnavailable
        | Code::ShuttingDown => Grpc::Unavailable,
        Code::Cancelled | Code::OperationCancelled => Grpc::Cancelled,
        Code::DeadlineExceeded | Code::RequestTimeout => Grpc::DeadlineExceeded,
    }
}

/// An error with its code.
pub(super) fn status(code: Code, text: &str) -> Status {
    let mut trailers = MetadataMap::new();
    trailers.insert(CODE, MetadataValue::from_static(code.name()));
    Status::with_metadata(grpc(code), shortened(text, LONGEST), trailers)
}

/// What a request that is refused is told, and what the log is.
pub(super) fn refused(refusal: &Refusal) -> Status {
    let (code, text) = (refusal.code(), causes::of_error(refusal));
    log(code, &text, refusal.secret());
    status(code, &text)
}

/// What a call is told that met a bug.
pub(super) fn bug(panic: &(dyn Any + Send)) -> Status {
    let text = "the request could not be answered because of a bug in the server";
    log(Code::Internal, text, Some(&causes::of_panic(panic)));
    status(Code::Internal, text)
}

/// Logs what the operator should know of: a bug, or an engine that failed.
fn log(code: Code, text: &str, secret: Option<&str>) {
    if code == Code::Internal {
        let (ids, cause) = (Ids::here(), secret.unwrap_or(text));
        let (trace_id, span_id) = (ids.trace(), ids.span());
        let request_id = CallId::here();
        error!(code = code.name(), cause, request_id, trace_id, span_id, "gRPC call failed");
    } else {
        let text = (!code.quotes_body()).then_some(text);
        debug!(code = code.name(), text, request_id = CallId::here(), "gRPC call refused");
    }
}

/// An error that the library found before our code saw the request, with a code: what is wrong with a
/// message is the client's mistake. `call` is the path, `limit` the largest message.
pub(super) fn of_library(found: &Status, call: &str, limit: usize) -> Status {
    let text = found.message();
    match found.code() {
        _ if found.metadata().contains_key(CODE) => found.clone(),
        Grpc::OutOfRange | Grpc::ResourceExhausted => {
            let text = format!(
                "the message is larger than {limit} bytes, the setting server.max_body_size"
            );
            status(Code::PayloadTooLarge, &text)
        }
        Grpc::Internal | Grpc::Unknown => {
            status(Code::InvalidRequest, &format!("the message cannot be read: {text}"))
        }
        Grpc::Unimplemented => match found.metadata().get(ACCEPTED) {
            Some(accepted) => {
                let instead = "use gzip, deflate or zstd, or send messages as they are";
                let text = format!("{}, {instead}", text.trim_end_matches('.'));
                let mut refused = status(Code::UnsupportedEncoding, &text);
                refused.metadata_mut().insert(ACCEPTED, accepted.clone());
                refused
            }
            None => status(Code::Unsupported, &format!("{call} is not offered")),
        },
        Grpc::DeadlineExceeded => status(Code::DeadlineExceeded, text),
        _ => found.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_that_means_an_error() {
        for code in Code::ALL.iter().copied() {
            let status = status(code, "why");
            assert!(![Grpc::Ok, Grpc::Unknown].contains(&status.code()), "{code:?}");
            let told = status.metadata().get(CODE).and_then(|code| code.to_str().ok());
            assert_eq!(told, Some(code.name()));
        }
    }

    #[test]
    fn clients_can_tell_what_to_do_from_the_status() {
        let expected = [
            (Code::InvalidRequest, Grpc::InvalidArgument),
            (Code::UnknownModel, Grpc::NotFound),
            (Code::PayloadTooLarge, Grpc::ResourceExhausted),
            (Code::Overloaded, Grpc::Unavailable),
            (Code::ModelUnavailable, Grpc::Unavailable),
            (Code::DeadlineExceeded, Grpc::DeadlineExceeded),
            (Code::Cancelled, Grpc::Cancelled),
            (Code::Unsupported, Grpc::Unimplemented),
            (Code::Internal, Grpc::Internal),
        ];
        for (code, status) in expected {
            assert_eq!(grpc(code), status, "{code:?}");
        }
    }

    #[test]
    fn a_message_fits_into_a_trailer() {
        let long = "ü".repeat(LONGEST);
        assert!(status(Code::Internal, &long).message().len() <= LONGEST + 3);
        assert_eq!(status(Code::Internal, "short").message(), "short");
    }

    #[test]
    fn what_the_library_finds_wrong_is_the_clients_mistake() {
        let told = |found: Status| {
            let status = of_library(&found, "/inference.GRPCInferenceService/ModelInfer", 7);
            let code = status.metadata().get(CODE).map(|code| code.to_str().unwrap().to_owned());
            (status.code(), code.unwrap_or_default(), status.message().to_owned())
        };
        let (code, name, text) = told(Status::out_of_range("too large"));
        assert_eq!((code, name.as_str()), (Grpc::ResourceExhausted, "payload_too_large"));
        assert!(text.contains("7 bytes, the setting server.max_body_size"), "{text}");
        let (code, name, text) = told(Status::internal("invalid string value"));
        assert_eq!((code, name.as_str()), (Grpc::InvalidArgument, "invalid_request"));
        assert!(text.contains("invalid string value"), "{text}");
        let (code, name, _) = told(Status::unimplemented(""));
        assert_eq!((code, name.as_str()), (Grpc::Unimplemented, "unsupported"));
    }
}
