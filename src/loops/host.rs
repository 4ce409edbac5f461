//! The agent of one Docker daemon: makes it what the leader assigned, cares for what
//! runs, and reports. The only place that changes anything in Docker.
//!
//! One task owns the state ([`state::State`]); work that waits for Docker or GitHub runs
//! beside it and comes back as an [`Event`]. Starts, removals and exits never block each
//! other, and a turn never waits for the network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::docker::{Docker, NetworkSpec, Pulls};
use crate::election::{self, Agency};
use crate::fleet::converge::Listing;
use crate::fleet::id::{
    BootId, ClusterMark, ContainerId, GitHubRunnerId, HostId, PoolName, ReplicaId, RunnerId,
};
use crate::fleet::listener::JobResult;
use crate::fleet::pool::Pool;
use crate::fleet::reason::Reason;
use crate::fleet::runner::Seen;
use crate::github::GitHub;
use crate::loops::announce::Standing;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

mod agent;
pub mod boot;
pub mod follow;
pub mod images;
mod measure;
pub mod remove;
pub mod start;
pub mod state;

use agent::AgentLoop;
use remove::RetireEnd;
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
    /// Which host this is and whether this replica is its agent, for the others.
    pub standing: watch::Sender<Option<Standing>>,
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
    EventStream,
}

/// What the starts of one host share.
#[derive(Clone, Debug)]
pub struct Limits {
    starts: Arc<Semaphore>,
    /// Pools whose network this boot has made or found.
    networks: Arc<tokio::sync::Mutex<BTreeSet<PoolName>>>,
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
        let Some(host) = boot::identify(&self, &cancel).await else { return };
        let (tell, mut agency) = watch::channel(None);
        self.standing.send_replace(Some(Standing { host, agency: agency.clone() }));
        let resign = CancellationToken::new();
        let lease = election::serve(self.store.clone(), self.replica, host, tell, resign.clone());
        let lease = self.tracker.spawn(lease);
        while let Some(held) = next_agency(&mut agency, &cancel).await {
            let Some(boot) = boot::take_over(&self, &held, &cancel).await else { break };
            self.clone().serve(host, boot, agency.clone(), &cancel).await;
            if cancel.is_cancelled() {
                break;
            }
        }
        resign.cancel();
        // It only gives the lease up; a panic in it has been reported already.
        let _ = lease.await;
    }

    /// The agent's loop, from taking over until cancelled or until another took over.
    async fn serve(
        self,
        host: HostId,
        boot: BootId,
        agency: watch::Receiver<Option<Agency>>,
        cancel: &CancellationToken,
    ) {
        let (events, inbox) = mpsc::channel(EVENTS_QUEUED);
        let limits =
            Limits { starts: Arc::new(Semaphore::new(STARTS_AT_ONCE)), networks: Arc::default() };
        let background = CancellationToken::new();
        let _stop_background = background.clone().drop_guard();
        self.tracker.spawn(follow::docker_events(self.clone(), events.clone(), background.clone()));
        self.tracker.spawn(images::watch(self.clone(), events.clone(), background.clone()));
        let state = State::new(&self, host, boot);
        let agent = AgentLoop { host: self, state, events, limits, assignment: None, agency };
        agent.run(inbox, cancel.clone()).await;
    }
}

/// Waits until this replica is the host's agent; `None` when cancelled first.
async fn next_agency(
    agency: &mut watch::Receiver<Option<Agency>>,
    cancel: &CancellationToken,
) -> Option<Agency> {
    tokio::select! { biased;
        () = cancel.cancelled() => None,
        held = agency.wait_for(Option::is_some) => held.ok()?.clone(),
    }
}
