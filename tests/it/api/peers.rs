//! Requests for runners on another replica's host: forwarded once, signed, and refused
//! when they are not what they say.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use runner_orchestrator::api::peer;
use runner_orchestrator::api::peer::sign::{Nonce, Signed};
use runner_orchestrator::fleet::id::{ReplicaId, RunnerId};
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::store::Store;
use secrecy::SecretString;

use super::world::{Answer, Setup, World, listening, pair, request, running, unserved_pair};

const SECRET: &str = "a-secret-of-the-cluster";

fn with_secret() -> Setup {
    Setup { secret: Some(SECRET), ..Setup::default() }
}

/// Two replicas, a runner on the first's host that the second knows of, and its log's path.
async fn with_runner(first: Setup, second: Setup) -> (World, World, String) {
    let (first, mut second) = pair(first, second).await;
    let mut first = first;
    let id = runner_on(&mut first, &mut second).await;
    (first, second, format!("/api/v1/runners/{id}/logs"))
}

async fn runner_on(first: &mut World, second: &mut World) -> RunnerId {
    let now = first.now();
    let runner = first.runner(1, listening(now)).await;
    *first.docker.lines.lock().unwrap() = vec!["one".to_owned(), "two".to_owned()];
    second
        .settled(|p| p.view.hosts.values().any(|host| host.runners.contains_key(&runner.id)))
        .await;
    runner.id
}

fn asked(world: &World) -> usize {
    world.docker.asked.lock().unwrap().len()
}

async fn counted(world: &World, series: &str) -> bool {
    world.get("/metrics").await.text.lines().any(|line| line == series)
}

/// A request as another replica would sign it.
struct Forged {
    method: &'static str,
    path: String,
    to: ReplicaId,
    at: Timestamp,
    nonce: Nonce,
    secret: &'static str,
}

impl Forged {
    fn of(world: &World, path: &str) -> Self {
        Self {
            method: "GET",
            path: path.to_owned(),
            to: world.replica,
            at: world.now(),
            nonce: Nonce::fresh(),
            secret: SECRET,
        }
    }

    fn request(&self) -> axum::http::request::Builder {
        let signed = Signed {
            method: self.method,
            target: &self.path,
            to: self.to,
            at: self.at,
            nonce: self.nonce,
            body: b"",
        };
        let signature = signed.signature(&SecretString::from(self.secret)).unwrap();
        Request::builder()
            .method(self.method)
            .uri(&self.path)
            .header(header::HOST, "replica-1.internal:8080")
            .header(peer::HOP, "1")
            .header(peer::TIMESTAMP, self.at.0)
            .header(peer::NONCE, self.nonce.text())
            .header(peer::SIGNATURE, signature)
    }

    async fn sent_to(&self, world: &World) -> Answer {
        world.send(self.request().body(Body::empty()).unwrap()).await
    }
}

#[tokio::test]
async fn a_log_on_another_replicas_host_is_fetched_from_there() {
    let (first, second, path) = with_runner(with_secret(), with_secret()).await;
    let answer = second.get(&format!("{path}?tail=7")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["logs"], "one\ntwo\n");
    assert_eq!((asked(&first), asked(&second)), (1, 0));
    assert_eq!(first.docker.asked.lock().unwrap()[0].1.tail, Some(7));
    let text = request("GET", &path).header(header::ACCEPT, "text/plain");
    let answer = second.send(text.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.text, "one\ntwo\n");
    assert!(counted(&first, "orchestrator_peer_requests_total{outcome=\"accepted\"} 2").await);
    assert!(counted(&second, "orchestrator_peer_forwards_total{outcome=\"answered\"} 2").await);
}

#[tokio::test]
async fn a_problem_of_the_owner_arrives_as_it_is() {
    let (first, second, path) = with_runner(with_secret(), with_secret()).await;
    let away = runner_orchestrator::docker::DockerError::Timeout {
        action: "reading a log",
        timeout_ms: 5,
    };
    *first.docker.error.lock().unwrap() = Some(away);
    let answer = second.get(&path).await;
    answer.is_problem(503, "docker_unavailable");
    assert_eq!(answer.header("retry-after"), "5");
}

#[tokio::test]
async fn a_followed_log_arrives_line_by_line_through_another_replica() {
    let (first, second, path) = with_runner(with_secret(), with_secret()).await;
    let url = format!("{}{path}?follow=true", second.address);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut answer = client.get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-accel-buffering"], "no");
    let mut seen = String::new();
    // The log stays open at its owner: what arrives now was held back by nobody.
    while !seen.contains("two\n") {
        let piece = tokio::time::timeout(Duration::from_secs(10), answer.chunk()).await;
        seen.push_str(&String::from_utf8_lossy(&piece.unwrap().unwrap().unwrap()));
    }
    assert_eq!(seen, "one\ntwo\n");
    second.ready.send_modify(|ready| ready.stopping = true);
    let rest = tokio::time::timeout(Duration::from_secs(10), answer.chunk()).await.unwrap();
    assert_eq!(rest.unwrap(), None, "it ends when the replica in between stops");
    drop(first);
}

#[tokio::test]
async fn a_forwarded_request_needs_no_token() {
    let token = Setup { token: Some("a-token-of-the-api-1"), ..with_secret() };
    let (first, second, path) = with_runner(with_secret(), with_secret()).await;
    drop((first, second));
    let (mut first, mut second) = unserved_pair(&token, &with_secret()).await;
    first.serve();
    runner_on(&mut first, &mut second).await;
    assert_eq!(first.get(&path).await.status, 401);
    assert_eq!(second.get(&path).await.status, 200);
}

#[tokio::test]
async fn without_a_secret_nothing_is_forwarded_and_status_says_so() {
    let (first, second, path) = with_runner(Setup::default(), Setup::default()).await;
    let answer = second.get(&path).await;
    answer.is_problem(409, "other_replica");
    for told in ["box (", &first.address, "CLUSTER_SECRET"] {
        assert!(answer.text.contains(told), "{told} in {}", answer.text);
    }
    assert_eq!(asked(&first), 0);
    let status = second.get("/api/v1/status").await.json;
    assert_eq!(status["peers"]["forwarding"], false);
    assert!(status["peers"]["reason"].as_str().unwrap().contains("CLUSTER_SECRET"));
    let degraded = status["degraded"].as_array().unwrap();
    assert!(degraded.iter().any(|row| row["what"] == "peers"), "{degraded:?}");
    Forged::of(&first, &path).sent_to(&first).await.is_problem(401, "peer_refused");
}

#[tokio::test]
async fn an_owner_that_is_away_is_named() {
    let (mut first, mut second) = unserved_pair(&with_secret(), &with_secret()).await;
    let id = runner_on(&mut first, &mut second).await;
    first.goes_deaf();
    let answer = second.get(&format!("/api/v1/runners/{id}/logs")).await;
    answer.is_problem(502, "owner_unreachable");
    assert!(answer.text.contains("box ("), "{}", answer.text);
    assert!(!answer.text.contains("/api/v1/runners/"), "no address of ours: {}", answer.text);
    assert!(counted(&second, "orchestrator_peer_forwards_total{outcome=\"unreachable\"} 1").await);
}

#[tokio::test]
async fn another_secret_is_refused_and_told_to_whoever_asked() {
    let other = Setup { secret: Some("another-secret-of-it"), ..Setup::default() };
    let (first, second, path) = with_runner(with_secret(), other).await;
    let answer = second.get(&path).await;
    answer.is_problem(502, "owner_unreachable");
    assert!(answer.text.contains("CLUSTER_SECRET"), "{}", answer.text);
    assert!(counted(&first, "orchestrator_peer_requests_total{outcome=\"forged\"} 1").await);
    assert_eq!(asked(&first), 0);
}

#[tokio::test]
async fn forged_requests_are_refused_and_counted() {
    let (first, second, path) = with_runner(with_secret(), with_secret()).await;
    let good = || Forged::of(&first, &path);
    assert_eq!(good().sent_to(&first).await.status, 200, "the forger's tools are right");
    let signed = |forged: Forged| forged.request();
    let swap = |name, value: &str| {
        let mut request = good().request().body(Body::empty()).unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let mut forged = vec![
        signed(Forged { secret: "another-secret-of-it", ..good() }).body(Body::empty()).unwrap(),
        // Caught on its way to another replica.
        signed(Forged { to: second.replica, ..good() }).body(Body::empty()).unwrap(),
        signed(good()).body(Body::from("x")).unwrap(),
        signed(good()).uri(format!("{path}?tail=1")).body(Body::empty()).unwrap(),
        signed(good()).method("DELETE").body(Body::empty()).unwrap(),
        signed(good()).header(peer::NONCE, "0").body(Body::empty()).unwrap(),
        swap(peer::TIMESTAMP, "1"),
        swap(peer::TIMESTAMP, "now"),
        swap(peer::NONCE, "00000000000000000000000000000000"),
        swap(peer::SIGNATURE, &"0".repeat(64)),
        swap(peer::SIGNATURE, ""),
        // It has been forwarded once too often.
        swap(peer::HOP, "2"),
        request("GET", &path).header(peer::HOP, "1").body(Body::empty()).unwrap(),
    ];
    // A signature opens the forwarded routes and no other.
    for other in ["/api/v1/status", "/api/v1/freeze", "/metrics"] {
        let opened = Forged::of(&first, other).request().body(Body::empty()).unwrap();
        forged.push(opened);
    }
    let count = forged.len();
    for request in forged {
        let what = format!("{request:?}");
        let answer = first.send(request).await;
        assert_eq!(answer.status, 401, "{what}");
        answer.is_problem(401, "peer_refused");
    }
    let series = format!("orchestrator_peer_requests_total{{outcome=\"forged\"}} {count}");
    assert!(counted(&first, &series).await, "{}", first.get("/metrics").await.text);
    assert_eq!(asked(&first), 1);
}

#[tokio::test]
async fn a_replayed_request_is_refused_and_counted() {
    let (first, _second, path) = with_runner(with_secret(), with_secret()).await;
    let request = Forged::of(&first, &path);
    assert_eq!(request.sent_to(&first).await.status, 200);
    request.sent_to(&first).await.is_problem(401, "peer_refused");
    // The other outcome of the same: its own signature, the same nonce.
    let again = Forged { at: first.now(), nonce: request.nonce, ..Forged::of(&first, &path) };
    again.sent_to(&first).await.is_problem(401, "peer_refused");
    assert!(counted(&first, "orchestrator_peer_requests_total{outcome=\"replayed\"} 2").await);
    assert_eq!(asked(&first), 1);
}

#[tokio::test]
async fn a_signature_holds_for_thirty_seconds() {
    let (first, _second, path) = with_runner(with_secret(), with_secret()).await;
    let at = |ms: i64| {
        let at = Timestamp(first.now().0.checked_add_signed(ms).unwrap());
        Forged { at, ..Forged::of(&first, &path) }
    };
    for late in [-31_000, 40_000] {
        at(late).sent_to(&first).await.is_problem(401, "peer_refused");
    }
    for fits in [-20_000, 20_000] {
        assert_eq!(at(fits).sent_to(&first).await.status, 200, "{fits}");
    }
    assert!(counted(&first, "orchestrator_peer_requests_total{outcome=\"late\"} 2").await);
}

#[tokio::test]
async fn a_forwarded_request_goes_no_further() {
    let (first, second, path) = with_runner(with_secret(), with_secret()).await;
    let answer = Forged::of(&second, &path).sent_to(&second).await;
    answer.is_problem(409, "other_replica");
    assert!(answer.text.contains("gone over to box ("), "{}", answer.text);
    assert_eq!(asked(&first), 0);
}

/// It has the same Docker daemon before it.
#[tokio::test]
async fn who_stands_by_for_a_host_reads_its_logs_itself() {
    let (mut first, mut second) = unserved_pair(&with_secret(), &with_secret()).await;
    let id = runner_on(&mut first, &mut second).await;
    let mut record = second.store.snapshot().await.unwrap().replicas[&second.replica].clone();
    (record.host, record.agent) = (Some(first.host), false);
    second.announced.cancel();
    second.until("/api/v1/replicas", |body| body["replicas"].as_array().unwrap().len() == 1).await;
    second.store.announce(record, Duration::from_secs(60)).await.unwrap();
    second.until("/api/v1/replicas", |body| body["replicas"].as_array().unwrap().len() == 2).await;
    let listed = second.get("/api/v1/replicas").await.json;
    assert_eq!(listed["replicas"][0]["standing"], "stands_by");
    assert_eq!(second.get(&format!("/api/v1/runners/{id}/logs")).await.status, 200);
    assert_eq!((asked(&first), asked(&second)), (0, 1));
}

#[tokio::test]
async fn a_delete_is_recorded_and_the_owner_is_told() {
    let (first, second, path) = with_runner(with_secret(), with_secret()).await;
    let answer = second.delete(path.trim_end_matches("/logs")).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.json["owner_told"], true);
    assert_eq!(answer.json["state"], "settled");
    let snapshot = first.store.snapshot().await.unwrap();
    assert_eq!(snapshot.assignments[&first.host].retire.len(), 1);
    assert!(snapshot.intents.is_empty(), "told twice, recorded once");
}

#[tokio::test]
async fn a_delete_waits_for_an_owner_that_is_away() {
    let (mut first, mut second) = unserved_pair(&with_secret(), &with_secret()).await;
    let id = runner_on(&mut first, &mut second).await;
    first.goes_deaf();
    let answer = second.delete(&format!("/api/v1/runners/{id}")).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.json["owner_told"], false);
    let message = answer.json["message"].as_str().unwrap();
    assert!(message.contains("as soon as box (") && message.ends_with("is back"), "{message}");
    let snapshot = second.store.snapshot().await.unwrap();
    assert_eq!(snapshot.assignments[&first.host].retire.len(), 1);
}

#[tokio::test]
async fn a_busy_runner_of_another_replica_is_left_alone() {
    let (mut first, mut second) = pair(with_secret(), with_secret()).await;
    let now = first.now();
    let runner = first.runner(7, running(now)).await;
    second.settled(|p| p.view.hosts.values().any(|it| it.runners.contains_key(&runner.id))).await;
    let answer = second.delete(&format!("/api/v1/runners/{}", runner.id)).await;
    answer.is_problem(409, "runner_busy");
}

#[tokio::test]
async fn odd_ids_are_not_found_and_go_nowhere() {
    let (first, second, _path) = with_runner(with_secret(), with_secret()).await;
    for odd in ["..%2F..%2Fstatus", "%00", "a%0d%0ahost:%20x", "%F0%9F%92%A5", &"x".repeat(4_000)] {
        for answer in [
            second.get(&format!("/api/v1/runners/{odd}/logs")).await,
            second.delete(&format!("/api/v1/runners/{odd}")).await,
        ] {
            assert!(answer.status.is_client_error(), "{odd}: {}", answer.status);
        }
    }
    assert_eq!(asked(&first), 0);
    assert!(counted(&first, "orchestrator_peer_requests_total{outcome=\"accepted\"} 0").await);
}
