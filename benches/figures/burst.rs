//! A burst of jobs against the speed of the Docker daemon itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use runner_orchestrator::cli::print;
use runner_orchestrator::docker::{Docker, RunnerContainer};
use runner_orchestrator::fleet::id::{BootId, HostId, RunnerId, RunnerName};
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::github::{GitHub, MintRequest};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::figure::{Figure, Measured, median, rounded};
use super::real::{Real, on_real_engine};
use super::timed::{TimedDocker, TimedGitHub};
use super::world::{self, Orchestrator, jobs, until};

pub(crate) const RATIO: Figure =
    Figure { name: "burst_ratio", limit: 1.15, unit: "ratio", measure };

const BURST: usize = 100;
/// How many containers the straight way makes at a time; the best of these counts.
const WIDTHS: [usize; 3] = [4, 8, 16];
/// Run-to-run noise of a daemon is 8 %: at least five of each.
const ROUNDS: usize = 5;
/// Far longer than any burst takes.
const JOB_SECONDS: f64 = 3600.0;
const BURST_LIMIT: Duration = Duration::from_secs(120);
/// The straight way's registrations are made beforehand, so many at a time.
const MINTS_AT_ONCE: usize = 16;

const HOW: &str = "one round = a burst through the orchestrator, and 100 creations, attaches, \
    starts and hand-overs straight through bollard at 4, 8 and 16 at a time, in rotating order, \
    each on a fresh modelled GitHub with 100 queued jobs; the orchestrator's time runs from the \
    start of the reading whose answer first contained the jobs until the hundredth start was \
    answered, the straight time from the first creation until then; ratio of a round = burst / \
    straight at the width whose median over all rounds is lowest; value = median of the ratios";

fn measure() -> anyhow::Result<Measured> {
    on_real_engine(u32::try_from(BURST)?, async |real| {
        let mut bursts = Vec::new();
        let mut straight: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for round in 0..ROUNDS {
            let mut turns = vec![None];
            turns.extend(WIDTHS.map(Some));
            turns.rotate_left(round % (WIDTHS.len() + 1));
            for turn in turns {
                let took = match turn {
                    None => burst(real).await,
                    Some(width) => straight_through(real, width).await,
                };
                let cleared = real.clear().await;
                let seconds = took?.as_secs_f64();
                cleared?;
                match turn {
                    None => bursts.push(seconds),
                    Some(width) => straight.entry(width).or_default().push(seconds),
                }
                let name = turn.map_or("orchestrator".to_owned(), |width| format!("{width} wide"));
                print::message(&format!("round {}: {name:<12} {seconds:6.2} s", round + 1));
            }
        }
        judge(&bursts, &straight)
    })
}

fn judge(bursts: &[f64], straight: &BTreeMap<usize, Vec<f64>>) -> anyhow::Result<Measured> {
    let (width, best) = straight
        .iter()
        .min_by(|a, b| median(a.1).total_cmp(&median(b.1)))
        .context("nothing was measured")?;
    let ratios: Vec<f64> =
        bursts.iter().zip(best).map(|(burst, straight)| burst / straight).collect();
    let all = |seconds: &[f64]| seconds.iter().map(|s| rounded(*s)).collect::<Vec<_>>();
    let widths: BTreeMap<String, Vec<f64>> =
        straight.iter().map(|(width, seconds)| (width.to_string(), all(seconds))).collect();
    let detail = json!({
        "how": HOW,
        "best_width": width,
        "ratios": all(&ratios),
        "burst_seconds": all(bursts),
        "straight_seconds_by_width": widths,
        "burst_containers_per_second": rounded(100.0 / median(bursts)),
    });
    Ok(Measured { value: median(&ratios), detail, broken: Vec::new() })
}

/// The orchestrator's way.
async fn burst(real: &Real) -> anyhow::Result<Duration> {
    let sim = real.github().await?;
    let docker = TimedDocker::new(real.docker()?);
    let github = TimedGitHub::new(world::over_http(sim.api_url())?);
    let fleet = real.fleet(u32::try_from(BURST)?);
    let orchestrator = Orchestrator::start(&fleet, docker.clone(), github.clone())?;
    let took = async {
        orchestrator.until_ready().await?;
        let soon = Duration::from_millis(20);
        until("a first reading", Duration::from_secs(10), soon, || github.has_read()).await?;
        sim.post_jobs(&jobs(BURST, JOB_SECONDS))?;
        let mut seen = docker.seen();
        let all = seen.wait_for(|seen| seen.running.len() >= BURST);
        let all =
            tokio::time::timeout(BURST_LIMIT, all).await.context("the burst took too long")?;
        let last = all?.running.iter().map(|(_, at)| *at).max().context("none ran")?;
        let first = github.first_jobs().context("the jobs were never read")?;
        real.ensure_running(BURST).await?;
        Ok(last - first)
    };
    let took = took.await;
    orchestrator.stop().await?;
    sim.shutdown().await;
    took
}

/// The same containers by hand: one bollard call for each step, by the product's own edge,
/// so that requests and attachment are the same.
async fn straight_through(real: &Real, width: usize) -> anyhow::Result<Duration> {
    let sim = real.github().await?;
    sim.post_jobs(&jobs(BURST, JOB_SECONDS))?;
    let prepared = prepare(real, &*world::over_http(sim.api_url())?).await?;
    let docker = real.docker()?;
    docker.daemon().await?;
    let slots = Arc::new(Semaphore::new(width));
    let (started, mut starts) = mpsc::channel(BURST);
    let mut containers = JoinSet::new();
    let begun = Instant::now();
    for (spec, blob) in prepared {
        let (docker, slots, started) = (docker.clone(), slots.clone(), started.clone());
        containers.spawn(async move { one(&*docker, &slots, &spec, &blob, started).await });
    }
    drop(started);
    let mut last = begun;
    let mut count = 0;
    while let Some(at) = starts.recv().await {
        last = last.max(at);
        count += 1;
        if count == BURST {
            break;
        }
    }
    let running = real.ensure_running(BURST).await;
    containers.shutdown().await;
    sim.shutdown().await;
    running?;
    Ok(last - begun)
}

/// A container from creation to hand-over; then its output is read, as for any runner.
async fn one(
    docker: &dyn Docker,
    slots: &Semaphore,
    spec: &RunnerContainer,
    blob: &SecretString,
    started: mpsc::Sender<Instant>,
) -> anyhow::Result<()> {
    let slot = slots.acquire().await?;
    let id = docker.create(spec).await?;
    let mut attached = docker.attach(&id).await?;
    docker.start(&id).await?;
    drop(slot);
    started.send(Instant::now()).await?;
    drop(started);
    attached.stdin.write_all(blob.expose_secret().as_bytes()).await?;
    attached.stdin.write_all(b"\n").await?;
    attached.stdin.shutdown().await?;
    while attached.lines.next().await.is_some() {}
    Ok(())
}

/// What each container is made from, and its registration.
async fn prepare(
    real: &Real,
    github: &dyn GitHub,
) -> anyhow::Result<Vec<(RunnerContainer, SecretString)>> {
    let pool = real.fleet(u32::try_from(BURST)?).pool();
    let (host, boot) = (HostId(Uuid::new_v4()), BootId(Uuid::now_v7()));
    let specs = (0..BURST).map(|_| {
        let runner = RunnerId(Uuid::now_v7());
        RunnerContainer {
            runner,
            name: RunnerName::compose(&real.mark, &host, &runner),
            pool: pool.name.clone(),
            cluster: real.mark.clone(),
            host,
            boot,
            term: 1,
            image: pool.image.clone(),
            command: pool.command.clone(),
            network: real.engine.network.name.clone(),
            resources: pool.resources.clone(),
            docker: pool.docker,
            scope: pool.scope.clone(),
            revision: pool.revision.clone(),
            created_at: Timestamp(1),
            correlation: runner.tail(),
        }
    });
    stream::iter(specs)
        .map(|spec| async {
            let request = MintRequest {
                scope: pool.scope.clone(),
                name: spec.name.clone(),
                labels: pool.labels.clone(),
                runner_group_id: pool.runner_group_id,
            };
            let minted = github.mint(&request).await?;
            Ok((spec, minted.jit_config))
        })
        .buffer_unordered(MINTS_AT_ONCE)
        .try_collect()
        .await
}
