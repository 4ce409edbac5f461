//! What is shown: the original's names, and the answers beside them.

use std::sync::atomic::Ordering;

use runner_orchestrator::fleet::id::{ClusterMark, GitHubRunnerId, HostId, RunnerId, RunnerName};
use runner_orchestrator::fleet::registration::Row;
use serde_json::Value;
use uuid::Uuid;

use super::world::{IMAGE, MARK, Setup, World, container_id, led, led_with, listening, running};

#[track_caller]
fn has_keys(value: &Value, keys: &[&str]) {
    let object = value.as_object().unwrap();
    for key in keys {
        assert!(object.contains_key(*key), "no {key} in {value}");
    }
}

fn codes(reasons: &Value) -> Vec<&str> {
    reasons.as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn status_keeps_every_name_of_the_original() {
    let world = led().await;
    let status = world.get("/api/v1/status").await;
    assert_eq!(status.status, 200);
    assert!(status.text.starts_with(r#"{"frozen":false"#), "a freeze stands first");
    let status = status.json;
    has_keys(&status["orchestrator"], &["running", "uptime"]);
    has_keys(
        &status["runners"],
        &[
            "active",
            "docker_containers",
            "registered_running",
            "unregistered_running",
            "total_created",
            "total_destroyed",
            "ignored_existing",
        ],
    );
    has_keys(&status["queue"], &["current_length", "last_poll"]);
    has_keys(
        &status["scaling"],
        &[
            "min_runners",
            "max_runners",
            "scale_up_threshold",
            "scale_down_threshold",
            "last_action",
        ],
    );
    has_keys(&status["settings"], &["poll_interval", "idle_timeout", "runner_image"]);
    assert_eq!(status["orchestrator"]["running"], true);
    assert_ne!(status["orchestrator"]["uptime"], "N/A");
    assert_eq!(status["queue"]["last_poll"], Value::Null, "GitHub was not read yet");
    assert_eq!(status["scaling"]["last_action"], Value::Null);
    assert_eq!(status["settings"]["poll_interval"], 30);
    assert_eq!(status["settings"]["runner_image"], IMAGE);
    assert_eq!(status["scaling"]["max_runners"], 4);
}

#[tokio::test]
async fn status_counts_what_runs_and_says_how_fresh_it_is() {
    let mut world = led().await;
    let now = world.now();
    let ours = world.runner(1, running(now)).await;
    world.runner(2, listening(now)).await;
    let row = |name: RunnerName, id| Row { id: GitHubRunnerId(id), name, online: true, busy: true };
    world.registrations(vec![row(ours.name, 1), row(RunnerName::from("actions-runner-9"), 9)]);
    world.queue(&[(1, &["self-hosted"]), (2, &["windows"])]);
    world
        .settled(|published| {
            let registrations = &published.view.ledger.registrations;
            registrations.listed().len() == 1 && published.view.ledger.demand.jobs().count() == 2
        })
        .await;
    let status = world.get("/api/v1/status").await.json;
    let runners = &status["runners"];
    assert_eq!(runners["active"], 2);
    assert_eq!(runners["docker_containers"], 2);
    assert_eq!(runners["registered_running"], 1);
    assert_eq!(runners["unregistered_running"], 1);
    assert_eq!(runners["ignored_existing"], 1);
    assert_eq!(runners["busy"], 1);
    assert_eq!(runners["idle"], 1);
    assert_eq!(status["queue"]["current_length"], 1);
    assert_eq!(status["queue"]["unmatched"], 1);
    assert!(status["queue"]["last_poll"].as_str().unwrap().ends_with('Z'));
    assert_eq!(status["orchestrator"]["leader"], true);
    assert_eq!(status["view"]["stale"], false);
    assert_eq!(status["frozen"], false);
    assert_eq!(status["hosts"][0]["liveness"], "live");
    assert_eq!(status["pools"][0]["runners"]["running"], 1);
    assert_eq!(status["github"]["mints_now"], 100);
}

#[tokio::test]
async fn runners_keep_the_four_arrays() {
    let mut world = led().await;
    let now = world.now();
    let runner = world.runner(0xfeed, listening(now)).await;
    let row = Row { id: GitHubRunnerId(5), name: runner.name.clone(), online: true, busy: false };
    world.registrations(vec![row]);
    world.settled(|p| p.view.ledger.registrations.listed().len() == 1).await;
    let list = world.get("/api/v1/runners").await.json;
    has_keys(
        &list["docker_runners"][0],
        &[
            "id",
            "name",
            "status",
            "runner_name",
            "runner_version",
            "created_at",
            "repo_url",
            "image",
        ],
    );
    has_keys(&list["github_runners"][0], &["id", "name", "os", "status", "busy", "labels"]);
    has_keys(&list["active_tracked"][0], &["name", "created_at", "container_id", "last_seen"]);
    assert_eq!(list["ignored_runners"], Value::Array(Vec::new()));
    assert_eq!(list["docker_runners"][0]["status"], "running");
    assert_eq!(list["docker_runners"][0]["id"], container_id(0xfeed).as_str());
    assert_eq!(list["github_runners"][0]["status"], "online");
    assert_eq!(list["github_runners"][0]["labels"][0]["name"], "linux");
    let full = &list["runners"][0];
    assert_eq!(full["id"], runner.id.to_string());
    assert_eq!(full["phase"], "listening");
    assert_eq!(full["idle_since"], full["since"]);
    assert_eq!(full["hostname"], "box");
    assert_eq!(full["retiring"], Value::Null);
    assert_eq!(full["end"], Value::Null);
    assert_eq!(full["correlation"], runner.correlation);
}

#[tokio::test]
async fn a_waiting_job_is_told_why() {
    let mut world = led().await;
    world.queue(&[(41, &["self-hosted"]), (42, &["linux", "gpu"])]);
    world.settled(|p| !p.plan.pools.is_empty() && p.view.ledger.demand.jobs().count() == 2).await;
    let why = world.get("/api/v1/jobs/41/why").await;
    assert_eq!(why.status, 200, "{}", why.text);
    assert_eq!(why.json["job"]["state"], "waiting");
    assert_eq!(why.json["position"], 1);
    assert_eq!(codes(&why.json["reasons"]), ["below_up_threshold"]);
    assert!(why.json["answer"].as_str().unwrap().contains("SCALE_UP_THRESHOLD is 3"));
    let why = world.get("/api/v1/jobs/42/why").await.json;
    assert_eq!(why["job"]["state"], "unmatched");
    assert_eq!(codes(&why["reasons"]), ["no_matching_pool"]);
    assert!(why["answer"].as_str().unwrap().ends_with("lacks gpu"), "{why}");
    world.get("/api/v1/jobs/43/why").await.is_problem(404, "unknown_job");

    let jobs = world.get("/api/v1/jobs?state=waiting&pool=default&limit=1").await.json;
    assert_eq!(jobs["total"], 1);
    assert_eq!(jobs["jobs"][0]["id"], 41);
    assert_eq!(world.get("/api/v1/jobs").await.json["total"], 2);
    world.get("/api/v1/jobs?pool=other").await.is_problem(404, "unknown_pool");
}

#[tokio::test]
async fn a_job_with_a_runner_on_its_way_is_told_so() {
    let mut world = led().await;
    let now = world.now();
    world.runner(1, listening(now)).await;
    world.queue(&[(41, &["self-hosted"])]);
    world.settled(|p| p.view.ledger.demand.jobs().count() == 1).await;
    let why = world.get("/api/v1/jobs/41/why").await.json;
    assert_eq!(codes(&why["reasons"]), ["satisfied"]);
    assert_eq!(why["supply"], 1);
}

#[tokio::test]
async fn a_pool_says_why_this_many() {
    let mut world = led().await;
    world.queue(&[(41, &["self-hosted"])]);
    world.settled(|p| p.view.ledger.demand.jobs().count() == 1).await;
    let pools = world.get("/api/v1/pools").await.json;
    let pool = &pools["pools"][0];
    assert_eq!(pool["name"], "default");
    assert_eq!(pool["demand"]["waiting"], 1);
    assert_eq!(codes(&pool["not_adding"]), ["below_up_threshold"]);
    assert!(pool["why"].as_str().unwrap().contains("1 waiting jobs"), "{pool}");
    assert_eq!(pool["breaker"], Value::Null);
}

#[tokio::test]
async fn without_a_leader_counts_are_shown_and_nothing_is_claimed() {
    let world = World::new(&Setup::default());
    let status = world.get("/api/v1/status").await.json;
    assert_eq!(status["orchestrator"]["leader"], false);
    assert_eq!(status["orchestrator"]["term"], Value::Null);
    assert_eq!(status["pools"][0]["runners"]["occupied"], 0);
    assert_eq!(world.get("/api/v1/decisions").await.json["decisions"], Value::Array(vec![]));
}

#[tokio::test]
async fn decisions_tell_what_was_done_and_why() {
    let mut world = led().await;
    let answer = world.post("/api/v1/runners/scale-up", r#"{"count":2}"#).await.json;
    let intent = answer["intent"].as_str().unwrap().to_owned();
    world.settled(|p| p.view.assignments.values().any(|a| a.runners.len() == 2)).await;
    let list = world.get("/api/v1/decisions?kind=assign").await.json;
    let assigned = list["decisions"].as_array().unwrap();
    assert_eq!(assigned.len(), 2);
    assert_eq!(assigned[0]["reason"]["code"], "manual_scale_up");
    assert!(assigned[0]["seq"].as_u64() > assigned[1]["seq"].as_u64(), "newest first");
    let outcomes = world.get("/api/v1/decisions?kind=outcome").await.json;
    assert_eq!(outcomes["decisions"][0]["intent"], intent.as_str());
    assert_eq!(outcomes["decisions"][0]["accepted"], 2);
    let status = world.get("/api/v1/status").await.json;
    assert_eq!(status["scaling"]["last_action"]["action"], "scale_up");
    assert_eq!(status["scaling"]["last_action"]["runners_added"], 2);
    let runner = assigned[0]["runner"].as_str().unwrap();
    let about = world.get(&format!("/api/v1/decisions?runner={runner}")).await.json;
    assert_eq!(about["decisions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_missing_image_and_a_freeze_are_named_with_their_fix() {
    let mut world = led().await;
    world.report(|record| record.images.clear()).await;
    world.settled(|p| p.view.hosts.values().all(|host| host.images.is_empty())).await;
    world.post("/api/v1/freeze", "").await;
    world.settled(|p| p.view.operator.frozen_since.is_some()).await;
    let ready = world.get("/readyz").await;
    assert_eq!(ready.status, 200);
    let degraded = ready.json["degraded"].as_array().unwrap();
    let what: Vec<&str> = degraded.iter().map(|row| row["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["operator", "image"]);
    assert!(degraded.iter().all(|row| !row["fix"].as_str().unwrap().is_empty()));
    assert_eq!(world.get("/health").await.json["status"], "degraded");
    assert_eq!(world.get("/api/v1/status").await.json["frozen"], true);
}

#[tokio::test]
async fn reads_ask_neither_github_nor_docker() {
    let mut world = led().await;
    let now = world.now();
    world.runner(1, listening(now)).await;
    for path in [
        "/",
        "/health",
        "/api/v1/health",
        "/livez",
        "/readyz",
        "/metrics",
        "/api/v1/metrics",
        "/api/v1/status",
        "/api/v1/runners",
        "/api/v1/pools",
        "/api/v1/hosts",
        "/api/v1/jobs",
        "/api/v1/decisions",
        "/openapi.json",
        "/docs/",
    ] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    assert_eq!(world.github.calls.load(Ordering::Relaxed), 0);
    assert_eq!(world.docker.other_calls.load(Ordering::Relaxed), 0);
    assert!(world.docker.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let world = led().await;
    for path in ["/metrics", "/api/v1/metrics"] {
        let metrics = world.get(path).await;
        assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        assert!(metrics.text.contains("github_actions_queue_length 0\n"));
    }
}

#[tokio::test]
async fn thresholds_are_those_of_the_default_pool_and_bounds_are_sums() {
    let setup = Setup {
        pools: vec![("default", &["linux"]), ("gpu", &["linux", "gpu"])],
        ..Setup::default()
    };
    let world = led_with(setup).await;
    let scaling = &world.get("/api/v1/status").await.json["scaling"];
    assert_eq!(scaling["max_runners"], 8);
    assert_eq!(scaling["scale_up_threshold"], 3);
}

#[tokio::test]
async fn a_runner_is_assigned_where_the_host_is() {
    let world = led().await;
    world.post("/api/v1/runners/scale-up", "").await;
    let list = world.get("/api/v1/runners").await.json;
    let runner = &list["runners"][0];
    assert_eq!(runner["phase"], "assigned");
    assert_eq!(runner["reason"]["code"], "manual_scale_up");
    let host: HostId = runner["host"].as_str().unwrap().parse().unwrap();
    let id: RunnerId = runner["id"].as_str().unwrap().parse().unwrap();
    let name = RunnerName::compose(&ClusterMark::derive(MARK), &host, &id);
    assert_eq!(runner["name"], name.as_str());
    assert_eq!(host, HostId(Uuid::from_u128(0xabcd_ef01 << 96)));
}
