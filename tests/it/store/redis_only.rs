//! What concerns a Redis only: who may come in, what it warns of, what it is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use runner_orchestrator::store::redis::Tls;
use runner_orchestrator::store::{Commit, Store, StoreError};
use secrecy::SecretString;
use tokio::task::JoinSet;

use super::conformance::{digest, listing};
use super::world::{
    LONG, Subject, announcement, assignment, host, intent, leader, outcome, replica, report_of,
    store_at, store_of, take, wait_for,
};
use crate::it::support::redis::Redis;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_named_and_never_shown() {
    let server = Redis::with(&["--requirepass", "right-password"]);
    store_at(&server.url()).record(intent(1)).await.unwrap();
    for (url, said) in [
        (format!("redis://:canary-password@127.0.0.1:{}", server.port), "user and password"),
        (format!("redis://127.0.0.1:{}", server.port), "password"),
    ] {
        let store = store_at(&url);
        let error = store.snapshot().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        let Some(Err(told)) = store.health().borrow().reachable.clone() else {
            panic!("it is not reachable")
        };
        let shown = format!("{error} {error:?} {told} {store:?}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(!shown.contains("canary") && !shown.contains("right-password"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_confined_to_our_keys_is_enough() {
    let server = Redis::start();
    let rights = ["~{ro:test}:*", "&{ro:test}:*", "+@all", "-@admin"];
    let user = ["ACL", "SETUSER", "orchestrator", "on", ">pass word"];
    server.ask::<()>(&[&user[..], &rights[..]].concat());
    let url = format!("redis://orchestrator:pass%20word@127.0.0.1:{}", server.port);
    let store: Arc<dyn Store> = Arc::new(store_at(&url));
    let leadership = leader(&store, replica(1), &mut JoinSet::new()).await;
    store.record(intent(1)).await.unwrap();
    store.announce(announcement(1), LONG).await.unwrap();
    let commit = Commit { outcomes: vec![outcome(1)], ..Commit::default() };
    store.commit(&leadership, commit).await.unwrap();
    assert!(store.health().borrow().warnings.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicting_policy_is_warned_of() {
    let server = Redis::with(&["--maxmemory-policy", "volatile-lru"]);
    let store = store_at(&server.url());
    let health = store.health();
    wait_for("the warning", async || {
        let warnings = health.borrow().warnings.clone();
        warnings.iter().any(|warning| warning.contains("volatile-lru")).then_some(())
    })
    .await;
    store.record(intent(1)).await.unwrap();
    assert_eq!(health.borrow().warnings.len(), 1, "a write that works changes nothing in it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_and_databases_do_not_see_each_other() {
    let server = Redis::start();
    let url = server.url();
    let one = store_of(&url, "one", Tls::default());
    let two = store_of(&url, "two", Tls::default());
    let three = store_of(&format!("{url}/3"), "one", Tls::default());
    for store in [&one, &two, &three] {
        take(store, replica(1)).await;
        store.record(intent(1)).await.unwrap();
    }
    one.record(intent(2)).await.unwrap();
    assert_eq!(one.snapshot().await.unwrap().intents.len(), 2);
    assert_eq!(two.snapshot().await.unwrap().intents.len(), 1);
    assert_eq!(three.snapshot().await.unwrap().intents.len(), 1);
}

/// A write that its sender has given up on may arrive after the next one, over another
/// connection: it must not put back what that one replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_comes_late_changes_nothing() {
    let server = Redis::start();
    let store: Arc<dyn Store> = Arc::new(store_at(&server.url()));
    let leadership = leader(&store, replica(1), &mut JoinSet::new()).await;
    let commit = |revision| {
        let assignment = assignment(revision);
        Commit { assignments: BTreeMap::from([(host(1), assignment)]), ..Commit::default() }
    };
    store.commit(&leadership, commit(1)).await.unwrap();
    // One that was there before, but its connection ended with the answer, does the same again.
    let number: u64 = server.ask(&["HGET", "{ro:test}:lease:leader", "commit"]);
    server.ask::<()>(&["HSET", "{ro:test}:lease:leader", "commit", &(number + 1).to_string()]);
    store.commit(&leadership, commit(2)).await.unwrap();
    let written = store.assignment(host(1)).await.unwrap();
    assert_eq!(written.revision, 2);
    // As if one sent later had been there before.
    server.ask::<()>(&["HSET", "{ro:test}:lease:leader", "commit", "1000"]);
    let refused = store.commit(&leadership, commit(3)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused}");
    assert_eq!(store.assignment(host(1)).await.unwrap(), written);
    // Other kinds, and later terms, are counted by themselves.
    store.publish(&leadership, digest(leadership.term())).await.unwrap();
    server.ask::<()>(&["DEL", "{ro:test}:lease:leader"]);
    let next = leader(&store, replica(2), &mut JoinSet::new()).await;
    store.commit(&next, commit(4)).await.unwrap();
}

/// Everything that is written carries the cluster's prefix and is in the table of keys, and
/// nothing of what we know of secrets is in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_is_in_the_table() {
    use runner_orchestrator::store::redis::keys::KEYS;

    let server = Redis::with(&["--requirepass", "canary-password"]);
    let mut subject = Subject::on(&server);
    let leadership = subject.leader(replica(1)).await;
    let agency = subject.agent(replica(1), host(1)).await;
    let store = subject.here.clone();
    store.record(intent(1)).await.unwrap();
    let commit = Commit {
        assignments: BTreeMap::from([(host(1), assignment(1))]),
        outcomes: vec![outcome(2)],
        ..Commit::default()
    };
    store.commit(&leadership, commit).await.unwrap();
    store.report(&agency, report_of(host(1), 1)).await.unwrap();
    store.announce(announcement(1), LONG).await.unwrap();
    store
        .put_by(&leadership, "etags", BTreeMap::from([("a".into(), Some("b".into()))]))
        .await
        .unwrap();

    let found: Vec<String> = server.ask(&["KEYS", "*"]);
    let varying = host(1).to_string();
    for key in &found {
        let name = key.strip_prefix("{ro:test}:").unwrap_or_else(|| panic!("{key}"));
        let name = name.replace(&varying, "<host>").replace("kept:etags", "kept:<name>");
        let entry = KEYS.iter().find(|entry| entry.name == name).unwrap_or_else(|| panic!("{key}"));
        let kind: String = server.ask(&["TYPE", key]);
        assert_eq!(kind, entry.kind, "{key}");
        let content: Vec<String> = match kind.as_str() {
            "hash" => server.ask(&["HGETALL", key]),
            "zset" => server.ask(&["ZRANGE", key, "0", "-1"]),
            _ => vec![server.ask(&["GET", key])],
        };
        assert!(!content.iter().any(|text| text.contains("canary")), "{key}: {content:?}");
        let ends = server.ask::<i64>(&["PTTL", key]) > 0;
        let bounded = entry.lifetime.starts_with(|c: char| c.is_ascii_digit());
        // Hosts are forgotten by a script, not by the server.
        let by_script = name == "hosts" || name == "hosts:versions";
        assert!(
            ends == bounded || by_script || name == "outcomes:times",
            "{key}: {}",
            entry.lifetime
        );
    }
    let unused =
        KEYS.iter().filter(|entry| !matches!(entry.name, "digest" | "registrations" | "shares"));
    assert_eq!(found.len(), unused.count(), "{found:?}");
}

/// It is the largest part of a digest and changes once a poll.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_is_written_once_and_again_when_it_was_lost() {
    let server = Redis::start();
    let mut subject = Subject::on(&server);
    let leader = subject.leader(replica(1)).await;
    let mut told = digest(leader.term());
    Arc::make_mut(&mut told.ledger).registrations.set_listing(listing(1));
    let (state, key) = ("{ro:test}:state", "{ro:test}:registrations");
    let mut versions = Vec::new();
    for lost in [false, false, true] {
        if lost {
            server.ask::<()>(&["DEL", key]);
            server.ask::<()>(&["HDEL", state, "registrations"]);
        }
        subject.here.snapshot().await.unwrap();
        subject.here.publish(&leader, told.clone()).await.unwrap();
        assert_eq!(*subject.there.snapshot().await.unwrap().digest.unwrap(), told);
        versions.push(server.ask::<String>(&["HGET", state, "registrations"]));
    }
    assert!(versions[0] == versions[1] && versions[1] != versions[2], "{versions:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_server_is_spoken_to_and_a_stranger_is_not() {
    let pki = Pki::make();
    let server = Redis::with(&[
        "--tls-port",
        "PORT",
        "--port",
        "0",
        "--tls-cert-file",
        &pki.path("server.pem"),
        "--tls-key-file",
        &pki.path("server.key"),
        "--tls-ca-cert-file",
        &pki.path("ca.pem"),
        "--tls-auth-clients",
        "yes",
    ]);
    let url = format!("rediss://localhost:{}", server.port);
    let identity = Some((pki.read("client.pem"), SecretString::from(pki.read("client.key"))));
    let tls = Tls { ca_pem: Some(pki.read("ca.pem")), identity_pem: identity.clone() };
    let store = store_of(&url, "test", tls);
    store.record(intent(1)).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap().intents.len(), 1);

    // An authority we do not trust, and a server that does not know us.
    let other = Pki::make();
    let wrong_ca = Tls { ca_pem: Some(other.read("ca.pem")), identity_pem: identity };
    let no_identity = Tls { ca_pem: Some(pki.read("ca.pem")), identity_pem: None };
    for tls in [wrong_ca, no_identity] {
        let store = store_of(&url, "test", tls);
        let error = store.snapshot().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }
}

/// An authority, a server and a client, made with the command line of `openssl`.
struct Pki(tempfile::TempDir);

impl Pki {
    fn make() -> Self {
        let pki = Self(tempfile::TempDir::new().unwrap());
        pki.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                     -subj /CN=authority -keyout ca.key -out ca.pem",
        );
        std::fs::write(pki.path("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1").unwrap();
        for name in ["server", "client"] {
            pki.openssl(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} \
                 -keyout {name}.key -out {name}.csr"
            ));
            pki.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                 -extfile names -out {name}.pem"
            ));
        }
        pki
    }

    fn openssl(&self, arguments: &str) {
        let mut command = std::process::Command::new("openssl");
        let done = command.current_dir(self.0.path()).args(arguments.split_whitespace()).output();
        let done = done.expect("openssl is there");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}
