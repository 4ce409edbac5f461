//! The in-process store as one replica of several reaches it. The one place where tests
//! implement [`Store`]: every call goes to the store inside, and what lies between, a cut,
//! a loss, a look at what passes, is a [`Way`].

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
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

/// One call, as far as a way tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    pub(crate) action: &'static str,
    pub(crate) writes: bool,
}

/// What a replica sends, before it leaves.
pub(crate) enum Sent<'a> {
    Release(LeaseKey),
    Commit(&'a Leadership, &'a mut Commit),
    Digest(&'a Leadership, &'a mut Digest),
    Report(&'a mut HostRecord),
    Announcement(&'a mut ReplicaRecord),
}

/// What has taken effect at the store, whoever hears of it.
pub(crate) enum Done<'a> {
    Acquired(LeaseKey, ReplicaId, &'a Result<Lease, StoreError>),
    Committed(&'a Leadership, &'a Commit, &'a Result<(), StoreError>),
    Published(&'a Leadership, &'a Result<(), StoreError>),
    Reported(&'a Agency, &'a HostRecord, &'a Result<(), StoreError>),
    Restored(&'a Operator),
}

/// What comes back, before the replica sees it.
pub(crate) enum Read<'a> {
    Assignment(&'a mut Assignment),
    Snapshot(&'a mut Snapshot),
}

/// What lies between one replica and the store.
pub(crate) trait Way: Debug + Send + Sync + 'static {
    /// Carries one call there and its answer back, or does not. The effect may be carried
    /// out without an answer, or later.
    fn carry<T: Send + 'static>(
        &self,
        call: Call,
        effect: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send;

    /// A counter that moves with the topic, as far as hints get through.
    fn changes(&self, store: &MemoryStore, topic: Topic) -> watch::Receiver<u64>;

    fn health(&self, store: &MemoryStore) -> watch::Receiver<StoreHealth>;

    fn sends(&self, _sent: Sent<'_>) {}

    fn did(&self, _done: Done<'_>) {}

    fn reads(&self, _read: Read<'_>) {}
}

/// The store at the end of a way.
#[derive(Debug)]
pub(crate) struct ReachedStore<W> {
    store: Arc<MemoryStore>,
    pub(crate) way: Arc<W>,
}

impl<W: Way> ReachedStore<W> {
    pub(crate) fn new(store: Arc<MemoryStore>, way: W) -> Self {
        Self { store, way: Arc::new(way) }
    }

    async fn ask<T: Send + 'static>(
        &self,
        action: &'static str,
        effect: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.way.carry(Call { action, writes: false }, effect).await
    }

    async fn change<T: Send + 'static>(
        &self,
        action: &'static str,
        effect: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.way.carry(Call { action, writes: true }, effect).await
    }

    fn both(&self) -> (Arc<MemoryStore>, Arc<W>) {
        (Arc::clone(&self.store), Arc::clone(&self.way))
    }
}

#[async_trait]
impl<W: Way> Store for ReachedStore<W> {
    async fn acquire(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        seen: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        let (store, way) = self.both();
        let effect = async move {
            let answer = store.acquire(lease, replica, seen, ttl).await;
            way.did(Done::Acquired(lease, replica, &answer));
            answer
        };
        self.change("taking a lease", effect).await
    }

    async fn renew(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        term: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        let store = Arc::clone(&self.store);
        let effect = async move { store.renew(lease, replica, term, ttl).await };
        self.change("renewing a lease", effect).await
    }

    async fn release(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        term: Term,
    ) -> Result<(), StoreError> {
        self.way.sends(Sent::Release(lease));
        let store = Arc::clone(&self.store);
        let effect = async move { store.release(lease, replica, term).await };
        self.change("releasing a lease", effect).await
    }

    async fn commit(&self, leader: &Leadership, mut commit: Commit) -> Result<(), StoreError> {
        self.way.sends(Sent::Commit(leader, &mut commit));
        let (store, way) = self.both();
        let leader = leader.clone();
        let effect = async move {
            let answer = store.commit(&leader, commit.clone()).await;
            way.did(Done::Committed(&leader, &commit, &answer));
            answer
        };
        self.change("writing a plan", effect).await
    }

    async fn publish(&self, leader: &Leadership, mut digest: Digest) -> Result<(), StoreError> {
        self.way.sends(Sent::Digest(leader, &mut digest));
        let (store, way) = self.both();
        let leader = leader.clone();
        let effect = async move {
            let answer = store.publish(&leader, digest).await;
            way.did(Done::Published(&leader, &answer));
            answer
        };
        self.change("publishing a turn", effect).await
    }

    async fn report(&self, agent: &Agency, mut record: HostRecord) -> Result<(), StoreError> {
        self.way.sends(Sent::Report(&mut record));
        let (store, way) = self.both();
        let agent = agent.clone();
        let effect = async move {
            let answer = store.report(&agent, record.clone()).await;
            way.did(Done::Reported(&agent, &record, &answer));
            answer
        };
        self.change("reporting a host", effect).await
    }

    async fn assignment(&self, host: HostId) -> Result<Assignment, StoreError> {
        let store = Arc::clone(&self.store);
        let effect = async move { store.assignment(host).await };
        let mut read = self.ask("reading an assignment", effect).await?;
        self.way.reads(Read::Assignment(&mut read));
        Ok(read)
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let store = Arc::clone(&self.store);
        let mut read =
            self.ask("reading everything", async move { store.snapshot().await }).await?;
        self.way.reads(Read::Snapshot(&mut read));
        Ok(read)
    }

    async fn record(&self, intent: Intent) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        self.change("recording an intent", async move { store.record(intent).await }).await
    }

    async fn outcome(&self, intent: IntentId) -> Result<Option<Outcome>, StoreError> {
        let store = Arc::clone(&self.store);
        self.ask("reading an outcome", async move { store.outcome(intent).await }).await
    }

    async fn announce(&self, mut replica: ReplicaRecord, ttl: Duration) -> Result<(), StoreError> {
        self.way.sends(Sent::Announcement(&mut replica));
        let store = Arc::clone(&self.store);
        self.change("announcing", async move { store.announce(replica, ttl).await }).await
    }

    async fn restore(&self, operator: &Operator) -> Result<(), StoreError> {
        let (store, way) = self.both();
        let operator = operator.clone();
        let effect = async move {
            way.did(Done::Restored(&operator));
            store.restore(&operator).await
        };
        self.change("restoring", effect).await
    }

    async fn share(&self, share: BudgetShare) -> Result<Vec<BudgetShare>, StoreError> {
        let store = Arc::clone(&self.store);
        self.change("sharing the budget", async move { store.share(share).await }).await
    }

    async fn recall(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        let (store, name) = (Arc::clone(&self.store), name.to_owned());
        self.ask("recalling", async move { store.recall(&name).await }).await
    }

    async fn put_by(
        &self,
        leader: &Leadership,
        name: &str,
        entries: BTreeMap<String, Option<String>>,
    ) -> Result<(), StoreError> {
        let (store, leader, name) = (Arc::clone(&self.store), leader.clone(), name.to_owned());
        let effect = async move { store.put_by(&leader, &name, entries).await };
        self.change("putting by", effect).await
    }

    fn changes(&self, topic: Topic) -> watch::Receiver<u64> {
        self.way.changes(&self.store, topic)
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.way.health(&self.store)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let store = Arc::clone(&self.store);
        self.ask("asking the time", async move { store.now().await }).await
    }
}
