//! The leader's loop: view, plan, one fenced write. Decides nothing itself; the rule is
//! [`crate::fleet::plan`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{Pace, Wake};
use crate::clock::Clock;
use crate::election::Leadership;
use crate::fleet::digest::Digest;
use crate::fleet::id::{ClusterMark, PoolName, RunnerId};
use crate::fleet::intent::Operator;
use crate::fleet::ledger::Ledger;
use crate::fleet::plan::{Orphan, Plan, plan};
use crate::fleet::policy::Policy;
use crate::fleet::pool::Pool;
use crate::fleet::time::Timestamp;
use crate::fleet::view::View;
use crate::github::{Deregistered, GitHub};
use crate::store::{Commit, Snapshot, Store, StoreError, Topic};
use crate::telemetry::chain;
use crate::telemetry::metrics::{LoopName, Metrics, Outcome};

mod measure;

/// Deadlines are judged at least this often when nothing nudges.
const TURN_EVERY: Duration = Duration::from_secs(1);

/// The last view and what was decided from it: what the API shows.
#[derive(Clone, Debug)]
pub struct Published {
    pub at: Timestamp,
    pub view: View,
    pub plan: Plan,
    /// The term it was decided in; `None` while nobody leads.
    pub term: Option<u64>,
    /// What the last write to the store failed with.
    pub store_error: Option<String>,
}

/// What the leader's loop works with.
pub struct Lead {
    pub store: Arc<dyn Store>,
    pub github: Arc<dyn GitHub>,
    pub clock: Arc<dyn Clock>,
    pub cluster: ClusterMark,
    pub pools: BTreeMap<PoolName, Pool>,
    pub policy: Policy,
    pub ledger: Arc<Mutex<Ledger>>,
    pub leadership: watch::Receiver<Option<Leadership>>,
    pub published: watch::Sender<Arc<Published>>,
    /// Moves when the observe loop has learnt something.
    pub observed: watch::Receiver<u64>,
    /// Moved by us when a runner took a job: the observe loop reads the queue again.
    pub reread: watch::Sender<u64>,
    pub metrics: Arc<Metrics>,
    pub tracker: TaskTracker,
    /// One clean-up of registrations at a time.
    pub cleaning: Arc<Semaphore>,
}

impl std::fmt::Debug for Lead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lead").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Lead {
    /// Runs until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let mut pace = Pace::every(TURN_EVERY);
        let mut nudges = [
            self.store.changes(Topic::Hosts),
            self.store.changes(Topic::Intents),
            self.observed.clone(),
        ];
        while pace.next(&mut nudges, &cancel).await != Wake::Cancelled {
            let begun = tokio::time::Instant::now();
            self.turn().await;
            let now = self.clock.now();
            self.metrics.loop_turn(LoopName::Lead, Outcome::Ok, begun.elapsed(), now);
        }
    }

    /// One turn: everything is read anew.
    async fn turn(&self) {
        let now = self.clock.now();
        let snapshot = match self.store.snapshot().await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                warn!(error = %error, "could not read the store");
                self.publish_error(&error);
                return;
            }
        };
        let leadership = self.leadership.borrow().clone().filter(Leadership::holds);
        let Some(leadership) = leadership else {
            self.follow(snapshot, now);
            return;
        };
        let view = self.view(snapshot, now);
        let mut fresh = || RunnerId(self.clock.ordered_id());
        let decided = plan(&view, &self.policy, &mut fresh, now);
        let term = leadership.term();
        let revision = view.operator.revision + 1;
        let commit = Commit {
            assignments: decided.assignments(&view, term),
            operator: decided.operator.clone().map(|operator| Operator { revision, ..operator }),
            outcomes: decided.outcomes.clone(),
        };
        let error = if decided.is_empty() {
            None
        } else {
            match self.store.commit(&leadership, commit).await {
                Ok(()) => {
                    self.tell(&decided);
                    decided.remember(&mut self.ledger(), now);
                    self.clean_up(decided.deregister.clone());
                    None
                }
                Err(StoreError::Superseded { ours, current }) => {
                    info!(ours = %ours, current = %current, "another leader has taken over");
                    return;
                }
                Err(error) => {
                    warn!(error = %error, "could not write the plan");
                    Some(error.to_string())
                }
            }
        };
        if error.is_none() {
            self.tell_others(&leadership, now, &view, &decided).await;
        }
        self.publish(now, view, decided, Some(term.0), error);
    }

    /// Leaves what this turn knew and decided for the replicas that do not lead.
    async fn tell_others(&self, leader: &Leadership, now: Timestamp, view: &View, plan: &Plan) {
        if !self.store.health().borrow().shared {
            return;
        }
        let (ledger, budget) = (view.ledger.clone(), view.budget.clone());
        let digest = Digest::new(now, leader.term(), ledger, plan.clone(), budget);
        if let Err(error) = self.store.publish(leader, digest).await {
            warn!(error = %error, "could not publish this turn");
        }
    }

    /// While another replica leads: its last turn, with what the store says now.
    fn follow(&self, snapshot: Snapshot, now: Timestamp) {
        let digest = snapshot.digest.clone();
        let (ledger, plan, budget) = match digest.as_deref() {
            Some(told) => (told.ledger.clone(), told.plan.clone(), told.budget.clone()),
            None => (Ledger::default(), Plan::default(), self.github.budget()),
        };
        let term = snapshot.leader.map(|(_, term)| term.0);
        let view = View {
            cluster: self.cluster.clone(),
            pools: self.pools.clone(),
            hosts: snapshot.hosts,
            assignments: snapshot.assignments,
            operator: snapshot.operator,
            intents: snapshot.intents,
            ledger,
            budget,
        };
        self.publish(now, view, plan, term, None);
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self, snapshot: Snapshot, now: Timestamp) -> View {
        let mut ledger = self.ledger();
        let edges_before = ledger.demand.edge_count();
        ledger.absorb_hosts(&snapshot.hosts, &snapshot.operator, &self.policy, now);
        if ledger.demand.edge_count() > edges_before {
            self.reread.send_modify(|count| *count += 1);
        }
        ledger.demand.settle(&self.pools, now);
        ledger.mark_unassigned(&self.pools, &snapshot.hosts, &self.policy, now);
        View {
            cluster: self.cluster.clone(),
            pools: self.pools.clone(),
            hosts: snapshot.hosts,
            assignments: snapshot.assignments,
            operator: snapshot.operator,
            intents: snapshot.intents,
            ledger: ledger.clone(),
            budget: self.github.budget(),
        }
    }

    /// Says what was decided: one line and one count for each decision.
    fn tell(&self, decided: &Plan) {
        for placement in &decided.place {
            let assigned = &placement.assigned;
            self.metrics.decision(&assigned.pool, assigned.reason.code());
            info!(
                runner.id = %assigned.id, runner.name = %assigned.name, pool = %assigned.pool,
                host.id = %placement.host, correlation = %assigned.correlation,
                reason = assigned.reason.code(), detail = %assigned.reason, "assigning runner"
            );
        }
        for order in &decided.retire {
            let reason = &order.retirement.reason;
            self.metrics.decision(&order.pool, reason.code());
            info!(
                runner.id = %order.runner, pool = %order.pool, host.id = %order.host,
                correlation = %order.runner.tail(), reason = reason.code(), detail = %reason,
                "retiring runner"
            );
        }
        for release in decided.release.iter().filter(|release| release.reason.is_some()) {
            if let Some(reason) = &release.reason {
                warn!(
                    runner.id = %release.runner, host.id = %release.host, reason = reason.code(),
                    correlation = %release.runner.tail(), detail = %reason,
                    "taking an assignment back"
                );
            }
        }
    }

    /// Deletes registrations that nobody claims, beside the loop: a turn never waits for
    /// GitHub. One clean-up at a time; what it does not get to is found again next turn.
    fn clean_up(&self, orphans: Vec<Orphan>) {
        if orphans.is_empty() {
            return;
        }
        let Ok(only_one) = self.cleaning.clone().try_acquire_owned() else { return };
        let (github, ledger) = (self.github.clone(), self.ledger.clone());
        self.tracker.spawn(async move {
            deregister(github.as_ref(), &ledger, &orphans).await;
            drop(only_one);
        });
    }

    fn publish(
        &self,
        at: Timestamp,
        view: View,
        plan: Plan,
        term: Option<u64>,
        store_error: Option<String>,
    ) {
        measure::pools(&self.metrics, &view, &plan, at);
        self.published.send_replace(Arc::new(Published { at, view, plan, term, store_error }));
    }

    fn publish_error(&self, error: &StoreError) {
        self.published.send_modify(|last| {
            let mut next = Published::clone(last);
            next.store_error = Some(error.to_string());
            *last = Arc::new(next);
        });
    }
}

async fn deregister(github: &dyn GitHub, ledger: &Mutex<Ledger>, orphans: &[Orphan]) {
    for orphan in orphans {
        match github.deregister(&orphan.scope, orphan.id).await {
            Ok(Deregistered::Deleted | Deregistered::Absent) => {
                info!(runner.name = %orphan.name, "deleted a registration nobody claimed");
                let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                ledger.registrations.forget(&orphan.name);
            }
            Ok(Deregistered::Busy) => {
                info!(runner.name = %orphan.name, "an unclaimed registration is busy; left");
                put_off(ledger, orphan);
            }
            Err(error) => {
                warn!(runner.name = %orphan.name, error = %chain(&error),
                    "could not delete an unclaimed registration");
                put_off(ledger, orphan);
            }
        }
    }
}

/// It must be seen unclaimed anew before it is tried again.
fn put_off(ledger: &Mutex<Ledger>, orphan: &Orphan) {
    ledger.lock().unwrap_or_else(PoisonError::into_inner).registrations.put_off(&orphan.name);
}
