//! The in-process store as one of several replicas sees it: shared, and away when told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
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
    Commit, Lease, LeaseKey, Snapshot, Store, StoreError, StoreHealth, Topic, Unreadable,
};
use tokio::sync::watch;

/// One replica's way to the store.
#[derive(Debug)]
pub(super) struct SeenStore {
    inner: Arc<MemoryStore>,
    health: watch::Sender<StoreHealth>,
    pub(super) unreadable: Mutex<Vec<Unreadable>>,
}

const AWAY: &str = "connection refused";

impl SeenStore {
    pub(super) fn new(inner: Arc<MemoryStore>, shared: bool) -> Self {
        let health =
            StoreHealth { kind: "memory", shared, reachable: Some(Ok(())), warnings: Vec::new() };
        Self { inner, health: watch::Sender::new(health), unreadable: Mutex::default() }
    }

    /// From now on nothing answers.
    pub(super) fn goes_away(&self) {
        self.reachable(Some(Err(AWAY.to_owned())));
    }

    pub(super) fn reachable(&self, how: Option<Result<(), String>>) {
        self.health.send_modify(|health| health.reachable = how);
    }

    pub(super) fn warn(&self, warning: &str) {
        self.health.send_modify(|health| health.warnings.push(warning.to_owned()));
    }

    fn there(&self, action: &'static str) -> Result<&MemoryStore, StoreError> {
        match &self.health.borrow().reachable {
            Some(Err(problem)) => Err(StoreError::Unavailable { action, problem: problem.clone() }),
            Some(Ok(())) | None => Ok(&self.inner),
        }
    }
}

#[async_trait]
impl Store for SeenStore {
    async fn acquire(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        seen: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        self.there("asking for a lease")?.acquire(lease, replica, seen, ttl).await
    }
    async fn renew(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        term: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        self.there("renewing a lease")?.renew(lease, replica, term, ttl).await
    }
    async fn release(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        term: Term,
    ) -> Result<(), StoreError> {
        self.there("releasing a lease")?.release(lease, replica, term).await
    }
    async fn commit(&self, leader: &Leadership, commit: Commit) -> Result<(), StoreError> {
        self.there("writing a plan")?.commit(leader, commit).await
    }
    async fn publish(&self, leader: &Leadership, digest: Digest) -> Result<(), StoreError> {
        self.there("publishing")?.publish(leader, digest).await
    }
    async fn report(&self, agent: &Agency, record: HostRecord) -> Result<(), StoreError> {
        self.there("reporting")?.report(agent, record).await
    }
    async fn assignment(&self, host: HostId) -> Result<Assignment, StoreError> {
        self.there("reading an assignment")?.assignment(host).await
    }
    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut snapshot = self.there("reading")?.snapshot().await?;
        snapshot.unreadable.clone_from(&self.unreadable.lock().unwrap());
        Ok(snapshot)
    }
    async fn record(&self, intent: Intent) -> Result<(), StoreError> {
        self.there("recording an intent")?.record(intent).await
    }
    async fn outcome(&self, intent: IntentId) -> Result<Option<Outcome>, StoreError> {
        self.there("reading an outcome")?.outcome(intent).await
    }
    async fn announce(&self, replica: ReplicaRecord, ttl: Duration) -> Result<(), StoreError> {
        self.there("announcing")?.announce(replica, ttl).await
    }
    async fn restore(&self, operator: &Operator) -> Result<(), StoreError> {
        self.there("restoring")?.restore(operator).await
    }
    async fn share(&self, share: BudgetShare) -> Result<Vec<BudgetShare>, StoreError> {
        self.there("sharing the budget")?.share(share).await
    }
    async fn recall(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.there("recalling")?.recall(name).await
    }
    async fn put_by(
        &self,
        leader: &Leadership,
        name: &str,
        entries: BTreeMap<String, Option<String>>,
    ) -> Result<(), StoreError> {
        self.there("putting by")?.put_by(leader, name, entries).await
    }
    fn changes(&self, topic: Topic) -> watch::Receiver<u64> {
        self.inner.changes(topic)
    }
    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.subscribe()
    }
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.there("telling the time")?.now().await
    }
}
