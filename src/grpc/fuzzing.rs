//! What of gRPC is fuzzed.

pub use super::infer::fuzzing::grpc_infer;
