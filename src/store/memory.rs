//! The in-process store of a replica that runs alone. It keeps nothing over a restart:
//! Docker's labels and GitHub's lists are read again instead.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Commit, Lease, LeaseKey, Snapshot, Store, StoreError, StoreHealth, Topic};
use crate::clock::Clock;
use crate::election::{Agency, Leadership};
use crate::fleet::budget::BudgetShare;
use crate::fleet::digest::Digest;
use crate::fleet::host::{Assignment, HostRecord};
use crate::fleet::id::{HostId, IntentId, ReplicaId, Term};
use crate::fleet::intent::{Intent, Operator, Outcome};
use crate::fleet::replica::ReplicaRecord;
use crate::fleet::time::Timestamp;

/// Settled intents kept for whoever asks; a client waits seconds, not hours.
const OUTCOMES_KEPT: usize = 1_000;
/// Intents that may wait for a leader. More means nobody leads, and a client must be told.
const INTENTS_MAX: usize = 1_000;

/// Shares of the GitHub budget older than this say nothing: its limits are per minute.
const SHARES_KEPT: Duration = Duration::from_secs(120);

/// State in this process behind a mutex that is never held across an await.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    topics: [watch::Sender<u64>; Topic::ALL.len()],
    health: watch::Sender<StoreHealth>,
}

#[derive(Debug, Default)]
struct State {
    shared: Snapshot,
    outcomes: BTreeMap<IntentId, Outcome>,
    outcome_order: VecDeque<IntentId>,
    leases: BTreeMap<LeaseKey, Held>,
    last_terms: BTreeMap<LeaseKey, Term>,
    /// No term is at or below it. Terms are forgotten with everything else; what only
    /// grows then is the time.
    terms_above: Term,
    replicas_until: BTreeMap<ReplicaId, Instant>,
    shares: BTreeMap<ReplicaId, (BudgetShare, Instant)>,
    put_by: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    replica: ReplicaId,
    term: Term,
    until: Instant,
}

impl Held {
    fn answer(self) -> Lease {
        let expires_in = self.until.saturating_duration_since(Instant::now());
        Lease::HeldBy { replica: self.replica, term: self.term, expires_in }
    }
}

impl State {
    fn held(&self, lease: LeaseKey) -> Option<Held> {
        self.leases.get(&lease).copied().filter(|held| held.until > Instant::now())
    }

    /// The fence: only the holder of this very term may write.
    fn check(&self, lease: LeaseKey, replica: ReplicaId, ours: Term) -> Result<(), StoreError> {
        match self.held(lease) {
            Some(held) if held.replica == replica && held.term == ours => Ok(()),
            Some(held) => Err(StoreError::Superseded { ours, current: held.term }),
            None => {
                let current = self.last_terms.get(&lease).copied().unwrap_or_default();
                Err(StoreError::Superseded { ours, current })
            }
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        self.shared.intents.retain(|intent| intent.id != outcome.intent);
        self.outcome_order.push_back(outcome.intent);
        self.outcomes.insert(outcome.intent, outcome);
        while self.outcome_order.len() > OUTCOMES_KEPT {
            if let Some(oldest) = self.outcome_order.pop_front() {
                self.outcomes.remove(&oldest);
            }
        }
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::build(clock, false)
    }

    /// A store that several replicas of one process share, as a simulation has it.
    #[must_use]
    pub fn shared(clock: Arc<dyn Clock>) -> Self {
        Self::build(clock, true)
    }

    fn build(clock: Arc<dyn Clock>, shared: bool) -> Self {
        let health =
            StoreHealth { kind: "memory", shared, reachable: Some(Ok(())), warnings: Vec::new() };
        let state = State {
            shared: Snapshot { incarnation: 1, ..Snapshot::default() },
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            clock,
            topics: std::array::from_fn(|_| watch::Sender::new(0)),
            health: watch::Sender::new(health),
        }
    }

    /// Loses everything, as a store does that is restarted without its data.
    pub fn flush(&self) {
        let mut state = self.state();
        let incarnation = state.shared.incarnation + 1;
        *state = State {
            shared: Snapshot { incarnation, ..Snapshot::default() },
            terms_above: Term(self.clock.now().0),
            ..State::default()
        };
    }

    /// A panic while the lock was held cannot have left a half-written state: every
    /// change below is a whole value.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sender(&self, topic: Topic) -> &watch::Sender<u64> {
        &self.topics[topic as usize]
    }

    fn changed(&self, topic: Topic) {
        self.sender(topic).send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn acquire(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        seen: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        let term = {
            let mut state = self.state();
            let term = match state.held(lease) {
                Some(held) if held.replica != replica => return Ok(held.answer()),
                Some(held) => held.term,
                None => {
                    let last = state.last_terms.get(&lease).copied().unwrap_or_default();
                    Term(last.0.max(seen.0).max(state.terms_above.0) + 1)
                }
            };
            state.last_terms.insert(lease, term);
            state.leases.insert(lease, Held { replica, term, until: Instant::now() + ttl });
            term
        };
        self.changed(Topic::Leases);
        Ok(Lease::Ours { term })
    }

    async fn renew(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        term: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        let mut state = self.state();
        match state.held(lease) {
            Some(held) if held.replica == replica && held.term == term => {
                state.leases.insert(lease, Held { replica, term, until: Instant::now() + ttl });
                Ok(Lease::Ours { term })
            }
            Some(held) => Ok(held.answer()),
            None => Ok(Lease::Absent),
        }
    }

    async fn release(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        term: Term,
    ) -> Result<(), StoreError> {
        {
            let mut state = self.state();
            if state.check(lease, replica, term).is_err() {
                return Ok(());
            }
            state.leases.remove(&lease);
        }
        self.changed(Topic::Leases);
        Ok(())
    }

    async fn commit(&self, leader: &Leadership, commit: Commit) -> Result<(), StoreError> {
        let topics = {
            let mut state = self.state();
            state.check(LeaseKey::Leader, leader.replica(), leader.term())?;
            let mut topics = Vec::new();
            if !commit.assignments.is_empty() {
                let shared = commit.assignments.into_iter();
                state.shared.assignments.extend(shared.map(|(host, it)| (host, Arc::new(it))));
                topics.push(Topic::Assignments);
            }
            if let Some(operator) = commit.operator {
                state.shared.operator = operator;
            }
            if !commit.outcomes.is_empty() {
                topics.push(Topic::Outcomes);
            }
            for outcome in commit.outcomes {
                state.settle(outcome);
            }
            topics
        };
        for topic in topics {
            self.changed(topic);
        }
        Ok(())
    }

    async fn publish(&self, leader: &Leadership, digest: Digest) -> Result<(), StoreError> {
        let mut state = self.state();
        state.check(LeaseKey::Leader, leader.replica(), leader.term())?;
        state.shared.digest = Some(Arc::new(digest));
        Ok(())
    }

    async fn report(&self, agent: &Agency, record: HostRecord) -> Result<(), StoreError> {
        {
            let mut state = self.state();
            state.check(LeaseKey::Agent(agent.host()), agent.replica(), agent.term())?;
            state.shared.hosts.insert(record.host, Arc::new(record));
        }
        self.changed(Topic::Hosts);
        Ok(())
    }

    async fn assignment(&self, host: HostId) -> Result<Assignment, StoreError> {
        let state = self.state();
        let assignment = state.shared.assignments.get(&host);
        Ok(assignment.map(|assignment| Assignment::clone(assignment)).unwrap_or_default())
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut state = self.state();
        let now = Instant::now();
        state.replicas_until.retain(|_, until| *until > now);
        let mut snapshot = state.shared.clone();
        snapshot.replicas.retain(|replica, _| state.replicas_until.contains_key(replica));
        snapshot.leader = state.held(LeaseKey::Leader).map(|held| (held.replica, held.term));
        snapshot.at = self.clock.now();
        Ok(snapshot)
    }

    async fn record(&self, intent: Intent) -> Result<(), StoreError> {
        {
            let mut state = self.state();
            let known = state.outcomes.contains_key(&intent.id)
                || state.shared.intents.iter().any(|waiting| waiting.id == intent.id);
            if known {
                return Ok(());
            }
            if state.shared.intents.len() >= INTENTS_MAX {
                return Err(StoreError::IntentsFull { limit: INTENTS_MAX });
            }
            state.shared.intents.push(intent);
        }
        self.changed(Topic::Intents);
        Ok(())
    }

    async fn outcome(&self, intent: IntentId) -> Result<Option<Outcome>, StoreError> {
        Ok(self.state().outcomes.get(&intent).cloned())
    }

    async fn announce(&self, mut replica: ReplicaRecord, ttl: Duration) -> Result<(), StoreError> {
        let mut state = self.state();
        replica.at = self.clock.now();
        state.replicas_until.insert(replica.replica, Instant::now() + ttl);
        state.shared.replicas.insert(replica.replica, replica);
        Ok(())
    }

    async fn restore(&self, operator: &Operator) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.shared.operator.revision < operator.revision {
            state.shared.operator = operator.clone();
        }
        Ok(())
    }

    async fn share(&self, share: BudgetShare) -> Result<Vec<BudgetShare>, StoreError> {
        let mut state = self.state();
        let (own, until) = (share.replica, Instant::now() + SHARES_KEPT);
        state.shares.insert(own, (share, until));
        state.shares.retain(|_, (_, until)| *until > Instant::now());
        let others = state.shares.iter().filter(|(replica, _)| **replica != own);
        Ok(others.map(|(_, (share, _))| share.clone()).collect())
    }

    async fn recall(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        Ok(self.state().put_by.get(name).cloned().unwrap_or_default())
    }

    async fn put_by(
        &self,
        leader: &Leadership,
        name: &str,
        entries: BTreeMap<String, Option<String>>,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        state.check(LeaseKey::Leader, leader.replica(), leader.term())?;
        let kept = state.put_by.entry(name.to_owned()).or_default();
        for (key, value) in entries {
            match value {
                Some(value) => kept.insert(key, value),
                None => kept.remove(&key),
            };
        }
        Ok(())
    }

    fn changes(&self, topic: Topic) -> watch::Receiver<u64> {
        self.sender(topic).subscribe()
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.subscribe()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }
}
