//! The integration tests: one binary, real parts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "it/architecture.rs"]
mod architecture;
#[path = "it/docker.rs"]
mod docker;
#[path = "it/support/docker_proxy.rs"]
mod docker_proxy;
#[path = "it/support/engine.rs"]
mod engine;
