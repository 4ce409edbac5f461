//! Leading and losing the lead: what a new term forgets, what becomes of a leader that does
//! nothing, and of a store that loses everything in mid-work.

use std::sync::Arc;
use std::time::Duration;

use runner_orchestrator::clock::SystemClock;
use runner_orchestrator::election::{self, Leadership, Vitals};
use runner_orchestrator::fleet::id::{ReplicaId, Term};
use runner_orchestrator::fleet::intent::Wish;
use runner_orchestrator::sim::listener::ListenerFaults;
use runner_orchestrator::store::memory::MemoryStore;
use runner_orchestrator::store::{Lease, LeaseKey, Store, StoreError, StoreHealth, Topic};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::replicas::Cluster;
use super::world::World;
use crate::it::support::reached_store::{Call, ReachedStore, Way};

#[tokio::test(start_paused = true)]
async fn a_leader_whose_loop_is_stuck_gives_the_lease_up() {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock::new())));
    let (vitals, stop) = (Vitals::default(), CancellationToken::new());
    let (leadership, mut leads) = watch::channel(None);
    let mut tasks = JoinSet::new();
    let replica = ReplicaId(Uuid::from_u128(1));
    tasks.spawn(election::lead(store.clone(), replica, leadership, vitals.clone(), stop.clone()));

    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(leads.borrow().is_none(), "it leads although nobody does the work");
    assert_eq!(vitals.check(), Ok(()));

    vitals.beat();
    let first = leads.wait_for(Option::is_some).await.unwrap().as_ref().map(Leadership::term);
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        vitals.beat();
    }
    assert_eq!(leads.borrow().as_ref().map(Leadership::term), first, "it leads on");

    let waited = tokio::time::timeout(Duration::from_secs(13), leads.wait_for(Option::is_none));
    drop(waited.await.expect("it leads on although its loop is stuck").unwrap());
    assert!(vitals.check().unwrap_err().contains("lead loop"));
    let other = ReplicaId(Uuid::from_u128(2));
    let ttl = Duration::from_secs(5);
    let taken = store.acquire(LeaseKey::Leader, other, Term(0), ttl).await.unwrap();
    assert!(matches!(taken, Lease::Ours { .. }), "the lease is free at once: {taken:?}");
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}

/// A way on which no renewal arrives.
#[derive(Debug)]
struct NoRenewals;

impl Way for NoRenewals {
    async fn carry<T: Send + 'static>(
        &self,
        call: Call,
        effect: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        if call.action == "renewing a lease" {
            return Err(StoreError::Timeout { action: call.action, timeout_ms: 0 });
        }
        effect.await
    }

    fn changes(&self, store: &MemoryStore, topic: Topic) -> watch::Receiver<u64> {
        store.changes(topic)
    }

    fn health(&self, store: &MemoryStore) -> watch::Receiver<StoreHealth> {
        store.health()
    }
}

/// A replica asked for the lease and did not hear that it got it. When it learns so, it leads,
/// and never for longer than the store has it.
#[tokio::test(start_paused = true)]
async fn a_lease_found_to_be_ours_is_believed_in_no_longer_than_it_lasts() {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock::new())));
    let replica = ReplicaId(Uuid::from_u128(1));
    let unheard =
        store.acquire(LeaseKey::Leader, replica, Term(0), Duration::from_secs(3)).await.unwrap();
    let Lease::Ours { term } = unheard else { panic!("{unheard:?}") };

    let (vitals, stop) = (Vitals::default(), CancellationToken::new());
    let (leadership, leads) = watch::channel(None::<Leadership>);
    let mut tasks = JoinSet::new();
    let reached = Arc::new(ReachedStore::new(store.clone(), NoRenewals));
    tasks.spawn(election::lead(reached, replica, leadership, vitals.clone(), stop.clone()));
    let begun = Instant::now();
    let mut led = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(12) {
        vitals.beat();
        tokio::time::sleep(Duration::from_millis(10)).await;
        let believed = leads.borrow().clone().filter(Leadership::holds);
        if let Some(believed) = believed {
            let held = store.snapshot().await.unwrap().leader;
            assert_eq!(held, Some((replica, believed.term())), "after {:?}", begun.elapsed());
            if believed.term() == term {
                led = begun.elapsed();
            }
        }
    }
    let second = Duration::from_secs(1);
    assert!(led > second && led < 2 * second, "it led until a second before the end: {led:?}");
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}

/// The ledger used to live as long as the process: a replica that led again decided by
/// what it had read in its last term.
#[tokio::test(start_paused = true)]
async fn a_store_emptied_in_mid_work_loses_no_job() {
    let mut world = World::new(ListenerFaults::default());
    world.start();
    world.jobs(&[4.0, 8.0, 12.0, 20.0, 30.0, 30.0]);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let before = world.handle().published.borrow().clone();
    world.store().flush();
    world.jobs(&[1.0, 2.0, 3.0]);
    world.until_all_done(Duration::from_secs(300)).await;
    let after = world.handle().published.borrow().clone();
    assert!(after.view.ledger.term > before.view.ledger.term, "another term");
    assert!(after.view.ledger.totals.assigned >= before.view.ledger.totals.assigned);
    world.end().await;
}

/// What a process with a wrong clock stamped before it knew the store's time held its own
/// deadlines up for as long as its clock was ahead.
#[tokio::test(start_paused = true)]
async fn nobody_stands_for_a_lease_before_the_store_has_told_its_time() {
    let mut cluster = Cluster::new();
    let docker = cluster.docker();
    // What it writes arrives; what it asks is answered too late to tell the time.
    let replica = cluster.start_far_away(&docker, Duration::from_millis(600));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let snapshot = cluster.store.snapshot().await.unwrap();
    assert_eq!(snapshot.leader, None);
    assert!(cluster.agents().is_empty() && snapshot.hosts.is_empty());
    cluster.lag(replica, Duration::ZERO);
    cluster.until_one_agent(Duration::from_secs(3)).await;
    cluster.jobs(&[1.0]);
    cluster.until_all_done(Duration::from_secs(30)).await;
    cluster.end().await;
}

/// One that had read the store before its lease came decided without what the leader before
/// it had still written.
#[tokio::test(start_paused = true)]
async fn a_leader_decides_from_what_it_read_as_the_leader() {
    for wait_ms in (0..1_000).step_by(100) {
        let mut cluster = Cluster::new();
        let (here, there) = (cluster.docker(), cluster.docker());
        let first = cluster.start(&here);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let second = cluster.start(&there);
        tokio::time::sleep(Duration::from_secs(10)).await;
        cluster.lag(second, Duration::from_millis(900));
        let old = cluster.handle(first).published.borrow().term.unwrap();
        let (told, mut turns) = tokio::sync::mpsc::unbounded_channel();
        cluster.handle(second).listeners.add(move |turn| {
            if turn.term > Some(old) {
                let _ = told.send(turn.view.operator.frozen_since.is_some());
            }
        });
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        cluster.wish(Wish::Freeze).await;
        while cluster.store.snapshot().await.unwrap().operator.frozen_since.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cluster.stop(first).await;
        let saw = turns.recv().await;
        assert_eq!(saw, Some(true), "{wait_ms} ms: its first turn did not see the freeze");
        cluster.kill(second);
    }
}

/// Decisions used to be read off a channel that keeps only the newest turn.
#[tokio::test(start_paused = true)]
async fn every_turn_is_told() {
    let mut world = World::new(ListenerFaults::default());
    world.start();
    let (told, mut assigned) = tokio::sync::mpsc::unbounded_channel();
    world.handle().listeners.add(move |turn| {
        for placement in &turn.plan.place {
            let _ = told.send(placement.assigned.id);
        }
    });
    world.jobs(&[1.0; 40]);
    world.until_all_done(Duration::from_secs(300)).await;
    let runners = world.handle().published.borrow().view.ledger.totals.assigned;
    let mut heard = std::collections::BTreeSet::new();
    while let Ok(id) = assigned.try_recv() {
        assert!(heard.insert(id), "told twice");
    }
    assert_eq!(heard.len() as u64, runners);
    world.end().await;
}
