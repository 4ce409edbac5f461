//! The modelled GitHub, seen from outside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod life;
mod quiet;
mod support;
mod time;
