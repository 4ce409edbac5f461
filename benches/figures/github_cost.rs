//! What we cost GitHub, over hours of modelled time.

use std::time::Duration;

use runner_orchestrator::fleet::pool::Scope;
use runner_orchestrator::sim::github::{JobStatus, NewJobs, SimGitHub, SimOptions, StateReport};
use serde_json::json;
use tokio::time::Instant;

use super::figure::{Figure, Measured, rounded};
use super::timed::TimedGitHub;
use super::world::{self, Fleet, Orchestrator, in_modelled_time, jobs, model_docker, until};

pub(crate) const IDLE_POINTS: Figure =
    Figure { name: "github_points_idle_500_repos", limit: 60.0, unit: "points/h", measure: idle };
pub(crate) const MUTATIONS: Figure =
    Figure { name: "github_mutations_per_job", limit: 1.0, unit: "calls/job", measure: mutations };

const REPOS: usize = 500;
/// What the first full sweep may cost.
const FIRST_SWEEP_POINTS_MAX: u64 = 2 * REPOS as u64 + 20;
const HOUR: Duration = Duration::from_secs(3600);
/// The default of `POLL_INTERVAL`.
const POLL: Duration = Duration::from_secs(30);

const HOW_IDLE: &str = "an organisation of 500 repositories without any run, all settings at \
    their defaults but MIN_RUNNERS 0; primary-limit points of one modelled hour after every \
    repository has been read once";
const HOW_MUTATIONS: &str = "MIN_RUNNERS 0, the other settings at their defaults; jobs of 5 to \
    124 s in batches of 1 to 6 over 20 repositories; all calls that are not GET, counted half an \
    hour after the last job has ended";

fn idle() -> anyhow::Result<Measured> {
    in_modelled_time(async {
        let sim = SimGitHub::new(&SimOptions { repos: REPOS, ..SimOptions::default() });
        let github = TimedGitHub::new(world::in_process(&sim)?);
        let begun = Instant::now();
        let orchestrator = Orchestrator::start(&org_fleet(), model_docker(&sim), github.clone())?;
        let swept = || github.repos_read() == REPOS;
        until("a full sweep", HOUR, Duration::from_millis(100), swept).await?;
        let first = (begun.elapsed(), sim.state());
        tokio::time::sleep(HOUR).await;
        let after = sim.state();
        orchestrator.stop().await?;

        let mut broken = Vec::new();
        let first_points = first.1.points;
        if first_points > FIRST_SWEEP_POINTS_MAX {
            broken.push(format!(
                "the first sweep cost {first_points} points, over {FIRST_SWEEP_POINTS_MAX}"
            ));
        }
        broken.extend(crossings(&after));
        let points = after.points - first_points;
        let detail = json!({
            "how": HOW_IDLE,
            "first_sweep_points": first_points,
            "first_sweep_points_limit": FIRST_SWEEP_POINTS_MAX,
            "first_sweep_modelled_s": rounded(first.0.as_secs_f64()),
            "calls_of_the_hour": calls(&after) - calls(&first.1),
        });
        Ok(Measured { value: float(points), detail, broken })
    })
}

fn mutations() -> anyhow::Result<Measured> {
    in_modelled_time(async {
        let sim = SimGitHub::new(&SimOptions { repos: 20, ..SimOptions::default() });
        let github = world::in_process(&sim)?;
        let orchestrator = Orchestrator::start(&org_fleet(), model_docker(&sim), github)?;
        orchestrator.until_ready().await?;
        let mut posted = 0;
        for n in 0..100_usize {
            let batch = NewJobs {
                repo: Some(format!("acme/repo-{}", n * 7 % 20 + 1)),
                ..jobs(n * 5 % 6 + 1, 5.0 + float(n as u64 * 37 % 120))
            };
            posted += batch.count;
            sim.post_jobs(&batch)?;
            tokio::time::sleep(Duration::from_millis(n as u64 * 7919 % 90_000)).await;
        }
        let done = || sim.state().jobs.iter().all(|job| job.status == JobStatus::Completed);
        until("all jobs done", HOUR, Duration::from_secs(1), done).await?;
        tokio::time::sleep(HOUR / 2).await;
        let state = sim.state();
        orchestrator.stop().await?;

        let mut broken: Vec<String> = crossings(&state).into_iter().collect();
        let lost = state.jobs.iter().filter(|job| job.conclusion.as_deref() != Some("success"));
        let (lost, left) = (lost.count(), state.runners.len());
        if lost > 0 || left > 0 {
            broken.push(format!("{lost} jobs without success, {left} registrations left"));
        }
        let mutating: u64 = state
            .calls
            .iter()
            .filter(|(route, _)| !route.starts_with("GET "))
            .map(|(_, n)| n)
            .sum();
        let detail = json!({
            "how": HOW_MUTATIONS,
            "jobs": posted,
            "mutating_calls": mutating,
            "calls": state.calls,
        });
        Ok(Measured { value: float(mutating) / float(posted as u64), detail, broken })
    })
}

fn org_fleet() -> Fleet {
    Fleet {
        scope: Scope::Org("acme".to_owned()),
        scale_up_threshold: 3,
        scale_down_threshold: 1,
        poll_interval: POLL,
        ..Fleet::modelled(10)
    }
}

fn crossings(state: &StateReport) -> Option<String> {
    let crossed = state.limit_crossings;
    let any = crossed.primary + crossed.secondary + crossed.content > 0;
    any.then(|| format!("github's limits were crossed: {crossed:?}"))
}

fn calls(state: &StateReport) -> u64 {
    state.calls.values().sum()
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few thousand")]
fn float(count: u64) -> f64 {
    count as f64
}
