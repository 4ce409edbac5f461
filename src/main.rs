use std::process::ExitCode;

use clap::Parser;
use runner_orchestrator::cli::sim::{self, SimCommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// The modelled world.
    #[command(subcommand)]
    Sim(SimCommand),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let Command::Sim(command) = Cli::parse().command;
    sim::run(command).await
}
