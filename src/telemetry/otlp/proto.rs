//! What is generated from `proto/traces.proto`.

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

include!(concat!(env!("OUT_DIR"), "/otlp/opentelemetry.proto.collector.trace.v1.rs"));
