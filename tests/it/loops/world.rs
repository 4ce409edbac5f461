//! One orchestrator in this process, with all that it reaches modelled.

use std::sync::Arc;
use std::time::Duration;

use runner_orchestrator::app::{App, Edges, Handle, LoopDied, Settings};
use runner_orchestrator::clock::SystemClock;
use runner_orchestrator::docker::Docker;
use runner_orchestrator::fleet::id::{ClusterMark, IntentId, PoolName, RepoName};
use runner_orchestrator::fleet::intent::{Intent, Wish};
use runner_orchestrator::fleet::policy::Policy;
use runner_orchestrator::fleet::pool::{InnerDocker, Pool, Resources, Scope};
use runner_orchestrator::github::{Credentials, GitHubSettings, RestGitHub};
use runner_orchestrator::loops::announce::Peers;
use runner_orchestrator::loops::host::Shutdown;
use runner_orchestrator::sim::docker::{ModelDocker, ModelSettings};
use runner_orchestrator::sim::github::{NewJobs, SimGitHub, SimOptions, StateReport};
use runner_orchestrator::sim::listener::{ListenerFaults, Transport};
use runner_orchestrator::sim::program::ListenerProgram;
use runner_orchestrator::store::Store;
use runner_orchestrator::store::memory::MemoryStore;
use runner_orchestrator::telemetry::metrics::Metrics;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::lists::{Lists, bent};

pub(super) const REPO: &str = "acme/repo-1";
pub(super) const CLUSTER: &str = "loops";
pub(super) const IMAGE: &str = "runner:model";

/// Modelled GitHub and Docker host outlive the orchestrators that are started on them.
pub(super) struct World {
    pub(super) sim: SimGitHub,
    pub(super) docker: Arc<ModelDocker>,
    tasks: JoinSet<()>,
    orchestrator: Option<Orchestrator>,
    pub(super) pool: Pool,
    pub(super) lists: Lists,
}

struct Orchestrator {
    handle: Handle,
    store: Arc<MemoryStore>,
    stop: CancellationToken,
    run: JoinSet<Result<(), LoopDied>>,
}

/// A pool that serves what the tests queue.
pub(super) fn pool() -> Pool {
    Pool {
        name: PoolName::from("default"),
        scope: Scope::Repo(RepoName::from(REPO)),
        labels: ["self-hosted", "linux"].into_iter().collect(),
        image: IMAGE.to_owned(),
        command: None,
        runner_group_id: 1,
        resources: Resources::default(),
        docker: InnerDocker::None,
        min_runners: 0,
        max_runners: 10,
        min_idle_runners: 0,
        scale_up_threshold: 1,
        scale_down_threshold: 0,
        scale_up_max_wait: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(60),
        start_deadline: Duration::from_secs(120),
        weight: 1,
        priority: 0,
        revision: "1".to_owned(),
    }
}

impl World {
    pub(super) fn new(listener: ListenerFaults) -> Self {
        let options = SimOptions { repos: 1, ..SimOptions::default() };
        let sim = SimGitHub::new(&options);
        let transport = Transport::InProcess(sim.router());
        let program = ListenerProgram { transport, clock: sim.clock(), faults: listener };
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
        let mut tasks = JoinSet::new();
        tasks.spawn(sim.clone().drive(CancellationToken::new()));
        Self { sim, docker, tasks, orchestrator: None, pool: pool(), lists: Lists::default() }
    }

    pub(super) fn mark() -> ClusterMark {
        ClusterMark::derive(CLUSTER)
    }

    /// Starts an orchestrator: a new process, as far as Docker and GitHub can tell.
    pub(super) fn start(&mut self) {
        let clock = Arc::new(SystemClock::new());
        let settings = GitHubSettings {
            api_url: "http://sim.invalid/api/v3".to_owned(),
            credentials: Credentials::Token("sim-token".into()),
        };
        let router = bent(self.sim.router(), &self.lists);
        let github = RestGitHub::in_process(settings, router, clock.clone()).unwrap();
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let edges = Edges {
            docker: self.docker.clone(),
            github: Arc::new(github),
            store: store.clone(),
            clock,
            metrics: Arc::new(Metrics::new(&[], &[]).unwrap()),
        };
        let app = App::start(
            edges,
            Settings {
                cluster_name: Some(CLUSTER.to_owned()),
                hostname: "model".to_owned(),
                pools: [(self.pool.name.clone(), self.pool.clone())].into(),
                poll_interval: Duration::from_secs(5),
                host_max_runners: 100,
                shutdown: Shutdown { drain: true, timeout: Duration::from_secs(60) },
                peers: Peers::default(),
                policy: Policy::default(),
            },
        );
        let handle = app.handle();
        let stop = CancellationToken::new();
        let mut run = JoinSet::new();
        run.spawn(app.run(stop.clone()));
        self.orchestrator = Some(Orchestrator { handle, store, stop, run });
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.orchestrator.as_ref().unwrap().handle
    }

    pub(super) fn store(&self) -> &MemoryStore {
        &self.orchestrator.as_ref().unwrap().store
    }

    /// An operator asks for something.
    pub(super) async fn wish(&self, wish: Wish) {
        let at = self.store().now().await.unwrap();
        let intent = Intent { id: IntentId(Uuid::new_v4()), at, wish };
        self.store().record(intent).await.unwrap();
    }

    /// kill -9: nothing of it gets another word in.
    pub(super) fn kill(&mut self) {
        self.orchestrator = None;
    }

    /// SIGTERM, and its end.
    pub(super) async fn stop(&mut self) {
        let mut orchestrator = self.orchestrator.take().unwrap();
        orchestrator.stop.cancel();
        orchestrator.run.join_next().await.unwrap().unwrap().unwrap();
    }

    pub(super) fn jobs(&self, durations: &[f64]) {
        let labels = vec!["self-hosted".to_owned(), "linux".to_owned()];
        let jobs = NewJobs {
            count: durations.len(),
            labels,
            durations: durations.to_vec(),
            repo: Some(REPO.to_owned()),
            ..NewJobs::default()
        };
        self.sim.post_jobs(&jobs).unwrap();
    }

    pub(super) fn state(&self) -> StateReport {
        self.sim.state()
    }

    pub(super) async fn containers(&self) -> usize {
        self.docker.containers(&Self::mark()).await.unwrap().len()
    }

    /// Modelled time passes until `done` says so.
    pub(super) async fn until(
        &self,
        within: Duration,
        what: &str,
        done: impl Fn(&StateReport) -> bool,
    ) {
        let begun = tokio::time::Instant::now();
        while !done(&self.state()) {
            assert!(begun.elapsed() < within, "{what}: not within {within:?}: {:#?}", self.state());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) async fn until_all_done(&self, within: Duration) {
        let done = |state: &StateReport| {
            !state.jobs.is_empty() && state.jobs.iter().all(|job| job.completed_at.is_some())
        };
        self.until(within, "all jobs done", done).await;
    }

    /// Each job ran to success exactly once, and nothing is left over.
    pub(super) async fn end(mut self) {
        if self.orchestrator.is_some() {
            self.stop().await;
        }
        let state = self.state();
        for job in &state.jobs {
            assert_eq!(job.conclusion.as_deref(), Some("success"), "{job:#?}");
            assert_eq!(job.attempts, 1, "{job:#?}");
            assert!(!job.lost, "{job:#?}");
        }
        assert_eq!(self.containers().await, 0, "containers left over");
        assert!(state.runners.is_empty(), "registrations left over: {:#?}", state.runners);
        self.tasks.abort_all();
    }
}
