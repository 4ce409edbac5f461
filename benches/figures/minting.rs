//! A burst of registrations at a GitHub that takes its time, and at its limits.

use std::time::Duration;

use anyhow::Context;
use runner_orchestrator::sim::github::{Fault, SimGitHub, SimOptions, StateReport};
use serde_json::json;
use tokio::time::Instant;

use super::figure::{Figure, Measured, rounded};
use super::timed::TimedGitHub;
use super::world::{
    self, Fleet, Orchestrator, in_modelled_time, in_real_time, jobs, model_docker, until,
};

pub(crate) const MINT_100: Figure = Figure { name: "mint_100_s", limit: 3.0, unit: "s", measure };

/// What one registration takes at the modelled GitHub.
const MINT_LATENCY_MS: u64 = 200;
const MINT_ROUTE: &str = "POST /repos/{owner}/{repo}/actions/runners/generate-jitconfig";
/// Longer than any of this takes.
const JOB_SECONDS: f64 = 7200.0;

const HOW: &str = "100 jobs at once, modelled Docker host without delays, the real client over \
    HTTP; from the start of the reading whose answer first contained the jobs until the last \
    runner's session was opened at the modelled GitHub; worst of the runs. The 500 jobs run in \
    modelled time, the model enforcing 900 points a minute";

const RUNS: usize = 3;

fn measure() -> anyhow::Result<Measured> {
    let mut seconds = Vec::new();
    let mut crossings = Vec::new();
    for _ in 0..RUNS {
        let (took, state) = in_real_time(hundred())?;
        seconds.push(took);
        crossings.push(state.limit_crossings);
    }
    let (took_500, state_500) = in_modelled_time(five_hundred())?;
    crossings.push(state_500.limit_crossings);
    let crossed: u64 = crossings.iter().map(|c| c.primary + c.secondary + c.content).sum();
    let broken = match crossed {
        0 => Vec::new(),
        _ => vec![format!("github's limits were crossed {crossed} times: {crossings:?}")],
    };
    let detail = json!({
        "how": HOW,
        "runs_s": seconds.iter().map(|s| rounded(*s)).collect::<Vec<_>>(),
        "limit_crossings_100_and_500": crossed,
        "modelled_s_500": rounded(took_500),
        "calls_500": state_500.calls,
    });
    let value = seconds.into_iter().fold(f64::NAN, f64::max);
    Ok(Measured { value, detail, broken })
}

fn slow_minting(sim: &SimGitHub) -> anyhow::Result<()> {
    let fault = Fault {
        route: MINT_ROUTE.to_owned(),
        latency_ms: Some(MINT_LATENCY_MS),
        ..Fault::default()
    };
    Ok(sim.add_fault(fault)?)
}

async fn hundred() -> anyhow::Result<(f64, StateReport)> {
    let sim = SimGitHub::start(SimOptions::default()).await?;
    slow_minting(&sim)?;
    let github = world::over_http(sim.api_url())?;
    let result = all_online(&sim, github, 100, Duration::from_secs(60)).await;
    sim.shutdown().await;
    result
}

async fn five_hundred() -> anyhow::Result<(f64, StateReport)> {
    let sim = SimGitHub::new(&SimOptions::default());
    slow_minting(&sim)?;
    let github = world::in_process(&sim)?;
    all_online(&sim, github, 500, Duration::from_secs(1200)).await
}

/// Queues jobs and waits until each has a runner. Seconds from the first answer with the
/// jobs to the last runner's session.
async fn all_online(
    sim: &SimGitHub,
    github: std::sync::Arc<dyn runner_orchestrator::github::GitHub>,
    count: usize,
    within: Duration,
) -> anyhow::Result<(f64, StateReport)> {
    let github = TimedGitHub::new(github);
    let fleet = Fleet::modelled(u32::try_from(count)?);
    let orchestrator = Orchestrator::start(&fleet, model_docker(sim), github.clone())?;
    orchestrator.until_ready().await?;
    let often = Duration::from_millis(20);
    until("a first reading", Duration::from_secs(10), often, || github.has_read()).await?;
    sim.post_jobs(&jobs(count, JOB_SECONDS))?;
    let online =
        |state: &StateReport| state.runners.iter().filter(|r| r.connected_at.is_some()).count();
    let all = || online(&sim.state()) >= count;
    until("all runners online", within, Duration::from_millis(50), all).await?;
    let state = sim.state();
    // The model's clock is tokio's with another origin.
    let (now_ms, now) = (i64::try_from(sim.clock().now_ms())?, Instant::now());
    let last = state.runners.iter().filter_map(|r| r.connected_at).max().context("none")?;
    let ago = Duration::from_millis(u64::try_from(now_ms - last.timestamp_millis())?);
    let first = github.first_jobs().context("the jobs were never read")?;
    orchestrator.stop().await?;
    Ok(((now - first).saturating_sub(ago).as_secs_f64(), state))
}
