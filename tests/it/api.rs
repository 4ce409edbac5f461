//! The HTTP API over the real lead loop and the in-process store. Hosts' reports and
//! GitHub's readings are put in by hand; Docker and GitHub only count who asks them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod announcing;
mod bad_input;
mod document;
mod draining;
mod edges;
mod guards;
mod logs;
mod peers;
mod reads;
mod replicas;
mod served;
mod world;
mod writes;
