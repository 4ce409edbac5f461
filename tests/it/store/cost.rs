//! What the store costs at its largest, and at rest.

#![expect(clippy::print_stdout, reason = "figures, shown with --nocapture")]

use std::collections::BTreeMap;
use std::time::Instant;

use runner_orchestrator::fleet::host::Assigned;
use runner_orchestrator::fleet::id::{
    BootId, ClusterMark, ContainerId, GitHubRunnerId, HostId, PoolName, RunnerId, RunnerName, Term,
};
use runner_orchestrator::fleet::reason::Reason;
use runner_orchestrator::fleet::runner::{RunnerPhase, RunnerRecord};
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::store::{Commit, Lease, LeaseKey, Store};
use uuid::Uuid;

use super::world::{
    LONG, Subject, announcement, assignment, host, ours, replica, report_of, store_at,
};
use crate::it::support::redis::Redis;

const HOSTS: u128 = 100;
const RUNNERS_OF_A_HOST: u128 = 100;
const MEMORY_MB_MAX: f64 = 14.0;

fn info(server: &Redis, field: &str) -> u64 {
    let text: String = server.ask(&["INFO"]);
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap().trim().parse().unwrap()
}

fn id_of(host: HostId, n: u128) -> RunnerId {
    RunnerId(Uuid::from_u128((0x0199_7cd0_0000_7000 << 64) | (host.0.as_u128() << 32) | n))
}

fn name_of(host: HostId, id: RunnerId) -> RunnerName {
    RunnerName::compose(&ClusterMark::derive("test"), &host, &id)
}

fn running(host: HostId, n: u128) -> RunnerRecord {
    let id = id_of(host, n);
    let since = Timestamp(1_795_000_000_000);
    RunnerRecord {
        scope: None,
        id,
        name: name_of(host, id),
        pool: PoolName::from("default"),
        phase: RunnerPhase::Running { since },
        container: Some(ContainerId("0123456789abcdef".repeat(4))),
        github_id: Some(GitHubRunnerId(1_000_000)),
        assigned_at: since,
        listened_at: Some(since),
        revision: "0123456789ab".to_owned(),
        correlation: "0123456789ab".to_owned(),
        retiring: None,
        retire_blocked_until: None,
        adopted: false,
    }
}

fn assigned(host: HostId, n: u128) -> Assigned {
    let id = id_of(host, n);
    Assigned {
        id,
        name: name_of(host, id),
        pool: PoolName::from("default"),
        boot: BootId(Uuid::from_u128(7)),
        revision: "0123456789ab".to_owned(),
        at: Timestamp(1_795_000_000_000),
        reason: Reason::QueuedJobs { waiting: 100, supply: 3 },
        correlation: "0123456789ab".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_runners_fit_and_are_read_once() {
    let server = Redis::start();
    let mut subject = Subject::on(&server);
    let leadership = subject.leader(replica(1)).await;
    let empty = info(&server, "used_memory");
    let mut wanted = BTreeMap::new();
    for n in 1..=HOSTS {
        let host = host(n);
        let agency = subject.agent(replica(1), host).await;
        let mut record = report_of(host, 1);
        record.runners =
            (0..RUNNERS_OF_A_HOST).map(|n| (id_of(host, n), running(host, n))).collect();
        subject.here.report(&agency, record).await.unwrap();
        let mut assignment = assignment(1);
        assignment.runners =
            (0..RUNNERS_OF_A_HOST).map(|n| (id_of(host, n), assigned(host, n))).collect();
        wanted.insert(host, assignment);
    }
    // A leader that begins writes them all at once.
    let commit = Commit { assignments: wanted, ..Commit::default() };
    let begun = Instant::now();
    subject.here.commit(&leadership, commit).await.unwrap();
    println!("committed {HOSTS} assignments in {:?}", begun.elapsed());
    let bytes = u32::try_from(info(&server, "used_memory") - empty).unwrap();
    let megabytes = f64::from(bytes) / 1e6;
    println!("{megabytes:.1} MB for {} runners", HOSTS * RUNNERS_OF_A_HOST);
    assert!(megabytes < MEMORY_MB_MAX, "{megabytes:.1} MB");

    let stranger = store_at(&server.url());
    for expected in ["everything", "nothing"] {
        let sent = info(&server, "total_net_output_bytes");
        let begun = Instant::now();
        let seen = stranger.snapshot().await.unwrap();
        let took = begun.elapsed();
        let runners: usize = seen.hosts.values().map(|host| host.runners.len()).sum();
        assert_eq!(runners, 10_000);
        let sent = info(&server, "total_net_output_bytes") - sent;
        println!("a snapshot that reads {expected}: {sent} bytes, {took:?}");
        // The question for the figures is answered with some kilobytes itself.
        assert!(expected != "nothing" || sent < 20_000, "{sent} bytes");
    }
}

/// What one replica asks in ten seconds at rest: it is the agent of its host, does not lead,
/// and shows what is shared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_at_rest_asks_little() {
    const SECONDS: u64 = 10;
    let server = Redis::start();
    let mut subject = Subject::on(&server);
    let leadership = subject.leader(replica(2)).await;
    assert_eq!(leadership.replica(), replica(2));
    let agency = subject.agent(replica(1), host(1)).await;
    let store = &subject.here;
    store.snapshot().await.unwrap();
    let (before, asked_before) = (info(&server, "total_commands_processed"), requests(&server));
    for second in 0..SECONDS {
        for _ in 0..2 {
            store.assignment(host(1)).await.unwrap();
        }
        let lease = LeaseKey::Agent(host(1));
        ours(&store.renew(lease, replica(1), agency.term(), LONG).await.unwrap());
        let asked = store.acquire(LeaseKey::Leader, replica(1), Term(0), LONG).await.unwrap();
        assert!(matches!(asked, Lease::HeldBy { .. }));
        store.snapshot().await.unwrap();
        if second % 5 == 0 {
            store.report(&agency, report_of(host(1), second)).await.unwrap();
            store.announce(announcement(1), LONG).await.unwrap();
        }
    }
    let asked = requests(&server) - asked_before;
    let done = info(&server, "total_commands_processed") - before;
    println!(
        "a replica at rest: {} requests, {} commands a second",
        asked / SECONDS,
        done / SECONDS
    );
    assert!(asked <= 8 * SECONDS, "{asked} requests in {SECONDS} s");
}

/// Requests of clients, without what scripts do inside. `HGET` is both: the two scripts of
/// every five seconds use it three times.
fn requests(server: &Redis) -> u64 {
    let text: String = server.ask(&["INFO", "commandstats"]);
    let of = |name: &str| {
        let start = format!("cmdstat_{name}:calls=");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
    };
    ["evalsha", "eval", "ping", "hget"].into_iter().map(of).sum()
}
