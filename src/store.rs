//! The third seam: what replicas share. One writer for each part: the leader writes
//! assignments and the operator state, each agent its own host's report, anybody records
//! intents. Without Redis one replica runs alone on [`memory::MemoryStore`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::election::{Agency, Leadership};
use crate::fleet::budget::BudgetShare;
use crate::fleet::digest::Digest;
use crate::fleet::host::{Assignment, Assignments, HostRecord, HostRecords};
use crate::fleet::id::{HostId, IntentId, ReplicaId, Term};
use crate::fleet::intent::{Intent, Operator, Outcome};
use crate::fleet::replica::ReplicaRecord;
use crate::fleet::time::Timestamp;
use crate::fleet::view::Withheld;

pub mod memory;
pub mod redis;

/// Settled intents kept for whoever asks, and for how long; a client waits seconds.
pub(crate) const OUTCOMES_KEPT: usize = 1_000;
pub(crate) const OUTCOMES_FOR: Duration = Duration::from_secs(3600);
/// Intents that may wait for a leader. More means nobody leads, and a client must be told.
pub(crate) const INTENTS_MAX: usize = 1_000;
/// Shares of the GitHub budget older than this say nothing: its limits are per minute.
pub(crate) const SHARES_FOR: Duration = Duration::from_secs(120);
/// What is put by is worth little after a week.
pub(crate) const PUT_BY_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// A term is remembered for longer than any replica sleeps; after that its time makes it grow.
pub(crate) const TERMS_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// The record of a host that has been silent for so long says nothing.
pub(crate) const HOSTS_FOR: Duration = Duration::from_secs(24 * 3600);

/// What is shared, read at one instant.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Told apart from every other life of the store: a new one means that it was emptied.
    pub incarnation: u128,
    /// The store's time at the reading.
    pub at: Timestamp,
    pub leader: Option<(ReplicaId, Term)>,
    pub replicas: BTreeMap<ReplicaId, ReplicaRecord>,
    pub hosts: HostRecords,
    pub assignments: Assignments,
    pub operator: Operator,
    pub intents: Vec<Intent>,
    /// The leader's last turn, for those who do not lead.
    pub digest: Option<Arc<Digest>>,
    /// Records that could not be read. They are left as they are.
    pub unreadable: Vec<Unreadable>,
    /// What must not be written over because of that.
    pub withheld: Withheld,
}

/// A record of the store that does not parse or is of a version this program does not know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    pub key: String,
    pub problem: String,
}

/// What a leader writes in one step: all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    pub assignments: BTreeMap<HostId, Assignment>,
    pub operator: Option<Operator>,
    pub outcomes: Vec<Outcome>,
}

impl Commit {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.assignments.is_empty() && self.operator.is_none() && self.outcomes.is_empty()
    }
}

/// Which part changed. A hint to read again, never the fact itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Topic {
    Assignments,
    Hosts,
    Intents,
    Outcomes,
    /// A lease was given up or taken.
    Leases,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 5] =
        [Self::Assignments, Self::Hosts, Self::Intents, Self::Outcomes, Self::Leases];
}

/// What a lease gives the right to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LeaseKey {
    /// To decide for the whole fleet.
    Leader,
    /// To change anything on this Docker host.
    Agent(HostId),
}

/// Shared state. Every call ends within a second or two, well or with an error: a store
/// that does not answer must not stop anything but itself.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Takes a lease if it is free, with a term above `seen`. One that is held is told of,
    /// also when we hold it without knowing, and not prolonged by that.
    async fn acquire(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        seen: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError>;

    /// Prolongs our lease of this term.
    async fn renew(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        term: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError>;

    /// Gives a lease up at once.
    async fn release(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        term: Term,
    ) -> Result<(), StoreError>;

    /// Writes what the leader decided, if it still leads.
    async fn commit(&self, leader: &Leadership, commit: Commit) -> Result<(), StoreError>;

    /// Writes the leader's last turn, for the others to show, if it still leads.
    async fn publish(&self, leader: &Leadership, digest: Digest) -> Result<(), StoreError>;

    /// Replaces an agent's report of its host, if it still is the agent.
    async fn report(&self, agent: &Agency, record: HostRecord) -> Result<(), StoreError>;

    /// One host's assignment; an empty one when the leader has not written any.
    async fn assignment(&self, host: HostId) -> Result<Assignment, StoreError>;

    async fn snapshot(&self) -> Result<Snapshot, StoreError>;

    /// Records an intent. Recording the same id again changes nothing.
    async fn record(&self, intent: Intent) -> Result<(), StoreError>;

    /// What became of an intent, if a leader has settled it.
    async fn outcome(&self, intent: IntentId) -> Result<Option<Outcome>, StoreError>;

    /// Tells the others of this replica; forgotten after `ttl` without another word.
    async fn announce(&self, replica: ReplicaRecord, ttl: Duration) -> Result<(), StoreError>;

    /// Writes the operator state back into a store that has lost it: changes nothing unless
    /// the copy there is older than this one.
    async fn restore(&self, operator: &Operator) -> Result<(), StoreError>;

    /// Writes this replica's share of the GitHub budget and returns the others'.
    async fn share(&self, share: BudgetShare) -> Result<Vec<BudgetShare>, StoreError>;

    /// Everything put by with [`Store::put_by`] under this name.
    async fn recall(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError>;

    /// Keeps small cached facts for the next leader (what GitHub answered to conditional
    /// requests), if this one still leads; `None` forgets one. They may be lost at any time.
    async fn put_by(
        &self,
        leader: &Leadership,
        name: &str,
        entries: BTreeMap<String, Option<String>>,
    ) -> Result<(), StoreError>;

    /// A counter that moves whenever the topic changes.
    fn changes(&self, topic: Topic) -> watch::Receiver<u64>;

    /// How the store itself is, as far as this replica can tell.
    fn health(&self) -> watch::Receiver<StoreHealth>;

    /// The store's own time, for what is compared between replicas.
    async fn now(&self) -> Result<Timestamp, StoreError>;
}

/// The state of the lease after a request for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lease {
    /// It is ours from now on for the time asked for.
    Ours {
        term: Term,
    },
    /// Somebody holds it, perhaps we ourselves by a request whose answer was lost.
    HeldBy {
        replica: ReplicaId,
        term: Term,
        expires_in: Duration,
    },
    Absent,
}

/// The store as seen from here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreHealth {
    /// Which kind: `memory` or `redis`.
    pub kind: &'static str,
    /// Whether more than one replica can work on it.
    pub shared: bool,
    /// How the last call went; `None` before the first one has ended.
    pub reachable: Option<Result<(), String>>,
    /// What is wrong with its settings, each with what to do about it.
    pub warnings: Vec<String>,
}

/// What went wrong at the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Expected after a change of leader or agent; not a failure.
    #[error("term {ours} has been superseded by term {current}")]
    Superseded { ours: Term, current: Term },
    #[error("the store did not answer within {timeout_ms} ms while {action}")]
    Timeout { action: &'static str, timeout_ms: u64 },
    #[error("the store is not reachable while {action}: {problem}")]
    Unavailable { action: &'static str, problem: String },
    /// It answers and takes no writes: read-only, out of memory, without its replicas.
    #[error("the store refuses {action}: {problem}")]
    Refused { action: &'static str, problem: String },
    #[error("record {key} of the store could not be read: {problem}")]
    Unreadable { key: String, problem: String },
    #[error("too many intents wait for a leader (limit {limit})")]
    IntentsFull { limit: usize },
}
