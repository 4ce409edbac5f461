//! The real election on the real store: how long it takes until somebody else leads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runner_orchestrator::election::{self, LEASE_TTL, Leadership};
use runner_orchestrator::store::{LeaseKey, Store};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::world::{PATIENCE, first, replica, store_at, working};
use crate::it::support::redis::{Data, Redis};

/// One replica's standing in the election.
struct Candidate {
    store: Arc<dyn Store>,
    seen: watch::Receiver<Option<Leadership>>,
    cancel: CancellationToken,
    task: JoinSet<()>,
    /// What the lease stands for goes on.
    _work: JoinSet<()>,
}

impl Candidate {
    fn stand(server: &Redis, n: u128) -> Self {
        let store: Arc<dyn Store> = Arc::new(store_at(&server.url()));
        let (told, seen) = watch::channel(None);
        let cancel = CancellationToken::new();
        let mut task = JoinSet::new();
        let mut work = JoinSet::new();
        let vitals = working(&mut work);
        task.spawn(election::lead(store.clone(), replica(n), told, vitals, cancel.clone()));
        Self { store, seen, cancel, task, _work: work }
    }

    async fn leads(&mut self) -> Leadership {
        first(&mut self.seen).await
    }

    /// As a kill does: no word to anybody.
    async fn vanish(mut self) {
        self.task.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_vanishes_is_followed_within_seven_seconds() {
    let server = Redis::start();
    let mut one = Candidate::stand(&server, 1);
    let before = one.leads().await;
    let mut two = Candidate::stand(&server, 2);
    let begun = Instant::now();
    one.vanish().await;
    let after = two.leads().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(7), "{took:?}");
    assert!(after.term() > before.term());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_goes_is_followed_at_once() {
    let server = Redis::start();
    let mut leader = Candidate::stand(&server, 1);
    leader.leads().await;
    let mut took = Vec::new();
    for n in 2..6 {
        let mut next = Candidate::stand(&server, n);
        // It is refused once, and then listens: that moves every topic, perhaps before we look.
        let mut leases = next.store.changes(runner_orchestrator::store::Topic::Leases);
        let listens = leases.wait_for(|moved| *moved > 0);
        tokio::time::timeout(PATIENCE, listens).await.unwrap().unwrap();
        let begun = Instant::now();
        leader.cancel.cancel();
        next.leads().await;
        took.push(begun.elapsed());
        leader = next;
    }
    assert!(took.iter().all(|took| *took < Duration::from_millis(300)), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_store_has_one_leader_again_within_seconds() {
    let mut server = Redis::start();
    let mut one = Candidate::stand(&server, 1);
    let before = one.leads().await;
    server.restart(Data::Lost);
    let begun = Instant::now();
    let again = tokio::time::timeout(
        PATIENCE,
        one.seen.wait_for(|leadership| {
            leadership.as_ref().is_some_and(|leadership| leadership.term() > before.term())
        }),
    );
    again.await.unwrap().unwrap();
    assert!(begun.elapsed() < LEASE_TTL, "{:?}", begun.elapsed());
    let leader = one.store.snapshot().await.unwrap().leader.unwrap();
    assert_eq!(leader.0, replica(1));
    one.cancel.cancel();
    while one.task.join_next().await.is_some() {}
    assert_eq!(one.store.snapshot().await.unwrap().leader, None);
    let lease = LeaseKey::Leader;
    assert!(matches!(
        one.store.renew(lease, replica(1), leader.1, LEASE_TTL).await.unwrap(),
        runner_orchestrator::store::Lease::Absent
    ));
}
