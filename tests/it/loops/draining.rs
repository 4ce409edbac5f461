//! Draining a replica: another leads at once, its host is emptied, and it is forgotten when
//! it has gone.

use std::time::Duration;

use runner_orchestrator::docker::Docker;
use runner_orchestrator::fleet::id::ReplicaId;
use runner_orchestrator::fleet::intent::Wish;
use runner_orchestrator::loops::host::standing::Part;
use runner_orchestrator::store::Store;

use super::replicas::Cluster;
use super::world::World;

const MOMENT: Duration = Duration::from_secs(3);

async fn leader(cluster: &Cluster) -> Option<ReplicaId> {
    cluster.store.snapshot().await.unwrap().leader.map(|(leader, _)| leader)
}

fn id(cluster: &Cluster, replica: usize) -> ReplicaId {
    cluster.handle(replica).replica
}

/// Waits until somebody leads of whom `fits` holds.
async fn led_by(cluster: &Cluster, within: Duration, fits: impl Fn(ReplicaId) -> bool) -> Duration {
    let begun = tokio::time::Instant::now();
    while !leader(cluster).await.is_some_and(&fits) {
        assert!(begun.elapsed() < within, "not within {within:?}: {:?}", leader(cluster).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_drained_leader_passes_the_lead_on_and_its_host_is_emptied() {
    let mut cluster = Cluster::new();
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let docker = cluster.docker();
        replicas.push(cluster.start(&docker));
    }
    cluster.until(Duration::from_secs(20), "three agents", |it| it.agents().len() == 3).await;
    led_by(&cluster, MOMENT, |_| true).await;
    cluster.jobs(&[40.0; 6]);
    cluster.until(Duration::from_secs(60), "all run", |it| it.running() == 6).await;
    let first = leader(&cluster).await.unwrap();
    let drained = *replicas.iter().find(|it| id(&cluster, **it) == first).unwrap();
    let host = cluster.standing(drained).host.unwrap();

    cluster.wish(Wish::DrainReplica { replica: first }).await;
    // The lease is given up, not run out: that would take its five seconds.
    let took = led_by(&cluster, MOMENT, |leader| leader != first).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    let second = leader(&cluster).await.unwrap();
    cluster.jobs(&[5.0; 4]);
    cluster.until_all_done(Duration::from_secs(200)).await;
    let there = |cluster: &Cluster| {
        let published = cluster.handle(drained).published.borrow().clone();
        published.view.hosts[&host].runners.len()
    };
    cluster.until(Duration::from_secs(60), "its host is empty", |it| there(it) == 0).await;

    // The leader dies: the third one leads, not the drained one.
    let dies = *replicas.iter().find(|it| id(&cluster, **it) == second).unwrap();
    cluster.kill(dies);
    led_by(&cluster, Duration::from_secs(10), |leader| leader != first && leader != second).await;
    cluster.wish(Wish::UndrainReplica { replica: first }).await;
    let third = *replicas.iter().find(|it| **it != drained && **it != dies).unwrap();
    tokio::time::sleep(MOMENT).await;
    cluster.kill(third);
    led_by(&cluster, Duration::from_secs(10), |leader| leader == first).await;
}

#[tokio::test(start_paused = true)]
async fn a_drained_replica_that_is_alone_leads_on_until_another_comes() {
    let mut cluster = Cluster::new();
    let docker = cluster.docker();
    let first = cluster.start(&docker);
    led_by(&cluster, Duration::from_secs(10), |_| true).await;
    let alone = id(&cluster, first);
    cluster.wish(Wish::DrainReplica { replica: alone }).await;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(leader(&cluster).await, Some(alone), "somebody must lead");
    }
    let other = cluster.docker();
    let second = cluster.start(&other);
    let next = id(&cluster, second);
    led_by(&cluster, Duration::from_secs(10), |leader| leader == next).await;

    // It ends, and another process takes its place: then it is forgotten, although nobody
    // takes the drain back, and the host is used again.
    cluster.stop(first).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let drained = async |cluster: &Cluster| {
        cluster.store.snapshot().await.unwrap().operator.draining_replicas.len()
    };
    assert_eq!(drained(&cluster).await, 1, "nobody else cares for its host yet");
    let third = cluster.start(&docker);
    let begun = tokio::time::Instant::now();
    while drained(&cluster).await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is never forgotten");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(leader(&cluster).await, Some(next));
    cluster.until(Duration::from_secs(10), "an agent", |it| it.standing(third).is_agent()).await;
    cluster.jobs(&[5.0; 6]);
    cluster.until_all_done(Duration::from_secs(200)).await;
    // Idle ones too: their registration goes five seconds before their container.
    let empty = |cluster: &Cluster| {
        let published = cluster.handle(second).published.borrow().clone();
        published.view.hosts.values().all(|host| host.runners.is_empty())
    };
    cluster.until(Duration::from_secs(200), "no runners", empty).await;
    cluster.end().await;
}

/// Regression: a process that was told to stop while it waited for what its killed
/// predecessor had under way ended at once, and left that one's runners on the host.
#[tokio::test(start_paused = true)]
async fn a_process_told_to_stop_in_the_middle_of_taking_over_drains_all_the_same() {
    let mut cluster = Cluster::new();
    cluster.drains = true;
    cluster.pool.min_runners = 2;
    let docker = cluster.docker();
    let first = cluster.start(&docker);
    let idle = |cluster: &Cluster| {
        let runners = cluster.state().runners;
        runners.len() == 2 && runners.iter().all(|runner| runner.status == "online")
    };
    cluster.until(Duration::from_secs(30), "two idle runners", idle).await;
    cluster.kill(first);
    let next = cluster.start(&docker);
    let taking_over = |cluster: &Cluster| cluster.standing(next).part == Part::TakingOver;
    cluster.until(Duration::from_secs(20), "the take-over to begin", taking_over).await;
    let begun = tokio::time::Instant::now();
    cluster.stop(next).await;
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    let left = docker.containers(&World::mark()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}
