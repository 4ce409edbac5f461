//! The modelled GitHub, seen from outside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod life;
mod support;
