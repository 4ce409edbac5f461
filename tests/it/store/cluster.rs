//! A Redis Cluster of two: our keys lie on one node, whichever is named.

use runner_orchestrator::fleet::id::Term;
use runner_orchestrator::store::{LeaseKey, Store};

use super::world::{LONG, intent, ours, replica, store_at, wait_for};
use crate::it::support::redis::Redis;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_node_leads_to_the_one_that_keeps_our_keys() {
    let nodes = [(); 2].map(|()| Redis::with(&["--cluster-enabled", "yes"]));
    for (node, slots) in nodes.iter().zip([["0", "8191"], ["8192", "16383"]]) {
        node.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]);
    }
    nodes[0].ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", &nodes[1].port.to_string()]);
    wait_for("the nodes to agree", async || {
        let agree = |node: &Redis| {
            let info: String = node.try_ask(&["CLUSTER", "INFO"]).unwrap_or_default();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        };
        nodes.iter().all(agree).then_some(())
    })
    .await;
    let mut last = Term(0);
    for (n, node) in (1..).zip(&nodes) {
        let store = store_at(&node.url());
        let lease = store.acquire(LeaseKey::Leader, replica(n), last, LONG).await.unwrap();
        last = ours(&lease);
        store.record(intent(n)).await.unwrap();
        assert_eq!(store.snapshot().await.unwrap().intents.len(), usize::try_from(n).unwrap());
        store.release(LeaseKey::Leader, replica(n), last).await.unwrap();
    }
    let kept: Vec<usize> =
        nodes.iter().map(|node| node.ask::<Vec<String>>(&["KEYS", "*"]).len()).collect();
    assert!(kept.contains(&0), "{kept:?}");
}
