//! What is generated from `proto/`.

#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::clone_on_ref_ptr,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]

tonic::include_proto!("inference");

pub(super) mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// The files themselves, for reflection.
pub(super) const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");
