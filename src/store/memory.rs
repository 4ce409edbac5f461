//! The in-process store of a replica that runs alone. It keeps nothing over a restart:
//! Docker's labels and GitHub's lists are read again instead.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use self::state::{Held, State};
use super::{
    Commit, HOSTS_FOR, INTENTS_MAX, Lease, LeaseKey, PUT_BY_FOR, SHARES_FOR, Snapshot, Store,
    StoreError, StoreHealth, TERMS_FOR, Topic,
};
use crate::clock::Clock;
use crate::election::{Agency, Leadership};
use crate::fleet::budget::BudgetShare;
use crate::fleet::digest::Digest;
use crate::fleet::host::{Assignment, HostRecord};
use crate::fleet::id::{HostId, IntentId, ReplicaId, Term};
use crate::fleet::intent::{Intent, Operator, Outcome};
use crate::fleet::replica::ReplicaRecord;
use crate::fleet::time::Timestamp;

mod state;

/// State in this process behind a mutex that is never held across an await.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    topics: [watch::Sender<u64>; Topic::ALL.len()],
    health: watch::Sender<StoreHealth>,
    /// How often it has begun anew; never taken back.
    lives: AtomicU64,
}

/// Everything a store held at one instant.
#[derive(Clone, Debug)]
pub struct Saved(State);

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
            lives: AtomicU64::new(1),
        }
    }

    /// A copy, for [`MemoryStore::roll_back`].
    #[must_use]
    pub fn save(&self) -> Saved {
        Saved(self.state().clone())
    }

    /// Goes back to what it was, as a store does whose last writes were lost when another
    /// server took over. Leases and other lifetimes end when they would have ended then.
    /// Terms go on above the time, as after [`MemoryStore::flush`].
    pub fn roll_back(&self, saved: Saved) {
        *self.state() = State { terms_above: Term(self.clock.now().0), ..saved.0 };
    }

    /// Loses everything, as a store does that is restarted without its data.
    pub fn flush(&self) {
        let incarnation = u128::from(self.lives.fetch_add(1, Ordering::Relaxed) + 1);
        *self.state() = State {
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
            if let Some(held) = state.held(lease) {
                return Ok(held.answer());
            }
            let last = state.last_term(lease);
            let term = Term(last.0.max(seen.0).max(state.terms_above.0) + 1);
            state.last_terms.insert(lease, (term, Instant::now() + TERMS_FOR));
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
                let until = Instant::now() + HOSTS_FOR;
                let assigned = commit.assignments.keys().map(|host| (*host, until));
                state.assignments_until.extend(assigned);
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
            state.hosts_until.insert(record.host, Instant::now() + HOSTS_FOR);
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
            state.forget_outcomes();
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
        let mut state = self.state();
        state.forget_outcomes();
        Ok(state.outcomes.get(&intent).cloned())
    }

    async fn announce(&self, mut replica: ReplicaRecord, ttl: Duration) -> Result<(), StoreError> {
        let mut state = self.state();
        replica.at = self.clock.now();
        state.forget_hosts();
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
        let (own, until) = (share.replica, Instant::now() + SHARES_FOR);
        state.shares.insert(own, (share, until));
        state.shares.retain(|_, (_, until)| *until > Instant::now());
        let others = state.shares.iter().filter(|(replica, _)| **replica != own);
        Ok(others.map(|(_, (share, _))| share.clone()).collect())
    }

    async fn recall(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        let state = self.state();
        let kept = state.put_by.get(name).filter(|(_, until)| *until > Instant::now());
        Ok(kept.map(|(kept, _)| kept.clone()).unwrap_or_default())
    }

    async fn put_by(
        &self,
        leader: &Leadership,
        name: &str,
        entries: BTreeMap<String, Option<String>>,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        state.check(LeaseKey::Leader, leader.replica(), leader.term())?;
        state.put_by.retain(|_, (_, until)| *until > Instant::now());
        let (kept, until) =
            state.put_by.entry(name.to_owned()).or_insert((BTreeMap::new(), Instant::now()));
        *until = Instant::now() + PUT_BY_FOR;
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
