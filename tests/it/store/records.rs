//! Records of other program versions, broken records, and secrets.

use std::collections::BTreeMap;

use runner_orchestrator::fleet::host::RECORD_VERSION;
use runner_orchestrator::store::{Commit, Store, StoreError, Topic};
use serde_json::{Value, json};

use super::world::{Subject, announcement, assignment, host, intent, replica, report_of, store_at};
use crate::it::support::redis::Redis;

fn with(record: &impl serde::Serialize, field: &str, value: Value) -> String {
    let mut record = serde_json::to_value(record).unwrap();
    record[field] = value;
    record.to_string()
}

/// Writes a record as a program of another version would, with a version above every one
/// that was given out so far.
fn put(server: &Redis, part: &str, name: &str, record: &str) {
    let state = "{ro:test}:state";
    let last: Option<u64> = server.ask(&["HGET", state, part]);
    let later = (last.unwrap_or_default() + 1).to_string();
    server.ask::<()>(&["HSET", &format!("{{ro:test}}:{part}"), name, record]);
    server.ask::<()>(&["ZADD", &format!("{{ro:test}}:{part}:versions"), &later, name]);
    server.ask::<()>(&["HSET", state, part, &later]);
}

/// Replicas of two versions run side by side while they are replaced: each reads what it
/// can, and says what it cannot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_records_are_told_and_left_as_they_are() {
    let server = Redis::start();
    let mut subject = Subject::on(&server);
    let agency = subject.agent(replica(1), host(1)).await;
    let store = subject.here.clone();
    store.report(&agency, report_of(host(1), 1)).await.unwrap();
    store.snapshot().await.unwrap();

    let newer = with(&report_of(host(2), 1), "version", json!(RECORD_VERSION + 1));
    let older = with(&report_of(host(4), 1), "version", json!(RECORD_VERSION - 1));
    let more = with(&report_of(host(5), 1), "added_later", json!({"x": 1}));
    put(&server, "hosts", &host(2).to_string(), &newer);
    put(&server, "hosts", &host(3).to_string(), "\u{1}not json");
    put(&server, "hosts", &host(4).to_string(), &older);
    put(&server, "hosts", &host(5).to_string(), &more);
    put(&server, "assignments", &host(2).to_string(), r#"{"version":77}"#);
    server.ask::<()>(&["HSET", "{ro:test}:intents", "x", "1:{}"]);
    server.ask::<()>(&["HSET", "{ro:test}:replicas", "x", "1:9000000000000:{\"version\":9}"]);

    for (store, is_new) in [(&subject.here, false), (&subject.there, true)] {
        let seen = store.snapshot().await.unwrap();
        assert!(seen.hosts.keys().copied().eq([host(1), host(4), host(5)]));
        assert!(seen.assignments.is_empty() && seen.replicas.is_empty());
        let mut told: Vec<&str> =
            seen.unreadable.iter().map(|record| record.key.as_str()).collect();
        told.sort_unstable();
        let mut expected = vec![
            format!("{{ro:test}}:assignments {}", host(2)),
            format!("{{ro:test}}:hosts {}", host(2)),
            format!("{{ro:test}}:hosts {}", host(3)),
            "{ro:test}:replicas x".to_owned(),
        ];
        // The others see it when the intents move.
        if is_new {
            expected.insert(3, "{ro:test}:intents x".to_owned());
        }
        assert_eq!(told, expected);
        let newer = seen.unreadable.iter().find(|record| {
            record.key.ends_with(&host(2).to_string()) && record.key.contains("hosts")
        });
        assert!(newer.unwrap().problem.contains("of version 2"), "{newer:?}");
    }
    let unread = store.assignment(host(2)).await;
    assert!(matches!(unread, Err(StoreError::Unreadable { .. })), "{unread:?}");
    let kept: String = server.ask(&["HGET", "{ro:test}:hosts", &host(2).to_string()]);
    assert_eq!(kept, newer);

    // Once it is replaced by one that can be read, it is as any other.
    let agency = subject.agent(replica(1), host(2)).await;
    put(&server, "hosts", &host(3).to_string(), &with(&report_of(host(3), 1), "version", json!(1)));
    store.report(&agency, report_of(host(2), 8)).await.unwrap();
    let seen = store.snapshot().await.unwrap();
    assert_eq!(seen.hosts[&host(2)].seq, 8);
    assert!(seen.hosts.contains_key(&host(3)));
}

/// An unreadable operator state is not an empty one: a frozen fleet stays frozen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_operator_state_does_not_thaw_the_fleet() {
    use runner_orchestrator::fleet::intent::Operator;
    use runner_orchestrator::fleet::time::Timestamp;

    let server = Redis::start();
    let store = store_at(&server.url());
    let frozen = Operator { revision: 1, frozen_since: Some(Timestamp(1)), ..Operator::default() };
    store.restore(&frozen).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap().operator, frozen);
    server.ask::<()>(&["HSET", "{ro:test}:state", "operator", "{"]);
    let seen = store.snapshot().await.unwrap();
    assert_eq!(seen.operator, frozen);
    assert_eq!(seen.unreadable.len(), 1);
    let stranger = store_at(&server.url()).snapshot().await;
    assert!(matches!(stranger, Err(StoreError::Unreadable { .. })), "{stranger:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_type_is_an_error_with_its_reason() {
    let server = Redis::start();
    server.ask::<()>(&["SET", "{ro:test}:intents", "mine"]);
    let store = store_at(&server.url());
    let error = store.record(intent(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("WRONGTYPE"), "{error}");
}

/// A host that has been silent for a day is forgotten, by every store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_silent_for_a_day_is_forgotten() {
    let server = Redis::start();
    let mut subject = Subject::on(&server);
    let leadership = subject.leader(replica(1)).await;
    for n in 1..=2 {
        let agency = subject.agent(replica(1), host(n)).await;
        subject.here.report(&agency, report_of(host(n), 1)).await.unwrap();
    }
    let commit = Commit {
        assignments: BTreeMap::from([(host(1), assignment(1)), (host(2), assignment(1))]),
        ..Commit::default()
    };
    subject.here.commit(&leadership, commit).await.unwrap();
    assert_eq!(subject.there.snapshot().await.unwrap().hosts.len(), 2);
    let long_ago = "1000";
    for part in ["hosts:versions", "assignments:versions"] {
        server.ask::<()>(&["ZADD", &format!("{{ro:test}}:{part}"), long_ago, &host(1).to_string()]);
    }
    let _ = subject.there.changes(Topic::Hosts);
    subject.here.announce(announcement(1), super::world::LONG).await.unwrap();
    for store in [&subject.here, &subject.there] {
        let seen = store.snapshot().await.unwrap();
        assert!(seen.hosts.keys().copied().eq([host(2)]));
        assert!(seen.assignments.keys().copied().eq([host(2)]));
        assert!(seen.unreadable.is_empty(), "{:?}", seen.unreadable);
    }
}
