//! How long nobody decides when the leader goes.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use runner_orchestrator::cli::print;
use serde_json::json;
use tokio::time::Instant;

use super::cluster::{Cluster, committed_in};
use super::figure::{Figure, Measured, median, rounded};
use super::world::in_real_time;

pub(crate) const CRASH_MAX: Figure =
    Figure { name: "takeover_crash_s_max", limit: 7.0, unit: "s", measure: crash_max };
pub(crate) const CRASH_MEDIAN: Figure =
    Figure { name: "takeover_crash_s_median", limit: 5.5, unit: "s", measure: crash_median };
pub(crate) const GRACEFUL: Figure =
    Figure { name: "takeover_graceful_s", limit: 0.3, unit: "s", measure: graceful };

const CRASHES: usize = 20;
const STOPS: usize = 7;
/// Longer than any lease, with a slow machine.
const COMMIT_WITHIN: Duration = Duration::from_secs(20);
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// A step that is no divisor of the renewals' period, so that kills fall anywhere in it.
const STEP: Duration = Duration::from_millis(173);
/// Every replica has told of itself and of its host.
const SETTLED: Duration = Duration::from_secs(1);

/// A poll as by default: what is queued right before the end of a leader is read by the
/// next one.
const ENV: [(&str, &str); 6] = [
    ("MIN_RUNNERS", "0"),
    ("MAX_RUNNERS", "100"),
    ("HOST_MAX_RUNNERS", "50"),
    ("SCALE_UP_THRESHOLD", "1"),
    ("SCALE_DOWN_THRESHOLD", "0"),
    ("POLL_INTERVAL", "30"),
];

const HOW: &str = "3 `serve --engine model` around one redis-server; a job is queued at the \
    modelled GitHub, then the leader gets the signal; from there until MONITOR shows that the \
    commit script of a higher term, past its fence, writes an assignment; polls every 30 s, so \
    that the job is what the new leader finds";

/// Both figures of a crash come from the same kills.
static CRASHED: OnceLock<Result<Vec<f64>, String>> = OnceLock::new();

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// SIGKILL.
    Crash,
    /// SIGTERM.
    Stop,
}

fn crash_max() -> anyhow::Result<Measured> {
    let seconds = crashes()?;
    Ok(measured(seconds.iter().copied().fold(f64::NAN, f64::max), &seconds))
}

fn crash_median() -> anyhow::Result<Measured> {
    let seconds = crashes()?;
    Ok(measured(median(&seconds), &seconds))
}

fn graceful() -> anyhow::Result<Measured> {
    let seconds = take_overs(End::Stop, STOPS)?;
    Ok(measured(seconds.iter().copied().fold(f64::NAN, f64::max), &seconds))
}

fn crashes() -> anyhow::Result<Vec<f64>> {
    let crashed = CRASHED
        .get_or_init(|| take_overs(End::Crash, CRASHES).map_err(|error| format!("{error:#}")));
    crashed.clone().map_err(anyhow::Error::msg)
}

fn measured(value: f64, seconds: &[f64]) -> Measured {
    let all: Vec<f64> = seconds.iter().map(|s| rounded(*s)).collect();
    let detail = json!({ "how": HOW, "median_s": rounded(median(seconds)), "seconds": all });
    Measured { value, detail, broken: Vec::new() }
}

fn take_overs(end: End, count: usize) -> anyhow::Result<Vec<f64>> {
    in_real_time(async {
        let mut cluster = Cluster::start(&ENV).await?;
        let mut seconds = Vec::new();
        for n in 0..count {
            tokio::time::sleep(SETTLED + STEP * (u32::try_from(n % 7)? + 1)).await;
            let took = take_over(&mut cluster, end).await.with_context(|| format!("number {n}"))?;
            print::message(&format!("take-over {}: {took:.3} s", n + 1));
            seconds.push(took);
        }
        cluster.stop().await?;
        Ok(seconds)
    })
}

async fn take_over(cluster: &mut Cluster, end: End) -> anyhow::Result<f64> {
    let (number, term) = cluster.leader().await?;
    let mut commands = cluster.redis.monitor().await?;
    cluster.github.queue(&[1]).await?;
    let leader = cluster.take(number)?.program;
    let begun = Instant::now();
    let ending = async {
        match end {
            End::Crash => leader.kill().await,
            End::Stop => {
                ensure!(leader.stop(STOP_WITHIN).await?, "the leader did not end well");
                Ok(())
            }
        }
    };
    let commit = tokio::time::timeout(COMMIT_WITHIN, next_commit(&mut commands, term));
    let (ended, commit) = tokio::join!(ending, commit);
    ended?;
    let (committed, at) = commit.context("nobody committed in time")??;
    let lease = cluster.redis.lease().await?.map(|(_, term)| term);
    ensure!(lease == Some(committed), "term {committed} committed, the lease is of {lease:?}");
    cluster.start_replica(number).await?;
    Ok((at - begun).as_secs_f64())
}

/// The first commit of a term above `term`, and when it was seen.
async fn next_commit(
    commands: &mut BoxStream<'_, String>,
    term: u64,
) -> anyhow::Result<(u64, Instant)> {
    loop {
        let line = commands.next().await.context("MONITOR has ended")?;
        if let Some(committed) = committed_in(&line).filter(|committed| *committed > term) {
            return Ok((committed, Instant::now()));
        }
    }
}
