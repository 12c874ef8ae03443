//! # Onward
//!
//! An ONNX model server that loads, swaps and retires models without dropping a request, and the
//! lifecycle core it is made of.
//!
//! | module | what it is |
//! |---|---|
//! | [`lifecycle`] | application state, health, resources, events, deadlines |
//! | [`inference`] | tensors, signatures, the backend traits, bounded admission |
//! | [`model`] | versions, loading, swapping, unloading |
//!
//! The three above are the core and can be used in any tokio program.

pub mod inference;
pub mod lifecycle;
pub mod model;

pub mod app;
mod causes;
pub mod config;
pub mod http;
pub mod metrics;
pub mod onnx;
pub mod repository;
pub mod telemetry;
