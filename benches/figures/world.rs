//! What is measured: the orchestrator's loops in this process, around edges of choice.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use runner_orchestrator::app::{App, Edges, Handle, Settings};
use runner_orchestrator::clock::{Clock, SharedClock, SystemClock};
use runner_orchestrator::docker::Docker;
use runner_orchestrator::fleet::id::{PoolName, RepoName};
use runner_orchestrator::fleet::policy::Policy;
use runner_orchestrator::fleet::pool::{InnerDocker, Pool, Resources, Scope};
use runner_orchestrator::github::{Credentials, GitHub, GitHubSettings, RestGitHub};
use runner_orchestrator::loops::announce::Peers;
use runner_orchestrator::loops::host::Shutdown;
use runner_orchestrator::sim::docker::{ModelDocker, ModelSettings};
use runner_orchestrator::sim::github::{NewJobs, SimGitHub};
use runner_orchestrator::sim::listener::{ListenerFaults, Transport};
use runner_orchestrator::sim::program::ListenerProgram;
use runner_orchestrator::store::Store;
use runner_orchestrator::store::memory::MemoryStore;
use runner_orchestrator::store::redis::address::Address;
use runner_orchestrator::store::redis::{RedisSettings, RedisStore, Tls};
use runner_orchestrator::telemetry::metrics::Metrics;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The modelled GitHub's token.
pub(crate) const TOKEN: &str = "sim-token";
/// Where jobs are queued.
pub(crate) const REPO: &str = "acme/repo-1";
/// The modelled engine's image.
const MODEL_IMAGE: &str = "model";
/// What jobs and runners are labelled with.
const LABELS: [&str; 2] = ["self-hosted", "linux"];

/// What a figure varies.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    pub(crate) cluster: String,
    pub(crate) scope: Scope,
    pub(crate) image: String,
    pub(crate) min_runners: u32,
    pub(crate) max_runners: u32,
    /// What this replica's host may hold; `None` = all of them.
    pub(crate) host_max_runners: Option<u32>,
    pub(crate) scale_up_threshold: u32,
    pub(crate) scale_down_threshold: u32,
    pub(crate) poll_interval: Duration,
    pub(crate) policy: Policy,
}

impl Fleet {
    /// No floor, every job is served, one poll a second.
    pub(crate) fn eager(cluster: &str, image: &str, max_runners: u32) -> Self {
        Self {
            cluster: cluster.to_owned(),
            scope: Scope::Repo(RepoName(REPO.to_owned())),
            image: image.to_owned(),
            min_runners: 0,
            max_runners,
            host_max_runners: None,
            scale_up_threshold: 1,
            scale_down_threshold: 0,
            poll_interval: Duration::from_secs(1),
            policy: Policy::default(),
        }
    }

    /// The same on a modelled engine.
    pub(crate) fn modelled(max_runners: u32) -> Self {
        Self::eager("figures", MODEL_IMAGE, max_runners)
    }

    pub(crate) fn pool(&self) -> Pool {
        Pool {
            name: PoolName::from("default"),
            scope: self.scope.clone(),
            labels: LABELS.into_iter().collect(),
            image: self.image.clone(),
            command: None,
            runner_group_id: 1,
            resources: Resources::default(),
            docker: InnerDocker::None,
            min_runners: self.min_runners,
            max_runners: self.max_runners,
            min_idle_runners: 0,
            scale_up_threshold: self.scale_up_threshold,
            scale_down_threshold: self.scale_down_threshold,
            scale_up_max_wait: self.poll_interval,
            idle_timeout: Duration::from_secs(300),
            start_deadline: Duration::from_secs(120),
            weight: 1,
            priority: 0,
            revision: "figures".to_owned(),
        }
    }

    fn settings(&self) -> Settings {
        let pool = self.pool();
        Settings {
            cluster_name: Some(self.cluster.clone()),
            hostname: "figures".to_owned(),
            pools: [(pool.name.clone(), pool)].into(),
            poll_interval: self.poll_interval,
            host_max_runners: self.host_max_runners.unwrap_or(self.max_runners),
            // Runners are cleared away by whoever measures.
            shutdown: Shutdown { drain: false, timeout: Duration::from_secs(10) },
            policy: self.policy.clone(),
            peers: Peers::default(),
        }
    }
}

/// Jobs that one request queues.
pub(crate) fn jobs(count: usize, seconds: f64) -> NewJobs {
    NewJobs {
        count,
        labels: LABELS.map(str::to_owned).to_vec(),
        duration_seconds: seconds,
        repo: Some(REPO.to_owned()),
        ..NewJobs::default()
    }
}

/// The client over real HTTP.
pub(crate) fn over_http(api_url: String) -> anyhow::Result<Arc<dyn GitHub>> {
    Ok(Arc::new(RestGitHub::new(settings(api_url), clock())?))
}

/// The client without a socket, for modelled time.
pub(crate) fn in_process(sim: &SimGitHub) -> anyhow::Result<Arc<dyn GitHub>> {
    let settings = settings("http://model.test/api/v3".to_owned());
    Ok(Arc::new(RestGitHub::in_process(settings, sim.router(), clock())?))
}

fn settings(api_url: String) -> GitHubSettings {
    GitHubSettings { api_url, credentials: Credentials::Token(TOKEN.into()) }
}

/// A modelled engine whose containers are listeners of this modelled GitHub.
pub(crate) fn model_docker(sim: &SimGitHub) -> Arc<dyn Docker> {
    let program = ListenerProgram {
        transport: Transport::InProcess(sim.router()),
        clock: sim.clock(),
        faults: ListenerFaults::default(),
    };
    let settings =
        ModelSettings { images: vec![MODEL_IMAGE.to_owned()], ..ModelSettings::default() };
    Arc::new(ModelDocker::new(TaskTracker::new(), clock(), Arc::new(program), settings))
}

/// A cluster's part of a Redis.
pub(crate) fn redis_store(url: &str, cluster: &str) -> anyhow::Result<Arc<dyn Store>> {
    let address = Address::parse(url).map_err(anyhow::Error::msg)?;
    let settings = RedisSettings { address, tls: Tls::default(), cluster: cluster.to_owned() };
    Ok(Arc::new(RedisStore::start(settings)?))
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

/// The loops, running.
#[derive(Debug)]
pub(crate) struct Orchestrator {
    pub(crate) handle: Handle,
    stop: CancellationToken,
    run: JoinSet<anyhow::Result<()>>,
}

impl Orchestrator {
    pub(crate) fn start(
        fleet: &Fleet,
        docker: Arc<dyn Docker>,
        github: Arc<dyn GitHub>,
    ) -> anyhow::Result<Self> {
        let clock = clock();
        Self::start_on(Arc::new(MemoryStore::new(clock.clone())), clock, fleet, docker, github)
    }

    /// The same with what it shares with others in a Redis.
    pub(crate) fn start_on_redis(
        url: &str,
        fleet: &Fleet,
        docker: Arc<dyn Docker>,
        github: Arc<dyn GitHub>,
    ) -> anyhow::Result<Self> {
        let store = redis_store(url, &fleet.cluster)?;
        Self::start_on(store, Arc::new(SharedClock::new()), fleet, docker, github)
    }

    fn start_on(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        fleet: &Fleet,
        docker: Arc<dyn Docker>,
        github: Arc<dyn GitHub>,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new([&fleet.pool()], &[])?);
        let edges = Edges { docker, github, store, clock, metrics };
        let app = App::start(edges, fleet.settings());
        let handle = app.handle();
        let stop = CancellationToken::new();
        let mut run = JoinSet::new();
        let stopped = stop.clone();
        run.spawn(async move { Ok(app.run(stopped).await?) });
        Ok(Self { handle, stop, run })
    }

    /// Waits until it could start a runner: it leads, and its host has the image.
    pub(crate) async fn until_ready(&self) -> anyhow::Result<()> {
        let mut published = self.handle.published.clone();
        let ready = published.wait_for(|now| {
            let hosts = &now.view.hosts;
            now.term.is_some() && hosts.values().any(|host| !host.images.is_empty())
        });
        let ready = tokio::time::timeout(Duration::from_secs(30), ready).await;
        ready.context("the orchestrator was not ready in time")??;
        Ok(())
    }

    /// Stops the loops and leaves the runners as they are.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        match self.run.join_next().await {
            Some(ended) => ended?,
            None => bail!("the orchestrator was not running"),
        }
    }
}

/// Waits until something is so.
pub(crate) async fn until(
    what: &str,
    within: Duration,
    every: Duration,
    so: impl Fn() -> bool,
) -> anyhow::Result<()> {
    let begun = tokio::time::Instant::now();
    while !so() {
        if begun.elapsed() > within {
            bail!("{what}: not within {} s", within.as_secs());
        }
        tokio::time::sleep(every).await;
    }
    Ok(())
}

/// Real time, on all processors.
pub(crate) fn in_real_time<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Modelled time: an hour takes as long as what happens in it. Nothing may use a socket.
pub(crate) fn in_modelled_time<T>(
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(work)
}
