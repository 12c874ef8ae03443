//! The tests at the boundary: the real binary, a real socket, real models.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod adversity;
mod architecture;
mod bad_input;
mod bad_models;
mod bare_files;
mod batching;
mod binary;
mod canary;
mod checks;
mod command_line;
mod configuration;
mod desired;
mod documents;
mod embedding;
mod ensembles;
mod events;
mod golden;
mod graph_cache;
mod grpc;
mod grpc_limits;
mod grpc_mistakes;
mod grpc_streams;
mod health;
mod inference;
mod loading;
mod modes;
mod object_store;
mod operating;
mod operations;
mod overrides;
mod performance;
mod readme;
mod refusals;
mod reloading;
mod residence;
mod resources;
mod samples;
mod shutdown;
mod support;
mod swapping;
mod tensorflow;
mod traffic;
mod triton_repository;
mod webhooks;
