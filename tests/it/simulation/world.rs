//! Three replicas, each with a Docker daemon, one store and one GitHub, all modelled but
//! the orchestrators themselves.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use runner_orchestrator::app::{App, Edges, LoopDied, Settings};
use runner_orchestrator::docker::{ContainerState, Docker, RunnerContainer};
use runner_orchestrator::fleet::id::{
    BootId, ClusterMark, HostId, ReplicaId, RepoName, RunnerId, RunnerName,
};
use runner_orchestrator::fleet::policy::Policy;
use runner_orchestrator::fleet::pool::{Resources, Scope};
use runner_orchestrator::github::{Credentials, GitHubSettings, RestGitHub};
use runner_orchestrator::loops::announce::Peers;
use runner_orchestrator::loops::host::Shutdown;
use runner_orchestrator::sim::docker::{ModelDocker, ModelSettings};
use runner_orchestrator::sim::github::{
    PlantedRunners, Settings as GitHubModel, SimGitHub, SimOptions, TokenSpec,
};
use runner_orchestrator::sim::listener::{ListenerFaults, Transport};
use runner_orchestrator::sim::program::ListenerProgram;
use runner_orchestrator::sim::random::Random;
use runner_orchestrator::store::memory::MemoryStore;
use runner_orchestrator::telemetry::metrics::Metrics;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock::{EPOCH_MS, SeededClock};
use super::docker::WatchedDocker;
use super::gate::Gate;
use super::github::{GatedGitHub, Uplink};
use super::plan::Layout;
use super::store::{FaultyStore, Link};
use super::witness::Witness;

pub(super) const REPO: &str = "acme/repo-1";
const CLUSTER: &str = "simulation";
pub(super) const IMAGE: &str = "runner:model";
/// The credential: it must turn up in no record.
pub(super) const CANARY: &str = "ghp_canary0123456789";
/// The name of a registration that is not ours.
pub(super) const STRANGER: &str = "orchestrated-1234abcd";

pub(super) fn mark() -> ClusterMark {
    // Derived once: it is asked for at every step.
    static MARK: LazyLock<ClusterMark> = LazyLock::new(|| ClusterMark::derive(CLUSTER));
    MARK.clone()
}

/// Everything that outlives the orchestrators.
pub(super) struct World {
    pub(super) witness: Arc<Witness>,
    pub(super) github: SimGitHub,
    pub(super) store: Arc<MemoryStore>,
    pub(super) daemons: Vec<Arc<ModelDocker>>,
    pub(super) uplinks: Vec<Arc<Uplink>>,
    pub(super) replicas: Vec<Replica>,
    pub(super) layout: Layout,
    began: Instant,
    seeds: Random,
    tasks: TaskTracker,
    _drive: JoinSet<()>,
}

/// A place where an orchestrator runs, or does not just now.
pub(super) struct Replica {
    pub(super) daemon: usize,
    pub(super) link: Arc<Link>,
    pub(super) life: Option<Life>,
}

/// One process.
pub(super) struct Life {
    pub(super) gate: Arc<Gate>,
    stop: CancellationToken,
    run: JoinSet<Result<(), LoopDied>>,
    process: ReplicaId,
    _hints: JoinSet<()>,
    pub(super) stopping: bool,
}

impl World {
    pub(super) async fn new(seed: u64, layout: Layout, verbose: bool) -> Self {
        let mut seeds = Random::seeded(seed ^ 0x5EED);
        let options = SimOptions {
            seed: seeds.bits(),
            tokens: vec![TokenSpec::all_powerful(CANARY)],
            settings: GitHubModel {
                lost_after_ms: 120_000,
                pickup_deadline_ms: 20_000,
                ..GitHubModel::default()
            },
            start_epoch_ms: Some(EPOCH_MS),
            ..SimOptions::default()
        };
        let github = SimGitHub::new(&options);
        let began = Instant::now();
        let tasks = TaskTracker::new();
        let mut drive = JoinSet::new();
        drive.spawn(github.clone().drive(CancellationToken::new()));
        let clock = Arc::new(SeededClock::new(began, Random::seeded(seeds.bits())));
        let mut world = Self {
            witness: Witness::new(github.clone(), verbose),
            store: Arc::new(MemoryStore::shared(clock)),
            github,
            daemons: Vec::new(),
            uplinks: Vec::new(),
            replicas: Vec::new(),
            layout,
            began,
            seeds,
            tasks,
            _drive: drive,
        };
        for _ in 0..world.layout.daemons {
            world.add_daemon().await;
        }
        for replica in 0..world.layout.replicas {
            let random = Random::seeded(world.seeds.bits());
            let link = Arc::new(Link::new(random, world.tasks.clone()));
            let daemon = replica % world.layout.daemons;
            world.replicas.push(Replica { daemon, link, life: None });
        }
        let stranger = PlantedRunners {
            name_prefix: STRANGER.to_owned(),
            repo: Some(REPO.to_owned()),
            ..PlantedRunners::default()
        };
        world.github.plant_runners(&stranger).unwrap();
        world
    }

    /// A daemon with a stranger's container on it.
    async fn add_daemon(&mut self) {
        let uplink = Arc::new(Uplink::new(true));
        let cut = uplink.clone();
        let router = self.github.router().layer(from_fn(move |request: Request, next: Next| {
            let uplink = cut.clone();
            async move {
                tokio::select! { biased;
                    () = uplink.until(false) => {
                        StatusCode::SERVICE_UNAVAILABLE.into_response()
                    }
                    answer = next.run(request) => answer,
                }
            }
        }));
        let program = ListenerProgram {
            transport: Transport::InProcess(router),
            clock: self.github.clock(),
            faults: ListenerFaults::default(),
        };
        let settings = ModelSettings {
            create_latency: Duration::from_millis(20),
            start_latency: Duration::from_millis(80),
            remove_latency: Duration::from_millis(50),
            images: vec![IMAGE.to_owned()],
            ..ModelSettings::default()
        };
        let clock = Arc::new(SeededClock::new(self.began, Random::seeded(0)));
        let docker = ModelDocker::new(self.tasks.clone(), clock, Arc::new(program), settings);
        docker.create(&foreign(self.daemons.len())).await.unwrap();
        self.daemons.push(Arc::new(docker));
        self.uplinks.push(uplink);
    }

    /// Starts a process where none runs.
    pub(super) fn start(&mut self, index: usize) {
        if self.replicas[index].life.is_some() {
            return;
        }
        self.witness.note(format_args!("r{index}: starts"));
        let mut random = || Random::seeded(self.seeds.bits());
        let mut skew = random();
        let ahead = if self.layout.clocks_differ { skew.below(20_000) as u64 } else { 0 };
        let clock = Arc::new(SeededClock::ahead(self.began, ahead, random()));
        let gate = Arc::new(Gate::new());
        let replica = &mut self.replicas[index];
        let daemon = replica.daemon;
        let settings = GitHubSettings {
            api_url: "http://sim.invalid/api/v3".to_owned(),
            credentials: Credentials::Token(CANARY.into()),
        };
        let client = RestGitHub::in_process(settings, self.github.router(), clock.clone()).unwrap();
        let github = GatedGitHub {
            inner: client,
            gate: gate.clone(),
            uplink: self.uplinks[daemon].clone(),
            witness: self.witness.clone(),
            replica: index,
            lag: Mutex::new(random()),
        };
        let docker = WatchedDocker {
            inner: self.daemons[daemon].clone(),
            gate: gate.clone(),
            witness: self.witness.clone(),
            replica: index,
            daemon,
            lag: Mutex::new(random()),
            tasks: self.tasks.clone(),
        };
        let store = Arc::new(FaultyStore::new(
            self.store.clone(),
            replica.link.clone(),
            gate.clone(),
            self.witness.clone(),
            index,
        ));
        let hints = store.hints();
        let edges = Edges {
            docker: Arc::new(docker),
            github: Arc::new(github),
            store,
            clock,
            metrics: Arc::new(Metrics::new(&[], &[]).unwrap()),
        };
        let app = App::start(edges, settings_of(&self.layout, index));
        let process = app.handle().replica;
        let stop = CancellationToken::new();
        let mut run = JoinSet::new();
        run.spawn(app.run(stop.clone()));
        replica.life = Some(Life { gate, stop, run, process, _hints: hints, stopping: false });
    }

    /// kill -9: nothing of it gets another word in.
    pub(super) fn kill(&mut self, index: usize) {
        if let Some(life) = self.replicas[index].life.take() {
            life.gate.kill();
            self.witness.gone(index);
            self.witness.note(format_args!("r{index}: killed"));
        }
    }

    /// SIGCONT.
    pub(super) fn go_on(&mut self, index: usize) {
        if let Some(life) = self.replicas[index].life.as_ref().filter(|life| !life.gate.is_open()) {
            self.witness.resumed(index);
            life.gate.go_on();
        }
    }

    /// SIGTERM; its end is seen by [`World::tend`].
    pub(super) fn stop(&mut self, index: usize) {
        if let Some(life) = &mut self.replicas[index].life {
            life.stop.cancel();
            life.stopping = true;
            self.witness.note(format_args!("r{index}: told to stop"));
        }
    }

    /// Buries processes that have ended or died.
    pub(super) fn tend(&mut self) {
        for index in 0..self.replicas.len() {
            let Some(life) = &mut self.replicas[index].life else { continue };
            if life.gate.is_dead() {
                self.witness.reached("a process died in the middle of a chosen step");
                self.kill(index);
                continue;
            }
            let Some(ended) = life.run.try_join_next() else { continue };
            match ended {
                Ok(Ok(())) if life.stopping => {
                    self.witness.note(format_args!("r{index}: has stopped"));
                }
                other => self.witness.violated("26", format_args!("r{index} ended: {other:?}")),
            }
            // What it left running behind its back must not act any more.
            life.gate.kill();
            self.replicas[index].life = None;
            self.witness.gone(index);
        }
    }

    /// The replica that leads, if one says so.
    pub(super) fn leader(&self) -> Option<usize> {
        self.witness.leading().first().copied()
    }

    /// The id of the process that runs there.
    pub(super) fn process(&self, index: usize) -> Option<ReplicaId> {
        self.replicas[index].life.as_ref().map(|life| life.process)
    }

    /// A replica that runs and that nothing keeps from the store.
    pub(super) fn is_well(&self, index: usize) -> bool {
        let replica = &self.replicas[index];
        let runs = |life: &Life| life.gate.is_open() && !life.stopping;
        replica.link.is_well() && replica.life.as_ref().is_some_and(runs)
    }

    /// Containers of ours on a daemon that have not exited.
    pub(super) fn living(&self, daemon: usize) -> Vec<Arc<RunnerContainer>> {
        let ours = mark();
        let all = self.daemons[daemon].inventory().into_iter();
        all.filter(|(_, spec, state)| {
            spec.cluster == ours && !matches!(state, ContainerState::Exited { .. })
        })
        .map(|(_, spec, _)| spec)
        .collect()
    }
}

fn settings_of(layout: &Layout, index: usize) -> Settings {
    Settings {
        peers: Peers::default(),
        cluster_name: Some(CLUSTER.to_owned()),
        hostname: format!("host-{index}"),
        pools: layout.pools.iter().map(|pool| (pool.name.clone(), pool.clone())).collect(),
        poll_interval: Duration::from_secs(5),
        host_max_runners: layout.host_max,
        shutdown: Shutdown { drain: layout.drains, timeout: Duration::from_secs(30) },
        policy: policy(),
    }
}

/// The rule's figures, with what only makes a run longer made shorter.
fn policy() -> Policy {
    Policy {
        list_staleness: Duration::from_secs(20),
        ended_memory: Duration::from_secs(40),
        does_not_assign_backoff_max: Duration::from_secs(60),
        brake_window: Duration::from_secs(20),
        breaker_backoff: Duration::from_secs(5),
        breaker_backoff_max: Duration::from_secs(20),
        breaker_proof: Duration::from_secs(10),
        boost_ttl: Duration::from_secs(40),
        ..Policy::default()
    }
}

/// A container of another cluster that happens to be on the same daemon.
fn foreign(daemon: usize) -> RunnerContainer {
    let id = uuid::Uuid::from_u128(0xF0E1 + daemon as u128);
    let cluster = ClusterMark::derive("somebody else");
    RunnerContainer {
        runner: RunnerId(id),
        name: RunnerName::compose(&cluster, &HostId(id), &RunnerId(id)),
        pool: "default".into(),
        cluster,
        host: HostId(id),
        boot: BootId(id),
        term: 1,
        image: IMAGE.to_owned(),
        command: None,
        network: "bridge".to_owned(),
        resources: Resources::default(),
        scope: Scope::Repo(RepoName::from(REPO)),
        revision: "1".to_owned(),
        created_at: runner_orchestrator::fleet::time::Timestamp(EPOCH_MS),
        correlation: String::new(),
    }
}
