//! The image, the Compose file and the set-up, used as a user uses them.

mod cluster;
mod compose;
mod contents;
pub(crate) mod engine;
pub(crate) mod image;
mod process;
pub(crate) mod program;
mod setup;
