//! The third seam: what replicas share. One writer for each part: the leader writes
//! assignments and the operator state, each agent its own host's report, anybody records
//! intents. Without Redis one replica runs alone on [`memory::MemoryStore`].

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::election::Leadership;
use crate::fleet::host::{Assignment, HostRecord};
use crate::fleet::id::{HostId, IntentId, ReplicaId, Term};
use crate::fleet::intent::{Intent, Operator, Outcome};
use crate::fleet::time::Timestamp;

pub mod memory;

/// What is shared, read at one instant.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub hosts: BTreeMap<HostId, HostRecord>,
    pub assignments: BTreeMap<HostId, Assignment>,
    pub operator: Operator,
    pub intents: Vec<Intent>,
}

/// What a leader writes in one step: all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    pub assignments: BTreeMap<HostId, Assignment>,
    pub operator: Option<Operator>,
    pub outcomes: Vec<Outcome>,
}

/// Which part changed. A hint to read again, never the fact itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Topic {
    Assignments,
    Hosts,
    Intents,
    Outcomes,
}

/// Shared state.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Takes the lease if it is free or already ours, with a term above `seen`.
    async fn acquire(
        &self,
        replica: ReplicaId,
        seen: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError>;

    /// Prolongs our lease of this term.
    async fn renew(
        &self,
        replica: ReplicaId,
        term: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError>;

    /// Gives the lease up at once.
    async fn release(&self, replica: ReplicaId, term: Term) -> Result<(), StoreError>;

    /// Writes what the leader decided, if it still leads.
    async fn commit(&self, leader: &Leadership, commit: Commit) -> Result<(), StoreError>;

    /// Replaces an agent's report of its host.
    async fn report(&self, record: HostRecord) -> Result<(), StoreError>;

    /// One host's assignment; an empty one when the leader has not written any.
    async fn assignment(&self, host: HostId) -> Result<Assignment, StoreError>;

    async fn snapshot(&self) -> Result<Snapshot, StoreError>;

    /// Records an intent. Recording the same id again changes nothing.
    async fn record(&self, intent: Intent) -> Result<(), StoreError>;

    /// What became of an intent, if a leader has settled it.
    async fn outcome(&self, intent: IntentId) -> Result<Option<Outcome>, StoreError>;

    /// A counter that moves whenever the topic changes.
    fn changes(&self, topic: Topic) -> watch::Receiver<u64>;

    /// The store's own time, for what is compared between replicas.
    async fn now(&self) -> Result<Timestamp, StoreError>;
}

/// The state of the lease after a request for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lease {
    Ours { term: Term },
    HeldBy { replica: ReplicaId, term: Term, expires_in: Duration },
    Absent,
}

/// What went wrong at the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Expected after a change of leader; not a failure.
    #[error("term {ours} has been superseded by term {current}")]
    Superseded { ours: Term, current: Term },
    #[error("the store did not answer within {timeout_ms} ms while {action}")]
    Timeout { action: &'static str, timeout_ms: u64 },
    #[error("too many intents wait for a leader (limit {limit})")]
    IntentsFull { limit: usize },
}
