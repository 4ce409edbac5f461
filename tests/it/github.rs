//! The GitHub edge: the real client against the modelled GitHub.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod app;
mod cost;
mod limits;
mod minting;
mod odd_answers;
mod preflight;
mod reading;
mod support;
