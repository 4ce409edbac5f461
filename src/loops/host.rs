//! The agent of one Docker daemon: makes it what the leader assigned, cares for what
//! runs, and reports. The only place that changes anything in Docker, but for the host's
//! identity, which [`crate::app`] claims where no `CLUSTER_NAME` is set.
//!
//! One task owns the state ([`state::State`]); work that waits for Docker or GitHub runs
//! beside it and comes back as an [`Event`]. Starts, removals and exits never block each
//! other. A turn waits for the store and, without the lease, for one look at the marker;
//! for Docker's and GitHub's work never.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::share;
use crate::clock::Clock;
use crate::docker::{Daemon, Docker, NetworkSpec, Pulls};
use crate::election::{self, Agency};
use crate::fleet::converge::Listing;
use crate::fleet::id::{
    ClusterMark, ContainerId, GitHubRunnerId, HostId, PoolName, ReplicaId, RunnerId,
};
use crate::fleet::listener::JobResult;
use crate::fleet::pool::Pool;
use crate::fleet::reason::Reason;
use crate::fleet::runner::Seen;
use crate::github::GitHub;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

mod agent;
pub mod boot;
pub mod capacity;
pub mod follow;
mod guard;
pub mod images;
mod keep;
mod measure;
pub mod remove;
pub mod rights;
pub mod standing;
pub mod start;
pub mod state;

use agent::AgentLoop;
use boot::TakeOver;
use guard::GuardedDocker;
use remove::RetireEnd;
use rights::Rights;
use standing::{Part, Standing, StoodBy};
use start::StartEnd;
use state::State;

/// Containers created and started at the same time. A daemon is fastest at 8 to 16; more
/// width is slower for all.
const STARTS_AT_ONCE: usize = 12;
/// Events waiting for the loop; senders wait when it is full, nothing is dropped.
const EVENTS_QUEUED: usize = 1024;
/// The full list of containers is the truth; events are only hints.
const LIST_EVERY: Duration = Duration::from_secs(15);
/// A report at least this often, so that silence means trouble.
const BEAT_EVERY: Duration = Duration::from_secs(5);
/// After a removal that failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What the host loop works with; cheap to clone into its tasks.
#[derive(Clone)]
pub struct Host {
    pub docker: Arc<dyn Docker>,
    pub github: Arc<dyn GitHub>,
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub tracker: TaskTracker,
    pub cluster: ClusterMark,
    pub replica: ReplicaId,
    pub hostname: String,
    pub pools: Arc<BTreeMap<PoolName, Pool>>,
    pub max_runners: u32,
    pub shutdown: Shutdown,
    /// Progress of image pulls, for status.
    pub pulls: watch::Sender<Pulls>,
    /// How this replica stands to the host, for status and for the other replicas.
    pub standing: watch::Sender<Standing>,
}

/// What happens to runners when the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shutdown {
    pub drain: bool,
    /// How long busy runners are waited for; then they are left for the next start.
    pub timeout: Duration,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

/// What comes back from the work beside the loop.
#[derive(Debug)]
pub enum Event {
    Seen(RunnerId, Seen),
    Container(RunnerId, ContainerId),
    Minted(RunnerId, GitHubRunnerId),
    /// What the listener said of its job.
    JobResult(RunnerId, JobResult),
    /// A start is over, well or not; `None` = handed over.
    StartEnded(RunnerId, Option<StartEnd>),
    /// A removal is over.
    RetireEnded(RunnerId, Reason, RetireEnd),
    /// The container of an ended runner is gone, or could not be removed yet.
    ReapEnded(RunnerId, Result<(), String>),
    DiscardEnded(ContainerId),
    /// Its output ended: it has exited, or the connection broke.
    OutputEnded(RunnerId),
    /// Its container exited, by Docker's own word.
    ExitSettled(RunnerId, Option<(i64, bool)>),
    /// Its container exited, by Docker's event, with the exit code if the event has one.
    Died(RunnerId, Option<i64>),
    OutOfMemory(RunnerId),
    Listed(Result<Listing, String>),
    Images(Vec<String>),
    Capacity(Box<Daemon>),
    EventStream,
    /// This boot's time is over.
    Leave(Left),
}

/// How the service of one boot ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Told to stop; `quiet` when nothing was under way any more.
    Stopped { quiet: bool },
    /// Another replica is the agent.
    Superseded,
    /// The daemon has another identity now.
    OtherIdentity,
}

/// What the starts of one host share.
#[derive(Clone, Debug)]
pub struct Limits {
    rights: Rights,
    /// Closed when no further start may begin.
    starts: Arc<Semaphore>,
    /// Pools whose network this boot has made or found.
    networks: Arc<tokio::sync::Mutex<BTreeSet<PoolName>>>,
    /// An operator has frozen the fleet: what waits for its turn goes on waiting.
    frozen: Arc<AtomicBool>,
}

impl Host {
    /// The pool's network on this daemon, sized to what the pool can have here.
    #[must_use]
    pub fn network(&self, pool: &Pool) -> NetworkSpec {
        let capacity = pool.max_runners.min(self.max_runners);
        NetworkSpec::of_pool(self.cluster.clone(), pool.name.clone(), capacity)
    }

    /// Serves this Docker host until cancelled: stands by while another replica is its
    /// agent, and shuts down by [`Shutdown`].
    pub async fn run(self, cancel: CancellationToken) {
        loop {
            let Some(host) = boot::identify(&self, &cancel).await else { return };
            self.standing.send_modify(|standing| standing.is(host, Part::Unknown));
            let (tell, mut agency) = watch::channel(None);
            let resign = CancellationToken::new();
            let (store, clock) = (self.store.clone(), self.clock.clone());
            let (replica, resigned) = (self.replica, resign.clone());
            // A set of one, so that it ends with us in any case.
            let mut campaign = JoinSet::new();
            campaign.spawn(async move {
                let known = share::time_is_known(store.as_ref(), clock.as_ref());
                if resigned.run_until_cancelled(known).await.is_some() {
                    election::serve(store, replica, host, tell, resigned).await;
                }
            });
            self.under(host, &mut agency, &cancel).await;
            resign.cancel();
            // It only gives the lease up; a panic in it has been reported already.
            let _ = campaign.join_next().await;
            if cancel.is_cancelled() {
                return;
            }
        }
    }

    /// Cancelled when a take-over is not to go on any more: one that has begun is brought to
    /// its end where the host is to be drained then, unless its daemon does not answer.
    fn patience(&self, cancel: &CancellationToken) -> (CancellationToken, JoinSet<()>) {
        let mut wait = JoinSet::new();
        if !self.shutdown.drain {
            return (cancel.clone(), wait);
        }
        let (given_up, cancel) = (CancellationToken::new(), cancel.clone());
        let tell = given_up.clone();
        wait.spawn(async move {
            cancel.cancelled().await;
            tokio::time::sleep(boot::FINISH_WITHIN).await;
            tell.cancel();
        });
        (given_up, wait)
    }

    /// Stands by and serves in turns, until cancelled or until the daemon has another
    /// identity.
    async fn under(
        &self,
        host: HostId,
        agency: &mut watch::Receiver<Option<Agency>>,
        cancel: &CancellationToken,
    ) {
        // Ends with us.
        let (given_up, _wait) = self.patience(cancel);
        loop {
            match standing::stand_by(self, host, agency, cancel).await {
                StoodBy::Agent => (),
                StoodBy::Cancelled => return,
                StoodBy::Clash(clash) => {
                    return standing::take_new_identity(self, clash, cancel).await;
                }
            }
            let rights = match boot::take_over(self, agency, &given_up).await {
                TakeOver::Done(rights) => rights,
                TakeOver::Lost => {
                    self.give_way(host);
                    continue;
                }
                TakeOver::Cancelled => return,
            };
            match self.clone().serve(rights, cancel).await {
                Left::Stopped { .. } | Left::OtherIdentity => return,
                Left::Superseded => self.give_way(host),
            }
        }
    }

    /// Another replica is the agent; which one is looked up while standing by.
    fn give_way(&self, host: HostId) {
        let part = Part::StandingBy { agent: None };
        self.standing.send_modify(|standing| standing.is(host, part));
    }

    /// The agent's loop, from taking over until cancelled or until another took over.
    async fn serve(mut self, rights: Rights, cancel: &CancellationToken) -> Left {
        let (events, inbox) = mpsc::channel(EVENTS_QUEUED);
        let daemon = self.docker.clone();
        self.docker = Arc::new(GuardedDocker::new(daemon.clone(), rights.clone()));
        let limits = Limits {
            rights: rights.clone(),
            starts: Arc::new(Semaphore::new(STARTS_AT_ONCE)),
            networks: Arc::default(),
            frozen: Arc::default(),
        };
        let background = CancellationToken::new();
        let _stop_background = background.clone().drop_guard();
        self.tracker.spawn(follow::docker_events(self.clone(), events.clone(), background.clone()));
        self.tracker.spawn(images::watch(self.clone(), events.clone(), background.clone()));
        self.tracker.spawn(capacity::watch(self.clone(), events.clone(), background.clone()));
        self.tracker.spawn(keep::watch(
            self.clone(),
            rights.clone(),
            events.clone(),
            background.clone(),
        ));
        let marker = rights.marker();
        let state = State::new(&self, marker.host, marker.boot);
        let cluster = self.cluster.clone();
        let shared = self.store.health().borrow().shared;
        let agent = AgentLoop::new(self, state, events, limits);
        let left = agent.run(inbox, cancel.clone()).await;
        if left == (Left::Stopped { quiet: true }) && shared {
            boot::hand_over(daemon.as_ref(), &cluster, marker.boot).await;
        }
        left
    }
}
