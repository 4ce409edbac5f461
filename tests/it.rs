//! The integration tests: one binary, real parts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod it {
    mod api;
    mod architecture;
    mod chaos;
    mod cli;
    mod config;
    mod demo;
    mod deploy;
    mod docker;
    mod github;
    mod kill_points;
    mod loops;
    mod properties;
    mod registrations;
    mod runner_image;
    mod scenarios;
    mod sim_github;
    mod simulation;
    mod store;
    pub(crate) mod support;
    mod telemetry;
}
