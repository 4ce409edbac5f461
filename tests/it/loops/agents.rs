//! Several replicas and the Docker hosts they reach: one agent each, whatever happens to
//! it, and every job still runs exactly once.

use std::time::Duration;

use runner_orchestrator::docker::Docker;
use runner_orchestrator::fleet::id::{HostId, PoolName};
use runner_orchestrator::fleet::intent::Wish;
use runner_orchestrator::loops::host::standing::{Part, Standing};
use runner_orchestrator::sim::docker::{Fault as DockerFault, Operation};
use runner_orchestrator::sim::github::Fault;
use runner_orchestrator::sim::listener::ListenerFaults;
use runner_orchestrator::store::Store;
use uuid::Uuid;

use super::replicas::Cluster;
use super::world::World;

const MINT: &str = "POST /repos/{owner}/{repo}/actions/runners/generate-jitconfig";
const SECOND: Duration = Duration::from_secs(1);
/// What is left of a lease, and what the next agent waits for its predecessor's calls.
const AFTER_A_CRASH: Duration = Duration::from_secs(20);

fn lengths(count: u32) -> Vec<f64> {
    (0..count).map(|n| f64::from(n % 7) + 1.0).collect()
}

#[tokio::test(start_paused = true)]
async fn of_three_replicas_on_one_daemon_one_is_the_agent_and_the_others_say_whose() {
    let mut cluster = Cluster::new();
    let docker = cluster.docker();
    for _ in 0..3 {
        cluster.start(&docker);
    }
    let (agent, took) = cluster.until_one_agent(SECOND * 2).await;
    assert!(took < SECOND, "{took:?} until there was an agent");
    cluster.jobs(&lengths(20));
    cluster.until_all_done(SECOND * 300).await;
    assert_eq!(cluster.agents(), [agent]);
    let (id, replica) = (cluster.standing(agent).host, cluster.handle(agent).replica);
    let snapshot = cluster.store.snapshot().await.unwrap();
    assert_eq!(snapshot.hosts.len(), 1, "one daemon, one host");
    let record = &snapshot.hosts[&id.unwrap()];
    assert_eq!((record.replica, record.docker_version.as_deref()), (replica, Some("model")));
    assert_eq!((record.capacity.cpus, record.capacity.memory_bytes), (Some(8), Some(32 << 30)));
    assert_eq!(record.capacity.disk_free_bytes, Some(100 << 30));
    assert_eq!(record.capacity.architecture.as_deref(), Some(std::env::consts::ARCH));
    for other in cluster.all().into_iter().filter(|other| *other != agent) {
        let standing = cluster.standing(other);
        assert_eq!(standing.part, Part::StandingBy { agent: Some(replica) });
        assert_eq!((standing.host, standing.clash), (id, None));
        assert_eq!(cluster.changes(other), 0, "it only stands by");
    }
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_killed_in_the_middle_of_jobs_is_replaced_within_seconds() {
    let mut cluster = Cluster::new();
    let docker = cluster.docker();
    cluster.start(&docker);
    cluster.start(&docker);
    for round in 0..6_u64 {
        let (agent, _) = cluster.until_one_agent(AFTER_A_CRASH).await;
        cluster.jobs(&lengths(12));
        tokio::time::sleep(Duration::from_millis(90 + 431 * round)).await;
        cluster.kill(agent);
        cluster.start(&docker);
        let (_, took) = cluster.until_one_agent(AFTER_A_CRASH).await;
        assert!(took > SECOND * 5, "after {took:?} nobody can know that it is dead");
    }
    cluster.until_all_done(SECOND * 600).await;
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_told_to_stop_hands_over_at_once_and_leaves_its_runners() {
    let mut cluster = Cluster::new();
    let docker = cluster.docker();
    cluster.start(&docker);
    cluster.start(&docker);
    for round in 0..8_u64 {
        let (agent, _) = cluster.until_one_agent(SECOND * 2).await;
        cluster.jobs(&lengths(8));
        tokio::time::sleep(Duration::from_millis(60 + 333 * round)).await;
        let begun = tokio::time::Instant::now();
        cluster.stop(agent).await;
        // A retirement under way may need its five seconds of quiet.
        assert!(begun.elapsed() < SECOND * 7, "stopping took {:?}", begun.elapsed());
        let (_, took) = cluster.until_one_agent(SECOND * 2).await;
        assert!(took < SECOND / 2, "{took:?} until the next agent");
        cluster.start(&docker);
    }
    cluster.until_all_done(SECOND * 600).await;
    cluster.end().await;
}

/// Nobody reaches the store: what runs is cared for, nothing begins, nobody is retired.
#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_the_agent_cares_for_what_runs_and_begins_nothing() {
    let mut cluster = Cluster::new();
    let docker = cluster.docker();
    cluster.start(&docker);
    cluster.start(&docker);
    let (agent, _) = cluster.until_one_agent(SECOND * 2).await;
    let boot = cluster.standing(agent).part;
    cluster.jobs(&[20.0, 20.0, 20.0, 200.0]);
    cluster.until(SECOND * 20, "four running", |cluster| cluster.running() == 4).await;
    for replica in cluster.all() {
        cluster.cut(replica, true);
    }
    tokio::time::sleep(SECOND * 5).await;
    let minted = cluster.state().runners.len();
    cluster.jobs(&lengths(4));
    cluster.until(SECOND * 40, "three ended", |cluster| cluster.running() == 1).await;
    tokio::time::sleep(SECOND * 100).await;
    assert_eq!(
        docker.containers(&World::mark()).await.unwrap().len(),
        1,
        "the ended ones are reaped"
    );
    assert!(cluster.state().runners.len() < minted, "nothing new was registered");
    for replica in cluster.all() {
        cluster.cut(replica, false);
    }
    cluster.until(SECOND * 30, "the new ones begin", |cluster| cluster.running() > 1).await;
    assert_eq!(cluster.agents().len(), 1);
    if cluster.agents() == [agent] {
        assert_eq!(
            std::mem::discriminant(&cluster.standing(agent).part),
            std::mem::discriminant(&boot)
        );
    }
    cluster.until_all_done(SECOND * 600).await;
    cluster.end().await;
}

/// Starts that wait for their turn when the lease runs out say nothing of their pool: its
/// breaker, which would hold everything for a quarter of an hour, stays shut.
#[tokio::test(start_paused = true)]
async fn a_lease_lost_in_a_burst_opens_no_breaker() {
    let mut cluster = Cluster::new();
    let docker = cluster.docker();
    cluster.pool.max_runners = 40;
    let replica = cluster.start(&docker);
    cluster.until_one_agent(SECOND * 2).await;
    // The first start makes the pool's network; the others wait for it.
    docker.fail(Operation::Network, DockerFault::Hang, 1);
    cluster.jobs(&lengths(40));
    let waits = |_: &Cluster| docker.calls(Operation::Network) == 1;
    cluster.until(SECOND * 20, "the network being made", waits).await;
    cluster.cut(replica, true);
    tokio::time::sleep(SECOND * 40).await;
    cluster.cut(replica, false);
    cluster.until_all_done(SECOND * 120).await;
    cluster.end().await;
}

/// A retirement ordered while the store was there is not begun while it is away.
#[tokio::test(start_paused = true)]
async fn a_retirement_ordered_before_the_store_went_away_waits_for_it() {
    let mut cluster = Cluster::new();
    let docker = cluster.docker();
    cluster.pool.min_runners = 1;
    cluster.start(&docker);
    cluster.until(SECOND * 30, "one idle", |c| c.state().runners.len() == 1).await;
    tokio::time::sleep(SECOND * 3).await;
    let refused = Fault { route: "DELETE *".to_owned(), status: Some(502), ..Fault::default() };
    cluster.sim.add_fault(refused).unwrap();
    let runner = docker.containers(&World::mark()).await.unwrap()[0].labels.runner;
    cluster.wish(Wish::Delete { runner, force: false }).await;
    tokio::time::sleep(SECOND * 7).await;
    for replica in cluster.all() {
        cluster.cut(replica, true);
    }
    tokio::time::sleep(SECOND * 6).await;
    cluster.sim.clear_faults();
    let registered = cluster.state().runners.len();
    tokio::time::sleep(SECOND * 60).await;
    let there = docker.containers(&World::mark()).await.unwrap();
    assert!(there.iter().any(|seen| seen.labels.runner == runner), "retired without the store");
    assert_eq!(cluster.state().runners.len(), registered, "its registration is gone");
    for replica in cluster.all() {
        cluster.cut(replica, false);
    }
    let mut rounds = 0;
    while docker.containers(&World::mark()).await.unwrap().iter().any(|c| c.labels.runner == runner)
    {
        rounds += 1;
        assert!(rounds < 60, "not retired when the store is back");
        tokio::time::sleep(SECOND).await;
    }
}

/// Only the agent loses the store: the other takes over, and the first touches nothing
/// from the instant on at which the marker on the daemon is not its own.
#[tokio::test(start_paused = true)]
async fn an_agent_cut_off_from_the_store_gives_way_to_the_newer_marker() {
    let mut cluster = Cluster::new();
    let docker = cluster.docker();
    cluster.start(&docker);
    cluster.start(&docker);
    for round in 0..4_u64 {
        let (agent, _) = cluster.until_one_agent(AFTER_A_CRASH).await;
        // Starts under way that meet their next step after they were superseded.
        let slow = Fault { route: MINT.to_owned(), latency_ms: Some(14_000), ..Fault::default() };
        cluster.sim.add_fault(slow).unwrap();
        cluster.jobs(&lengths(12));
        tokio::time::sleep(SECOND * 5 + Duration::from_millis(40 + 217 * round)).await;
        cluster.cut(agent, true);
        let taken_over = |cluster: &Cluster| {
            cluster.all().iter().any(|r| cluster.standing(*r).part == Part::TakingOver)
        };
        cluster.until(SECOND * 8, "taking over", taken_over).await;
        // What it had looked up of the marker counts for a second.
        tokio::time::sleep(SECOND * 3).await;
        assert!(!cluster.standing(agent).is_agent(), "it does not know that it was replaced");
        let before = cluster.changes(agent);
        let (next, _) = cluster.until_one_agent(AFTER_A_CRASH).await;
        assert_ne!(next, agent);
        tokio::time::sleep(SECOND * 20).await;
        assert_eq!(cluster.changes(agent), before, "it changed what is another's");
        cluster.sim.clear_faults();
        cluster.cut(agent, false);
        let whose = Part::StandingBy { agent: Some(cluster.handle(next).replica) };
        cluster.until(SECOND * 10, "standing by", |c| c.standing(agent).part == whose).await;
    }
    cluster.until_all_done(SECOND * 600).await;
    cluster.end().await;
}

/// The store forgets everything: the same boot goes on.
#[tokio::test(start_paused = true)]
async fn an_emptied_store_changes_no_agent() {
    let mut cluster = Cluster::new();
    let docker = cluster.docker();
    cluster.start(&docker);
    let (agent, _) = cluster.until_one_agent(SECOND * 2).await;
    cluster.jobs(&[30.0, 30.0]);
    cluster.until(SECOND * 20, "two running", |cluster| cluster.running() == 2).await;
    let Part::Agent { boot, .. } = cluster.standing(agent).part else { panic!("not the agent") };
    cluster.store.flush();
    tokio::time::sleep(SECOND * 10).await;
    let host = cluster.standing(agent).host.unwrap();
    let marker = docker.marker(&World::mark(), host).await.unwrap().unwrap();
    assert_eq!(marker.boot, boot, "it took itself for superseded");
    cluster.jobs(&lengths(4));
    cluster.until_all_done(SECOND * 300).await;
    cluster.end().await;
}

/// Whoever asks first has the lease then; the other gives way, and no job is lost by it.
#[tokio::test(start_paused = true)]
async fn a_store_emptied_again_and_again_leaves_one_agent_and_loses_no_job() {
    let mut cluster = Cluster::new();
    let docker = cluster.docker();
    cluster.start(&docker);
    cluster.start(&docker);
    for round in 0..6_u64 {
        cluster.until_one_agent(AFTER_A_CRASH).await;
        cluster.jobs(&lengths(6));
        tokio::time::sleep(SECOND * 4 + Duration::from_millis(377 * round)).await;
        cluster.store.flush();
        tokio::time::sleep(SECOND * 3).await;
    }
    cluster.until_all_done(SECOND * 600).await;
    cluster.until_one_agent(AFTER_A_CRASH).await;
    cluster.end().await;
}

/// A machine was cloned with its volumes: both daemons claim to be the same host.
#[tokio::test(start_paused = true)]
async fn a_copied_identity_is_noticed_reported_and_replaced() {
    let mut cluster = Cluster::new();
    let dockers = [cluster.docker(), cluster.docker()];
    let copied = HostId(Uuid::from_u128(0x00c0_9123 << 96));
    for docker in &dockers {
        docker.claim_identity(&World::mark(), copied).await.unwrap();
    }
    let first = cluster.start(&dockers[0]);
    cluster.until_one_agent(SECOND * 2).await;
    let second = cluster.start(&dockers[1]);
    let took = cluster.until(SECOND * 40, "both serve", |c| c.agents().len() == 2).await;
    assert!(took > SECOND * 10, "{took:?}: three looks take two lifetimes of a lease");
    assert_eq!(cluster.standing(first).host, Some(copied));
    let standing = cluster.standing(second);
    assert_ne!(standing.host, Some(copied));
    let clash = standing.clash.unwrap();
    assert_eq!((clash.host, clash.kept_by.as_str()), (copied, "machine-0"));
    assert_eq!(clash.replica, cluster.handle(first).replica);
    assert_eq!(cluster.standing(first).clash, None);
    cluster.pool.max_runners = 10;
    cluster.jobs(&lengths(10));
    cluster.until_all_done(SECOND * 300).await;
    assert!(cluster.changes(second) > 0, "the renamed host serves nothing");
    cluster.end().await;
}

/// Regression: a machine cloned while its agent ran carries that agent's marker, too. It
/// does not beat there.
#[tokio::test(start_paused = true)]
async fn a_marker_that_was_copied_with_the_identity_deceives_nobody() {
    let mut cluster = Cluster::new();
    let dockers = [cluster.docker(), cluster.docker()];
    let first = cluster.start(&dockers[0]);
    cluster.until_one_agent(SECOND * 2).await;
    let (mark, host) = (World::mark(), cluster.standing(first).host.unwrap());
    let marker = dockers[0].marker(&mark, host).await.unwrap().unwrap();
    dockers[1].claim_identity(&mark, host).await.unwrap();
    dockers[1].write_marker(&mark, &marker).await.unwrap();
    let second = cluster.start(&dockers[1]);
    cluster.until(SECOND * 180, "both serve", |c| c.agents().len() == 2).await;
    assert_eq!(cluster.standing(first).host, Some(host));
    assert_eq!(cluster.standing(second).clash.unwrap().kept_by, "machine-0");
    cluster.end().await;
}

/// Standing by for an agent on the same daemon is no clash, however long it lasts, even
/// when its marker was pruned.
#[tokio::test(start_paused = true)]
async fn pruned_volumes_come_back_and_are_no_clash() {
    let mut cluster = Cluster::new();
    let docker = cluster.docker();
    cluster.start(&docker);
    cluster.start(&docker);
    let (agent, _) = cluster.until_one_agent(SECOND * 2).await;
    let host = cluster.standing(agent).host.unwrap();
    for _ in 0..20 {
        docker.prune_volumes();
        tokio::time::sleep(Duration::from_millis(7_300)).await;
    }
    let mark = World::mark();
    assert!(docker.marker(&mark, host).await.unwrap().is_some());
    assert_eq!(docker.claim_identity(&mark, HostId(Uuid::new_v4())).await.unwrap(), host);
    assert_eq!(cluster.agents(), [agent]);
    for replica in cluster.all() {
        assert_eq!(
            (cluster.standing(replica).host, cluster.standing(replica).clash),
            (Some(host), None)
        );
    }
    cluster.jobs(&lengths(3));
    cluster.until_all_done(SECOND * 100).await;
    cluster.end().await;
}

/// Alone on its store nobody waits for a predecessor: it can only be dead.
#[tokio::test(start_paused = true)]
async fn a_lone_replica_waits_for_no_predecessor() {
    let mut world = World::new(ListenerFaults::default());
    world.start();
    for _ in 0..3 {
        let mut standing = world.handle().standing.clone();
        let serves = standing.wait_for(Standing::is_agent);
        tokio::time::timeout(SECOND, serves).await.expect("not the agent within a second").unwrap();
        world.kill();
        world.start();
    }
    world.jobs(&lengths(3));
    world.until_all_done(SECOND * 60).await;
    world.end().await;
}

/// Regression: without its pool's configuration a runner could not be retired, because
/// nobody knew where it was registered.
#[tokio::test(start_paused = true)]
async fn runners_of_a_pool_that_is_no_longer_configured_are_retired() {
    let mut world = World::new(ListenerFaults::default());
    world.pool.min_runners = 2;
    world.start();
    world.until(SECOND * 60, "two runners", |state| state.runners.len() == 2).await;
    tokio::time::sleep(SECOND * 3).await;
    world.kill();
    world.pool.name = PoolName::from("renamed");
    world.pool.min_runners = 0;
    world.start();
    tokio::time::sleep(SECOND * 10).await;
    let begun = tokio::time::Instant::now();
    world.stop().await;
    assert!(begun.elapsed() < SECOND * 20, "the drain took {:?}", begun.elapsed());
    assert_eq!(world.containers().await, 0, "containers left over");
    assert!(world.state().runners.is_empty(), "{:#?}", world.state().runners);
}
