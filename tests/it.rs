//! The integration tests: one binary, real parts.

#[path = "it/docker.rs"]
mod docker;
#[path = "it/support/engine.rs"]
mod engine;
