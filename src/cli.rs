//! The command line. Each subcommand is thin: it parses, calls the part that does the
//! work, and prints. Results go to standard output, messages to standard error.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub mod demo;
pub mod print;
pub mod serve;
pub mod sim;

/// Runs ephemeral GitHub Actions runners as Docker containers.
#[derive(Debug, Parser)]
#[command(name = "runner-orchestrator", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the orchestrator (the default)
    Serve(serve::ServeArgs),
    /// Show the whole thing at work on a modelled GitHub, without credentials
    Demo(demo::DemoArgs),
    /// The modelled world's parts, one by one
    #[command(subcommand)]
    Sim(sim::SimCommand),
    /// Print a shell's completion script
    Completions { shell: clap_complete::Shell },
}

/// Exit code of an unusable configuration.
pub const EXIT_CONFIG: u8 = 2;

/// Parses and runs.
#[must_use]
pub fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or(Command::Serve(serve::ServeArgs::default()));
    // One TLS implementation for everything; a second call is refused and harmless.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if let Command::Completions { shell } = &command {
        let name = "runner-orchestrator";
        clap_complete::generate(*shell, &mut Cli::command(), name, &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print::message(&format!("could not start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match command {
            Command::Serve(args) => serve::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Sim(command) => sim::run(command).await,
            Command::Completions { .. } => Ok(ExitCode::SUCCESS),
        }
    });
    // A blocking task that hangs must not keep a process that has said its last word.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match code {
        Ok(code) => code,
        Err(error) => {
            print::message(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
