//! Ten thousand runners on a hundred hosts: what they cost in Redis, in the leader's turn,
//! in its memory and in its largest answer. Four figures of one world.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use runner_orchestrator::cli::demo::child::{Output, Program};
use runner_orchestrator::cli::print;
use runner_orchestrator::sim::github::{SettingsPatch, SimGitHub, SimHandle, SimOptions};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cluster::{Redis, key};
use super::figure::{Figure, Measured};
use super::footprint::{Memory, megabytes};
use super::hosts::{Hosts, Progress};
use super::reaction::{p95, spread};
use super::real::EXECUTABLE;
use super::world::{REPO, TOKEN, in_real_time, redis_store};

pub(crate) const REDIS_MB: Figure =
    Figure { name: "redis_mb_10000", limit: 14.0, unit: "MB", measure: redis_mb };
pub(crate) const LEADER_TURN: Figure =
    Figure { name: "leader_turn_ms_10000", limit: 100.0, unit: "ms", measure: leader_turn };
pub(crate) const API_RUNNERS: Figure =
    Figure { name: "api_runners_10000_ms_p95", limit: 100.0, unit: "ms", measure: api_runners };
pub(crate) const LEADER_RSS: Figure =
    Figure { name: "leader_rss_mb_10000", limit: 150.0, unit: "MB", measure: leader_rss };

const RUNNERS: usize = 10_000;
const CLUSTER: &str = "figures";
const IMAGE: &str = "model";
/// The leader assigns 180 a turn, as many as GitHub lets it register in a minute; the
/// modelled hosts register them without being held up.
const FULL_WITHIN: Duration = Duration::from_secs(300);
/// Two lists of all registrations lie in it.
const SETTLED: Duration = Duration::from_secs(65);
const WATCH: Duration = Duration::from_secs(40);
/// Turns of the leader are at least 50 ms apart.
const SCRAPE_EVERY: Duration = Duration::from_millis(20);
/// A reading of the list that was under way has ended.
const QUIET: Duration = Duration::from_secs(10);
const REQUESTS: usize = 60;
const REQUEST_EVERY: Duration = Duration::from_millis(300);
/// Ten thousand registrations cannot be told in less.
const LISTING_BYTES_MIN: u64 = 500_000;
const MEMORY_EVERY: Duration = Duration::from_millis(500);

const WORLD: &str = "one `serve --engine model` leads 100 modelled hosts (their leases, reports \
    every 5 s, announcements and registrations are made by the bench; 9,999 of the runners are \
    theirs, one the leader's own) around one redis-server, with a modelled GitHub that lists \
    all 10,000; once that list has been read, 3 runners a second end and are replaced";
const HOW_MB: &str = "sum of MEMORY USAGE of all keys; MB = 1,000,000 bytes; used_memory_mb is \
    the server's growth since it started, with its clients' buffers and scripts";
const HOW_TURN: &str = "turns of the lead loop in 40 s by its own \
    orchestrator_loop_turn_duration_seconds, read 50 times a second: snapshot, view, plan, \
    commit, digest, metrics";
const HOW_API: &str = "GET /api/v1/runners from sending the request until the last byte of the \
    answer, one at a time, 60 times, while hosts report and the leader turns, but no runner ends";
const HOW_RSS: &str = "VmRSS of the leader, the highest of the measurements of turns and of the \
    API; highest_since_start_mb is its VmHWM; MB = 1,000,000 bytes";

static SCALE: OnceLock<Result<Scale, String>> = OnceLock::new();

/// What was seen of that world.
#[derive(Clone, Debug)]
struct Scale {
    redis_bytes: u64,
    used_bytes: u64,
    by_key: Value,
    turns_ms: Vec<f64>,
    api_ms: Vec<f64>,
    answer_bytes: usize,
    memory: Memory,
    ended: usize,
    missed: usize,
}

fn redis_mb() -> anyhow::Result<Measured> {
    let scale = scale()?;
    let detail = json!({
        "how": HOW_MB, "world": WORLD, "used_memory_mb": megabytes(scale.used_bytes),
        "bytes_by_key": scale.by_key,
    });
    Ok(Measured { value: megabytes(scale.redis_bytes), detail, broken: Vec::new() })
}

fn leader_turn() -> anyhow::Result<Measured> {
    let scale = scale()?;
    let detail = json!({
        "how": HOW_TURN, "world": WORLD, "turn_ms": spread(&scale.turns_ms),
        "ended_meanwhile": scale.ended, "reports_missed_meanwhile": scale.missed,
    });
    Ok(Measured { value: p95(&scale.turns_ms), detail, broken: Vec::new() })
}

fn api_runners() -> anyhow::Result<Measured> {
    let scale = scale()?;
    let detail = json!({
        "how": HOW_API, "world": WORLD, "answer_ms": spread(&scale.api_ms),
        "answer_bytes": scale.answer_bytes,
    });
    Ok(Measured { value: p95(&scale.api_ms), detail, broken: Vec::new() })
}

fn leader_rss() -> anyhow::Result<Measured> {
    Ok(scale()?.memory.measured(HOW_RSS))
}

fn scale() -> anyhow::Result<Scale> {
    let scale = SCALE.get_or_init(|| in_real_time(world()).map_err(|error| format!("{error:#}")));
    scale.clone().map_err(anyhow::Error::msg)
}

async fn world() -> anyhow::Result<Scale> {
    let redis = Redis::start().await?;
    let empty = redis.info("used_memory").await?;
    let github = github().await?;
    let store = redis_store(&redis.url(), CLUSTER)?;
    let hosts = Hosts::start(store, &redis, &github, IMAGE).await?;
    let progress = hosts.progress();
    let (leader, api) = leader(&redis, &github).await?;
    let seen = Seen { redis: &redis, empty, leader: &leader, api: &api };
    let ends = watch::Sender::new(false);
    let scale = tokio::select! {
        ended = hosts.run(ends.subscribe()) => match ended {
            Ok(()) => bail!("the hosts came to an end"),
            Err(error) => Err(error.context("the hosts")),
        },
        measured = measure(&seen, progress, &ends) => measured,
    };
    leader.kill().await?;
    github.shutdown().await;
    scale
}

/// What is looked at.
struct Seen<'a> {
    redis: &'a Redis,
    /// What an empty server takes up.
    empty: u64,
    leader: &'a Program,
    api: &'a str,
}

async fn measure(
    seen: &Seen<'_>,
    mut progress: watch::Receiver<Progress>,
    ends: &watch::Sender<bool>,
) -> anyhow::Result<Scale> {
    let Seen { redis, empty, leader, api } = *seen;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let pid = leader.pid().context("the leader has ended")?;
    print::message("filling 100 hosts with 10,000 runners");
    // One of them is the leader's own.
    let full = progress.wait_for(|progress| progress.listening >= RUNNERS - 1);
    tokio::time::timeout(FULL_WITHIN, full).await.context("the fleet was not full in time")??;
    print::message("the fleet is full; letting it settle");
    tokio::time::sleep(SETTLED).await;
    let (redis_bytes, by_key) = memory_of_keys(redis).await?;
    // The list of 100 pages was read while it held still; runners end only from now on.
    let listed = by_key.get("registrations").and_then(Value::as_u64).unwrap_or(0);
    ensure!(listed > LISTING_BYTES_MIN, "the leader has not read GitHub's list");
    ends.send_replace(true);
    let used_bytes = redis.info("used_memory").await?.saturating_sub(empty);
    let mut memory = Memory::unseen();
    let before = *progress.borrow();
    let turns_ms = turns(&http, api, pid, &mut memory).await?;
    let after = *progress.borrow();
    // While the list changes it is read twice each time, and whoever asks the API here is
    // busy with answering that.
    ends.send_replace(false);
    tokio::time::sleep(QUIET).await;
    let (api_ms, answer_bytes) = requests(&http, api, pid, &mut memory).await?;
    Ok(Scale {
        redis_bytes,
        used_bytes,
        by_key,
        turns_ms,
        api_ms,
        answer_bytes,
        memory,
        ended: after.ended - before.ended,
        missed: after.missed - before.missed,
    })
}

/// The modelled GitHub, with limits that do not hold the hosts up.
async fn github() -> anyhow::Result<SimHandle> {
    let sim = SimGitHub::new(&SimOptions::default());
    sim.change_settings(&SettingsPatch {
        primary_limit: Some(1_000_000),
        secondary_points_per_minute: Some(0),
        ..SettingsPatch::default()
    });
    Ok(sim.listen("127.0.0.1:0".parse()?, None, CancellationToken::new()).await?)
}

async fn leader(redis: &Redis, github: &SimHandle) -> anyhow::Result<(Program, String)> {
    let runners = RUNNERS.to_string();
    let env = [
        ("GITHUB_API_URL", github.api_url()),
        ("GITHUB_TOKEN", TOKEN.to_owned()),
        ("GITHUB_REPO", REPO.to_owned()),
        ("REDIS_URL", redis.url()),
        ("CLUSTER_NAME", CLUSTER.to_owned()),
        ("RUNNER_IMAGE", IMAGE.to_owned()),
        ("MIN_RUNNERS", runners.clone()),
        ("MAX_RUNNERS", runners),
        ("HOST_MAX_RUNNERS", "1".to_owned()),
        ("POLL_INTERVAL", "30".to_owned()),
        ("LISTEN_ADDR", "127.0.0.1:0".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let args = ["serve", "--engine", "model"].map(str::to_owned);
    let output = Output { ready_field: "address", log: None };
    let (program, address) = Program::start(EXECUTABLE.as_ref(), &args, &env, output).await?;
    Ok((program, format!("http://{address}")))
}

/// What all keys take up, in all and each.
async fn memory_of_keys(redis: &Redis) -> anyhow::Result<(u64, Value)> {
    let keys: Vec<String> = redis.ask(redis::cmd("KEYS").arg("*")).await?;
    let (mut sum, mut by_key) = (0, serde_json::Map::new());
    for name in keys {
        let usage = redis::cmd("MEMORY").arg("USAGE").arg(&name).arg("SAMPLES").arg(0).clone();
        // A lease may have run out in between.
        let bytes: Option<u64> = redis.ask(&usage).await?;
        let short = name.strip_prefix(&key("")).unwrap_or(&name);
        let short = short.split_once("agent:").map_or(short, |(kind, _)| kind);
        let before = by_key.get(short).and_then(Value::as_u64).unwrap_or(0);
        by_key.insert(short.to_owned(), json!(before + bytes.unwrap_or(0)));
        sum += bytes.unwrap_or(0);
    }
    Ok((sum, Value::Object(by_key)))
}

/// How long each turn of the leader took, in milliseconds.
async fn turns(
    http: &reqwest::Client,
    api: &str,
    pid: u32,
    memory: &mut Memory,
) -> anyhow::Result<Vec<f64>> {
    let mut turns = Vec::new();
    let mut last = turns_so_far(http, api).await?;
    let begun = Instant::now();
    let mut looked = begun;
    while begun.elapsed() < WATCH {
        tokio::time::sleep(SCRAPE_EVERY).await;
        let now = turns_so_far(http, api).await?;
        // Where two ended between two looks, each counts with their mean.
        let (count, seconds) = (now.0 - last.0, now.1 - last.1);
        turns.extend((0..count).map(|_| seconds * 1000.0 / f64::from(count)));
        last = now;
        if looked.elapsed() > MEMORY_EVERY {
            looked = Instant::now();
            memory.look(pid)?;
        }
    }
    Ok(turns)
}

/// Count and seconds of the lead loop's turns.
async fn turns_so_far(http: &reqwest::Client, api: &str) -> anyhow::Result<(u32, f64)> {
    let text = http.get(format!("{api}/metrics")).send().await?.text().await?;
    let of = |what: &str| {
        let name = format!("orchestrator_loop_turn_duration_seconds_{what}{{loop=\"lead\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).context("no metric of turns")
    };
    Ok((of("count")?.parse()?, of("sum")?.parse()?))
}

/// How long the answers took in milliseconds, and how long the last one is in bytes.
async fn requests(
    http: &reqwest::Client,
    api: &str,
    pid: u32,
    memory: &mut Memory,
) -> anyhow::Result<(Vec<f64>, usize)> {
    let url = format!("{api}/api/v1/runners");
    let (mut took, mut bytes) = (Vec::new(), 0);
    for _ in 0..REQUESTS {
        tokio::time::sleep(REQUEST_EVERY).await;
        let begun = Instant::now();
        let answer = http.get(&url).send().await?.error_for_status()?.bytes().await?;
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
        memory.look(pid)?;
        bytes = answer.len();
    }
    Ok((took, bytes))
}
