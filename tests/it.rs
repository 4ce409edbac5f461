//! The integration tests: one binary, real parts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "it/properties.rs"]
mod properties;
#[path = "it/scenarios.rs"]
mod scenarios;
