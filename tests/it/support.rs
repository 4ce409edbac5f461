//! What several tests need.

pub(crate) mod cable;
pub(crate) mod docker_proxy;
pub(crate) mod engine;
pub(crate) mod fleet;
pub(crate) mod promtool;
pub(crate) mod reached_store;
pub(crate) mod redis;
pub(crate) mod stall_proxy;
