//! The image, the Compose file and the set-up, used as a user uses them.

mod cluster;
mod compose;
mod contents;
mod engine;
mod image;
mod process;
mod program;
mod setup;
