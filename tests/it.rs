#[path = "it/config.rs"]
mod config;

#[path = "it/telemetry.rs"]
mod telemetry;
