//! One replica's way to the shared store, which can be cut.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use runner_orchestrator::election::{Agency, Leadership};
use runner_orchestrator::fleet::budget::BudgetShare;
use runner_orchestrator::fleet::digest::Digest;
use runner_orchestrator::fleet::host::{Assignment, HostRecord};
use runner_orchestrator::fleet::id::{HostId, IntentId, ReplicaId, Term};
use runner_orchestrator::fleet::intent::{Intent, Operator, Outcome};
use runner_orchestrator::fleet::replica::ReplicaRecord;
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::store::memory::MemoryStore;
use runner_orchestrator::store::{
    Commit, Lease, LeaseKey, Snapshot, Store, StoreError, StoreHealth, Topic,
};
use tokio::sync::watch;

/// The store as one replica reaches it.
#[derive(Debug)]
pub(super) struct Link {
    store: Arc<MemoryStore>,
    cut: AtomicBool,
    health: watch::Sender<StoreHealth>,
}

impl Link {
    pub(super) fn new(store: Arc<MemoryStore>) -> Self {
        let health = StoreHealth {
            kind: "shared model",
            shared: true,
            reachable: Some(Ok(())),
            warnings: Vec::new(),
        };
        Self { store, cut: AtomicBool::new(false), health: watch::Sender::new(health) }
    }

    pub(super) fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    fn store(&self) -> Result<&MemoryStore, StoreError> {
        if self.cut.load(Ordering::Relaxed) {
            let problem = "the link is cut".to_owned();
            return Err(StoreError::Unavailable { action: "anything", problem });
        }
        Ok(&self.store)
    }
}

#[async_trait]
impl Store for Link {
    async fn acquire(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        seen: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        self.store()?.acquire(lease, replica, seen, ttl).await
    }

    async fn renew(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        term: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        self.store()?.renew(lease, replica, term, ttl).await
    }

    async fn release(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        term: Term,
    ) -> Result<(), StoreError> {
        self.store()?.release(lease, replica, term).await
    }

    async fn commit(&self, leader: &Leadership, commit: Commit) -> Result<(), StoreError> {
        self.store()?.commit(leader, commit).await
    }

    async fn publish(&self, leader: &Leadership, digest: Digest) -> Result<(), StoreError> {
        self.store()?.publish(leader, digest).await
    }

    async fn report(&self, agent: &Agency, record: HostRecord) -> Result<(), StoreError> {
        self.store()?.report(agent, record).await
    }

    async fn assignment(&self, host: HostId) -> Result<Assignment, StoreError> {
        self.store()?.assignment(host).await
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.store()?.snapshot().await
    }

    async fn record(&self, intent: Intent) -> Result<(), StoreError> {
        self.store()?.record(intent).await
    }

    async fn outcome(&self, intent: IntentId) -> Result<Option<Outcome>, StoreError> {
        self.store()?.outcome(intent).await
    }

    async fn announce(&self, replica: ReplicaRecord, ttl: Duration) -> Result<(), StoreError> {
        self.store()?.announce(replica, ttl).await
    }

    async fn restore(&self, operator: &Operator) -> Result<(), StoreError> {
        self.store()?.restore(operator).await
    }

    async fn share(&self, share: BudgetShare) -> Result<Vec<BudgetShare>, StoreError> {
        self.store()?.share(share).await
    }

    async fn recall(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.store()?.recall(name).await
    }

    async fn put_by(
        &self,
        leader: &Leadership,
        name: &str,
        entries: BTreeMap<String, Option<String>>,
    ) -> Result<(), StoreError> {
        self.store()?.put_by(leader, name, entries).await
    }

    fn changes(&self, topic: Topic) -> watch::Receiver<u64> {
        self.store.changes(topic)
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.subscribe()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store()?.now().await
    }
}
