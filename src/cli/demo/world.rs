//! The demo's world: built, played, taken down.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;
use uuid::Uuid;

use super::engine::{fresh_cluster_name, log_file};
use super::ground::Ground;
use super::judge::{Leftover, Played, containers, length};
use super::model::{self, ModelledGitHub, REPO, TOKEN};
use super::replica::{Plan, Replica};
use super::{DemoArgs, EngineChoice, LOOK_EVERY, ReportForm};
use crate::cli::print;
use crate::fleet::id::ClusterMark;
use crate::sim::redis::RedisServer;
use crate::store::redis::address::Address;
use crate::store::redis::forget::forget;
use crate::store::redis::{RedisSettings, Tls};

/// A busy runner whose process is gone is given up by the modelled GitHub after this; the
/// real one takes ten minutes.
const LOST_AFTER_SECONDS: u64 = 20;
/// The orchestrators read the queue and the runner list this often here.
const POLL_SECONDS: u64 = 1;
/// What may still go away by itself is waited for: two list periods and an idle removal.
const SETTLE: Duration = Duration::from_secs(40);
/// A registration whose runner never came to be is deleted after two looks a minute apart.
const UNCLAIMED_WITHIN: Duration = Duration::from_secs(150);
/// An orchestrator's own shutdown: asking GitHub, five seconds of quiet, removal.
const STOP_WITHIN: Duration = Duration::from_secs(90);
/// Somebody leads again within this after whatever happened: the lease, and a slow machine.
const LEADER_WITHIN: Duration = Duration::from_secs(30);

/// Everything the demo made.
#[derive(Debug)]
pub struct World {
    executable: PathBuf,
    ground: Ground,
    mark: ClusterMark,
    cluster: String,
    secret: String,
    github: Option<ModelledGitHub>,
    redis: Option<RedisServer>,
    redis_url: Option<String>,
    /// By number; `None` between a kill and the next start.
    replicas: Vec<Option<Replica>>,
    http: reqwest::Client,
    args: DemoArgs,
}

impl World {
    /// Builds it: hosts, image, network, modelled GitHub, probe, Redis, orchestrators.
    pub async fn build(args: &DemoArgs) -> anyhow::Result<Self> {
        let cluster = fresh_cluster_name();
        let mark = ClusterMark::derive(&cluster);
        let ground = Ground::choose(args, &cluster, &mark).await?;
        let mut world = Self {
            executable: std::env::current_exe().context("could not find this executable")?,
            ground,
            mark,
            cluster,
            secret: Uuid::new_v4().simple().to_string(),
            github: None,
            redis: None,
            redis_url: None,
            replicas: Vec::new(),
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
        let github = self.start_github().await?;
        match self.ground.check_way(&self.mark, &github.url).await {
            Ok(()) => self.github = Some(github),
            Err(error) if args.engine == EngineChoice::Auto => {
                print::message(&format!("note: {error:#}; using the modelled engine"));
                say_left(self.ground_forgotten().await);
                self.github = Some(self.start_github().await?);
            }
            Err(error) => return Err(error),
        }
        if matches!(self.ground, Ground::Model) && (args.kill_leader || args.kill_orchestrator) {
            bail!(
                "the modelled engine lives in the orchestrator: killing that one kills its \
                 runners, so --kill-leader and --kill-orchestrator need a Docker engine"
            );
        }
        self.redis_url = crate::config::redis_url();
        if self.redis_url.is_none() && args.replicas > 1 {
            let redis = tokio::task::spawn_blocking(RedisServer::start).await??;
            self.redis_url = Some(redis.url());
            self.redis = Some(redis);
        }
        for number in 0..args.replicas {
            self.replicas.push(None);
            self.start_replica(usize::try_from(number)?).await?;
        }
        Ok(())
    }

    async fn ground_forgotten(&mut self) -> Vec<String> {
        let mut ground = std::mem::replace(&mut self.ground, Ground::Model);
        ground.forget(&self.mark).await
    }

    async fn start_github(&self) -> anyhow::Result<ModelledGitHub> {
        let (address, device) = self.ground.place()?;
        ModelledGitHub::start(&model::Settings {
            executable: self.executable.clone(),
            address,
            device,
            seed: self.args.seed,
            lost_after_seconds: LOST_AFTER_SECONDS,
            log: log_file(self.args.logs.as_ref(), "github.log"),
        })
        .await
    }

    async fn start_replica(&mut self, number: usize) -> anyhow::Result<()> {
        let plan = self.plan(number)?;
        let replica = Replica::start(&plan).await?;
        self.say(&format!("{} on {}, {} engine", self.called(number), replica.api, plan.engine));
        self.replicas[number] = Some(replica);
        Ok(())
    }

    fn called(&self, number: usize) -> String {
        match self.args.replicas {
            1 => "orchestrator".to_owned(),
            _ => format!("orchestrator {}", number + 1),
        }
    }

    fn plan(&self, number: usize) -> anyhow::Result<Plan> {
        let github = self.github.as_ref().context("no modelled GitHub")?;
        let engine = self.ground.engine_of(number);
        let max = self.args.max_runners.to_string();
        let image = engine.map_or("model:demo", |engine| &engine.image);
        let mut env: Vec<(String, String)> = [
            ("GITHUB_API_URL", format!("{}/api/v3", github.url).as_str()),
            ("GITHUB_TOKEN", TOKEN),
            ("GITHUB_REPO", REPO),
            ("CLUSTER_NAME", &self.cluster),
            ("RUNNER_IMAGE", image),
            ("MIN_RUNNERS", "0"),
            ("MAX_RUNNERS", &max),
            ("HOST_MAX_RUNNERS", &max),
            ("SCALE_UP_THRESHOLD", "1"),
            ("SCALE_DOWN_THRESHOLD", "0"),
            ("POLL_INTERVAL", &POLL_SECONDS.to_string()),
            ("IDLE_TIMEOUT", "30"),
            ("LISTEN_ADDR", "127.0.0.1:0"),
            // The demo ends with nothing left, also where replicas would leave runners to
            // each other.
            ("SHUTDOWN_MODE", "drain"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        if let Some(docker_host) = engine.and_then(|engine| engine.docker_host.clone()) {
            env.push(("DOCKER_HOST".to_owned(), docker_host));
        }
        if let Some(redis_url) = &self.redis_url {
            env.push(("REDIS_URL".to_owned(), redis_url.clone()));
            env.push(("CLUSTER_SECRET".to_owned(), self.secret.clone()));
        }
        let log = match self.args.replicas {
            1 => "orchestrator.log".to_owned(),
            _ => format!("orchestrator-{}.log", number + 1),
        };
        Ok(Plan {
            executable: self.executable.clone(),
            engine: self.ground.name(),
            env,
            log: log_file(self.args.logs.as_ref(), &log),
        })
    }

    fn say(&self, text: &str) {
        if self.args.report == ReportForm::Text {
            print::message(text);
        }
    }

    /// Where the runners ran.
    #[must_use]
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Queues the jobs and watches them to their end.
    pub async fn play(&mut self, args: &DemoArgs) -> anyhow::Result<Played> {
        let begun = Instant::now();
        let lengths = model::job_lengths(args.jobs, args.seed, args.job_seconds);
        self.github.as_ref().context("no modelled GitHub")?.queue(&lengths).await?;
        self.say(&format!(
            "{} jobs queued at the modelled GitHub; runners on {}",
            args.jobs,
            self.ground.described()
        ));
        let mut played = Played::default();
        let mut faults = args.kill_leader || args.kill_orchestrator;
        let mut told = u32::MAX;
        loop {
            let state = self.github.as_ref().context("no modelled GitHub")?.state().await?;
            let runners = length(state.runners.len());
            played.max_runners_seen = played.max_runners_seen.max(runners);
            let done = state.count(|job| job.status == "completed");
            let running = state.count(|job| job.status == "in_progress");
            if done != told {
                told = done;
                self.say(&format!(
                    "{:6.1} s  {done:>4} done {running:>4} running {runners:>4} runners",
                    begun.elapsed().as_secs_f64()
                ));
            }
            if faults && done + running >= args.jobs.div_ceil(2) {
                faults = false;
                self.kill(args).await?;
            }
            if done >= args.jobs {
                played.judge(&state);
                played.wall_seconds = begun.elapsed().as_secs_f64();
                return Ok(played);
            }
            if begun.elapsed().as_secs() > args.timeout_seconds {
                bail!("{done} of {} jobs done after {} s", args.jobs, args.timeout_seconds);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn kill(&mut self, args: &DemoArgs) -> anyhow::Result<()> {
        let leader = self.leader().await?;
        if args.kill_leader {
            let killed = Instant::now();
            self.kill_replica(leader, "which leads, ").await?;
            let next = self.leader().await?;
            let took = killed.elapsed().as_secs_f64();
            self.say(&format!("{} leads, within {took:.1} s", self.called(next)));
        }
        if args.kill_orchestrator {
            // Where there are several: one that does not lead.
            let other = (0..self.replicas.len()).find(|number| *number != leader);
            self.kill_replica(other.unwrap_or(leader), "").await?;
        }
        Ok(())
    }

    async fn kill_replica(&mut self, number: usize, which: &str) -> anyhow::Result<()> {
        if let Some(replica) = self.replicas[number].take() {
            self.say(&format!("kill -9 of the {}, {which}and a new start", self.called(number)));
            replica.program.kill().await?;
        }
        self.start_replica(number).await
    }

    /// Which replica says that it leads.
    async fn leader(&self) -> anyhow::Result<usize> {
        let end = Instant::now() + LEADER_WITHIN;
        while Instant::now() < end {
            for (number, replica) in self.replicas.iter().enumerate() {
                let Some(replica) = replica else { continue };
                if replica.ask(&self.http).await.is_some_and(|said| said.leader) {
                    return Ok(number);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("no orchestrator leads after {} s", LEADER_WITHIN.as_secs())
    }

    /// Stops the orchestrators as an operator would, judges what is left, and takes the
    /// demo's own things away.
    pub async fn tear_down(&mut self) -> Leftover {
        self.await_claims().await;
        self.stop_replicas().await;
        let mut leftover = self.leftover().await;
        let begun = Instant::now();
        while leftover != Leftover::default() && begun.elapsed() < SETTLE {
            tokio::time::sleep(Duration::from_secs(1)).await;
            leftover = self.leftover().await;
        }
        self.clear_away().await;
        leftover
    }

    /// Takes everything away without waiting for anybody's job: whoever interrupts the demo
    /// does not want to see its end.
    pub async fn abandon(&mut self) {
        self.say("interrupted: taking everything away");
        for replica in self.replicas.drain(..).flatten() {
            if let Err(error) = replica.program.kill().await {
                print::message(&format!("killing an orchestrator: {error:#}"));
            }
        }
        self.clear_away().await;
    }

    async fn clear_away(&mut self) {
        let left = self.ground.forget(&self.mark).await;
        say_left(left);
        if let Some(github) = self.github.take()
            && let Err(error) = github.stop().await
        {
            print::message(&format!("stopping the modelled GitHub: {error:#}"));
        }
        // What others serve is left as it was found.
        if self.redis.is_none()
            && let Some(url) = &self.redis_url
            && let Err(problem) = forget_cluster(url, &self.cluster).await
        {
            print::message(&format!("the demo's keys are left in Redis: {problem}"));
        }
        self.redis = None;
    }

    async fn leftover(&self) -> Leftover {
        Leftover::count(&self.ground, &self.mark, self.github.as_ref()).await
    }

    /// After a kill: what was registered and never started is found by whoever leads, and
    /// nobody would look for it any more after the end.
    async fn await_claims(&self) {
        let killed = self.args.kill_leader || self.args.kill_orchestrator;
        let Some(github) = self.github.as_ref().filter(|_| killed) else { return };
        let begun = Instant::now();
        while begun.elapsed() < UNCLAIMED_WITHIN {
            let Ok(state) = github.state().await else { return };
            if length(state.runners.len()) <= containers(&self.ground, &self.mark).await {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn stop_replicas(&mut self) {
        let running: Vec<Replica> = self.replicas.drain(..).flatten().collect();
        if running.is_empty() {
            return;
        }
        self.say(match running.len() {
            1 => "stopping the orchestrator",
            _ => "stopping the orchestrators",
        });
        let stops = running.into_iter().map(|replica| replica.program.stop(STOP_WITHIN));
        for stopped in futures_util::future::join_all(stops).await {
            match stopped {
                Ok(true) => (),
                Ok(false) => print::message("an orchestrator did not stop by itself"),
                Err(error) => print::message(&format!("stopping an orchestrator: {error:#}")),
            }
        }
    }
}

async fn forget_cluster(url: &str, cluster: &str) -> Result<u64, String> {
    let settings = RedisSettings {
        address: Address::parse(url)?,
        // As its orchestrators have it.
        tls: Tls::default(),
        cluster: cluster.to_owned(),
    };
    forget(settings).await
}

fn say_left(left: Vec<String>) {
    for what in left {
        print::message(&format!("had to be taken away by force: {what}"));
    }
}
