//! The composition root: builds the loops around the edges, watches over them, and
//! shuts them down in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::docker::{Docker, Pulls};
use crate::election::{self, Vitals};
use crate::fleet::id::{ClusterMark, HostId, PoolName, ReplicaId};
use crate::fleet::ledger::Ledger;
use crate::fleet::policy::Policy;
use crate::fleet::pool::Pool;
use crate::github::{GitHub, Preflight};
use crate::loops::announce::{Announce, Peers};
use crate::loops::host::standing::Standing;
use crate::loops::host::{Host, Shutdown};
use crate::loops::lead::{Lead, Listeners, Published};
use crate::loops::observe::Observe;
use crate::loops::share::{self, Share};
use crate::store::Store;
use crate::telemetry::chain;
use crate::telemetry::metrics::Metrics;

mod first_view;
mod preflight;

/// A daemon that is away at start is asked again this often.
const IDENTITY_RETRY: Duration = Duration::from_secs(2);
/// Tasks that follow runners end with their streams; what has not by then is dropped.
const TASKS_GRACE: Duration = Duration::from_secs(2);

/// The parts that reach outside.
#[derive(Clone, Debug)]
pub struct Edges {
    pub docker: Arc<dyn Docker>,
    pub github: Arc<dyn GitHub>,
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
}

/// What the loops are told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `None`: the cluster's mark is derived from scope and host identity.
    pub cluster_name: Option<String>,
    pub hostname: String,
    pub pools: BTreeMap<PoolName, Pool>,
    pub poll_interval: Duration,
    pub host_max_runners: u32,
    pub shutdown: Shutdown,
    pub policy: Policy,
    pub peers: Peers,
}

/// How the start went so far, for `/readyz`.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    /// The first attempt at Docker and at GitHub have both ended.
    pub docker: Option<Result<(), String>>,
    pub github: Option<Result<Preflight, String>>,
    pub stopping: bool,
}

/// What the rest of the process sees of the running loops.
#[derive(Clone, Debug)]
pub struct Handle {
    pub replica: ReplicaId,
    pub published: watch::Receiver<Arc<Published>>,
    pub readiness: watch::Receiver<Readiness>,
    pub pulls: watch::Receiver<Pulls>,
    pub standing: watch::Receiver<Standing>,
    pub settings: Arc<Settings>,
    pub edges: Edges,
    /// Whether the tasks that leading depends on are alive, for `/livez`.
    pub lease_alive: Vitals,
    /// Who is told of every turn of this replica's lead loop while it leads.
    pub listeners: Listeners,
}

/// The loops, running.
#[derive(Debug)]
pub struct App {
    handle: Handle,
    work: JoinSet<&'static str>,
    tracker: TaskTracker,
    /// Cancels what must stop first: the host loop begins its shutdown.
    stop_host: CancellationToken,
    /// Ends this replica's leading: at once where others can lead, else with the rest.
    stop_lead: CancellationToken,
    /// Cancels the rest, after the host loop has ended.
    stop_rest: CancellationToken,
    ready: watch::Sender<Readiness>,
}

/// A loop that ended without being told to.
#[derive(Debug, thiserror::Error)]
#[error("the {0} loop ended by itself; half-alive is worse than dead")]
pub struct LoopDied(&'static str);

impl App {
    /// Starts everything. Comes back at once: Docker and GitHub are waited for inside.
    #[must_use]
    pub fn start(edges: Edges, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let replica = ReplicaId(edges.clock.ordered_id());
        let (published, seen) =
            watch::channel(Arc::new(first_view::nothing_yet(&edges, &settings)));
        let (ready, readiness) = watch::channel(Readiness::default());
        let (pulls, pulls_seen) = watch::channel(Pulls::new());
        let (standing, standing_seen) = watch::channel(Standing::default());
        let handle = Handle {
            replica,
            published: seen,
            readiness,
            pulls: pulls_seen,
            standing: standing_seen,
            settings: settings.clone(),
            edges: edges.clone(),
            lease_alive: Vitals::default(),
            listeners: Listeners::default(),
        };
        let outlets = Outlets { ready: ready.clone(), published, pulls, standing };
        let mut app = Self {
            handle,
            work: JoinSet::new(),
            tracker: TaskTracker::new(),
            stop_host: CancellationToken::new(),
            stop_lead: CancellationToken::new(),
            stop_rest: CancellationToken::new(),
            ready,
        };
        app.spawn_all(edges, outlets);
        app
    }

    /// What others need of it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until `stop` is cancelled or a loop dies, then shuts down in order: leadership
    /// where others can lead, the host loop (by the shutdown mode), then the rest, then what
    /// still follows runners.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LoopDied> {
        let died = tokio::select! { biased;
            () = stop.cancelled() => None,
            ended = self.work.join_next() => ended.map(|ended| ended.unwrap_or("panicked")),
        };
        self.ready.send_modify(|ready| ready.stopping = true);
        self.stop_host.cancel();
        if self.handle.edges.store.health().borrow().shared || died.is_some() {
            self.stop_lead.cancel();
        }
        if let Some(name) = died {
            error!(name, "a loop ended by itself");
            self.stop_rest.cancel();
            return Err(LoopDied(name));
        }
        while let Some(ended) = self.work.join_next().await {
            if ended.is_ok_and(|name| name == "host") {
                break;
            }
        }
        self.stop_lead.cancel();
        self.stop_rest.cancel();
        while self.work.join_next().await.is_some() {}
        self.tracker.close();
        if tokio::time::timeout(TASKS_GRACE, self.tracker.wait()).await.is_err() {
            info!("leaving runners behind for the next start");
        }
        Ok(())
    }

    fn spawn_all(&mut self, edges: Edges, outlets: Outlets) {
        let Handle { replica, settings, lease_alive, listeners, .. } = self.handle.clone();
        let (leadership, leads) = watch::channel(None);
        let (store, vitals) = (edges.store.clone(), lease_alive.clone());
        let (clock, stop) = (edges.clock.clone(), self.stop_lead.clone());
        self.work.spawn(async move {
            let known = share::time_is_known(store.as_ref(), clock.as_ref());
            if stop.run_until_cancelled(known).await.is_some() {
                election::lead(store, replica, leadership, vitals, stop).await;
            }
            "election"
        });
        let announce = Announce {
            store: edges.store.clone(),
            clock: edges.clock.clone(),
            replica,
            hostname: settings.hostname.clone(),
            peers: settings.peers.clone(),
            pools: settings.pools.clone(),
            standing: self.handle.standing.clone(),
        };
        let stop = self.stop_rest.clone();
        self.work.spawn(async move {
            announce.run(stop).await;
            "announce"
        });
        let (github, stop) = (edges.github.clone(), self.stop_rest.clone());
        let scopes: Vec<_> = settings.pools.values().map(|pool| pool.scope.clone()).collect();
        let preflight_ready = outlets.ready.clone();
        self.tracker.spawn(async move {
            preflight::run(github, scopes, preflight_ready, stop).await;
        });

        let loops = Loops {
            edges,
            settings,
            replica,
            tracker: self.tracker.clone(),
            leads,
            vitals: lease_alive,
            listeners,
            outlets,
            stop_host: self.stop_host.clone(),
            stop_rest: self.stop_rest.clone(),
        };
        // The cluster's mark may need Docker's answer, and everything needs the mark.
        self.work.spawn(loops.run());
    }
}

/// What the loops tell the rest of the process through.
struct Outlets {
    ready: watch::Sender<Readiness>,
    published: watch::Sender<Arc<Published>>,
    pulls: watch::Sender<Pulls>,
    standing: watch::Sender<Standing>,
}

/// The three loops, once the cluster's mark is known.
struct Loops {
    edges: Edges,
    settings: Arc<Settings>,
    replica: ReplicaId,
    tracker: TaskTracker,
    leads: watch::Receiver<Option<election::Leadership>>,
    vitals: Vitals,
    listeners: Listeners,
    outlets: Outlets,
    stop_host: CancellationToken,
    stop_rest: CancellationToken,
}

impl Loops {
    /// Ends with the host loop; the others end with `stop_rest`.
    async fn run(self) -> &'static str {
        let share = self.share();
        share.begin().await;
        let Some(cluster) = self.mark().await else { return "host" };
        let pools = Arc::new(self.settings.pools.clone());
        let (lead, observe) = self.deciders(&cluster, &pools);
        let host = Host {
            docker: self.edges.docker.clone(),
            github: self.edges.github.clone(),
            store: self.edges.store.clone(),
            clock: self.edges.clock.clone(),
            metrics: self.edges.metrics.clone(),
            tracker: self.tracker.clone(),
            cluster,
            replica: self.replica,
            hostname: self.settings.hostname.clone(),
            pools,
            max_runners: self.settings.host_max_runners,
            shutdown: self.settings.shutdown,
            pulls: self.outlets.pulls,
            standing: self.outlets.standing,
        };
        // Leading and observing go on while the host loop drains. One that ends before it
        // was told to ends the process, as the host loop does.
        let mut beside = JoinSet::new();
        let (stop_lead, stop_observe) = (self.stop_rest.clone(), self.stop_rest.clone());
        let stop_share = self.stop_rest.clone();
        beside.spawn(async move {
            share.run(stop_share).await;
            "share"
        });
        beside.spawn(async move {
            lead.run(stop_lead).await;
            "lead"
        });
        beside.spawn(async move {
            observe.run(stop_observe).await;
            "observe"
        });
        let mut host = std::pin::pin!(host.run(self.stop_host.clone()));
        tokio::select! { biased;
            () = &mut host => (),
            Some(ended) = beside.join_next() => return ended.unwrap_or("panicked"),
        }
        "host"
    }

    fn share(&self) -> Share {
        Share {
            store: self.edges.store.clone(),
            github: self.edges.github.clone(),
            clock: self.edges.clock.clone(),
            replica: self.replica,
        }
    }

    /// The two loops that work only while this replica leads, on one ledger.
    fn deciders(
        &self,
        cluster: &ClusterMark,
        pools: &Arc<BTreeMap<PoolName, Pool>>,
    ) -> (Lead, Observe) {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (observed, observed_seen) = watch::channel(0);
        let (reread, reread_seen) = watch::channel(0);
        let lead = Lead {
            store: self.edges.store.clone(),
            github: self.edges.github.clone(),
            clock: self.edges.clock.clone(),
            cluster: cluster.clone(),
            pools: pools.clone(),
            policy: self.settings.policy.clone(),
            ledger: ledger.clone(),
            leadership: self.leads.clone(),
            published: self.outlets.published.clone(),
            observed: observed_seen,
            reread,
            metrics: self.edges.metrics.clone(),
            tracker: self.tracker.clone(),
            cleaning: Arc::new(Semaphore::new(1)),
            vitals: self.vitals.clone(),
            listeners: self.listeners.clone(),
        };
        let observe = Observe {
            store: self.edges.store.clone(),
            github: self.edges.github.clone(),
            clock: self.edges.clock.clone(),
            cluster: cluster.clone(),
            pools: pools.clone(),
            policy: self.settings.policy.clone(),
            poll_interval: self.settings.poll_interval,
            ledger,
            leadership: self.leads.clone(),
            observed,
            reread: reread_seen,
            metrics: self.edges.metrics.clone(),
        };
        (lead, observe)
    }

    /// The cluster's mark: from its name, or else from this host's identity, so that two
    /// installations that nobody named never sweep each other.
    async fn mark(&self) -> Option<ClusterMark> {
        let ready = &self.outlets.ready;
        if let Some(name) = &self.settings.cluster_name {
            let docker = self.edges.docker.daemon().await.map(|_| ()).map_err(|e| chain(&e));
            ready.send_modify(|ready| ready.docker = Some(docker));
            return Some(ClusterMark::derive(name));
        }
        let scopes: Vec<String> =
            self.settings.pools.values().map(|pool| pool.scope.to_string()).collect();
        let unnamed = ClusterMark::derive(&format!("unnamed {}", scopes.join(" ")));
        loop {
            let fresh = HostId(self.edges.clock.random_id());
            match self.edges.docker.claim_identity(&unnamed, fresh).await {
                Ok(host) => {
                    ready.send_modify(|ready| ready.docker = Some(Ok(())));
                    return Some(ClusterMark::derive(&host.to_string()));
                }
                Err(error) => {
                    warn!(error = %chain(&error), "docker is not usable yet");
                    ready.send_modify(|ready| ready.docker = Some(Err(chain(&error))));
                }
            }
            tokio::select! { biased;
                () = self.stop_host.cancelled() => return None,
                () = tokio::time::sleep(IDENTITY_RETRY) => (),
            }
        }
    }
}
