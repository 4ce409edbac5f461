//! The modelled world: shipped in the binary, used by `demo` and by the tests.
//!
//! Nothing in here is reached by `serve`: the product speaks to the modelled
//! GitHub over HTTP with the same client it uses for the real one.

pub mod clock;
pub mod github;
pub mod listener;
pub mod random;
