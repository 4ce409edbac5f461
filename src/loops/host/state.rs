//! The agent's state and its changes. Nothing here waits; what is decided from it is
//! [`crate::fleet::converge`].

mod exit;
mod listing;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::agent::SWEEP_EVERY;
use super::measure;
use super::{BEAT_EVERY, Host};
use crate::docker::Daemon;
use crate::fleet::converge::{Agent, Found, Listing, Local, Stopping};
use crate::fleet::host::{Assigned, Assignment, Capacity, HostRecord, RECORD_VERSION};
use crate::fleet::id::{BootId, ContainerId, GitHubRunnerId, HostId, RunnerId, Term};
use crate::fleet::listener::JobResult;
use crate::fleet::pool::Scope;
use crate::fleet::reason::Refusal;
use crate::fleet::runner::{RunnerPhase, RunnerRecord, Seen};
use crate::fleet::time::Timestamp;
use crate::telemetry::metrics::Metrics;

/// GitHub's 422 stands this long before the same runner is asked about again.
const BUSY_BLOCKS: std::time::Duration = std::time::Duration::from_secs(600);
/// Ids remembered as spent: weeks of a busy host in a megabyte.
const SPENT_MAX: usize = 50_000;
/// A list asked for by events comes at most this often.
const LIST_SOON: std::time::Duration = std::time::Duration::from_secs(1);

/// What the loop knows, and what its tasks hold on to.
#[derive(Debug)]
pub struct State {
    metrics: Arc<Metrics>,
    pub agent: Agent,
    docker_version: Option<String>,
    /// The last list, until a turn has compared it.
    pub listing: Option<Listing>,
    /// The first list has been taken in.
    pub adopted: bool,
    /// Something changed since the last report.
    pub dirty: bool,
    /// The term of the assignment last read.
    pub term: Term,
    handles: HashMap<RunnerId, Handle>,
    settling: HashSet<RunnerId>,
    seq: u64,
    reported_at: Timestamp,
    list_at: Timestamp,
    listed_at: Timestamp,
    listing_now: bool,
    pub sweep_at: Timestamp,
    give_up_at: Option<Timestamp>,
    /// When the last task that changes containers ended.
    work_ended_at: Timestamp,
    /// The start of the last list that showed no container at all.
    empty_list_at: Option<Timestamp>,
}

/// What a runner's tasks share with the loop.
#[derive(Debug)]
struct Handle {
    cancel: CancellationToken,
    running: watch::Sender<bool>,
    /// Its output stream has ended while its container may live.
    output_ended: bool,
    /// What the listener said of its job.
    result: Option<JobResult>,
    /// How its container ended, by Docker's events.
    died: Option<i64>,
    out_of_memory: bool,
}

impl Handle {
    fn new() -> Self {
        Self {
            cancel: CancellationToken::new(),
            running: watch::Sender::new(false),
            output_ended: false,
            result: None,
            died: None,
            out_of_memory: false,
        }
    }
}

impl State {
    /// A fresh boot that knows nothing yet.
    #[must_use]
    pub fn new(host: &Host, id: HostId, boot: BootId) -> Self {
        let agent = Agent {
            host: id,
            boot,
            max_runners: host.max_runners,
            pools: host.pools.iter().map(|(n, pool)| (n.clone(), pool.image.clone())).collect(),
            images: BTreeSet::new(),
            docker_up: true,
            capacity: Capacity::default(),
            stopping: Stopping::No,
            local: BTreeMap::new(),
            refused: BTreeMap::new(),
            spent: BTreeSet::new(),
            discarding: BTreeMap::new(),
        };
        let now = host.clock.now();
        Self {
            metrics: host.metrics.clone(),
            agent,
            docker_version: None,
            listing: None,
            adopted: false,
            dirty: false,
            term: Term(0),
            handles: HashMap::new(),
            settling: HashSet::new(),
            seq: 0,
            reported_at: Timestamp(0),
            list_at: now,
            listed_at: now,
            listing_now: false,
            sweep_at: now + SWEEP_EVERY,
            give_up_at: None,
            work_ended_at: now,
            empty_list_at: None,
        }
    }

    /// Takes an assigned id on; it may start at once.
    pub fn accept(
        &mut self,
        assigned: Assigned,
        scope: Option<Scope>,
        now: Timestamp,
    ) -> Option<RunnerId> {
        let id = assigned.id;
        let phase = RunnerPhase::Accepted { since: now };
        let record = RunnerRecord {
            id,
            name: assigned.name,
            pool: assigned.pool,
            phase,
            container: None,
            github_id: None,
            assigned_at: assigned.at,
            listened_at: None,
            revision: assigned.revision,
            correlation: assigned.correlation,
            retiring: None,
            retire_blocked_until: None,
            adopted: false,
            scope,
        };
        self.insert(record, now);
        self.agent.spent.insert(id);
        Some(id)
    }

    fn insert(&mut self, record: RunnerRecord, now: Timestamp) {
        let id = record.id;
        let local = Local { record, work: None, end_reported: None, missing: 0, not_before: now };
        self.agent.local.insert(id, local);
        self.handles.insert(id, Handle::new());
        self.dirty = true;
    }

    /// Hands an assigned id back.
    pub fn refuse(&mut self, runner: RunnerId, refusal: Refusal) {
        info!(runner.id = %runner, refusal = refusal.code(), "handing an assignment back");
        self.agent.refused.insert(runner, refusal);
        self.dirty = true;
    }

    /// Takes a container on that was found alive.
    pub fn adopt(
        &mut self,
        found: &Found,
        correlation: String,
        now: Timestamp,
    ) -> watch::Sender<bool> {
        let record = RunnerRecord {
            id: found.runner,
            name: found.name.clone(),
            pool: found.pool.clone(),
            phase: RunnerPhase::Unknown { since: now },
            container: Some(found.id.clone()),
            github_id: None,
            assigned_at: now,
            listened_at: None,
            revision: String::new(),
            correlation,
            retiring: None,
            retire_blocked_until: None,
            adopted: true,
            scope: found.scope.clone(),
        };
        self.insert(record, now);
        self.agent.spent.insert(found.runner);
        self.handles[&found.runner].running.clone()
    }

    /// Moves a runner's phase. A move its life does not have is noted and ignored: it may
    /// come from a line that a job printed.
    pub fn seen(&mut self, runner: RunnerId, seen: Seen, now: Timestamp) {
        let Some(local) = self.agent.local.get_mut(&runner) else { return };
        let before = local.record.phase.clone();
        match before.clone().observe(seen, now) {
            Ok(phase) => {
                if phase != before {
                    info!(
                        runner.id = %runner, runner.name = %local.record.name,
                        pool = %local.record.pool, correlation = %local.record.correlation,
                        from = before.name(), phase = phase.name(), "runner moved on"
                    );
                    if matches!(phase, RunnerPhase::Listening { .. }) {
                        local.record.listened_at.get_or_insert(now);
                    }
                    local.record.phase = phase;
                    self.dirty = true;
                    let result = self.handles.get(&runner).and_then(|handle| handle.result);
                    measure::moved(&self.metrics, &local.record, &before, result, now);
                }
            }
            Err(illegal) => {
                warn!(runner.id = %runner, error = %illegal, "ignored what was seen of a runner");
            }
        }
    }

    pub fn container_is(&mut self, runner: RunnerId, container: ContainerId) {
        if let Some(local) = self.agent.local.get_mut(&runner) {
            local.record.container = Some(container);
        }
    }

    pub fn job_result(&mut self, runner: RunnerId, result: JobResult) {
        if let Some(handle) = self.handles.get_mut(&runner) {
            handle.result = Some(result);
        }
    }

    pub fn minted(&mut self, runner: RunnerId, github: GitHubRunnerId) {
        if let Some(local) = self.agent.local.get_mut(&runner) {
            local.record.github_id = Some(github);
        }
    }

    pub fn forget(&mut self, runner: RunnerId) {
        self.agent.local.remove(&runner);
        self.handles.remove(&runner);
        self.settling.remove(&runner);
        self.dirty = true;
    }

    /// Drops hand-backs that the leader's assignment no longer names. Spent ids stay: a
    /// store that was rolled back may name them again. They are time-ordered, so the
    /// oldest go first when there are too many.
    pub fn prune(&mut self, assignment: &Assignment) {
        let agent = &mut self.agent;
        agent.refused.retain(|id, _| assignment.runners.contains_key(id));
        while agent.spent.len() > SPENT_MAX {
            agent.spent.pop_first();
        }
    }

    pub fn images_are(&mut self, images: Vec<String>) {
        let images: BTreeSet<String> = images.into_iter().collect();
        if images != self.agent.images {
            self.agent.images = images;
            self.dirty = true;
        }
    }

    /// What the daemon says of itself and of its machine.
    pub fn daemon_is(&mut self, daemon: Daemon) {
        let said = |text: String| (!text.is_empty()).then_some(text);
        self.docker_version = said(daemon.version);
        self.agent.capacity = Capacity {
            // A daemon that does not say answers nought.
            cpus: Some(daemon.cpus).filter(|cpus| *cpus > 0),
            memory_bytes: Some(daemon.memory_bytes).filter(|bytes| *bytes > 0),
            disk_free_bytes: daemon.disk_free_bytes,
            architecture: said(daemon.architecture),
        };
    }

    /// Whether a report is due: something changed, or silence would look like death.
    #[must_use]
    pub fn report_due(&self, now: Timestamp) -> bool {
        self.dirty || now.since(self.reported_at) >= BEAT_EVERY
    }

    /// The report, as of now.
    pub fn report(&mut self, host: &Host, now: Timestamp) -> HostRecord {
        self.seq += 1;
        self.dirty = false;
        self.reported_at = now;
        for local in self.agent.local.values_mut() {
            if local.record.phase.is_terminal() {
                local.end_reported.get_or_insert(self.seq);
            }
        }
        HostRecord {
            version: RECORD_VERSION,
            host: self.agent.host,
            boot: self.agent.boot,
            replica: host.replica,
            seq: self.seq,
            at: now,
            hostname: host.hostname.clone(),
            docker_version: self.docker_version.clone(),
            docker_up: self.agent.docker_up,
            stopping: self.agent.stopping != Stopping::No,
            max_runners: self.agent.max_runners,
            images: self.agent.images.clone(),
            runners: self
                .agent
                .local
                .iter()
                .map(|(id, local)| (*id, local.record.clone()))
                .collect(),
            refused: self.agent.refused.clone(),
            capacity: self.agent.capacity.clone(),
        }
    }
}
