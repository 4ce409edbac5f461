//! Several orchestrators in this process, on one store and one modelled GitHub, each with
//! a modelled Docker host of its own or sharing one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use runner_orchestrator::app::{App, Edges, Handle, LoopDied, Settings};
use runner_orchestrator::clock::{SharedClock, SystemClock};
use runner_orchestrator::docker::{ContainerState, Docker, MeasuredDocker};
use runner_orchestrator::fleet::id::IntentId;
use runner_orchestrator::fleet::intent::{Intent, Wish};
use runner_orchestrator::fleet::policy::Policy;
use runner_orchestrator::fleet::pool::Pool;
use runner_orchestrator::github::{Credentials, GitHubSettings, RestGitHub};
use runner_orchestrator::loops::announce::Peers;
use runner_orchestrator::loops::host::Shutdown;
use runner_orchestrator::loops::host::standing::Standing;
use runner_orchestrator::sim::docker::{ModelDocker, ModelSettings};
use runner_orchestrator::sim::github::{JobStatus, NewJobs, SimGitHub, SimOptions, StateReport};
use runner_orchestrator::sim::listener::{ListenerFaults, Transport};
use runner_orchestrator::sim::program::ListenerProgram;
use runner_orchestrator::store::Store;
use runner_orchestrator::store::memory::MemoryStore;
use runner_orchestrator::telemetry::metrics::Metrics;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::world::{CLUSTER, IMAGE, REPO, World, pool};
use crate::it::support::cable::Cable;
use crate::it::support::reached_store::ReachedStore;

/// What outlives the replicas.
pub(super) struct Cluster {
    pub(super) sim: SimGitHub,
    pub(super) store: Arc<MemoryStore>,
    pub(super) pool: Pool,
    /// Whether replicas that are told to stop drain their hosts.
    pub(super) drains: bool,
    tasks: JoinSet<()>,
    dockers: Vec<Arc<ModelDocker>>,
    replicas: BTreeMap<usize, Replica>,
    started: usize,
    most_containers: Arc<AtomicUsize>,
}

struct Replica {
    handle: Handle,
    store: Arc<ReachedStore<Cable>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    run: JoinSet<Result<(), LoopDied>>,
}

impl Cluster {
    pub(super) fn new() -> Self {
        let sim = SimGitHub::new(&SimOptions { repos: 1, ..SimOptions::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(sim.clone().drive(CancellationToken::new()));
        Self {
            sim,
            store: Arc::new(MemoryStore::new(Arc::new(SystemClock::new()))),
            pool: pool(),
            drains: false,
            tasks,
            dockers: Vec::new(),
            replicas: BTreeMap::new(),
            started: 0,
            most_containers: Arc::default(),
        }
    }

    /// A Docker host; its containers are counted all the time.
    pub(super) fn docker(&mut self) -> Arc<ModelDocker> {
        let program = ListenerProgram {
            transport: Transport::InProcess(self.sim.router()),
            clock: self.sim.clock(),
            faults: ListenerFaults::default(),
        };
        let settings = ModelSettings {
            create_latency: Duration::from_millis(20),
            start_latency: Duration::from_millis(80),
            remove_latency: Duration::from_millis(50),
            images: vec![IMAGE.to_owned()],
            ..ModelSettings::default()
        };
        let clock = Arc::new(SystemClock::new());
        let docker =
            Arc::new(ModelDocker::new(TaskTracker::new(), clock, Arc::new(program), settings));
        let (watched, most) = (docker.clone(), self.most_containers.clone());
        self.tasks.spawn(async move {
            loop {
                if let Ok(containers) = watched.containers(&World::mark()).await {
                    let ended = |state| matches!(state, ContainerState::Exited { .. });
                    let alive = containers.iter().filter(|seen| !ended(seen.state)).count();
                    most.fetch_max(alive, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        });
        self.dockers.push(docker.clone());
        docker
    }

    /// Starts a replica on a Docker host.
    pub(super) fn start(&mut self, docker: &Arc<ModelDocker>) -> usize {
        self.start_far_away(docker, Duration::ZERO)
    }

    /// Starts a replica whose readings of the store take so long.
    pub(super) fn start_far_away(&mut self, docker: &Arc<ModelDocker>, lag: Duration) -> usize {
        let clock = Arc::new(SharedClock::new());
        let settings = GitHubSettings {
            api_url: "http://sim.invalid/api/v3".to_owned(),
            credentials: Credentials::Token("sim-token".into()),
        };
        let github = RestGitHub::in_process(settings, self.sim.router(), clock.clone()).unwrap();
        let metrics = Arc::new(Metrics::new(&[], &[]).unwrap());
        let store = Arc::new(ReachedStore::new(self.store.clone(), Cable::new(true)));
        store.way.lag.send_replace(lag);
        let edges = Edges {
            docker: Arc::new(MeasuredDocker::new(docker.clone(), metrics.clone())),
            github: Arc::new(github),
            store: store.clone(),
            clock,
            metrics: metrics.clone(),
        };
        let number = self.started;
        self.started += 1;
        let app = App::start(
            edges,
            Settings {
                cluster_name: Some(CLUSTER.to_owned()),
                hostname: format!("machine-{number}"),
                pools: [(self.pool.name.clone(), self.pool.clone())].into(),
                poll_interval: Duration::from_secs(5),
                host_max_runners: 100,
                shutdown: Shutdown { drain: self.drains, timeout: Duration::from_secs(60) },
                policy: Policy::default(),
                peers: Peers::default(),
            },
        );
        let (handle, stop) = (app.handle(), CancellationToken::new());
        let mut run = JoinSet::new();
        run.spawn(app.run(stop.clone()));
        self.replicas.insert(number, Replica { handle, store, metrics, stop, run });
        number
    }

    /// kill -9.
    pub(super) fn kill(&mut self, replica: usize) {
        self.replicas.remove(&replica).unwrap();
    }

    /// SIGTERM, and its end.
    pub(super) async fn stop(&mut self, replica: usize) {
        let mut replica = self.replicas.remove(&replica).unwrap();
        replica.stop.cancel();
        replica.run.join_next().await.unwrap().unwrap().unwrap();
    }

    /// Cuts a replica off from the store, or joins it again.
    pub(super) fn cut(&self, replica: usize, cut: bool) {
        self.replicas[&replica].store.way.cut(cut);
    }

    /// Lets the answers to a replica's readings be on their way for so long.
    pub(super) fn lag(&self, replica: usize, lag: Duration) {
        self.replicas[&replica].store.way.lag.send_replace(lag);
    }

    pub(super) fn all(&self) -> Vec<usize> {
        self.replicas.keys().copied().collect()
    }

    pub(super) fn handle(&self, replica: usize) -> &Handle {
        &self.replicas[&replica].handle
    }

    pub(super) fn standing(&self, replica: usize) -> Standing {
        self.handle(replica).standing.borrow().clone()
    }

    /// Replicas that say of themselves that they are an agent.
    pub(super) fn agents(&self) -> Vec<usize> {
        self.all().into_iter().filter(|replica| self.standing(*replica).is_agent()).collect()
    }

    /// How many calls that change a container this replica has made.
    pub(super) fn changes(&self, replica: usize) -> u64 {
        let text = self.replicas[&replica].metrics.render();
        let changes = ["create", "start", "stop", "remove"];
        let of_change = |line: &&str| {
            line.starts_with("orchestrator_docker_operations_total{")
                && changes.iter().any(|name| line.contains(&format!("operation=\"{name}\"")))
        };
        let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        let counted: f64 = text.lines().filter(of_change).map(count).sum();
        format!("{counted:.0}").parse().unwrap()
    }

    /// An operator asks for something, at any replica.
    pub(super) async fn wish(&self, wish: Wish) {
        let at = self.store.now().await.unwrap();
        self.store.record(Intent { id: IntentId(Uuid::new_v4()), at, wish }).await.unwrap();
    }

    pub(super) fn jobs(&self, durations: &[f64]) {
        let jobs = NewJobs {
            count: durations.len(),
            labels: vec!["self-hosted".to_owned(), "linux".to_owned()],
            durations: durations.to_vec(),
            repo: Some(REPO.to_owned()),
            ..NewJobs::default()
        };
        self.sim.post_jobs(&jobs).unwrap();
    }

    pub(super) fn state(&self) -> StateReport {
        self.sim.state()
    }

    pub(super) fn running(&self) -> usize {
        self.state().jobs.iter().filter(|job| job.status == JobStatus::InProgress).count()
    }

    /// Modelled time passes until `done` says so; how long it took.
    pub(super) async fn until(
        &self,
        within: Duration,
        what: &str,
        done: impl Fn(&Self) -> bool,
    ) -> Duration {
        let begun = Instant::now();
        while !done(self) {
            let standings: Vec<_> = self.all().into_iter().map(|r| self.standing(r)).collect();
            let state = self.state();
            assert!(
                begun.elapsed() < within,
                "{what}: not within {within:?}: {standings:#?} {state:#?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    }

    pub(super) async fn until_one_agent(&self, within: Duration) -> (usize, Duration) {
        let took = self.until(within, "one agent", |cluster| cluster.agents().len() == 1).await;
        (self.agents()[0], took)
    }

    pub(super) async fn until_all_done(&self, within: Duration) {
        let done = |cluster: &Self| {
            let jobs = cluster.state().jobs;
            !jobs.is_empty() && jobs.iter().all(|job| job.completed_at.is_some())
        };
        self.until(within, "all jobs done", done).await;
    }

    /// Each job ran to success exactly once, nothing is left over, and there was never more
    /// than the pool may have.
    pub(super) async fn end(mut self) {
        self.until(Duration::from_secs(600), "no registrations", |cluster| {
            cluster.state().runners.is_empty()
        })
        .await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        for docker in &self.dockers {
            let left = docker.containers(&World::mark()).await.unwrap();
            assert!(left.is_empty(), "containers left over: {left:#?}");
        }
        for job in &self.state().jobs {
            assert_eq!(job.conclusion.as_deref(), Some("success"), "{job:#?}");
            assert_eq!(job.attempts, 1, "{job:#?}");
            assert!(!job.lost, "{job:#?}");
        }
        let most = self.most_containers.load(Ordering::Relaxed);
        assert!(most <= self.pool.max_runners as usize, "{most} living containers at once");
        for replica in self.all() {
            self.stop(replica).await;
        }
        self.tasks.abort_all();
    }
}
