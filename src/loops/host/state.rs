//! The agent's state and its changes. Nothing here waits; what is decided from it is
//! [`crate::fleet::converge`].

mod exit;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::remove::{ReapOrder, RetireOrder};
use super::start::StartOrder;
use super::{
    BEAT_EVERY, Host, LIST_EVERY, RETRY_AFTER, RetireEnd, SWEEP_EVERY, Shutdown, StartEnd,
};
use crate::fleet::converge::{Agent, Found, Listing, Local, Stopping, Work};
use crate::fleet::host::{Assigned, Assignment, HostRecord, RECORD_VERSION};
use crate::fleet::id::{BootId, ContainerId, GitHubRunnerId, HostId, RunnerId, Term};
use crate::fleet::reason::{Reason, Refusal};
use crate::fleet::runner::{RunnerPhase, RunnerRecord, Seen};
use crate::fleet::time::Timestamp;

/// GitHub's 422 stands this long before the same runner is asked about again.
const BUSY_BLOCKS: std::time::Duration = std::time::Duration::from_secs(600);
/// A list asked for by events comes at most this often.
const LIST_SOON: std::time::Duration = std::time::Duration::from_secs(1);

/// What the loop knows, and what its tasks hold on to.
#[derive(Debug)]
pub struct State {
    pub agent: Agent,
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
    discarding: HashSet<ContainerId>,
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
            stopping: Stopping::No,
            local: BTreeMap::new(),
            refused: BTreeMap::new(),
            spent: BTreeSet::new(),
        };
        let now = host.clock.now();
        Self {
            agent,
            listing: None,
            adopted: false,
            dirty: false,
            term: Term(0),
            handles: HashMap::new(),
            settling: HashSet::new(),
            discarding: HashSet::new(),
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
    pub fn accept(&mut self, assigned: Assigned, now: Timestamp) -> Option<RunnerId> {
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

    pub fn minted(&mut self, runner: RunnerId, github: GitHubRunnerId) {
        if let Some(local) = self.agent.local.get_mut(&runner) {
            local.record.github_id = Some(github);
        }
    }

    /// Marks a start as under way and says what it needs to know.
    pub fn begin_start(&mut self, runner: RunnerId) -> Option<StartOrder> {
        if self.agent.stopping != Stopping::No {
            return None;
        }
        let (host, boot) = (self.agent.host, self.agent.boot);
        let local = self.agent.local.get_mut(&runner)?;
        let handle = self.handles.get(&runner)?;
        if local.work.is_some() || !matches!(local.record.phase, RunnerPhase::Accepted { .. }) {
            return None;
        }
        local.work = Some(Work::Starting);
        Some(StartOrder {
            runner,
            name: local.record.name.clone(),
            pool: local.record.pool.clone(),
            host,
            boot,
            term: self.term.0,
            correlation: local.record.correlation.clone(),
            cancel: handle.cancel.clone(),
            running: handle.running.clone(),
        })
    }

    pub fn cancel_start(&mut self, runner: RunnerId, reason: Reason) {
        if let (Some(local), Some(handle)) =
            (self.agent.local.get_mut(&runner), self.handles.get(&runner))
        {
            local.record.retiring = Some(reason);
            handle.cancel.cancel();
            self.dirty = true;
        }
    }

    pub fn start_ended(&mut self, runner: RunnerId, end: Option<StartEnd>, now: Timestamp) {
        self.work_ended_at = now;
        let Some(local) = self.agent.local.get_mut(&runner) else { return };
        local.work = None;
        local.not_before = now + RETRY_AFTER;
        let seen = match end {
            None => {
                // A cancellation that came too late: the usual way of removal takes over.
                local.not_before = now;
                local.record.retiring = None;
                return;
            }
            Some(StartEnd::Failed(failure)) => Seen::Failed(failure),
            Some(StartEnd::Cancelled) => {
                let reason = local.record.retiring.clone().unwrap_or(Reason::NeverStarted);
                Seen::Removed(reason)
            }
        };
        self.seen(runner, seen, now);
    }

    /// Marks a removal as under way and says what it needs to know.
    pub fn begin_retire(
        &mut self,
        runner: RunnerId,
        reason: Reason,
        force: bool,
    ) -> Option<RetireOrder> {
        let local = self.agent.local.get_mut(&runner)?;
        let handle = self.handles.get(&runner)?;
        local.work = Some(Work::Retiring);
        local.record.retiring = Some(reason.clone());
        self.dirty = true;
        Some(RetireOrder {
            runner,
            name: local.record.name.clone(),
            pool: local.record.pool.clone(),
            container: local.record.container.clone(),
            github_id: local.record.github_id,
            may_hold_registration: local.record.phase.may_hold_registration(),
            reason,
            force,
            running: handle.running.subscribe(),
        })
    }

    pub fn retire_ended(&mut self, runner: RunnerId, end: RetireEnd, now: Timestamp) {
        self.work_ended_at = now;
        let Some(local) = self.agent.local.get_mut(&runner) else { return };
        local.work = None;
        self.dirty = true;
        match end {
            RetireEnd::Removed => return,
            RetireEnd::Busy => local.record.retire_blocked_until = Some(now + BUSY_BLOCKS),
            RetireEnd::TookAJob => {}
            RetireEnd::NotNow => local.not_before = now + RETRY_AFTER,
        }
        local.record.retiring = None;
        info!(runner.id = %runner, outcome = ?end, "runner stays");
    }

    /// Marks an exit as being looked into.
    pub fn begin_settling(&mut self, runner: RunnerId) -> Option<ContainerId> {
        let local = self.agent.local.get(&runner)?;
        let being_removed = matches!(local.work, Some(Work::Retiring | Work::Reaping));
        let starting = local.work == Some(Work::Starting);
        if local.record.phase.is_terminal() || being_removed || starting {
            return None;
        }
        let container = local.record.container.clone()?;
        self.settling.insert(runner).then_some(container)
    }

    pub fn settling_ended(&mut self, runner: RunnerId) {
        self.settling.remove(&runner);
    }

    /// The container exited: the runner's life is over, its container is to be removed.
    pub fn exited(
        &mut self,
        runner: RunnerId,
        code: i64,
        oom: bool,
        now: Timestamp,
    ) -> Option<ReapOrder> {
        self.settling.remove(&runner);
        let local = self.agent.local.get(&runner)?;
        if local.record.phase.is_terminal() || local.work.is_some() {
            return None;
        }
        let ran_job = matches!(local.record.phase, RunnerPhase::Running { .. });
        self.seen(runner, Seen::Exited { code, oom }, now);
        let local = self.agent.local.get_mut(&runner)?;
        local.work = Some(Work::Reaping);
        Some(ReapOrder {
            runner,
            name: local.record.name.clone(),
            pool: local.record.pool.clone(),
            container: local.record.container.clone()?,
            github_id: local.record.github_id,
            ran_job,
        })
    }

    pub fn reap_ended(&mut self, runner: RunnerId, result: Result<(), String>, now: Timestamp) {
        self.work_ended_at = now;
        if let Some(local) = self.agent.local.get_mut(&runner) {
            local.work = None;
            if let Err(error) = result {
                warn!(runner.id = %runner, error, "an ended runner's container stays for now");
                local.not_before = now + RETRY_AFTER;
            }
        }
    }

    pub fn begin_discard(&mut self, container: &ContainerId) -> bool {
        self.discarding.insert(container.clone())
    }

    pub fn discard_ended(&mut self, container: &ContainerId, now: Timestamp) {
        self.work_ended_at = now;
        self.discarding.remove(container);
    }

    pub fn forget(&mut self, runner: RunnerId) {
        self.agent.local.remove(&runner);
        self.handles.remove(&runner);
        self.settling.remove(&runner);
        self.dirty = true;
    }

    /// Drops what the leader's assignment no longer names: hand-backs that were taken in,
    /// and spent ids that cannot come again.
    pub fn prune(&mut self, assignment: &Assignment) {
        let agent = &mut self.agent;
        agent.refused.retain(|id, _| assignment.runners.contains_key(id));
        agent
            .spent
            .retain(|id| agent.local.contains_key(id) || assignment.runners.contains_key(id));
    }

    /// Begins to stop: by draining or by leaving everything as it is.
    pub fn stop(&mut self, shutdown: Shutdown, now: Timestamp) {
        self.agent.stopping = if shutdown.drain { Stopping::Drain } else { Stopping::Detach };
        self.give_up_at = Some(now + shutdown.timeout);
        // Only a list from now on proves that nothing is left.
        self.work_ended_at = now;
        self.listed_at = Timestamp(0);
        self.dirty = true;
    }

    /// Whether the loop may end: nothing is under way and, when draining, Docker itself has
    /// said since that no container is left, or the time for it is over.
    #[must_use]
    pub fn may_stop(&self, now: Timestamp) -> bool {
        let Some(give_up_at) = self.give_up_at else { return false };
        let working = self.agent.local.values().any(|local| local.work.is_some());
        let living = self.agent.local.values().any(|local| !local.record.phase.is_terminal());
        match self.agent.stopping {
            Stopping::No => false,
            Stopping::Detach => !working || now >= give_up_at,
            Stopping::Drain => {
                let empty = self.empty_list_at.is_some_and(|at| at >= self.work_ended_at);
                (!working && !living && empty) || now >= give_up_at
            }
        }
    }

    /// Whether a list is due.
    #[must_use]
    pub fn list_due(&self, now: Timestamp) -> bool {
        let look_again = self.agent.stopping == Stopping::Drain
            && self.empty_list_at.is_none_or(|at| at < self.work_ended_at)
            && now >= self.listed_at + LIST_SOON;
        !self.listing_now && (now >= self.list_at || look_again)
    }

    pub fn listing_begun(&mut self, now: Timestamp) {
        self.listing_now = true;
        self.listed_at = now;
        self.list_at = now + LIST_EVERY;
    }

    /// Asks for a list before the timer's.
    pub fn list_soon(&mut self, now: Timestamp) {
        self.list_at = self.list_at.min(now + LIST_SOON);
    }

    /// Takes a list in. Returns living runners whose output must be followed anew.
    pub fn listed(
        &mut self,
        result: Result<Listing, String>,
        now: Timestamp,
    ) -> Vec<(RunnerId, ContainerId, watch::Sender<bool>)> {
        self.listing_now = false;
        let listing = match result {
            Ok(listing) => listing,
            Err(error) => {
                if std::mem::replace(&mut self.agent.docker_up, false) {
                    warn!(error, "docker does not answer; nothing new is started here");
                    self.dirty = true;
                }
                self.list_soon(now);
                return Vec::new();
            }
        };
        if !std::mem::replace(&mut self.agent.docker_up, true) {
            info!("docker answers again");
            self.dirty = true;
        }
        let present: HashMap<RunnerId, &Found> =
            listing.containers.iter().map(|found| (found.runner, found)).collect();
        let mut refollow = Vec::new();
        for (id, local) in &mut self.agent.local {
            let alive = present
                .get(id)
                .is_some_and(|f| f.state == crate::fleet::converge::FoundState::Alive);
            if present.contains_key(id) {
                local.missing = 0;
            } else if local.record.phase.since() < listing.begun_at {
                local.missing = local.missing.saturating_add(1);
            }
            if let (Some(handle), Some(container)) =
                (self.handles.get_mut(id), local.record.container.clone())
                && alive
                && handle.output_ended
                && !self.settling.contains(id)
                && !local.record.phase.is_terminal()
            {
                handle.output_ended = false;
                refollow.push((*id, container, handle.running.clone()));
            }
        }
        self.empty_list_at =
            listing.containers.is_empty().then_some(listing.begun_at).or(self.empty_list_at);
        self.listing = Some(listing);
        if !std::mem::replace(&mut self.adopted, true) {
            self.dirty = true;
        }
        refollow
    }

    pub fn images_are(&mut self, images: Vec<String>) {
        let images: BTreeSet<String> = images.into_iter().collect();
        if images != self.agent.images {
            self.agent.images = images;
            self.dirty = true;
        }
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
            docker_version: None,
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
        }
    }
}
