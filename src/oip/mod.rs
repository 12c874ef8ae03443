//! The Open Inference Protocol, whatever carries it: what REST and gRPC have in common.

mod code;
mod refusal;

pub(crate) use code::Code;
pub(crate) use refusal::Refusal;
