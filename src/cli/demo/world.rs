//! The demo's world: built, played, taken down.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::child::{Output, Program};
use super::engine::{Engine, fresh_cluster_name, log_file};
use super::{DemoArgs, LOOK_EVERY, ReportForm};
use crate::cli::print;
use crate::docker::Docker;
use crate::fleet::id::ClusterMark;

const REPO: &str = "acme/demo";
const TOKEN: &str = "sim-token";
/// A busy runner whose process is gone is given up by the modelled GitHub after this; the
/// real one takes ten minutes.
const LOST_AFTER_SECONDS: u64 = 20;
/// The orchestrator reads the queue and the runner list this often here.
const POLL_SECONDS: u64 = 1;
/// What may still go away by itself is waited for: two list periods and an idle removal.
const SETTLE: Duration = Duration::from_secs(40);
/// The orchestrator's own shutdown: asking GitHub, five seconds of quiet, removal.
const STOP_WITHIN: Duration = Duration::from_secs(90);

/// Everything the demo made.
#[derive(Debug)]
pub struct World {
    executable: PathBuf,
    engine: Engine,
    mark: ClusterMark,
    cluster: String,
    github: Option<Program>,
    github_url: String,
    orchestrator: Option<Program>,
    http: reqwest::Client,
    args: DemoArgs,
}

/// What happened to the jobs.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Played {
    pub succeeded: u32,
    pub run_twice: u32,
    pub killed_busy: u32,
    pub max_runners_seen: u32,
    pub queue_seconds: Vec<f64>,
    pub wall_seconds: f64,
    pub github_calls: u64,
}

/// What is still there that should not be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Leftover {
    pub containers: u32,
    pub volumes: u32,
    pub networks: u32,
    pub registrations: u32,
}

/// The modelled GitHub's state, as far as the demo looks at it.
#[derive(Clone, Debug, Deserialize)]
struct SimState {
    jobs: Vec<SimJob>,
    runners: Vec<serde_json::Value>,
    calls: std::collections::BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Deserialize)]
struct SimJob {
    status: String,
    conclusion: Option<String>,
    queued_at: Option<chrono::DateTime<chrono::Utc>>,
    started_at: Option<chrono::DateTime<chrono::Utc>>,
    #[serde(default)]
    attempts: u32,
}

impl World {
    /// Builds it: engine, image, network, modelled GitHub, probe, orchestrator.
    pub async fn build(args: &DemoArgs) -> anyhow::Result<Self> {
        let cluster = fresh_cluster_name();
        let mark = ClusterMark::derive(&cluster);
        let engine = Engine::choose(args.engine, &mark, args.max_runners).await?;
        let mut world = Self {
            executable: std::env::current_exe().context("could not find this executable")?,
            engine,
            mark,
            cluster,
            github: None,
            github_url: String::new(),
            orchestrator: None,
            http: crate::sim::http::plain_client().timeout(Duration::from_secs(10)).build()?,
            args: args.clone(),
        };
        if let Err(error) = world.start_programs(args).await {
            world.tear_down().await;
            return Err(error);
        }
        Ok(world)
    }

    async fn start_programs(&mut self, args: &DemoArgs) -> anyhow::Result<()> {
        self.start_github().await?;
        if let Engine::Docker(engine) = &self.engine {
            let checked = engine.check_way(&self.mark, &self.github_url).await;
            match checked {
                Ok(()) => (),
                Err(error) if args.engine == super::EngineChoice::Auto => {
                    print::message(&format!("note: {error:#}; using the modelled engine"));
                    self.forget_docker().await;
                    self.engine = Engine::Model;
                    self.github = None;
                    self.start_github().await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.start_orchestrator().await
    }

    async fn start_github(&mut self) -> anyhow::Result<()> {
        let mut args: Vec<String> =
            ["sim", "github", "--token", TOKEN, "--listen"].map(str::to_owned).to_vec();
        match &self.engine {
            Engine::Docker(engine) => {
                let (gateway, bridge) = engine.place()?;
                args.extend([format!("{gateway}:0"), "--bind-device".into(), bridge.to_owned()]);
            }
            Engine::Model => args.push("127.0.0.1:0".to_owned()),
        }
        args.extend(["--seed".to_owned(), self.args.seed.to_string()]);
        let log = log_file(self.args.logs.as_ref(), "github.log");
        let output = Output { ready_field: "listening", log };
        let (program, url) = Program::start(&self.executable, &args, &[], output).await?;
        self.github = Some(program);
        self.github_url = url;
        let settings = serde_json::json!({ "lost_after_seconds": LOST_AFTER_SECONDS });
        self.post("settings", &settings).await
    }

    async fn start_orchestrator(&mut self) -> anyhow::Result<()> {
        let (docker_host, image) = match &self.engine {
            Engine::Docker(engine) => (engine.docker_host.clone(), engine.image.clone()),
            Engine::Model => (None, "model:demo".to_owned()),
        };
        let mut env = vec![
            ("GITHUB_API_URL".to_owned(), format!("{}/api/v3", self.github_url)),
            ("GITHUB_TOKEN".to_owned(), TOKEN.to_owned()),
            ("GITHUB_REPO".to_owned(), REPO.to_owned()),
            ("CLUSTER_NAME".to_owned(), self.cluster.clone()),
            ("RUNNER_IMAGE".to_owned(), image),
            ("MIN_RUNNERS".to_owned(), "0".to_owned()),
            ("MAX_RUNNERS".to_owned(), self.args.max_runners.to_string()),
            ("HOST_MAX_RUNNERS".to_owned(), self.args.max_runners.to_string()),
            ("SCALE_UP_THRESHOLD".to_owned(), "1".to_owned()),
            ("SCALE_DOWN_THRESHOLD".to_owned(), "0".to_owned()),
            ("POLL_INTERVAL".to_owned(), POLL_SECONDS.to_string()),
            ("IDLE_TIMEOUT".to_owned(), "30".to_owned()),
            ("LISTEN_ADDR".to_owned(), "127.0.0.1:0".to_owned()),
        ];
        if let Some(docker_host) = docker_host {
            env.push(("DOCKER_HOST".to_owned(), docker_host));
        }
        let log = log_file(self.args.logs.as_ref(), "orchestrator.log");
        let output = Output { ready_field: "address", log };
        let args = ["serve", "--engine", self.engine.name()].map(str::to_owned);
        let (program, address) = Program::start(&self.executable, &args, &env, output).await?;
        self.orchestrator = Some(program);
        self.say(&format!("orchestrator on http://{address}, {} engine", self.engine.name()));
        Ok(())
    }

    fn say(&self, text: &str) {
        if self.args.report == ReportForm::Text {
            print::message(text);
        }
    }

    /// The report's word for the engine.
    #[must_use]
    pub fn engine_name(&self) -> &'static str {
        self.engine.name()
    }

    /// Queues the jobs and watches them to their end.
    pub async fn play(&mut self, args: &DemoArgs) -> anyhow::Result<Played> {
        let begun = Instant::now();
        self.queue_jobs(args).await?;
        self.say(&format!("{} jobs queued at the modelled GitHub", args.jobs));
        let mut played = Played::default();
        let mut killed = !args.kill_orchestrator;
        let mut told = u32::MAX;
        loop {
            let state = self.state().await?;
            let runners = u32::try_from(state.runners.len()).unwrap_or(u32::MAX);
            played.max_runners_seen = played.max_runners_seen.max(runners);
            let done = count(&state, |job| job.status == "completed");
            let running = count(&state, |job| job.status == "in_progress");
            if done != told {
                told = done;
                self.say(&format!(
                    "{:6.1} s  {done:>4} done {running:>4} running {runners:>4} runners",
                    begun.elapsed().as_secs_f64()
                ));
            }
            if !killed && done + running >= args.jobs.div_ceil(2) {
                killed = true;
                self.kill_orchestrator().await?;
            }
            if done >= args.jobs {
                judge(&mut played, &state);
                played.wall_seconds = begun.elapsed().as_secs_f64();
                return Ok(played);
            }
            if begun.elapsed().as_secs() > args.timeout_seconds {
                bail!("{done} of {} jobs done after {} s", args.jobs, args.timeout_seconds);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn kill_orchestrator(&mut self) -> anyhow::Result<()> {
        if let Some(orchestrator) = self.orchestrator.take() {
            self.say("kill -9 of the orchestrator, and a new start");
            orchestrator.kill().await?;
        }
        self.start_orchestrator().await
    }

    async fn queue_jobs(&self, args: &DemoArgs) -> anyhow::Result<()> {
        let durations: Vec<u32> = (0..args.jobs)
            .map(|n| {
                let (low, high) = args.job_seconds;
                // A spread that follows the seed; quality of randomness is no matter here.
                let mixed = (args.seed ^ u64::from(n)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
                low + u32::try_from(mixed % u64::from(high - low + 1)).unwrap_or(0)
            })
            .collect();
        let jobs = serde_json::json!({
            "count": args.jobs,
            "repo": REPO,
            "labels": ["self-hosted", "linux"],
            "durations": durations,
        });
        self.post("jobs", &jobs).await
    }

    async fn post(&self, what: &str, body: &serde_json::Value) -> anyhow::Result<()> {
        let url = format!("{}/_sim/{what}", self.github_url);
        let answer = self.http.post(&url).json(body).send().await?;
        if !answer.status().is_success() {
            let status = answer.status();
            bail!("the modelled GitHub answered {status}: {}", answer.text().await?);
        }
        Ok(())
    }

    async fn state(&self) -> anyhow::Result<SimState> {
        let url = format!("{}/_sim/state", self.github_url);
        let answer = self.http.get(&url).send().await?.error_for_status()?;
        answer.json().await.context("the modelled GitHub's state could not be read")
    }

    /// Stops the orchestrator as an operator would, judges what is left, and takes the
    /// demo's own things away.
    pub async fn tear_down(&mut self) -> Leftover {
        if let Some(orchestrator) = self.orchestrator.take() {
            self.say("stopping the orchestrator");
            match orchestrator.stop(STOP_WITHIN).await {
                Ok(true) => (),
                Ok(false) => print::message("the orchestrator did not stop by itself"),
                Err(error) => print::message(&format!("stopping the orchestrator: {error:#}")),
            }
        }
        let mut leftover = self.count_leftover().await;
        let begun = Instant::now();
        while leftover != Leftover::default() && begun.elapsed() < SETTLE {
            tokio::time::sleep(Duration::from_secs(1)).await;
            leftover = self.count_leftover().await;
        }
        self.forget_docker().await;
        if let Some(github) = self.github.take()
            && let Err(error) = github.stop(Duration::from_secs(5)).await
        {
            print::message(&format!("stopping the modelled GitHub: {error:#}"));
        }
        leftover
    }

    /// What exists beyond the demo's own network and identity.
    async fn count_leftover(&self) -> Leftover {
        let mut leftover = Leftover::default();
        if let Engine::Docker(engine) = &self.engine {
            match engine.docker.containers(&self.mark).await {
                Ok(containers) => leftover.containers = length(containers.len()),
                Err(error) => {
                    print::message(&format!("could not count containers: {error}"));
                    leftover.containers = u32::MAX;
                }
            }
            let keep = [engine.network.name.clone()];
            match engine.docker.sweep(&self.mark, &keep).await {
                Ok(swept) => {
                    leftover.volumes = swept.volumes;
                    leftover.networks = swept.networks + length(swept.stuck_networks.len());
                }
                Err(error) => print::message(&format!("could not count volumes: {error}")),
            }
        }
        if self.github.is_some() {
            match self.state().await {
                Ok(state) => leftover.registrations = length(state.runners.len()),
                Err(error) => print::message(&format!("could not count registrations: {error:#}")),
            }
        }
        leftover
    }

    async fn forget_docker(&self) {
        if let Engine::Docker(engine) = &self.engine
            && let Err(error) = engine.docker.forget_cluster(&self.mark).await
        {
            print::message(&format!("could not remove the demo's network: {error}"));
        }
    }
}

fn length(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn count(state: &SimState, which: impl Fn(&SimJob) -> bool) -> u32 {
    length(state.jobs.iter().filter(|job| which(job)).count())
}

fn judge(played: &mut Played, state: &SimState) {
    played.succeeded = count(state, |job| job.conclusion.as_deref() == Some("success"));
    played.run_twice = count(state, |job| job.attempts > 1);
    played.killed_busy =
        count(state, |job| matches!(job.conclusion.as_deref(), Some("failure" | "cancelled")));
    played.github_calls = state.calls.values().sum();
    played.queue_seconds = state
        .jobs
        .iter()
        .filter_map(|job| Some((job.started_at? - job.queued_at?).as_seconds_f64()))
        .collect();
}
