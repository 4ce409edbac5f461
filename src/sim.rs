//! The modelled world: shipped in the binary, used by `demo` and by the tests.
//!
//! Nothing in here is reached by `serve` against a real GitHub: the product speaks to the
//! modelled one over HTTP with the same client it uses for the real one.

pub mod clock;
pub mod docker;
pub mod github;
pub mod hosts;
pub mod http;
pub mod image;
pub mod listener;
pub mod program;
pub mod random;
pub mod redis;
