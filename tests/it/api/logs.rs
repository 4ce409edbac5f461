//! Logs: of runners of ours only, in one piece or followed.

use axum::body::Body;
use axum::http::header;
use runner_orchestrator::docker::DockerError;
use runner_orchestrator::fleet::runner::RunnerPhase;
use runner_orchestrator::fleet::time::Timestamp;
use serde_json::json;

use super::world::{World, container_id, led, listening, request};

async fn with_runner() -> (World, String) {
    let mut world = led().await;
    let now = world.now();
    let runner = world.runner(1, listening(now)).await;
    let lines = ["one", "two \u{fffd}", "three"].map(str::to_owned);
    *world.docker.lines.lock().unwrap() = lines.to_vec();
    (world, format!("/api/v1/runners/{}/logs", runner.id))
}

#[tokio::test]
async fn a_log_comes_as_the_originals_json() {
    let (world, path) = with_runner().await;
    let answer = world.get(&path).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["logs"], "one\ntwo \u{fffd}\nthree\n");
    assert_eq!(answer.json["container_id"], container_id(1).as_str());
    assert_eq!(answer.json["truncated"], false);
    let (container, query) = world.docker.asked.lock().unwrap().pop().unwrap();
    assert_eq!(container, container_id(1));
    assert_eq!(query.tail, Some(100));
    assert!(query.timestamps, "as the original had them");
    assert!(!query.follow && query.since.is_none());
}

#[tokio::test]
async fn the_query_reaches_docker() {
    let (world, path) = with_runner().await;
    let query = "tail=7&timestamps=false&since=2026-01-02T03:04:05Z";
    assert_eq!(world.get(&format!("{path}?{query}")).await.status, 200);
    let (_, query) = world.docker.asked.lock().unwrap().pop().unwrap();
    assert_eq!((query.tail, query.timestamps), (Some(7), false));
    assert_eq!(query.since, Some(Timestamp(1_767_323_045_000)));
    assert_eq!(world.get(&format!("{path}?since=1767323045")).await.status, 200);
    let (_, query) = world.docker.asked.lock().unwrap().pop().unwrap();
    assert_eq!(query.since, Some(Timestamp(1_767_323_045_000)));
    for bad in ["tail=x", "tail=-1", "tail=10001", "since=yesterday", "since=-5", "lines=3"] {
        world.get(&format!("{path}?{bad}")).await.is_problem(400, "invalid_query");
    }
    assert!(world.docker.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn text_is_streamed_to_who_asks_for_it() {
    let (world, path) = with_runner().await;
    let asked = request("GET", &path).header(header::ACCEPT, "text/plain, */*;q=0.1");
    let answer = world.send(asked.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.text, "one\ntwo \u{fffd}\nthree\n");
    for json in ["application/json", "*/*", "application/json, text/plain"] {
        let asked = request("GET", &path).header(header::ACCEPT, json);
        let answer = world.send(asked.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.header("content-type"), "application/json", "{json}");
    }
}

#[tokio::test]
async fn a_followed_log_ends_when_the_process_stops() {
    let (world, path) = with_runner().await;
    let stop = async {
        tokio::task::yield_now().await;
        world.ready.send_modify(|ready| ready.stopping = true);
    };
    let path = format!("{path}?follow=true");
    let (answer, ()) = tokio::join!(world.get(&path), stop);
    assert_eq!(answer.status, 200);
    assert!(answer.text.is_empty() || answer.text.starts_with("one\n"), "{}", answer.text);
}

#[tokio::test]
async fn only_so_many_logs_are_followed_at_once() {
    use tower::ServiceExt;
    let (world, path) = with_runner().await;
    let path = format!("{path}?follow=true");
    let mut open = Vec::new();
    for _ in 0..runner_orchestrator::api::logs::FOLLOWERS_MAX {
        let asked = request("GET", &path).body(Body::empty()).unwrap();
        open.push(world.app.clone().oneshot(asked).await.unwrap());
    }
    let refused = world.get(&path).await;
    refused.is_problem(429, "too_many_followers");
    assert_eq!(refused.header("retry-after"), "2");
    drop(open);
    let asked = request("GET", &path).body(Body::empty()).unwrap();
    assert_eq!(world.app.clone().oneshot(asked).await.unwrap().status(), 200);
}

/// D46: the original reads any container's log; D59: and answers 200 for unknown ones.
#[tokio::test]
async fn d46_d59_logs_of_other_containers_are_not_found() {
    let (world, _) = with_runner().await;
    for foreign in ["postgres-prod", "orchestrator", "0123456789abcdef", "nobody"] {
        let answer = world.get(&format!("/api/v1/runners/{foreign}/logs")).await;
        answer.is_problem(404, "unknown_runner");
    }
    assert!(world.docker.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_runner_without_a_container_has_no_log() {
    let (mut world, path) = with_runner().await;
    let gone = DockerError::Refused { action: "logs", status: 404, message: "no such".into() };
    *world.docker.error.lock().unwrap() = Some(gone);
    world.get(&path).await.is_problem(409, "no_container");
    let away = DockerError::Timeout { action: "reading a log", timeout_ms: 5 };
    *world.docker.error.lock().unwrap() = Some(away);
    world.get(&path).await.is_problem(503, "docker_unavailable");
    let at = world.now();
    let runner = world.runner(2, RunnerPhase::Accepted { since: at }).await;
    world
        .report(|record| {
            let runner = record.runners.get_mut(&runner.id).unwrap();
            runner.container = None;
        })
        .await;
    let id = runner.id;
    world.settled(|p| p.view.hosts.values().all(|h| h.runners[&id].container.is_none())).await;
    let answer = world.get(&format!("/api/v1/runners/{id}/logs")).await;
    answer.is_problem(409, "no_container");
    assert!(answer.json["errors"] == json!(null));
}
