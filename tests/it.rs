//! The integration tests: one binary, real parts.

#[path = "it/architecture.rs"]
mod architecture;
#[path = "it/docker.rs"]
mod docker;
#[path = "it/support/engine.rs"]
mod engine;
