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
use tracing::{info, warn};

use crate::clock::Clock;
use crate::docker::{Docker, NetworkSpec, Pulls};
use crate::fleet::converge::{Action, Listing, Stopping, converge};
use crate::fleet::host::Assignment;
use crate::fleet::id::{ClusterMark, ContainerId, GitHubRunnerId, PoolName, ReplicaId, RunnerId};
use crate::fleet::listener::JobResult;
use crate::fleet::pool::Pool;
use crate::fleet::reason::Reason;
use crate::fleet::runner::Seen;
use crate::fleet::time::Timestamp;
use crate::github::GitHub;
use crate::store::{Store, Topic};
use crate::telemetry::metrics::{LoopName, Metrics, Outcome};

pub mod boot;
pub mod follow;
pub mod images;
mod measure;
pub mod remove;
pub mod start;
pub mod state;

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
const TURN_EVERY: Duration = Duration::from_millis(500);
/// Leftover volumes and networks are looked for this often.
const SWEEP_EVERY: Duration = Duration::from_secs(300);
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

    /// Runs the agent until cancelled, then shuts down by [`Shutdown`].
    pub async fn run(self, cancel: CancellationToken) {
        let Some((host, boot)) = boot::claim(&self, &cancel).await else { return };
        let (events, inbox) = mpsc::channel(EVENTS_QUEUED);
        let limits =
            Limits { starts: Arc::new(Semaphore::new(STARTS_AT_ONCE)), networks: Arc::default() };
        let background = CancellationToken::new();
        let _stop_background = background.clone().drop_guard();
        self.tracker.spawn(follow::docker_events(self.clone(), events.clone(), background.clone()));
        self.tracker.spawn(images::watch(self.clone(), events.clone(), background.clone()));
        let state = State::new(&self, host, boot);
        let agent = AgentLoop { host: self, state, events, limits, assignment: None };
        agent.run(inbox, cancel).await;
    }
}

/// The loop proper.
struct AgentLoop {
    host: Host,
    state: State,
    events: mpsc::Sender<Event>,
    limits: Limits,
    assignment: Option<(Assignment, Timestamp)>,
}

impl AgentLoop {
    async fn run(mut self, mut inbox: mpsc::Receiver<Event>, cancel: CancellationToken) {
        let mut changes = self.host.store.changes(Topic::Assignments);
        let mut ticks = tokio::time::interval(TURN_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.list();
        loop {
            tokio::select! { biased;
                () = cancel.cancelled(), if self.state.agent.stopping == Stopping::No => {
                    self.begin_stopping();
                }
                Some(event) = inbox.recv() => {
                    self.apply(event);
                    while let Ok(event) = inbox.try_recv() {
                        self.apply(event);
                    }
                }
                Ok(()) = changes.changed() => (),
                _ = ticks.tick() => (),
            }
            let begun = tokio::time::Instant::now();
            self.turn().await;
            let now = self.host.clock.now();
            self.host.metrics.loop_turn(LoopName::Host, Outcome::Ok, begun.elapsed(), now);
            if self.state.may_stop(self.host.clock.now()) {
                self.report().await;
                return;
            }
        }
    }

    fn begin_stopping(&mut self) {
        let shutdown = self.host.shutdown;
        let now = self.host.clock.now();
        self.state.stop(shutdown, now);
        info!(drain = shutdown.drain, "host loop is stopping");
    }

    /// One turn: assignment against records against containers.
    async fn turn(&mut self) {
        let now = self.host.clock.now();
        match self.host.store.assignment(self.state.agent.host).await {
            Ok(assignment) => self.assignment = Some((assignment, now)),
            Err(error) => warn!(error = %error, "could not read this host's assignment"),
        }
        // Before the first list nobody knows what runs here already.
        if !self.state.adopted {
            return;
        }
        if let Some((assignment, read_at)) = self.assignment.take() {
            let listing = self.state.listing.take();
            self.state.term = assignment.term;
            let agent = &self.state.agent;
            let actions = converge(agent, &assignment, read_at, listing.as_ref(), now);
            let starting: Vec<_> =
                actions.into_iter().filter_map(|a| self.act(a, &assignment)).collect();
            for id in starting {
                self.start(id);
            }
            self.state.prune(&assignment);
            self.assignment = Some((assignment, read_at));
        }
        if self.state.list_due(now) {
            self.list();
        }
        if now >= self.state.sweep_at && self.state.agent.stopping == Stopping::No {
            self.state.sweep_at = now + SWEEP_EVERY;
            self.host.tracker.spawn(remove::sweep(self.host.clone()));
        }
        if self.state.report_due(now) {
            self.report().await;
        }
    }

    /// Carries one action out. Returns an id that may be started at once.
    fn act(&mut self, action: Action, assignment: &Assignment) -> Option<RunnerId> {
        let now = self.host.clock.now();
        match action {
            Action::Accept(assigned) => return self.state.accept(*assigned, now),
            Action::Start(id) => return Some(id),
            Action::Refuse { runner, refusal } => self.state.refuse(runner, refusal),
            Action::CancelStart { runner, reason } => self.state.cancel_start(runner, reason),
            Action::Retire { runner, reason, force } => self.retire(runner, reason, force),
            Action::Reap(runner) => self.settle_exit(runner),
            Action::Adopt(found) => {
                let correlation = assignment
                    .runners
                    .get(&found.runner)
                    .map_or_else(|| found.runner.tail(), |assigned| assigned.correlation.clone());
                info!(runner.id = %found.runner, runner.name = %found.name, "adopting a container");
                let running = self.state.adopt(&found, correlation, now);
                self.follow(found.runner, found.id, running);
            }
            Action::Discard(found) => {
                if self.state.begin_discard(&found.id) {
                    let scope = self.host.pools.get(&found.pool).map(|pool| pool.scope.clone());
                    let events = self.events.clone();
                    self.host.tracker.spawn(remove::discard(
                        self.host.clone(),
                        found,
                        scope,
                        events,
                    ));
                }
            }
            Action::ReportLost(runner) => {
                warn!(runner.id = %runner, "its container is gone and nobody here removed it");
                self.state.seen(runner, Seen::Lost(Reason::ContainerVanished), now);
            }
            Action::Forget(runner) => self.state.forget(runner),
        }
        None
    }

    fn follow(&self, runner: RunnerId, container: ContainerId, running: watch::Sender<bool>) {
        let docker = self.host.docker.clone();
        let events = self.events.clone();
        self.host.tracker.spawn(follow::adopted(docker, runner, container, running, events));
    }

    fn start(&mut self, runner: RunnerId) {
        let Some(order) = self.state.begin_start(runner) else { return };
        let Some(pool) = self.host.pools.get(&order.pool).cloned() else { return };
        let task =
            start::run(self.host.clone(), self.limits.clone(), order, pool, self.events.clone());
        self.host.tracker.spawn(task);
    }

    fn retire(&mut self, runner: RunnerId, reason: Reason, force: bool) {
        let Some(order) = self.state.begin_retire(runner, reason, force) else { return };
        let Some(pool) = self.host.pools.get(&order.pool).cloned() else {
            // The pool is no longer configured: without its scope GitHub cannot be asked.
            self.state.retire_ended(runner, RetireEnd::NotNow, self.host.clock.now());
            return;
        };
        let events = self.events.clone();
        self.host.tracker.spawn(remove::retire(self.host.clone(), order, pool, events));
    }

    fn settle_exit(&mut self, runner: RunnerId) {
        if let Some(container) = self.state.begin_settling(runner) {
            let docker = self.host.docker.clone();
            self.host.tracker.spawn(follow::settle_exit(
                docker,
                runner,
                container,
                self.events.clone(),
            ));
        }
    }

    fn list(&mut self) {
        self.state.listing_begun(self.host.clock.now());
        let task = boot::list(self.host.clone(), self.events.clone());
        self.host.tracker.spawn(task);
    }

    async fn report(&mut self) {
        let now = self.host.clock.now();
        let record = self.state.report(&self.host, now);
        if let Err(error) = self.host.store.report(record).await {
            warn!(error = %error, "could not report this host");
            self.state.dirty = true;
        }
    }

    /// Takes one event in. Never waits.
    fn apply(&mut self, event: Event) {
        let now = self.host.clock.now();
        match event {
            Event::Seen(runner, seen) => self.state.seen(runner, seen, now),
            Event::Container(runner, container) => self.state.container_is(runner, container),
            Event::Minted(runner, github) => self.state.minted(runner, github),
            Event::JobResult(runner, result) => self.state.job_result(runner, result),
            Event::StartEnded(runner, end) => {
                self.state.start_ended(runner, end, now);
            }
            Event::RetireEnded(runner, reason, end) => {
                if end == RetireEnd::Removed {
                    self.state.seen(runner, Seen::Removed(reason), now);
                }
                self.state.retire_ended(runner, end, now);
            }
            Event::ReapEnded(runner, result) => self.state.reap_ended(runner, result, now),
            Event::DiscardEnded(container) => self.state.discard_ended(&container, now),
            Event::OutputEnded(runner) => {
                let exit = self.state.output_ended(runner);
                self.ended(runner, exit, now);
            }
            Event::Died(runner, code) => {
                let exit = self.state.died(runner, code);
                self.ended(runner, exit, now);
            }
            Event::OutOfMemory(runner) => self.state.out_of_memory(runner),
            Event::ExitSettled(runner, exit) => self.exit_settled(runner, exit, now),
            Event::Listed(result) => {
                for (runner, container, running) in self.state.listed(result, now) {
                    self.follow(runner, container, running);
                }
            }
            Event::Images(images) => self.state.images_are(images),
            Event::EventStream => self.state.list_soon(now),
        }
    }

    /// A container seems to have ended: with its exit known at once, else Docker is asked.
    fn ended(&mut self, runner: RunnerId, exit: Option<(i64, bool)>, now: Timestamp) {
        match exit {
            Some(_) => self.exit_settled(runner, exit, now),
            None => self.settle_exit(runner),
        }
    }

    fn exit_settled(&mut self, runner: RunnerId, exit: Option<(i64, bool)>, now: Timestamp) {
        let Some((code, oom)) = exit else {
            // It lives on, or Docker did not answer: the next list tells.
            self.state.settling_ended(runner);
            self.state.list_soon(now);
            return;
        };
        let Some(order) = self.state.exited(runner, code, oom, now) else { return };
        let scope = self.host.pools.get(&order.pool).map(|pool| pool.scope.clone());
        let events = self.events.clone();
        self.host.tracker.spawn(remove::reap(self.host.clone(), order, scope, events));
    }
}
