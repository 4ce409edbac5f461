//! What every replica tells the others of itself, and for how long it is believed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runner_orchestrator::clock::SystemClock;
use runner_orchestrator::fleet::id::{HostId, ReplicaId};
use runner_orchestrator::fleet::replica::ReplicaRecord;
use runner_orchestrator::loops::announce::{ANNOUNCE_EVERY, ANNOUNCE_TTL, Announce, Peers};
use runner_orchestrator::loops::host::standing::Standing;
use runner_orchestrator::store::Store;
use runner_orchestrator::store::memory::MemoryStore;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::world::agent_of;

struct Announced {
    store: Arc<MemoryStore>,
    replica: ReplicaId,
    standing: watch::Sender<Standing>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

fn announced(peers: Peers) -> Announced {
    let clock = Arc::new(SystemClock::new());
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let replica = ReplicaId(Uuid::from_u128(5));
    let standing = watch::Sender::new(Standing::default());
    let announce = Announce {
        store: store.clone(),
        clock,
        replica,
        hostname: "box".to_owned(),
        peers,
        pools: BTreeMap::new(),
        standing: standing.subscribe(),
    };
    let (cancel, mut tasks) = (CancellationToken::new(), JoinSet::new());
    tasks.spawn(announce.run(cancel.clone()));
    Announced { store, replica, standing, cancel, tasks }
}

impl Announced {
    async fn record(&self) -> Option<ReplicaRecord> {
        self.store.snapshot().await.unwrap().replicas.remove(&self.replica)
    }

    /// Lets every task that can run do so.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_announces_itself_at_once_and_goes_on() {
    let peers = Peers {
        advertise: Some("http://10.0.0.7:8080".to_owned()),
        secret: Some(SecretString::from("a-secret-of-the-cluster")),
    };
    let it = announced(peers);
    it.settle().await;
    let first = it.record().await.unwrap();
    assert_eq!(first.hostname, "box");
    assert_eq!(first.advertise.as_deref(), Some("http://10.0.0.7:8080"));
    assert_eq!((first.host, first.agent), (None, false));
    let fingerprint = first.secret_fingerprint.clone().unwrap();
    assert_eq!((fingerprint.len(), first.pools_fingerprint.len()), (8, 16));
    assert!(!format!("{first:?}").contains("a-secret"), "a fingerprint and nothing more");
    tokio::time::sleep(ANNOUNCE_TTL * 3).await;
    let later = it.record().await.unwrap();
    assert!(later.clock.since(first.clock) > ANNOUNCE_TTL * 2, "the clock is told anew");
    assert_eq!(later.started_at, first.started_at);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_standing_is_told_at_once_and_renewals_are_no_change() {
    let it = announced(Peers::default());
    it.settle().await;
    let host = HostId(Uuid::from_u128(9));
    it.standing.send_replace(Standing { host: Some(host), ..Standing::default() });
    it.settle().await;
    let stands_by = it.record().await.unwrap();
    assert_eq!((stands_by.host, stands_by.agent), (Some(host), false));
    it.standing.send_replace(agent_of(host));
    it.settle().await;
    let agent = it.record().await.unwrap();
    assert!(agent.agent && agent.clock.since(stands_by.clock) < ANNOUNCE_EVERY);
    // What others do not see of it is no news; the next word is the one that is due.
    it.standing.send_replace(agent_of(host));
    tokio::time::sleep(ANNOUNCE_EVERY.mul_f64(0.9)).await;
    assert_eq!(it.record().await.unwrap().clock, agent.clock);
}

#[tokio::test(start_paused = true)]
async fn who_stops_is_forgotten_at_once_and_who_is_killed_after_fifteen_seconds() {
    let stopped = announced(Peers::default());
    stopped.settle().await;
    stopped.cancel.cancel();
    stopped.settle().await;
    stopped.settle().await;
    assert_eq!(stopped.record().await, None);

    let mut killed = announced(Peers::default());
    killed.settle().await;
    killed.tasks.abort_all();
    tokio::time::sleep(ANNOUNCE_TTL.mul_f64(0.99)).await;
    assert!(killed.record().await.is_some());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(killed.record().await, None);
}
