//! `demo`: the whole product on one machine, without credentials. A modelled GitHub, Redis
//! and the orchestrators run as child processes, the runners as real containers.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

pub mod child;
pub mod engine;
pub mod ground;
pub mod judge;
pub mod model;
pub mod replica;
pub mod report;
pub mod world;

use super::print;

/// What the demo does.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// How many jobs to queue
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub jobs: u32,
    /// Seed of the modelled GitHub and of the jobs' lengths
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// End when every job is done, and judge what is left over
    #[arg(long)]
    pub until_done: bool,
    /// How the end is told
    #[arg(long, value_enum, default_value_t = ReportForm::Text)]
    pub report: ReportForm,
    /// Where the runners run
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// How many orchestrators share the work; several need Redis: `REDIS_URL`, or
    /// a redis-server on this machine
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub replicas: u32,
    /// Whether each of several orchestrators has a Docker host of its own
    #[arg(long, value_enum, default_value_t = HostsChoice::Auto)]
    pub hosts: HostsChoice,
    /// kill -9 an orchestrator when half of the jobs have started, and start it again
    #[arg(long)]
    pub kill_orchestrator: bool,
    /// kill -9 the orchestrator that leads when half of the jobs have started, and start it
    /// again
    #[arg(long)]
    pub kill_leader: bool,
    /// At most so many runners at a time
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub max_runners: u32,
    /// Shortest and longest job, in seconds
    #[arg(long, default_value = "1..4", value_parser = parse_range)]
    pub job_seconds: (u32, u32),
    /// Keep the messages of the modelled GitHub and the orchestrator in this folder
    #[arg(long)]
    pub logs: Option<std::path::PathBuf>,
    /// Give up after this many seconds
    #[arg(long, default_value_t = 600)]
    pub timeout_seconds: u64,
}

/// The form of the final report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ReportForm {
    Text,
    Json,
}

/// Where the runners run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum EngineChoice {
    /// The local Docker engine, or the modelled one when there is none
    Auto,
    Docker,
    Model,
}

/// Which Docker hosts several orchestrators work on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum HostsChoice {
    /// Each its own where this machine allows it, else one for all
    Auto,
    /// A network namespace and a Docker daemon for each; needs root
    Own,
    /// One engine for all: one orchestrator is its agent, the others stand by
    Shared,
}

fn parse_range(text: &str) -> Result<(u32, u32), String> {
    let wrong = || format!("expected two whole numbers such as 1..4, got {text:?}");
    let (low, high) = text.split_once("..").ok_or_else(wrong)?;
    let low: u32 = low.trim().parse().map_err(|_| wrong())?;
    let high: u32 = high.trim().parse().map_err(|_| wrong())?;
    if low <= high && high <= 3600 { Ok((low, high)) } else { Err(wrong()) }
}

/// Runs the demo. Fails when a job was lost, run twice or killed, or something is left.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut world = world::World::build(&args).await?;
    let played = tokio::select! {
        played = world.play(&args) => played,
        () = interrupted() => {
            world.abandon().await;
            anyhow::bail!("interrupted; everything has been taken away");
        }
    };
    // Whatever happened, what was made is taken away again.
    let leftover = world.tear_down().await;
    let report = report::Report::new(&args, &world, played?, leftover);
    match args.report {
        ReportForm::Json => print::result(&serde_json::to_string(&report)?),
        ReportForm::Text => print::result(&report.text()),
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An interrupt from the keyboard, or being told to end. The children are in process groups
/// of their own, so that they are stopped in order and nothing stays behind.
async fn interrupted() {
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        ended = tokio::signal::ctrl_c() => if ended.is_err() { std::future::pending().await },
        _ = term.recv() => (),
    }
}

/// How often the modelled GitHub is asked how far the jobs are.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);
