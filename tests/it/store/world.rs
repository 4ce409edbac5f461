//! A store under test, and records to put into it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use runner_orchestrator::clock::SystemClock;
use runner_orchestrator::election::{self, Agency, Leadership, Vitals};
use runner_orchestrator::fleet::host::{Assignment, Capacity, HostRecord, RECORD_VERSION};
use runner_orchestrator::fleet::id::{BootId, HostId, IntentId, PoolName, ReplicaId, Term};
use runner_orchestrator::fleet::intent::{Intent, Outcome, Wish};
use runner_orchestrator::fleet::replica::ReplicaRecord;
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::store::memory::MemoryStore;
use runner_orchestrator::store::redis::address::Address;
use runner_orchestrator::store::redis::{RedisSettings, RedisStore, Tls};
use runner_orchestrator::store::{Lease, LeaseKey, Store};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::it::support::redis::Redis;

/// Reached only when something hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than any test: a lease that does not end by itself.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// Two stores that share their state, and a way to empty it.
pub(crate) struct Subject {
    pub(super) here: Arc<dyn Store>,
    pub(super) there: Arc<dyn Store>,
    flush: Box<dyn Fn() + Send + Sync>,
    held: JoinSet<()>,
}

impl Subject {
    pub(super) fn memory() -> Self {
        let store = Arc::new(MemoryStore::new(Arc::new(SystemClock::new())));
        let flushed = store.clone();
        Self {
            here: store.clone(),
            there: store,
            flush: Box::new(move || flushed.flush()),
            held: JoinSet::new(),
        }
    }

    pub(super) fn redis() -> Self {
        let server = Redis::start();
        let subject = Self::on(&server);
        Self { flush: Box::new(move || server.ask::<()>(&["FLUSHALL"])), ..subject }
    }

    /// Two stores on this server, which its owner empties.
    pub(super) fn on(server: &Redis) -> Self {
        Self {
            here: Arc::new(store_at(&server.url())),
            there: Arc::new(store_at(&server.url())),
            flush: Box::new(|| ()),
            held: JoinSet::new(),
        }
    }

    pub(super) fn flush(&self) {
        (self.flush)();
    }

    /// Makes this replica lead for long, by the real election.
    pub(super) async fn leader(&mut self, replica: ReplicaId) -> Leadership {
        leader(&self.here, replica, &mut self.held).await
    }

    /// Makes this replica the host's agent in the same way.
    pub(super) async fn agent(&mut self, replica: ReplicaId, host: HostId) -> Agency {
        let (told, mut seen) = watch::channel(None);
        let (store, cancel) = (self.here.clone(), CancellationToken::new());
        self.held.spawn(election::serve(store, replica, host, told, cancel));
        let agency = first(&mut seen).await;
        self.held.shutdown().await;
        let lease = LeaseKey::Agent(host);
        ours(&self.here.renew(lease, replica, agency.term(), LONG).await.unwrap());
        agency
    }
}

/// The signs of a leader whose work goes on.
pub(super) fn working(tasks: &mut JoinSet<()>) -> Vitals {
    let vitals = Vitals::default();
    let signs = vitals.clone();
    tasks.spawn(async move {
        loop {
            signs.beat();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    vitals
}

/// A leader by the real election, whose task has then been ended without a word.
pub(super) async fn leader(
    store: &Arc<dyn Store>,
    replica: ReplicaId,
    held: &mut JoinSet<()>,
) -> Leadership {
    let (told, mut seen) = watch::channel(None);
    let vitals = working(held);
    held.spawn(election::lead(store.clone(), replica, told, vitals, CancellationToken::new()));
    let leadership = first(&mut seen).await;
    held.shutdown().await;
    ours(&store.renew(LeaseKey::Leader, replica, leadership.term(), LONG).await.unwrap());
    leadership
}

pub(super) async fn first<T: Clone>(seen: &mut watch::Receiver<Option<T>>) -> T {
    let got = tokio::time::timeout(PATIENCE, seen.wait_for(Option::is_some)).await;
    got.expect("no lease in time").unwrap().clone().unwrap()
}

/// Asks until there is an answer.
pub(super) async fn wait_for<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("in vain for {what}"))
}

/// A store of the cluster `test`.
pub(super) fn store_at(url: &str) -> RedisStore {
    store_of(url, "test", Tls::default())
}

pub(super) fn store_of(url: &str, cluster: &str, tls: Tls) -> RedisStore {
    // As the binary does it first of all.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let address = Address::parse(url).unwrap();
    RedisStore::start(RedisSettings { address, tls, cluster: cluster.to_owned() }).unwrap()
}

/// The term of a lease that must be ours now.
pub(super) fn ours(lease: &Lease) -> Term {
    match lease {
        Lease::Ours { term } => *term,
        other => panic!("{other:?}"),
    }
}

/// Takes the leader's lease for good.
pub(super) async fn take(store: &dyn Store, replica: ReplicaId) -> Term {
    ours(&store.acquire(LeaseKey::Leader, replica, Term(0), LONG).await.unwrap())
}

pub(super) fn replica(n: u128) -> ReplicaId {
    ReplicaId(Uuid::from_u128(n))
}

pub(super) fn host(n: u128) -> HostId {
    HostId(Uuid::from_u128(n))
}

pub(super) fn report_of(host: HostId, seq: u64) -> HostRecord {
    HostRecord {
        version: RECORD_VERSION,
        host,
        boot: BootId(Uuid::from_u128(7)),
        replica: replica(1),
        seq,
        at: Timestamp(1),
        hostname: "box".to_owned(),
        docker_version: None,
        docker_up: true,
        stopping: false,
        max_runners: 4,
        capacity: Capacity::default(),
        images: BTreeSet::new(),
        runners: BTreeMap::new(),
        refused: BTreeMap::new(),
    }
}

pub(super) fn assignment(revision: u64) -> Assignment {
    Assignment { version: RECORD_VERSION, revision, ..Assignment::default() }
}

pub(super) fn intent(n: u128) -> Intent {
    let wish = Wish::Pause { pool: PoolName::from("default") };
    Intent { id: IntentId(Uuid::from_u128(n)), at: Timestamp(1), wish }
}

pub(super) fn outcome(n: u128) -> Outcome {
    let intent = IntentId(Uuid::from_u128(n));
    Outcome { intent, at: Timestamp(2), accepted: Vec::new(), reason: None }
}

pub(super) fn announcement(n: u128) -> ReplicaRecord {
    ReplicaRecord {
        version: RECORD_VERSION,
        replica: replica(n),
        hostname: "box".to_owned(),
        build: "0".to_owned(),
        advertise: None,
        host: None,
        agent: false,
        started_at: Timestamp(0),
        clock: Timestamp(0),
        at: Timestamp(0),
        secret_fingerprint: None,
        pools_fingerprint: String::new(),
    }
}
