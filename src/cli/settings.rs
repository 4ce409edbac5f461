//! `config`: what holds, and where each value came from.

use std::process::ExitCode;

use clap::Subcommand;

use super::{EXIT_CONFIG, print};
use crate::config::{self, Config};

/// Looks at the configuration without starting anything.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every effective setting and where it came from; secrets are masked
    Show,
    /// Check the configuration and name every mistake
    Validate,
}

/// Runs one of them. A configuration that cannot be used ends with [`EXIT_CONFIG`].
#[must_use]
pub fn run(command: &ConfigCommand) -> ExitCode {
    let config = match Config::from_process() {
        Ok(config) => config,
        Err(error) => {
            print::message(&error.to_string());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    for warning in &config.warnings {
        print::message(&format!("warning: {warning}"));
    }
    match command {
        ConfigCommand::Show => print::text(&config::render(&config.settings)),
        ConfigCommand::Validate => print::result("the configuration can be used"),
    }
    ExitCode::SUCCESS
}
