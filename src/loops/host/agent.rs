//! The agent's loop: one task that owns the state. What waits for Docker or GitHub runs
//! beside it and comes back as an [`Event`].

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::remove::RetireEnd;
use super::state::State;
use super::{Event, Host, Limits, boot, follow, remove, start};
use crate::election::Agency;
use crate::fleet::converge::{Action, Stopping, converge};
use crate::fleet::host::Assignment;
use crate::fleet::id::{ContainerId, RunnerId};
use crate::fleet::reason::Reason;
use crate::fleet::runner::Seen;
use crate::fleet::time::Timestamp;
use crate::store::Topic;
use crate::telemetry::metrics::{LoopName, Outcome};

const TURN_EVERY: Duration = Duration::from_millis(500);
/// Leftover volumes and networks are looked for this often.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(300);

/// The loop proper.
pub(super) struct AgentLoop {
    pub(super) host: Host,
    pub(super) state: State,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) limits: Limits,
    pub(super) assignment: Option<(Assignment, Timestamp)>,
    pub(super) agency: watch::Receiver<Option<Agency>>,
}

impl AgentLoop {
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Event>, cancel: CancellationToken) {
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
        let Some(agency) = self.agency.borrow().clone() else { return };
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
