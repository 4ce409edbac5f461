//! The modelled GitHub, seen from outside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod app;
mod faults;
mod hostile;
mod life;
mod listener;
mod program;
mod quiet;
mod schemas;
mod support;
mod time;
mod webhooks;
