#![doc = include_str!("ARCHITECTURE.md")]

pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod docker;
pub mod doctor;
pub mod election;
pub mod fleet;
pub mod github;
pub mod loops;
pub mod sim;
pub mod store;
pub mod telemetry;
