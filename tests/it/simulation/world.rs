//! Three replicas, each with a Docker daemon, one store and one GitHub, all modelled but
//! the orchestrators themselves.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use runner_orchestrator::api::reading::Reading;
use runner_orchestrator::app::{App, Edges, Handle, LoopDied};
use runner_orchestrator::docker::{ContainerState, Docker, RunnerContainer};
use runner_orchestrator::fleet::id::{ClusterMark, ReplicaId};
use runner_orchestrator::github::{Credentials, GitHubSettings, RestGitHub};
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

use self::settings::{foreign, settings_of};
use super::clock::{EPOCH_MS, SeededClock};
use super::docker::WatchedDocker;
use super::gate::Gate;
use super::github::{GatedGitHub, Uplink};
use super::plan::Layout;
use super::store::{Faulty, FaultyStore, Link};
use super::witness::Witness;

mod settings;

pub(super) const REPO: &str = "acme/repo-1";
const CLUSTER: &str = "simulation";
pub(super) const IMAGE: &str = "runner:model";
/// The credential: it must turn up in no record.
pub(super) const CANARY: &str = "ghp_canary0123456789";
/// The name of a registration that is not ours.
pub(super) const STRANGER: &str = "orchestrated-1234abcd";

pub(super) fn mark() -> &'static ClusterMark {
    // Derived once: it is asked for at every step.
    static MARK: LazyLock<ClusterMark> = LazyLock::new(|| ClusterMark::derive(CLUSTER));
    &MARK
}

/// Everything that outlives the orchestrators.
pub(super) struct World {
    pub(super) witness: Arc<Witness>,
    pub(super) github: SimGitHub,
    /// GitHub's API, built once: every process and every host reaches it.
    router: Router,
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
    /// How wrong this machine's clock is beside what the layout makes of it.
    off_ms: i64,
    pub(super) life: Option<Life>,
}

/// One process.
pub(super) struct Life {
    pub(super) gate: Arc<Gate>,
    clock: Arc<SeededClock>,
    handle: Handle,
    stop: CancellationToken,
    run: JoinSet<Result<(), LoopDied>>,
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
                brief: true,
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
            router: github.router(),
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
            world.replicas.push(Replica { daemon, link, off_ms: 0, life: None });
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
        let router = self.router.clone().layer(from_fn(move |request: Request, next: Next| {
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
        let mut skew = Random::seeded(self.seeds.bits());
        let off_ms = self.off_ms(index, &mut skew);
        let mut random = || Random::seeded(self.seeds.bits());
        let clock = Arc::new(SeededClock::off(self.began, off_ms, random()));
        let gate = Arc::new(Gate::new());
        let replica = &mut self.replicas[index];
        let daemon = replica.daemon;
        let settings = GitHubSettings {
            api_url: "http://sim.invalid/api/v3".to_owned(),
            credentials: Credentials::Token(CANARY.into()),
        };
        let client = RestGitHub::in_process(settings, self.router.clone(), clock.clone()).unwrap();
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
        let way = Faulty {
            link: replica.link.clone(),
            gate: gate.clone(),
            witness: self.witness.clone(),
            replica: index,
            older: self.layout.older == Some(index),
            listeners: Mutex::default(),
            order: Arc::default(),
        };
        let store = Arc::new(FaultyStore::new(self.store.clone(), way));
        let hints = store.way.hints(&self.store);
        let edges = Edges {
            docker: Arc::new(docker),
            github: Arc::new(github),
            store,
            clock: clock.clone(),
            metrics: Arc::new(Metrics::new(&[], &[]).unwrap()),
        };
        let app = App::start(edges, settings_of(&self.layout, index));
        let handle = app.handle();
        let stop = CancellationToken::new();
        let mut run = JoinSet::new();
        run.spawn(app.run(stop.clone()));
        replica.life =
            Some(Life { gate, clock, handle, stop, run, _hints: hints, stopping: false });
    }

    /// How wrong a machine's clock is when a process starts there.
    fn off_ms(&self, index: usize, skew: &mut Random) -> i64 {
        let skew_ms = if self.layout.clocks_differ { skew.below(20_000) } else { 0 };
        self.replicas[index].off_ms + i64::try_from(skew_ms).unwrap()
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
        if let Some(life) = &self.replicas[index].life {
            if !life.gate.is_open() {
                self.witness.resumed(index);
            }
            life.gate.go_on();
        }
    }

    /// Sets a machine's clock wrong by so much, or right.
    pub(super) fn set_clock(&mut self, index: usize, off_ms: i64) {
        let replica = &mut self.replicas[index];
        replica.off_ms = off_ms;
        if let Some(life) = &replica.life {
            life.clock.set_off(off_ms);
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
        self.replicas[index].life.as_ref().map(|life| life.handle.replica)
    }

    /// A replica that runs and that nothing keeps from the store.
    pub(super) fn is_well(&self, index: usize) -> bool {
        let replica = &self.replicas[index];
        let runs = |life: &Life| life.gate.is_open() && !life.stopping;
        replica.link.is_well() && replica.life.as_ref().is_some_and(runs)
    }

    /// How long this world has been going.
    pub(super) fn time(&self) -> Duration {
        self.began.elapsed()
    }

    /// What a running replica's API would answer from now.
    pub(super) fn reading(&self, index: usize) -> Option<Reading> {
        let life = self.replicas[index].life.as_ref()?;
        if !life.gate.is_open() || life.stopping {
            return None;
        }
        let Edges { clock, store, .. } = &life.handle.edges;
        let store_away = match &store.health().borrow().reachable {
            Some(Err(problem)) => Some(problem.clone()),
            _ => None,
        };
        let published = life.handle.published.borrow().clone();
        Some(Reading { published, now: clock.now(), store_away })
    }

    /// Containers of ours on a daemon that have not exited.
    pub(super) fn living(&self, daemon: usize) -> Vec<Arc<RunnerContainer>> {
        self.ours(daemon, |state| !matches!(state, ContainerState::Exited { .. }))
    }

    /// Those of them that were started.
    pub(super) fn running(&self, daemon: usize) -> Vec<Arc<RunnerContainer>> {
        self.ours(daemon, |state| matches!(state, ContainerState::Running))
    }

    fn ours(
        &self,
        daemon: usize,
        is: impl Fn(ContainerState) -> bool,
    ) -> Vec<Arc<RunnerContainer>> {
        let mut ours = self.daemons[daemon].in_state(is);
        ours.retain(|spec| spec.cluster == *mark());
        ours
    }
}
