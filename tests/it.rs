#[path = "it/config.rs"]
mod config;
