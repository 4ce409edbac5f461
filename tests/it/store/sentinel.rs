//! Three Sentinels, a master and its replica: the master dies, and the fleet goes on with
//! the other one.

#![expect(clippy::print_stdout, reason = "figures, shown with --nocapture")]

use std::time::Instant;

use runner_orchestrator::fleet::id::Term;
use runner_orchestrator::store::{Lease, LeaseKey, Store};

use super::world::{LONG, intent, ours, replica, store_at, wait_for};
use crate::it::support::redis::Redis;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_follows_the_master_the_sentinels_name() {
    let mut master = Redis::start();
    let follower = Redis::with(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let sentinels = [(); 3].map(|()| Redis::sentinel(&master, 2));
    let places: Vec<String> =
        sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
    let store = store_at(&format!("redis+sentinel://{}/fleet", places.join(",")));
    wait_for("the store to find the master", async || store.record(intent(1)).await.ok()).await;
    let taken = store.acquire(LeaseKey::Leader, replica(1), Term(0), LONG).await.unwrap();
    let term = ours(&taken);
    wait_for("the Sentinels to know each other and the replica", async || {
        sentinels.iter().all(knows_all).then_some(())
    })
    .await;
    wait_for("the replica to follow", async || {
        (follower.try_ask::<i64>(&["HLEN", "{ro:test}:intents"]) == Ok(1)).then_some(())
    })
    .await;

    let begun = Instant::now();
    master.kill();
    wait_for("the next master", async || store.record(intent(2)).await.ok()).await;
    println!("writes again {:?} after the master was killed", begun.elapsed());
    assert_eq!(store.snapshot().await.unwrap().intents.len(), 2);
    let lease = store.renew(LeaseKey::Leader, replica(1), term, LONG).await.unwrap();
    assert_eq!(lease, Lease::Ours { term });
    // A hint comes over the next master too.
    let mut heard = store.changes(runner_orchestrator::store::Topic::Intents);
    heard.mark_unchanged();
    let other = store_at(&follower.url());
    let mut n = 100;
    wait_for("a hint over the next master", async || {
        n += 1;
        other.record(intent(n)).await.ok()?;
        heard.has_changed().unwrap().then_some(())
    })
    .await;
}

fn knows_all(sentinel: &Redis) -> bool {
    let state: Vec<String> = sentinel.try_ask(&["SENTINEL", "MASTER", "fleet"]).unwrap_or_default();
    let field = |name: &str| {
        let at = state.iter().position(|word| word == name);
        at.and_then(|at| state.get(at + 1)).map(String::as_str)
    };
    field("num-other-sentinels") == Some("2") && field("num-slaves") == Some("1")
}
