//! The modelled world: shipped in the binary, used by `demo` and by the tests.

pub mod docker;
pub mod github;
pub mod image;
pub mod listener;
