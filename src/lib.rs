//! # Onward
//!
//! An ONNX model server that loads, swaps and retires models without dropping a request, and the
//! lifecycle core it is made of.
//!
//! The core runs in any tokio program and knows no HTTP, no engine and no file format:
//!
//! | module | what it is |
//! |---|---|
//! | [`lifecycle`] | application state, handlers, health, resources, events, deadlines |
//! | [`inference`] | tensors, signatures, the engine's traits, bounded admission |
//! | [`model`] | versions, loading, swapping, unloading |
//! | [`tally`] | counts that are added to without a lock |
//!
//! Around it stand the adapters, which do not know each other:
//!
//! | module | what it is |
//! |---|---|
//! | [`http`] | the REST interface |
//! | [`grpc`] | the gRPC interface |
//! | [`onnx`] | the engine: ONNX Runtime |
//! | [`repository`] | where models come from: a local folder or an object store |
//! | [`metrics`] | Prometheus |
//! | [`auth`] | who may do what: credentials, roles, audit |
//! | [`cloudevents`] | events as they leave the process |
//! | [`config`] | settings from file, environment and flags |
//! | [`state_file`] | what operators decided, kept in a folder |
//! | [`telemetry`] | logs |
//! | [`admission`] | who is let in, and how often |
//! | [`tls`] | TLS of connections that are accepted |
//! | [`trail`] | spans and lines of the log that requests and changes leave behind |
//! | [`webhooks`] | events sent to others |
//!
//! [`app`] puts them together and holds the order of start and shutdown.

pub mod inference;
pub mod lifecycle;
pub mod model;
pub mod tally;

pub mod admission;
pub mod auth;
pub mod cloudevents;
pub mod config;
pub mod grpc;
pub mod http;
pub mod metrics;
pub mod onnx;
pub mod repository;
pub mod state_file;
pub mod telemetry;
pub mod tls;
pub mod trail;
pub mod webhooks;

pub mod app;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

mod causes;
mod external_data;
mod hex;
mod json_tensors;
mod nearest;
mod oip;
mod settled;
mod turns;
mod units;

#[doc = include_str!("../docs/lifecycle.md")]
#[cfg(doctest)]
pub mod lifecycle_guide {}
