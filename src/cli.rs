//! The command line. Each subcommand is thin: it parses, calls the part that does the
//! work, and prints. Results go to standard output, messages to standard error.

use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

pub mod advertise;
pub mod client;
pub mod demo;
pub mod doctor;
pub mod healthcheck;
pub mod observe;
pub mod print;
pub mod serve;
pub mod settings;
pub mod sim;
pub mod table;

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
    /// Check configuration, GitHub and Docker, and name the fix of what is wrong
    Doctor(doctor::DoctorArgs),
    /// Show the fleet at a glance
    Status(observe::StatusArgs),
    /// List runners, read a log, remove one, scale by hand
    Runners(observe::RunnersArgs),
    /// List pools and why each has as many runners as it has; pause and resume
    Pools(observe::PoolsArgs),
    /// List hosts; drain one
    Hosts(observe::HostsArgs),
    /// List replicas: who leads, who cares for which host, what does not agree
    Replicas(observe::ReplicasArgs),
    /// Show what was decided lately, and why
    Events(observe::EventsArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(settings::ConfigCommand),
    /// Succeed when the API of this machine answers
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print the API's `OpenAPI` document
    Openapi,
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
    if let Some(code) = without_runtime(&command) {
        return code;
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
            Command::Doctor(args) => doctor::run(args).await,
            Command::Status(args) => observe::status(args).await,
            Command::Runners(args) => observe::runners(args).await,
            Command::Pools(args) => observe::pools(args).await,
            Command::Hosts(args) => observe::hosts(args).await,
            Command::Replicas(args) => observe::replicas(args).await,
            Command::Events(args) => observe::events(args).await,
            Command::Healthcheck(args) => healthcheck::run(args).await,
            Command::Sim(command) => sim::run(command).await,
            Command::Config(_) | Command::Openapi | Command::Completions { .. } => {
                Ok(ExitCode::SUCCESS)
            }
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

/// What needs nothing but this binary and its settings.
fn without_runtime(command: &Command) -> Option<ExitCode> {
    match command {
        Command::Config(command) => return Some(settings::run(command)),
        Command::Openapi => print::text(&crate::api::openapi_json()),
        Command::Completions { shell } => {
            let name = "runner-orchestrator";
            clap_complete::generate(*shell, &mut Cli::command(), name, &mut std::io::stdout());
        }
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

/// Ends when the operator asks for it (Ctrl-C) or the system does.
fn stop_asked() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("could not catch SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("could not catch SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
    })
}
