//! What sharing costs: 300 jobs by three replicas over three hosts, against the same jobs
//! by three orchestrators that know nothing of each other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use runner_orchestrator::cli::demo::engine::{POOL, RealEngine, fresh_cluster_name};
use runner_orchestrator::cli::demo::ground::OwnHosts;
use runner_orchestrator::cli::demo::model::{ModelledGitHub, REPO, Settings, TOKEN};
use runner_orchestrator::cli::demo::replica::{Plan, Replica};
use runner_orchestrator::cli::print;
use runner_orchestrator::docker::{Docker, NetworkSpec};
use runner_orchestrator::fleet::id::{ClusterMark, PoolName};
use runner_orchestrator::sim::hosts;
use serde_json::json;
use tokio::time::Instant;

use super::cluster::{REPLICAS, Redis};
use super::figure::{Figure, Measured, rounded};
use super::real::EXECUTABLE;
use super::world::in_real_time;

pub(crate) const RATIO: Figure =
    Figure { name: "cluster_efficiency_ratio", limit: 1.15, unit: "ratio", measure };

const JOBS: usize = 300;
const JOB_SECONDS: u32 = 4;
const HOST_RUNNERS: u32 = 10;
/// Twice each, in the order A B B A, so that what drifts on the machine drifts for both.
const ROUNDS: [Way; 4] = [Way::Apart, Way::Together, Way::Together, Way::Apart];
const JOBS_WITHIN: Duration = Duration::from_secs(600);
const STOP_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// All hosts have reported with their image.
const SETTLED: Duration = Duration::from_secs(8);

const HOW: &str = "3 dockerds on this machine, each in a network namespace, at most 10 runners \
    each; together: 3 `serve` processes, one redis-server, one modelled GitHub with 300 jobs; \
    apart: 3 `serve` processes without Redis, each with a modelled GitHub and 100 jobs of its \
    own, at once; jobs of 4 s, polls every second; from queueing until the last job is done; \
    value = sum of both runs together / sum of both runs apart";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Together,
    Apart,
}

fn measure() -> anyhow::Result<Measured> {
    in_real_time(async {
        if let Some(obstacle) = hosts::obstacle() {
            bail!("this figure needs Docker hosts of its own: {obstacle}");
        }
        let cluster = fresh_cluster_name();
        let mark = ClusterMark::derive(&cluster);
        let count = u32::try_from(REPLICAS)?;
        let pool = (&mark, HOST_RUNNERS);
        let mut own = OwnHosts::start(Some(EXECUTABLE.as_ref()), &cluster, count, pool).await?;
        let measured = tokio::select! { biased;
            measured = rounds(&own, &cluster) => measured,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        };
        for left in own.end().await {
            print::message(&format!("had to be taken away by force: {left}"));
        }
        measured
    })
}

async fn rounds(own: &OwnHosts, cluster: &str) -> anyhow::Result<Measured> {
    let (mut together, mut apart) = (Vec::new(), Vec::new());
    for way in ROUNDS {
        let seconds = rounded(run(own, cluster, way).await?.as_secs_f64());
        print::message(&format!("{way:?}: {seconds:.1} s"));
        match way {
            Way::Together => together.push(seconds),
            Way::Apart => apart.push(seconds),
        }
    }
    let detail = json!({ "how": HOW, "together_s": together, "apart_s": apart });
    let value = together.iter().sum::<f64>() / apart.iter().sum::<f64>();
    Ok(Measured { value, detail, broken: Vec::new() })
}

/// All jobs once; how long they took.
async fn run(own: &OwnHosts, cluster: &str, way: Way) -> anyhow::Result<Duration> {
    let redis = match way {
        Way::Together => Some(Redis::start().await?),
        Way::Apart => None,
    };
    let mut githubs = Vec::new();
    let mut replicas = Vec::new();
    let mut marks = Vec::new();
    for (number, engine) in own.engines().iter().enumerate() {
        if redis.is_none() || githubs.is_empty() {
            githubs.push(github(own).await?);
        }
        let name = match way {
            Way::Together => cluster.to_owned(),
            Way::Apart => format!("{cluster}-{number}"),
        };
        let mark = ClusterMark::derive(&name);
        // Made beforehand for both, as the first runner there would.
        let network = NetworkSpec::of_pool(mark.clone(), PoolName::from(POOL), HOST_RUNNERS);
        engine.docker.ensure_network(&network).await?;
        marks.push(mark);
        let github = githubs.last().context("no GitHub")?;
        replicas.push(replica(engine, &name, github, redis.as_ref()).await?);
    }
    tokio::time::sleep(SETTLED).await;
    let took = work(&githubs).await;
    let stops = replicas.into_iter().map(|replica| replica.program.stop(STOP_WITHIN));
    for stopped in futures_util::future::join_all(stops).await {
        ensure!(stopped?, "an orchestrator did not end well");
    }
    for (engine, mark) in own.engines().iter().zip(&marks) {
        engine.docker.forget_cluster(mark).await?;
    }
    for github in githubs {
        github.stop().await?;
    }
    took
}

async fn github(own: &OwnHosts) -> anyhow::Result<ModelledGitHub> {
    let settings = Settings {
        executable: PathBuf::from(EXECUTABLE),
        address: own.gateway().to_owned(),
        device: Some(own.device().to_owned()),
        seed: 1,
        lost_after_seconds: 600,
        log: None,
    };
    ModelledGitHub::start(&settings).await
}

async fn replica(
    engine: &RealEngine,
    cluster: &str,
    github: &ModelledGitHub,
    redis: Option<&Redis>,
) -> anyhow::Result<Replica> {
    let hosts = if redis.is_some() { u32::try_from(REPLICAS)? } else { 1 };
    let mut env = vec![
        ("GITHUB_API_URL", format!("{}/api/v3", github.url)),
        ("GITHUB_TOKEN", TOKEN.to_owned()),
        ("GITHUB_REPO", REPO.to_owned()),
        ("CLUSTER_NAME", cluster.to_owned()),
        ("RUNNER_IMAGE", engine.image.clone()),
        ("MIN_RUNNERS", "0".to_owned()),
        ("MAX_RUNNERS", (HOST_RUNNERS * hosts).to_string()),
        ("HOST_MAX_RUNNERS", HOST_RUNNERS.to_string()),
        ("SCALE_UP_THRESHOLD", "1".to_owned()),
        ("SCALE_DOWN_THRESHOLD", "0".to_owned()),
        ("POLL_INTERVAL", "1".to_owned()),
        ("LISTEN_ADDR", "127.0.0.1:0".to_owned()),
        ("SHUTDOWN_MODE", "drain".to_owned()),
    ];
    env.extend(engine.docker_host.clone().map(|host| ("DOCKER_HOST", host)));
    env.extend(redis.map(|redis| ("REDIS_URL", redis.url())));
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let executable = Path::new(EXECUTABLE).to_owned();
    Replica::start(&Plan { executable, engine: "docker", env, log: None }).await
}

/// Queues the jobs, shared out evenly, and waits for the last one's end.
async fn work(githubs: &[ModelledGitHub]) -> anyhow::Result<Duration> {
    let each = vec![JOB_SECONDS; JOBS / githubs.len()];
    let begun = Instant::now();
    for github in githubs {
        github.queue(&each).await?;
    }
    let mut open: Vec<&ModelledGitHub> = githubs.iter().collect();
    while let Some(github) = open.last() {
        let state = github.state().await?;
        let well = |job: &str| job == "success";
        if state.jobs.iter().all(|job| job.conclusion.as_deref().is_some_and(well)) {
            open.pop();
            continue;
        }
        if let Some(job) = state.jobs.iter().find(|job| job.attempts > 1 || job.lost) {
            bail!("job {} was lost or run twice", job.id);
        }
        ensure!(begun.elapsed() < JOBS_WITHIN, "the jobs were not done in time");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(begun.elapsed())
}
