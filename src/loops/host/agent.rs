//! The agent's loop: one task that owns the state. What waits for Docker or GitHub runs
//! beside it and comes back as an [`Event`].

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::remove::RetireEnd;
use super::rights::Right;
use super::state::State;
use super::{Event, Host, Left, Limits, boot, follow, remove, start};
use crate::election::LEASE_TTL;
use crate::fleet::converge::{Action, FoundState, Stopping, converge};
use crate::fleet::host::Assignment;
use crate::fleet::id::{ContainerId, PoolName, RunnerId, Term};
use crate::fleet::pool::Scope;
use crate::fleet::reason::Reason;
use crate::fleet::runner::Seen;
use crate::fleet::time::Timestamp;
use crate::store::{Lease, LeaseKey, Topic};
use crate::telemetry::metrics::{LoopName, Outcome};

const TURN_EVERY: Duration = Duration::from_millis(500);
/// Without a hint that it changed the assignment is read this often: hints can be lost.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Leftover volumes and networks are looked for this often.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(300);

/// The loop proper.
pub(super) struct AgentLoop {
    host: Host,
    state: State,
    events: mpsc::Sender<Event>,
    limits: Limits,
    assignment: Option<(Assignment, Timestamp)>,
    /// When it was last asked for.
    asked_at: Option<Instant>,
    /// It may have changed since.
    hinted: bool,
    /// What this boot may do in the present turn.
    right: Right,
    /// The store answered in the last turn.
    store_answers: bool,
    leave: Option<Left>,
}

impl AgentLoop {
    pub(super) fn new(
        host: Host,
        state: State,
        events: mpsc::Sender<Event>,
        limits: Limits,
    ) -> Self {
        Self {
            host,
            state,
            events,
            limits,
            assignment: None,
            asked_at: None,
            hinted: true,
            right: Right::Everything,
            store_answers: true,
            leave: None,
        }
    }

    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Event>,
        cancel: CancellationToken,
    ) -> Left {
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
                Ok(()) = changes.changed() => self.hinted = true,
                _ = ticks.tick() => (),
            }
            let begun = tokio::time::Instant::now();
            self.reconsider().await;
            if let Some(left) = self.leave {
                info!(host.id = %self.state.agent.host, boot = %self.state.agent.boot,
                    "not this docker host's agent any more; what runs there is left alone");
                return left;
            }
            self.turn().await;
            let now = self.host.clock.now();
            self.host.metrics.loop_turn(LoopName::Host, Outcome::Ok, begun.elapsed(), now);
            if self.state.may_stop(self.host.clock.now()) {
                self.report().await;
                return Left::Stopped { quiet: !self.state.is_working() };
            }
        }
    }

    /// What this boot may still do. Costs nothing while it holds the lease.
    async fn reconsider(&mut self) {
        let before = self.right;
        self.right = self.limits.rights.now().await;
        if self.right != before {
            info!(before = ?before, now = ?self.right, "this agent's rights have changed");
        }
        let superseded = match self.right {
            Right::Everything => false,
            Right::Nothing => true,
            // The marker says nothing of an agent on another daemon with the same identity.
            Right::Care | Right::Watch => self.store_answers && self.is_another_s().await,
        };
        if superseded {
            self.leave.get_or_insert(Left::Superseded);
        }
    }

    /// Whether another replica holds this host's lease. Asked with a term that nobody
    /// has, which changes nothing.
    async fn is_another_s(&self) -> bool {
        let lease = LeaseKey::Agent(self.state.agent.host);
        let own = self.host.replica;
        let answer = self.host.store.renew(lease, own, Term(0), LEASE_TTL).await;
        matches!(answer, Ok(Lease::HeldBy { replica, .. }) if replica != own)
    }

    /// Whether the action may be carried out. What is passed over now is found again by
    /// the next list or turn.
    fn may(&self, action: &Action) -> bool {
        match action {
            Action::Accept(_)
            | Action::Refuse { .. }
            | Action::Start(_)
            | Action::CancelStart { .. }
            | Action::Retire { .. } => self.right == Right::Everything,
            Action::Reap(_) => matches!(self.right, Right::Everything | Right::Care),
            Action::Discard(found) => match self.right {
                Right::Everything => true,
                Right::Care => found.state == FoundState::Exited,
                Right::Watch | Right::Nothing => false,
            },
            Action::Adopt(_) | Action::ReportLost(_) | Action::Forget(_) => true,
        }
    }

    fn begin_stopping(&mut self) {
        let shutdown = self.host.shutdown;
        let now = self.host.clock.now();
        self.state.stop(shutdown, now);
        if !shutdown.drain {
            // Starts that wait for their turn are left to the next agent.
            self.limits.starts.close();
        }
        info!(drain = shutdown.drain, "host loop is stopping");
    }

    /// One turn: assignment against records against containers.
    async fn turn(&mut self) {
        let now = self.host.clock.now();
        if self.reading_due() {
            self.read_assignment(now).await;
        }
        if self.state.list_due(now) {
            self.list();
        }
        // Before the first list nobody knows what runs here already.
        if !self.state.adopted {
            return;
        }
        if let Some((assignment, read_at)) = self.assignment.take() {
            let listing = self.state.listing.take();
            self.state.term = assignment.term;
            self.limits.frozen.store(assignment.frozen, Ordering::Relaxed);
            let agent = &self.state.agent;
            let mut actions = converge(agent, &assignment, read_at, listing.as_ref(), now);
            actions.retain(|action| self.may(action));
            let starting: Vec<_> =
                actions.into_iter().filter_map(|a| self.act(a, &assignment)).collect();
            for id in starting {
                self.start(id);
            }
            self.state.prune(&assignment);
            self.assignment = Some((assignment, read_at));
        }
        let at_rest = self.state.agent.stopping == Stopping::No && self.right == Right::Everything;
        if now >= self.state.sweep_at && at_rest {
            self.state.sweep_at = now + SWEEP_EVERY;
            self.host.tracker.spawn(remove::sweep(self.host.clone()));
        }
        if self.state.report_due(now) {
            self.report().await;
        }
    }

    /// An event of our own changes nothing in the store.
    fn reading_due(&self) -> bool {
        let old = self.asked_at.is_none_or(|at| at.elapsed() >= READ_EVERY);
        self.hinted || !self.store_answers || old
    }

    async fn read_assignment(&mut self, now: Timestamp) {
        self.hinted = false;
        self.asked_at = Some(Instant::now());
        match self.host.store.assignment(self.state.agent.host).await {
            Ok(assignment) => {
                self.assignment = Some((assignment, now));
                self.store_answers = true;
            }
            Err(error) => {
                if std::mem::replace(&mut self.store_answers, false) {
                    warn!(error = %error, "could not read this host's assignment");
                }
            }
        }
    }

    /// Carries one action out. Returns an id that may be started at once.
    fn act(&mut self, action: Action, assignment: &Assignment) -> Option<RunnerId> {
        let now = self.host.clock.now();
        match action {
            Action::Accept(assigned) => {
                let scope = self.host.pools.get(&assigned.pool).map(|pool| pool.scope.clone());
                return self.state.accept(*assigned, scope, now);
            }
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
                if self.state.begin_discard(&found) {
                    let scope = self.scope(&found.pool, found.scope.as_ref());
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
        let Some(scope) = self.scope(&order.pool, order.scope.as_ref()) else {
            // Without its scope GitHub cannot be asked.
            warn!(runner.id = %runner, pool = %order.pool, "its pool is no longer configured");
            self.state.retire_ended(runner, RetireEnd::NotNow, self.host.clock.now());
            return;
        };
        let events = self.events.clone();
        self.host.tracker.spawn(remove::retire(self.host.clone(), order, scope, events));
    }

    /// Where a runner is registered: as its container says, or else as its pool does.
    fn scope(&self, pool: &PoolName, told: Option<&Scope>) -> Option<Scope> {
        let configured = || self.host.pools.get(pool).map(|pool| pool.scope.clone());
        told.cloned().or_else(configured)
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
        let Some(agency) = self.limits.rights.agency() else { return };
        let record = self.state.report(&self.host, now);
        if let Err(error) = self.host.store.report(&agency, record).await {
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
            Event::Capacity(daemon) => self.state.daemon_is(*daemon),
            Event::EventStream => self.state.list_soon(now),
            Event::Leave(left) => self.leave = Some(left),
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
        let scope = self.scope(&order.pool, order.scope.as_ref());
        let events = self.events.clone();
        self.host.tracker.spawn(remove::reap(self.host.clone(), order, scope, events));
    }
}
