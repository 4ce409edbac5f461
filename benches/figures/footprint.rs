//! Memory and start of the orchestrator's own process. The modelled GitHub is another
//! process, so that none of it is counted.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use runner_orchestrator::cli::demo::child::{Output, Program};
use runner_orchestrator::cli::print;
use runner_orchestrator::docker::Docker;
use runner_orchestrator::sim::github::StateReport;
use serde_json::json;
use tokio::time::Instant;

use super::figure::{Figure, Measured, median, rounded};
use super::real::{EXECUTABLE, Real, on_real_engine};
use super::world::{REPO, TOKEN, in_real_time};

pub(crate) const RSS_IDLE: Figure =
    Figure { name: "rss_idle_mb", limit: 40.0, unit: "MB", measure: idle };
pub(crate) const RSS_1000: Figure =
    Figure { name: "rss_1000_mb", limit: 80.0, unit: "MB", measure: thousand };
pub(crate) const READY: Figure =
    Figure { name: "ready_seconds", limit: 1.0, unit: "s", measure: ready };

const RUNNERS: usize = 1000;
/// GitHub's limit of 180 registrations a minute makes a thousand take five minutes and a
/// half.
const RUNNERS_WITHIN: Duration = Duration::from_secs(600);
/// A full round of everything that repeats: polls, lists, beats.
const WATCH: Duration = Duration::from_secs(35);
const LOOK_EVERY: Duration = Duration::from_millis(500);
const STARTS: usize = 5;
const READY_WITHIN: Duration = Duration::from_secs(20);
const STOP_WITHIN: Duration = Duration::from_secs(20);

const HOW_IDLE: &str = "VmRSS of `serve --engine model` without runners, the highest of 35 s; \
    MB = 1,000,000 bytes; the modelled GitHub is another process";
const HOW_1000: &str = "VmRSS of `serve --engine model` with 1,000 listening modelled runners, \
    their programs and connections included, the highest of 35 s; MB = 1,000,000 bytes; the \
    modelled GitHub is another process";
const HOW_READY: &str = "from the start of `serve` on the real engine, without any container or \
    volume of its cluster there, until /readyz answers 200; worst of the starts";

fn idle() -> anyhow::Result<Measured> {
    in_real_time(async {
        let github = github().await?;
        let (serve, _) = serve_model(&github.1, 0).await?;
        let memory = watch(&serve).await?;
        stop(serve).await?;
        stop(github.0).await?;
        Ok(memory.measured(HOW_IDLE))
    })
}

fn thousand() -> anyhow::Result<Measured> {
    in_real_time(async {
        let github = github().await?;
        let (serve, _) = serve_model(&github.1, RUNNERS).await?;
        print::message("registering 1,000 runners at GitHub's pace: 5 to 6 minutes");
        all_connected(&github.1).await?;
        let memory = watch(&serve).await?;
        // Draining a thousand runners at GitHub's pace would take as long again.
        serve.kill().await?;
        stop(github.0).await?;
        Ok(memory.measured(HOW_1000))
    })
}

fn ready() -> anyhow::Result<Measured> {
    on_real_engine(1, async |real| {
        let github = github().await?;
        let mut seconds = Vec::new();
        for _ in 0..STARTS {
            real.engine.docker.forget_cluster(&real.mark).await?;
            seconds.push(one_start(real, &github.1).await?);
        }
        stop(github.0).await?;
        let detail = json!({
            "how": HOW_READY,
            "starts_s": seconds.iter().map(|s| rounded(*s)).collect::<Vec<_>>(),
            "median_s": rounded(median(&seconds)),
        });
        let value = seconds.into_iter().fold(f64::NAN, f64::max);
        Ok(Measured { value, detail, broken: Vec::new() })
    })
}

async fn one_start(real: &Real, github_url: &str) -> anyhow::Result<f64> {
    let mut env = env(github_url, &real.cluster, &real.engine.image, 0);
    env.extend(real.engine.docker_host.clone().map(|host| ("DOCKER_HOST".to_owned(), host)));
    let http = reqwest::Client::builder().no_proxy().build()?;
    let begun = Instant::now();
    let (serve, address) = start(&["serve"], &env, "address").await?;
    let url = format!("http://{address}/readyz");
    loop {
        if http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            break;
        }
        if begun.elapsed() > READY_WITHIN {
            bail!("not ready within {} s", READY_WITHIN.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    stop(serve).await?;
    Ok(took)
}

async fn github() -> anyhow::Result<(Program, String)> {
    start(&["sim", "github", "--token", TOKEN], &[], "listening").await
}

async fn serve_model(github_url: &str, runners: usize) -> anyhow::Result<(Program, String)> {
    let env = env(github_url, "figures", "model", runners);
    start(&["serve", "--engine", "model"], &env, "address").await
}

fn env(github_url: &str, cluster: &str, image: &str, runners: usize) -> Vec<(String, String)> {
    [
        ("GITHUB_API_URL", format!("{github_url}/api/v3")),
        ("GITHUB_TOKEN", TOKEN.to_owned()),
        ("GITHUB_REPO", REPO.to_owned()),
        ("CLUSTER_NAME", cluster.to_owned()),
        ("RUNNER_IMAGE", image.to_owned()),
        ("MIN_RUNNERS", runners.to_string()),
        ("MAX_RUNNERS", runners.max(10).to_string()),
        ("LISTEN_ADDR", "127.0.0.1:0".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

async fn start(
    args: &[&str],
    env: &[(String, String)],
    ready_field: &'static str,
) -> anyhow::Result<(Program, String)> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let output = Output { ready_field, log: None };
    Program::start(Path::new(EXECUTABLE), &args, env, output).await
}

async fn stop(program: Program) -> anyhow::Result<()> {
    ensure!(program.stop(STOP_WITHIN).await?, "a program did not end well");
    Ok(())
}

async fn all_connected(github_url: &str) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let begun = Instant::now();
    loop {
        let answer = http.get(format!("{github_url}/_sim/state")).send().await?;
        let state: StateReport = answer.json().await?;
        let connected = state.runners.iter().filter(|r| r.connected_at.is_some()).count();
        if connected >= RUNNERS {
            return Ok(());
        }
        if begun.elapsed() > RUNNERS_WITHIN {
            bail!("{connected} runners within {} s", RUNNERS_WITHIN.as_secs());
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// A process's resident memory, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    lowest: u64,
    highest: u64,
    /// Since it began, `VmHWM`.
    ever: u64,
}

impl Memory {
    /// Nothing seen yet.
    pub(crate) fn unseen() -> Self {
        Self { lowest: u64::MAX, ..Self::default() }
    }

    /// Looks at a process's memory once more.
    pub(crate) fn look(&mut self, pid: u32) -> anyhow::Result<()> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let now = bytes(&status, "VmRSS:").context("its memory cannot be read")?;
        self.lowest = self.lowest.min(now);
        self.highest = self.highest.max(now);
        self.ever = bytes(&status, "VmHWM:").unwrap_or_default();
        Ok(())
    }

    pub(crate) fn measured(self, how: &str) -> Measured {
        let detail = json!({
            "how": how,
            "lowest_mb": megabytes(self.lowest),
            "highest_since_start_mb": megabytes(self.ever),
        });
        Measured { value: megabytes(self.highest), detail, broken: Vec::new() }
    }
}

async fn watch(program: &Program) -> anyhow::Result<Memory> {
    let pid = program.pid().context("it has ended")?;
    let begun = Instant::now();
    let mut memory = Memory::unseen();
    while begun.elapsed() < WATCH {
        memory.look(pid)?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(memory)
}

/// A field of `/proc/PID/status`, which are in units of 1024 bytes.
fn bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
pub(crate) fn megabytes(bytes: u64) -> f64 {
    rounded(bytes as f64 / 1e6)
}
