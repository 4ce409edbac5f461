//! What a Redis can do to us. Each time: an error that says what is wrong, in time, and
//! nothing of ours needs a restart afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runner_orchestrator::fleet::id::Term;
use runner_orchestrator::store::{Commit, Lease, LeaseKey, Store, StoreError};
use tokio::task::JoinSet;

use super::world::{
    LONG, announcement, assignment, host, intent, leader, ours, replica, store_at, take, wait_for,
};
use crate::it::support::redis::{Data, Redis};
use crate::it::support::stall_proxy::{Direction, StallProxy};

/// What a call may take, with room for a busy machine.
const IN_TIME: Duration = Duration::from_millis(2_500);

async fn in_time<T>(call: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let answer = call.await;
    assert!(begun.elapsed() < IN_TIME, "took {:?}", begun.elapsed());
    answer
}

async fn heals(store: &dyn Store) {
    wait_for("the store to answer again", async || {
        store.announce(announcement(1), LONG).await.ok()?;
        store.snapshot().await.ok().map(drop)
    })
    .await;
}

fn reachable(store: &dyn Store) -> Option<Result<(), String>> {
    store.health().borrow().reachable.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_are_loaded_again() {
    let server = Redis::start();
    let store = store_at(&server.url());
    let term = take(&store, replica(1)).await;
    for _ in 0..2 {
        server.ask::<()>(&["SCRIPT", "FLUSH"]);
        ours(&store.renew(LeaseKey::Leader, replica(1), term, LONG).await.unwrap());
        store.record(intent(1)).await.unwrap();
        assert_eq!(store.snapshot().await.unwrap().intents.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_needs_none_of_ours() {
    let mut server = Redis::start();
    let store: Arc<dyn Store> = Arc::new(store_at(&server.url()));
    let leadership = leader(&store, replica(1), &mut JoinSet::new()).await;
    let commit = |revision| Commit {
        assignments: BTreeMap::from([(host(1), assignment(revision))]),
        ..Commit::default()
    };
    store.commit(&leadership, commit(1)).await.unwrap();
    let before = store.snapshot().await.unwrap();

    server.restart(Data::Kept);
    // The first call after it already works: dead connections are tried once more anew.
    store.commit(&leadership, commit(2)).await.unwrap();
    let kept = store.snapshot().await.unwrap();
    assert_eq!(kept.incarnation, before.incarnation);
    assert_eq!(kept.assignments[&host(1)].revision, 2);

    server.kill();
    let away = in_time(store.snapshot()).await;
    assert!(matches!(away, Err(StoreError::Unavailable { .. })), "{away:?}");
    assert!(matches!(reachable(store.as_ref()), Some(Err(_))));
    server.restart(Data::Lost);
    heals(store.as_ref()).await;
    let lost = store.snapshot().await.unwrap();
    assert_ne!(lost.incarnation, before.incarnation);
    assert!(lost.assignments.is_empty());
    assert_eq!(reachable(store.as_ref()), Some(Ok(())));
}

/// A store set back to an earlier state answers with that state, not with what this
/// process remembers of the later one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_rolled_back_is_read_anew() {
    let mut server = Redis::start();
    let store: Arc<dyn Store> = Arc::new(store_at(&server.url()));
    let leadership = leader(&store, replica(1), &mut JoinSet::new()).await;
    let commit = |revision| Commit {
        assignments: BTreeMap::from([(host(1), assignment(revision))]),
        ..Commit::default()
    };
    store.commit(&leadership, commit(1)).await.unwrap();
    let (data, saved) = (server.dir().join("appendonlydir"), server.dir().join("saved"));
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        std::fs::create_dir_all(to).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    copy(&data, &saved);
    store.commit(&leadership, commit(2)).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap().assignments[&host(1)].revision, 2);
    server.kill();
    copy(&saved, &data);
    server.restart(Data::Kept);
    assert_eq!(store.snapshot().await.unwrap().assignments[&host(1)].revision, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_refuses_and_says_so_until_it_is_a_master_again() {
    let server = Redis::start();
    let master = Redis::start();
    let store = store_at(&server.url());
    heals(&store).await;
    server.ask::<()>(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    let refused = in_time(store.record(intent(1))).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("refuses recording an intent") && text.contains("replica"), "{text}");
    let lease = in_time(store.acquire(LeaseKey::Leader, replica(1), Term(0), LONG)).await;
    assert!(matches!(lease, Err(StoreError::Refused { .. })), "{lease:?}");
    let warnings = store.health().borrow().warnings.clone();
    assert!(warnings.iter().any(|warning| warning.contains("takes no writes")), "{warnings:?}");
    server.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    heals(&store).await;
    assert!(store.health().borrow().warnings.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_memory_is_named_and_the_lease_goes_on() {
    let server = Redis::start();
    let store = store_at(&server.url());
    let term = take(&store, replica(1)).await;
    heals(&store).await;
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = in_time(store.record(intent(1))).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("memory is full"), "{text}");
    ours(&store.renew(LeaseKey::Leader, replica(1), term, LONG).await.unwrap());
    assert!(store.snapshot().await.unwrap().intents.is_empty());
    let health = store.health().borrow().clone();
    assert_eq!(health.reachable, Some(Ok(())));
    assert!(health.warnings.iter().any(|warning| warning.contains("memory is full")));
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    store.record(intent(1)).await.unwrap();
    assert!(store.health().borrow().warnings.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_pauses_costs_a_second_and_no_more() {
    let server = Redis::start();
    let store = store_at(&server.url());
    let term = take(&store, replica(1)).await;
    heals(&store).await;
    server.signal("STOP");
    let slow = in_time(store.snapshot()).await;
    assert!(matches!(slow, Err(StoreError::Timeout { .. })), "{slow:?}");
    let renewed = in_time(store.renew(LeaseKey::Leader, replica(1), term, LONG)).await;
    assert!(matches!(renewed, Err(StoreError::Timeout { timeout_ms: 500, .. })), "{renewed:?}");
    server.signal("CONT");
    heals(&store).await;
    // What was asked meanwhile may have been done; asking again comes to the same.
    ours(&store.renew(LeaseKey::Leader, replica(1), term, LONG).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_writes_are_done_once_and_known_afterwards() {
    let server = Redis::start();
    let store = store_at(&server.url());
    heals(&store).await;
    server.ask::<()>(&["CLIENT", "PAUSE", "1500", "WRITE"]);
    let slow = in_time(store.record(intent(1))).await;
    assert!(matches!(slow, Err(StoreError::Timeout { .. })), "{slow:?}");
    heals(&store).await;
    store.record(intent(1)).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap().intents, [intent(1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_network_is_noticed_and_left_behind() {
    let server = Redis::start();
    let proxy = StallProxy::before(([127, 0, 0, 1], server.port).into()).await;
    let store = store_at(&format!("redis://{}", proxy.address));
    let term = take(&store, replica(1)).await;
    for direction in [Direction::ToServer, Direction::ToClient] {
        heals(&store).await;
        proxy.stall(direction);
        for _ in 0..3 {
            let stalled = in_time(store.snapshot()).await;
            assert!(matches!(stalled, Err(StoreError::Timeout { .. })), "{stalled:?}");
            let lease = in_time(store.renew(LeaseKey::Leader, replica(1), term, LONG)).await;
            assert!(matches!(lease, Err(StoreError::Timeout { .. })), "{lease:?}");
        }
        assert!(matches!(reachable(&store), Some(Err(_))));
        proxy.resume(direction);
    }
    heals(&store).await;
    let lease = store.renew(LeaseKey::Leader, replica(1), term, LONG).await.unwrap();
    assert_eq!(lease, Lease::Ours { term });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_late_is_found() {
    let mut server = Redis::start();
    server.kill();
    let store = store_at(&server.url());
    let health = store.health();
    wait_for("the first attempt to end", async || {
        matches!(health.borrow().reachable, Some(Err(_))).then_some(())
    })
    .await;
    let error = in_time(store.record(intent(1))).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    server.restart(Data::Lost);
    heals(&store).await;
    assert_eq!(health.borrow().reachable, Some(Ok(())));
}
