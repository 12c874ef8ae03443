//! Counts calls by their method.

use std::time::Duration;

use axum::response::Response;

use crate::tally::{Calls, CallsReport};

/// The codes of gRPC, in the order of their numbers.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The methods, the one first that is called most; what is none of them is `unknown`.
const METHODS: [&str; 25] = [
    "inference.GRPCInferenceService/ModelInfer",
    "inference.GRPCInferenceService/ModelStreamInfer",
    "inference.GRPCInferenceService/ServerLive",
    "inference.GRPCInferenceService/ServerReady",
    "inference.GRPCInferenceService/ModelReady",
    "inference.GRPCInferenceService/ServerMetadata",
    "inference.GRPCInferenceService/ModelMetadata",
    "inference.GRPCInferenceService/ModelConfig",
    "inference.GRPCInferenceService/ModelStatistics",
    "inference.GRPCInferenceService/RepositoryIndex",
    "inference.GRPCInferenceService/RepositoryModelLoad",
    "inference.GRPCInferenceService/RepositoryModelUnload",
    "inference.GRPCInferenceService/SystemSharedMemoryStatus",
    "inference.GRPCInferenceService/SystemSharedMemoryRegister",
    "inference.GRPCInferenceService/SystemSharedMemoryUnregister",
    "inference.GRPCInferenceService/CudaSharedMemoryStatus",
    "inference.GRPCInferenceService/CudaSharedMemoryRegister",
    "inference.GRPCInferenceService/CudaSharedMemoryUnregister",
    "inference.GRPCInferenceService/TraceSetting",
    "inference.GRPCInferenceService/LogSettings",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "unknown",
];

/// A method that is counted, by its place among all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method(usize);

impl Method {
    /// That of a path.
    pub(super) fn of(path: &str) -> Self {
        let name = path.strip_prefix('/').unwrap_or(path);
        let known = METHODS.iter().position(|known| *known == name);
        Self(known.unwrap_or(METHODS.len() - 1))
    }

    /// With its service; `unknown` for what is none.
    pub(super) fn name(self) -> &'static str {
        METHODS[self.0]
    }
}

/// Calls by method, counted without a lock.
#[derive(Debug)]
pub struct MethodCounts([Calls<{ CODES.len() }>; METHODS.len()]);

/// What became of the calls of one method.
#[derive(Debug, Clone)]
pub struct MethodReport {
    /// The method with its service, such as `grpc.health.v1.Health/Check`; `unknown` for what is none.
    pub method: &'static str,
    /// The calls by the name of their code, without those that there were none of.
    pub codes: Vec<(&'static str, u64)>,
    /// The calls by the number of their code, and how long the heads of their answers took.
    pub calls: CallsReport<{ CODES.len() }>,
}

impl Default for MethodCounts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Calls::default()))
    }
}

impl MethodCounts {
    /// What became of the calls of every method that was called.
    pub fn report(&self) -> Vec<MethodReport> {
        let of = |(method, calls): (&&'static str, &Calls<_>)| {
            let calls = calls.read()?;
            let counted = CODES.into_iter().zip(calls.results).filter(|(_, count)| *count > 0);
            Some(MethodReport { method, codes: counted.collect(), calls })
        };
        METHODS.iter().zip(&self.0).filter_map(of).collect()
    }

    /// Counts a call. One whose answer is a stream is counted when that begins.
    pub(super) fn add(&self, Method(method): Method, response: &Response, took: Duration) {
        self.0[method].add(code(response).into(), took);
    }
}

/// The number of the code that a call is answered with. That of a stream that begins is 0.
pub fn code(response: &Response) -> u16 {
    let code = response.headers().get("grpc-status").and_then(|code| code.to_str().ok());
    code.map_or(Ok(0), str::parse).unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn answer(code: &str) -> Response {
        let mut response = Response::default();
        response.headers_mut().insert("grpc-status", code.parse().unwrap());
        response
    }

    #[test]
    fn every_method_that_is_offered_is_counted() {
        let files =
            [include_str!("../../proto/inference.proto"), include_str!("../../proto/health.proto")];
        let offered: BTreeSet<&str> = files
            .iter()
            .flat_map(|file| file.lines())
            .filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next())
            .chain(["ServerReflectionInfo"])
            .collect();
        let counted = METHODS.iter().filter_map(|method| Some(method.split_once('/')?.1));
        assert_eq!(counted.collect::<BTreeSet<_>>(), offered);
    }

    #[test]
    fn calls_are_counted_by_their_code() {
        let counts = MethodCounts::default();
        let add = |path, answer| counts.add(Method::of(path), &answer, Duration::ZERO);
        add("/inference.GRPCInferenceService/ModelInfer", Response::default());
        add("/inference.GRPCInferenceService/ModelInfer", answer("14"));
        add("/made/up", answer("12"));
        add("/made/up", answer("no code"));
        let told: Vec<_> =
            counts.report().into_iter().map(|report| (report.method, report.codes)).collect();
        assert_eq!(
            told,
            [
                (METHODS[0], vec![("OK", 1), ("UNAVAILABLE", 1)]),
                ("unknown", vec![("UNKNOWN", 1), ("UNIMPLEMENTED", 1)]),
            ]
        );
    }
}
