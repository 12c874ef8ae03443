//! The Open Inference Protocol, whatever carries it: what REST and gRPC have in common.

mod call;
mod classification;
mod code;
pub(crate) mod logging;
pub(crate) mod metadata;
pub(crate) mod model_config;
mod parameters;
pub(crate) mod raw;
mod refusal;
pub(crate) mod repository;
mod request_id;
pub(crate) mod shape;
pub(crate) mod statistics;
mod text;
pub(crate) mod trace;

#[cfg(any(test, fuzzing))]
pub(crate) use call::only_input;
pub(crate) use call::{Call, Inputs, Reply, WantedOutput};
pub(crate) use code::Code;
pub(crate) use parameters::{
    FINAL_RESPONSE, FINAL_RESPONSE_WANTED, Parameter, Parameters, RequestOptions,
};
pub(crate) use refusal::Refusal;
pub(crate) use request_id::{REQUEST_ID, RequestId, RequestIds};
pub(crate) use text::shortened;
