//! The in-process store of a replica that runs alone. It keeps nothing over a restart:
//! Docker's labels and GitHub's lists are read again instead.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Commit, Lease, Snapshot, Store, StoreError, Topic};
use crate::clock::Clock;
use crate::election::Leadership;
use crate::fleet::host::{Assignment, HostRecord};
use crate::fleet::id::{HostId, IntentId, ReplicaId, Term};
use crate::fleet::intent::{Intent, Outcome};
use crate::fleet::time::Timestamp;

/// Settled intents kept for whoever asks; a client waits seconds, not hours.
const OUTCOMES_KEPT: usize = 1_000;
/// Intents that may wait for a leader. More means nobody leads, and a client must be told.
const INTENTS_MAX: usize = 1_000;

/// State in this process behind a mutex that is never held across an await.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    assignments: watch::Sender<u64>,
    hosts: watch::Sender<u64>,
    intents: watch::Sender<u64>,
    outcomes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    shared: Snapshot,
    outcomes: BTreeMap<IntentId, Outcome>,
    outcome_order: VecDeque<IntentId>,
    holder: Option<(ReplicaId, Term, Instant)>,
    last_term: Term,
}

impl State {
    fn holder(&self) -> Option<(ReplicaId, Term, Instant)> {
        self.holder.filter(|(_, _, expires)| *expires > Instant::now())
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            state: Mutex::default(),
            clock,
            assignments: watch::Sender::new(0),
            hosts: watch::Sender::new(0),
            intents: watch::Sender::new(0),
            outcomes: watch::Sender::new(0),
        }
    }

    /// A panic while the lock was held cannot have left a half-written state: every
    /// change below is a whole value.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sender(&self, topic: Topic) -> &watch::Sender<u64> {
        match topic {
            Topic::Assignments => &self.assignments,
            Topic::Hosts => &self.hosts,
            Topic::Intents => &self.intents,
            Topic::Outcomes => &self.outcomes,
        }
    }

    fn changed(&self, topic: Topic) {
        self.sender(topic).send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn acquire(
        &self,
        replica: ReplicaId,
        seen: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        let mut state = self.state();
        if let Some((holder, term, expires)) = state.holder()
            && holder != replica
        {
            let expires_in = expires.saturating_duration_since(Instant::now());
            return Ok(Lease::HeldBy { replica: holder, term, expires_in });
        }
        let term = match state.holder() {
            Some((_, term, _)) => term,
            None => Term(state.last_term.0.max(seen.0) + 1),
        };
        state.last_term = term;
        state.holder = Some((replica, term, Instant::now() + ttl));
        Ok(Lease::Ours { term })
    }

    async fn renew(
        &self,
        replica: ReplicaId,
        term: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        let mut state = self.state();
        match state.holder() {
            Some((holder, held, _)) if holder == replica && held == term => {
                state.holder = Some((replica, term, Instant::now() + ttl));
                Ok(Lease::Ours { term })
            }
            Some((replica, term, expires)) => Ok(Lease::HeldBy {
                replica,
                term,
                expires_in: expires.saturating_duration_since(Instant::now()),
            }),
            None => Ok(Lease::Absent),
        }
    }

    async fn release(&self, replica: ReplicaId, term: Term) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.holder().is_some_and(|(holder, held, _)| holder == replica && held == term) {
            state.holder = None;
        }
        Ok(())
    }

    async fn commit(&self, leader: &Leadership, commit: Commit) -> Result<(), StoreError> {
        let topics = {
            let mut state = self.state();
            let current = state.holder().map(|(holder, term, _)| (holder, term));
            if current != Some((leader.replica(), leader.term())) {
                let current = current.map_or(state.last_term, |(_, term)| term);
                return Err(StoreError::Superseded { ours: leader.term(), current });
            }
            let mut topics = Vec::new();
            if !commit.assignments.is_empty() {
                state.shared.assignments.extend(commit.assignments);
                topics.push(Topic::Assignments);
            }
            if let Some(operator) = commit.operator {
                state.shared.operator = operator;
            }
            if !commit.outcomes.is_empty() {
                topics.push(Topic::Outcomes);
            }
            for outcome in commit.outcomes {
                state.shared.intents.retain(|intent| intent.id != outcome.intent);
                state.outcome_order.push_back(outcome.intent);
                state.outcomes.insert(outcome.intent, outcome);
            }
            while state.outcome_order.len() > OUTCOMES_KEPT {
                if let Some(oldest) = state.outcome_order.pop_front() {
                    state.outcomes.remove(&oldest);
                }
            }
            topics
        };
        for topic in topics {
            self.changed(topic);
        }
        Ok(())
    }

    async fn report(&self, record: HostRecord) -> Result<(), StoreError> {
        self.state().shared.hosts.insert(record.host, record);
        self.changed(Topic::Hosts);
        Ok(())
    }

    async fn assignment(&self, host: HostId) -> Result<Assignment, StoreError> {
        Ok(self.state().shared.assignments.get(&host).cloned().unwrap_or_default())
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(self.state().shared.clone())
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

    fn changes(&self, topic: Topic) -> watch::Receiver<u64> {
        self.sender(topic).subscribe()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }
}
