//! A fleet of one host or two, reported by hand, and the API of each replica before it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use runner_orchestrator::api::{ApiSettings, ApiState, decisions, router, serve};
use runner_orchestrator::app::{Edges, Handle, Readiness, Settings};
use runner_orchestrator::clock::{Clock, SystemClock};
use runner_orchestrator::election::{self, Vitals};
use runner_orchestrator::fleet::budget::Budget;
use runner_orchestrator::fleet::demand::WaitingJob;
use runner_orchestrator::fleet::host::{Capacity, HostRecord};
use runner_orchestrator::fleet::id::{
    BootId, ClusterMark, ContainerId, GitHubRunnerId, HostId, JobId, PoolName, ReplicaId, RepoName,
    RunnerId, RunnerName, Term,
};
use runner_orchestrator::fleet::ledger::Ledger;
use runner_orchestrator::fleet::policy::Policy;
use runner_orchestrator::fleet::pool::{InnerDocker, Labels, Pool, Resources, Scope};
use runner_orchestrator::fleet::registration::{Row, ScopeReading, Stillness};
use runner_orchestrator::fleet::runner::{RunnerPhase, RunnerRecord};
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::fleet::view::View;
use runner_orchestrator::github::Preflight;
use runner_orchestrator::loops::announce::{Announce, Peers};
use runner_orchestrator::loops::host::Shutdown;
use runner_orchestrator::loops::host::standing::{Part, Standing};
use runner_orchestrator::loops::lead::{Lead, Listeners, Published};
use runner_orchestrator::store::Store;
use runner_orchestrator::store::memory::MemoryStore;
use runner_orchestrator::telemetry::metrics::Metrics;
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use uuid::Uuid;

use super::edges::{CountingDocker, CountingGitHub};
use crate::it::support::cable::Cable;
use crate::it::support::reached_store::ReachedStore;

pub(super) const MARK: &str = "demo";
pub(super) const IMAGE: &str = "apex-runner:local";
pub(super) const REPO: &str = "acme/demo";

/// The in-process store as one of several replicas sees it.
type SeenStore = ReachedStore<Cable>;

/// Everything a test may turn.
pub(super) struct World {
    pub(super) app: Router,
    pub(super) state: ApiState,
    pub(super) store: Arc<SeenStore>,
    pub(super) clock: Arc<SystemClock>,
    pub(super) docker: Arc<CountingDocker>,
    pub(super) github: Arc<CountingGitHub>,
    pub(super) ready: watch::Sender<Readiness>,
    pub(super) seen: watch::Receiver<Arc<Published>>,
    pub(super) answers: Arc<Mutex<Vec<(String, String, u16)>>>,
    pub(super) replica: ReplicaId,
    pub(super) host: HostId,
    pub(super) address: String,
    pub(super) announced: CancellationToken,
    standing: CancellationToken,
    observed: watch::Sender<u64>,
    ledger: Arc<Mutex<Ledger>>,
    record: Mutex<HostRecord>,
    listener: Option<std::net::TcpListener>,
    peers: Peers,
    tasks: JoinSet<()>,
    lead: Option<Lead>,
    leadership: Option<watch::Sender<Option<election::Leadership>>>,
    agency: watch::Receiver<Option<election::Agency>>,
}

/// What differs between worlds.
#[derive(Clone, Default)]
pub(super) struct Setup {
    pub(super) token: Option<&'static str>,
    pub(super) pools: Vec<(&'static str, &'static [&'static str])>,
    pub(super) metrics_panic: bool,
    pub(super) secret: Option<&'static str>,
}

/// A world whose leader runs.
pub(super) async fn led() -> World {
    led_with(Setup::default()).await
}

pub(super) async fn led_with(setup: Setup) -> World {
    let mut world = World::new(&setup);
    world.report(|_| ()).await;
    world.lead().await;
    world
}

/// Two replicas on one store, each the agent of a host of its own. The first leads; both
/// have announced themselves and are served.
pub(super) async fn pair(first: Setup, second: Setup) -> (World, World) {
    let (mut first, mut second) = unserved_pair(&first, &second).await;
    first.serve();
    second.serve();
    (first, second)
}

pub(super) async fn unserved_pair(first: &Setup, second: &Setup) -> (World, World) {
    let clock = Arc::new(SystemClock::new());
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let seen = || Arc::new(SeenStore::new(store.clone(), Cable::new(true)));
    let mut first = World::on(first, clock.clone(), seen(), 1);
    let mut second = World::on(second, clock, seen(), 2);
    for world in [&mut first, &mut second] {
        world.report(|_| ()).await;
        world.announce();
        world.lead().await;
    }
    for world in [&mut first, &mut second] {
        let both = |published: &Published| {
            published.view.hosts.len() == 2 && !published.plan.pools.is_empty()
        };
        world.settled(both).await;
        world.company(2).await;
    }
    (first, second)
}

impl World {
    /// Nobody leads yet.
    pub(super) fn new(setup: &Setup) -> Self {
        let clock = Arc::new(SystemClock::new());
        let store = Arc::new(MemoryStore::new(clock.clone()));
        Self::on(setup, clock, Arc::new(SeenStore::new(store, Cable::new(false))), 1)
    }

    /// The replica with the host of this number.
    pub(super) fn on(
        setup: &Setup,
        clock: Arc<SystemClock>,
        store: Arc<SeenStore>,
        host: u8,
    ) -> Self {
        let docker = Arc::new(CountingDocker::default());
        let github = Arc::new(CountingGitHub::default());
        let (pools, host) = (pools(setup), host_id(host));
        let metrics = Arc::new(Metrics::new(pools.values(), &[]).unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let peers = Peers {
            advertise: Some(address.clone()),
            secret: setup.secret.map(SecretString::from),
        };
        let edges = Edges {
            docker: docker.clone(),
            github: github.clone(),
            store: store.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        let (published, seen) = watch::channel(Arc::new(nothing(&pools, clock.now())));
        let (ready, readiness) = watch::channel(ready());
        let ledger = Arc::new(Mutex::new(first_ledger()));
        let (leadership, leads) = watch::channel(None);
        let (observed, observed_seen) = watch::channel(0);
        let inputs = (leads, observed_seen, published);
        let lead = lead_loop(&edges, pools.clone(), ledger.clone(), inputs);
        let (replica, mut tasks) = (ReplicaId(Uuid::now_v7()), JoinSet::new());
        let handle = Handle {
            replica,
            published: seen.clone(),
            readiness,
            pulls: watch::Sender::new(BTreeMap::new()).subscribe(),
            standing: watch::Sender::new(Standing::default()).subscribe(),
            settings: Arc::new(settings(pools, peers.clone())),
            edges,
            lease_alive: lead.vitals.clone(),
            listeners: lead.listeners.clone(),
        };
        let agency = agent_of_the_host(&mut tasks, store.clone(), replica, host);
        let answers = Arc::new(Mutex::new(Vec::new()));
        let state = api(handle, setup, clock.now(), answers.clone(), metrics);
        Self {
            app: router(state.clone()),
            state,
            store,
            docker,
            github,
            ready,
            seen,
            answers,
            observed,
            ledger,
            replica,
            record: Mutex::new(record(replica, host, clock.now())),
            host,
            address,
            announced: CancellationToken::new(),
            standing: CancellationToken::new(),
            listener: Some(listener),
            peers,
            clock,
            tasks,
            agency,
            lead: Some(lead),
            leadership: Some(leadership),
        }
    }

    /// Serves at its address until dropped.
    pub(super) fn serve(&mut self) {
        let listener = self.listener.take().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let served = serve(listener, self.app.clone(), self.announced.clone());
        self.tasks.spawn(async move { served.await.unwrap() });
    }

    /// Nobody listens at its address any more.
    pub(super) fn goes_deaf(&mut self) {
        self.listener = None;
    }

    /// Announces this replica as its process would, until `announced` is cancelled.
    pub(super) fn announce(&mut self) {
        let announce = Announce {
            store: self.store.clone(),
            clock: self.clock.clone(),
            replica: self.replica,
            hostname: self.record.lock().unwrap().hostname.clone(),
            peers: self.peers.clone(),
            pools: BTreeMap::clone(&self.seen.borrow().view.pools),
            standing: watch::Sender::new(agent_of(self.host)).subscribe(),
        };
        self.tasks.spawn(announce.run(self.announced.clone()));
    }

    /// It will not lead, whoever goes.
    pub(super) fn stops_standing(&mut self) {
        self.standing.cancel();
    }

    /// Stops everything, as a killed process does.
    pub(super) fn dies(&mut self) {
        self.tasks.abort_all();
    }

    /// Waits until so many replicas have announced themselves.
    async fn company(&self, replicas: usize) {
        while self.store.snapshot().await.unwrap().replicas.len() != replicas {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks until the answer is as wanted.
    pub(super) async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.get(path).await;
            if wanted(&answer.json) {
                return answer.json;
            }
            assert!(tokio::time::Instant::now() < deadline, "{path}: {}", answer.text);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts the real election, the real lead loop and the recorder.
    pub(super) async fn lead(&mut self) {
        let cancel = CancellationToken::new();
        self.registrations(Vec::new());
        let (lead, leadership) = (self.lead.take().unwrap(), self.leadership.take().unwrap());
        let store: Arc<dyn Store> = self.store.clone();
        let vitals = lead.vitals.clone();
        let stop = self.standing.clone();
        self.tasks.spawn(election::lead(store, self.replica, leadership, vitals, stop));
        decisions::record(&lead.listeners, self.state.recorder());
        self.tasks.spawn(lead.run(cancel));
        self.settled(|published| published.term.is_some()).await;
    }

    /// Waits until what is published fits.
    pub(super) async fn settled(&mut self, fits: impl Fn(&Published) -> bool) {
        let waited = self.seen.wait_for(|published| fits(published));
        tokio::time::timeout(Duration::from_secs(20), waited).await.unwrap().unwrap();
    }

    /// Changes the host's report and sends it.
    pub(super) async fn report(&self, change: impl FnOnce(&mut HostRecord)) {
        let report = {
            let mut record = self.record.lock().unwrap();
            change(&mut record);
            record.seq += 1;
            record.at = self.clock.now();
            record.clone()
        };
        let mut agency = self.agency.clone();
        let held = agency.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        self.store.report(&held, report).await.unwrap();
    }

    /// Adds a runner in a phase, with a container, and waits until it is seen.
    pub(super) async fn runner(&mut self, n: u128, phase: RunnerPhase) -> RunnerRecord {
        let runner = runner(n, self.host, phase, self.clock.now());
        let (id, phase) = (runner.id, runner.phase.clone());
        self.report(|record| drop(record.runners.insert(id, runner.clone()))).await;
        self.settled(|published| {
            let mut records = published.view.hosts.values();
            records.any(|host| host.runners.get(&id).is_some_and(|r| r.phase == phase))
        })
        .await;
        runner
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What GitHub's queue shows of one repository.
    pub(super) fn queue(&self, jobs: &[(u64, &[&str])]) {
        let (repo, now) = (RepoName::from(REPO), self.now());
        let jobs = jobs.iter().map(|(id, labels)| WaitingJob {
            id: JobId(*id),
            repo: repo.clone(),
            labels: labels.iter().collect(),
            queued_at: now,
            name: format!("build {id}"),
            evidence: now,
        });
        self.ledger.lock().unwrap().demand.read(&repo, now, jobs.collect());
        self.observed.send_modify(|count| *count += 1);
    }

    /// What GitHub's runner list shows.
    pub(super) fn registrations(&self, rows: Vec<Row>) {
        let scope = Scope::Repo(RepoName::from(REPO));
        let stillness = Stillness::Still;
        let reading = ScopeReading { scope, begun_at: self.now(), stillness, rows };
        let (mark, policy) = (ClusterMark::derive(MARK), Policy::default());
        let (pools, hosts) = (BTreeMap::new(), BTreeMap::new());
        let mut ledger = self.ledger.lock().unwrap();
        ledger.absorb_registrations(reading, &mark, &pools, &hosts, &policy);
        drop(ledger);
        self.observed.send_modify(|count| *count += 1);
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, json, text }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> Answer {
        let request = request("POST", path).header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(super) async fn delete(&self, path: &str) -> Answer {
        self.send(request("DELETE", path).body(Body::empty()).unwrap()).await
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: axum::http::HeaderMap,
    pub(super) json: Value,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// A problem of this status and code, complete in every part.
    #[track_caller]
    pub(super) fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.json["code"], code, "{}", self.text);
        assert_eq!(self.json["status"], status);
        assert_eq!(self.json["type"], format!("urn:runner-orchestrator:problem:{code}"));
        assert_eq!(self.json["instance"], self.header("x-request-id"));
        assert!(self.json["title"].as_str().is_some_and(|title| !title.is_empty()));
        assert!(self.json["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        assert!(self.text.len() < 4_000, "a problem does not echo what was sent");
    }
}

pub(super) fn request(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header(header::HOST, "localhost:8080")
}

pub(super) fn listening(since: Timestamp) -> RunnerPhase {
    RunnerPhase::Listening { since }
}

pub(super) fn running(since: Timestamp) -> RunnerPhase {
    RunnerPhase::Running { since }
}

/// A container id of 64 digits that begin differently for each `n`.
pub(super) fn container_id(n: u128) -> ContainerId {
    ContainerId(format!("{n:016x}").repeat(4))
}

fn host_id(number: u8) -> HostId {
    HostId(Uuid::from_u128((0xabcd_ef00 + u128::from(number)) << 96))
}

fn runner(n: u128, host: HostId, phase: RunnerPhase, now: Timestamp) -> RunnerRecord {
    let id = RunnerId(Uuid::from_u128(n));
    RunnerRecord {
        id,
        name: RunnerName::compose(&ClusterMark::derive(MARK), &host, &id),
        pool: PoolName::from("default"),
        phase,
        container: Some(container_id(n)),
        github_id: Some(GitHubRunnerId(u64::try_from(n).unwrap())),
        assigned_at: now,
        listened_at: None,
        revision: "r1".to_owned(),
        correlation: id.tail(),
        retiring: None,
        retire_blocked_until: None,
        adopted: false,
        scope: None,
    }
}

fn record(replica: ReplicaId, host: HostId, at: Timestamp) -> HostRecord {
    HostRecord {
        version: 1,
        host,
        boot: BootId(Uuid::from_u128(7)),
        replica,
        seq: 0,
        at,
        hostname: if host == host_id(1) { "box" } else { "box-2" }.to_owned(),
        docker_version: Some("29.0.0".to_owned()),
        docker_up: true,
        stopping: false,
        max_runners: 100,
        images: [IMAGE.to_owned()].into(),
        runners: BTreeMap::new(),
        refused: BTreeMap::new(),
        capacity: Capacity::default(),
    }
}

/// How an agent stands to its host.
pub(super) fn agent_of(host: HostId) -> Standing {
    let part = Part::Agent { boot: BootId(Uuid::from_u128(7)), term: Term(1) };
    Standing { host: Some(host), part, clash: None }
}

type Inputs = (
    watch::Receiver<Option<election::Leadership>>,
    watch::Receiver<u64>,
    watch::Sender<Arc<Published>>,
);

fn lead_loop(
    edges: &Edges,
    pools: BTreeMap<PoolName, Pool>,
    ledger: Arc<Mutex<Ledger>>,
    (leadership, observed, published): Inputs,
) -> Lead {
    Lead {
        store: edges.store.clone(),
        github: edges.github.clone(),
        clock: edges.clock.clone(),
        cluster: ClusterMark::derive(MARK),
        pools: Arc::new(pools),
        policy: Policy::default(),
        ledger,
        leadership,
        published,
        observed,
        reread: watch::Sender::new(0),
        metrics: edges.metrics.clone(),
        tracker: TaskTracker::new(),
        cleaning: Arc::new(Semaphore::new(1)),
        vitals: Vitals::default(),
        listeners: Listeners::default(),
    }
}

/// Whoever reports for the host must be its agent.
fn agent_of_the_host(
    tasks: &mut JoinSet<()>,
    store: Arc<SeenStore>,
    replica: ReplicaId,
    host: HostId,
) -> watch::Receiver<Option<election::Agency>> {
    let (tell, agency) = watch::channel(None);
    tasks.spawn(election::serve(store, replica, host, tell, CancellationToken::new()));
    agency
}

/// No floor and a maximum of four, so that only what a test asks for happens.
fn pool(name: &str, labels: Labels) -> Pool {
    Pool {
        name: PoolName::from(name),
        scope: Scope::Repo(RepoName::from(REPO)),
        labels,
        image: IMAGE.to_owned(),
        command: None,
        runner_group_id: 1,
        resources: Resources::default(),
        docker: InnerDocker::None,
        min_runners: 0,
        max_runners: 4,
        min_idle_runners: 0,
        scale_up_threshold: 3,
        scale_down_threshold: 1,
        scale_up_max_wait: Duration::from_secs(3_600),
        idle_timeout: Duration::from_secs(300),
        start_deadline: Duration::from_secs(120),
        weight: 1,
        priority: 0,
        revision: "r1".to_owned(),
    }
}

fn pools(setup: &Setup) -> BTreeMap<PoolName, Pool> {
    let default: &[(&str, &[&str])] = &[("default", &["self-hosted", "linux"])];
    let wanted = if setup.pools.is_empty() { default } else { &setup.pools };
    wanted
        .iter()
        .map(|(name, labels)| (PoolName::from(*name), pool(name, labels.iter().collect())))
        .collect()
}

/// What is learnt before the first turn belongs to the first term.
fn first_ledger() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.begin_term(Term(1));
    ledger
}

fn ready() -> Readiness {
    Readiness { docker: Some(Ok(())), github: Some(Ok(Preflight::default())), stopping: false }
}

fn settings(pools: BTreeMap<PoolName, Pool>, peers: Peers) -> Settings {
    Settings {
        cluster_name: Some(MARK.to_owned()),
        hostname: "box".to_owned(),
        pools,
        poll_interval: Duration::from_secs(30),
        host_max_runners: 100,
        shutdown: Shutdown { drain: true, timeout: Duration::from_secs(60) },
        policy: Policy::default(),
        peers,
    }
}

fn api(
    handle: Handle,
    setup: &Setup,
    started_at: Timestamp,
    answers: Arc<Mutex<Vec<(String, String, u16)>>>,
    metrics: Arc<Metrics>,
) -> ApiState {
    let settings = ApiSettings {
        api_token: setup.token.map(SecretString::from),
        allowed_hosts: vec!["orchestrator".to_owned()],
        listen_addr: "127.0.0.1:8080".parse().unwrap(),
        version: "1.2.3".to_owned(),
        poll_interval: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(300),
        runner_image: IMAGE.to_owned(),
        started_at,
    };
    let panics = setup.metrics_panic;
    let text = move || {
        assert!(!panics, "metrics are broken");
        metrics.render()
    };
    let observer = move |method: &'static str, route: &str, status, _took| {
        answers.lock().unwrap().push((method.to_owned(), route.to_owned(), status));
    };
    ApiState::new(handle, settings, Arc::new(text)).observed_by(Arc::new(observer))
}

fn nothing(pools: &BTreeMap<PoolName, Pool>, at: Timestamp) -> Published {
    Published {
        at,
        view: View {
            cluster: ClusterMark::derive(MARK),
            pools: Arc::new(pools.clone()),
            hosts: BTreeMap::new(),
            assignments: BTreeMap::new(),
            operator: runner_orchestrator::fleet::intent::Operator::default(),
            intents: Vec::new(),
            ledger: Arc::default(),
            budget: Budget::open(0),
            withheld: runner_orchestrator::fleet::view::Withheld::default(),
        },
        plan: Arc::default(),
        term: None,
        store_error: None,
    }
}
