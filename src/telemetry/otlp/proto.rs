//! What is generated from OpenTelemetry's files in `proto/`.

#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::clone_on_ref_ptr,
    dead_code,
    missing_docs,
    rustdoc::all,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]

include!(concat!(env!("OUT_DIR"), "/otlp/all.rs"));

pub(super) use opentelemetry::proto::collector::trace::v1 as collector;
pub(super) use opentelemetry::proto::common::v1 as common;
pub(super) use opentelemetry::proto::resource::v1 as resource;
pub(super) use opentelemetry::proto::trace::v1 as trace;
