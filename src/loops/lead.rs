//! The leader's loop: view, plan, one fenced write. Decides nothing itself; the rule is
//! [`crate::fleet::plan`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{Pace, Wake, another_term};
use crate::clock::Clock;
use crate::election::{Leadership, Vitals};
use crate::fleet::id::{ClusterMark, PoolName, RunnerId, Term};
use crate::fleet::intent::Operator;
use crate::fleet::ledger::Ledger;
use crate::fleet::plan::{Plan, plan};
use crate::fleet::policy::Policy;
use crate::fleet::pool::Pool;
use crate::fleet::rebuild::{Look, StoreMemory};
use crate::fleet::replica::Succession;
use crate::fleet::time::Timestamp;
use crate::fleet::view::View;
use crate::github::GitHub;
use crate::store::{Commit, Snapshot, Store, StoreError, Topic};
use crate::telemetry::metrics::{LoopName, Metrics, Outcome};

mod absence;
mod clean_up;
mod measure;
mod tell;

use absence::Absence;
pub use tell::Listeners;
use tell::Told;

/// Deadlines are judged at least this often when nothing nudges.
const TURN_EVERY: Duration = Duration::from_secs(1);

/// The last view and what was decided from it: what the API shows.
#[derive(Clone, Debug)]
pub struct Published {
    pub at: Timestamp,
    pub view: View,
    pub plan: Arc<Plan>,
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
    pub pools: Arc<BTreeMap<PoolName, Pool>>,
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
    /// Shown by every turn: without it this replica does not lead.
    pub vitals: Vitals,
    pub listeners: Listeners,
}

/// What is kept from turn to turn beside the ledger.
#[derive(Debug, Default)]
struct Known {
    /// The term of the last turn, whether it still held or not.
    term: Option<Term>,
    /// The last term in which this loop has looked at the store as the leader.
    begun: Option<Term>,
    store: StoreMemory,
    absence: Absence,
    succession: Succession,
    told: Told,
}

/// What became of a plan.
enum Written {
    Done,
    Failed(String),
    /// Another leader has taken over: what was seen is of no use any more.
    Superseded,
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
        let mut leadership = self.leadership.clone();
        let mut known = Known::default();
        loop {
            let wake = tokio::select! { biased;
                wake = pace.next(&mut nudges, &cancel) => wake,
                () = another_term(&mut leadership, known.term) => Wake::Nudge,
            };
            if wake == Wake::Cancelled {
                return;
            }
            let begun = tokio::time::Instant::now();
            self.vitals.beat();
            self.turn(&mut known).await;
            self.vitals.beat();
            let now = self.clock.now();
            self.metrics.loop_turn(LoopName::Lead, Outcome::Ok, begun.elapsed(), now);
        }
    }

    /// One turn: everything is read anew.
    async fn turn(&self, known: &mut Known) {
        let now = self.clock.now();
        known.term = self.leadership.borrow().as_ref().map(Leadership::term);
        let leads = self.leadership.borrow().as_ref().is_some_and(Leadership::holds);
        if !leads {
            self.metrics.leading(false);
        }
        let mut snapshot = match self.store.snapshot().await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                warn!(error = %error, "could not read the store");
                known.absence.failed();
                self.publish_error(&error);
                return;
            }
        };
        self.vitals.beat();
        known.succession.look(snapshot.leader.map(|(leader, _)| leader), snapshot.at);
        let leave = known.succession.not_to_lead(&snapshot.replicas, &snapshot.operator);
        self.vitals.leave_leading(leave);
        // A lease that came while the store was read: the turn that follows at once reads what
        // the leader before had still written.
        let reads_for = |leader: &Leadership| Some(leader.term()) == known.term;
        let leadership = self.leadership.borrow().clone().filter(|it| it.holds() && reads_for(it));
        let setback = self.look(known, &mut snapshot, leadership.as_ref(), now).await;
        let Some(leadership) = leadership else {
            self.follow(snapshot, now);
            return;
        };
        let replicas = snapshot.replicas.clone();
        let view = self.view(known, snapshot, setback, now);
        let mut fresh = || RunnerId(self.clock.ordered_id());
        let decided = plan(&view, &self.policy, &mut fresh, now);
        let error = match self.write(&mut known.store, &leadership, &view, &decided, now).await {
            Written::Done => {
                if let Some(operator) = &decided.operator {
                    self.vitals.leave_leading(known.succession.not_to_lead(&replicas, operator));
                }
                None
            }
            Written::Failed(problem) => {
                known.absence.failed();
                Some(problem)
            }
            Written::Superseded => return,
        };
        let written = error.is_none();
        let term = Some(leadership.term().0);
        let plan = Arc::new(decided);
        let turn = Arc::new(Published { at: now, view, plan, term, store_error: error });
        if written && !self.tell_others(&mut known.told, &leadership, &turn).await {
            known.absence.untold();
        }
        self.listeners.tell(&turn);
        measure::pools(&self.metrics, &turn.view, &turn.plan, turn.at);
        // Not before there is something of this leader's own to show, and not after it has
        // given the lead up meanwhile.
        let leads = self.leadership.borrow().as_ref().is_some_and(Leadership::holds);
        self.metrics.leading(leads);
        self.published.send_replace(turn);
    }

    /// Compares the store with what this replica has seen of it before, and writes the
    /// operator state back if the store has lost it. Whether the store has lost its state.
    async fn look(
        &self,
        known: &mut Known,
        snapshot: &mut Snapshot,
        leadership: Option<&Leadership>,
        now: Timestamp,
    ) -> bool {
        let term = leadership.map(Leadership::term);
        // The observe loop may have begun the term's ledger already.
        let begins = term.is_some() && known.begun != term;
        if let Some(term) = term {
            self.ledger().begin_term(term);
            known.begun = Some(term);
        }
        if begins || leadership.is_none() {
            known.absence = Absence::default();
        }
        let look = Look {
            incarnation: snapshot.incarnation,
            hosts: &snapshot.hosts,
            assignments: &snapshot.assignments,
            withheld: &snapshot.withheld.hosts,
            operator: &snapshot.operator,
            untouched: begins && snapshot.digest.is_none(),
            now,
        };
        let owed = known.store.owed(&snapshot.operator).cloned();
        let setback = known.store.look(look, &self.policy);
        if setback {
            warn!("the store was emptied or went back; hosts are waited for before anything");
        }
        if let Some(operator) = owed {
            match self.store.restore(&operator).await {
                Ok(()) => info!(revision = operator.revision, "wrote the operator state back"),
                Err(error) => warn!(error = %error, "could not write the operator state back"),
            }
            snapshot.operator = operator;
        }
        setback
    }

    /// Writes what was decided.
    async fn write(
        &self,
        memory: &mut StoreMemory,
        leadership: &Leadership,
        view: &View,
        decided: &Plan,
        now: Timestamp,
    ) -> Written {
        let revision = view.operator.revision + 1;
        let commit = Commit {
            assignments: decided.assignments(view, leadership.term()),
            operator: decided.operator.clone().map(|operator| Operator { revision, ..operator }),
            outcomes: decided.outcomes.clone(),
        };
        let revisions = commit.assignments.iter().map(|(host, it)| (*host, it.revision)).collect();
        let operator = commit.operator.clone();
        let written = if decided.is_empty() {
            Ok(())
        } else if leadership.holds() {
            self.store.commit(leadership, commit).await
        } else {
            info!(ours = %leadership.term(), "the lease ran out before the plan was written");
            return Written::Superseded;
        };
        if written.is_ok() {
            memory.wrote(&revisions, operator.as_ref());
            tell::decisions(&self.metrics, decided);
            decided.remember(&mut self.ledger(), now);
            self.clean_up(leadership.clone(), decided.deregister.clone());
        }
        match written {
            Ok(()) => Written::Done,
            Err(StoreError::Superseded { ours, current }) => {
                info!(ours = %ours, current = %current, "another leader has taken over");
                Written::Superseded
            }
            Err(error) => {
                warn!(error = %error, "could not write the plan");
                Written::Failed(error.to_string())
            }
        }
    }

    /// While another replica leads: its last turn, with what the store says now.
    fn follow(&self, snapshot: Snapshot, now: Timestamp) {
        let digest = snapshot.digest.clone();
        let (ledger, plan, budget) = match digest.as_deref() {
            Some(told) => (told.ledger.clone(), told.plan.clone(), told.budget.clone()),
            None => (Arc::default(), Arc::default(), self.github.budget()),
        };
        let term = snapshot.leader.map(|(_, term)| term.0);
        // What is shown is as old as the leader's turn, however lately it was read.
        let at = digest.as_ref().map_or(now, |told| told.at);
        let view = View {
            cluster: self.cluster.clone(),
            pools: self.pools.clone(),
            hosts: snapshot.hosts,
            assignments: snapshot.assignments,
            operator: snapshot.operator,
            intents: snapshot.intents,
            ledger,
            budget,
            withheld: snapshot.withheld,
        };
        let turn = Arc::new(Published { at, view, plan, term, store_error: None });
        self.listeners.tell(&turn);
        self.published.send_replace(turn);
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self, known: &mut Known, snapshot: Snapshot, setback: bool, now: Timestamp) -> View {
        let away = known.absence.looked(tokio::time::Instant::now(), &snapshot.hosts);
        let mut ledger = self.ledger();
        if setback {
            ledger.hear_anew(now);
        } else if !away.is_zero() {
            ledger.excuse(away, now);
        }
        let edges_before = ledger.demand.edge_count();
        ledger.absorb_hosts(&snapshot.hosts, &snapshot.operator, &self.policy, now);
        if ledger.demand.edge_count() > edges_before {
            self.reread.send_modify(|count| *count += 1);
        }
        let announced = snapshot.replicas.keys().copied().collect();
        ledger.absorb_replicas(&announced, &snapshot.operator, now);
        let (hosts, assignments) = (&snapshot.hosts, &snapshot.assignments);
        ledger.refusals.note(hosts, assignments, &self.policy, now);
        ledger.rebuilding = known.store.rebuilding(hosts, &ledger.registrations);
        ledger.demand.settle(&self.pools, now);
        ledger.mark_unassigned(&self.pools, &snapshot.hosts, &self.policy, now);
        View {
            cluster: self.cluster.clone(),
            pools: self.pools.clone(),
            hosts: snapshot.hosts,
            assignments: snapshot.assignments,
            operator: snapshot.operator,
            intents: snapshot.intents,
            ledger: Arc::new(ledger.clone()),
            budget: self.github.budget(),
            withheld: snapshot.withheld,
        }
    }

    fn publish_error(&self, error: &StoreError) {
        self.published.send_modify(|last| {
            let mut next = Published::clone(last);
            next.store_error = Some(error.to_string());
            *last = Arc::new(next);
        });
    }
}
