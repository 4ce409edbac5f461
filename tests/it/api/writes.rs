//! What is asked for: honest counts, keys, refusals.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::header;
use runner_orchestrator::fleet::host::Capacity;
use runner_orchestrator::fleet::id::{ClusterMark, GitHubRunnerId, RunnerId, RunnerName};
use runner_orchestrator::fleet::registration::Row;
use runner_orchestrator::fleet::runner::RunnerPhase;
use runner_orchestrator::store::Store;
use serde_json::{Value, json};

use super::world::{MARK, Setup, World, container_id, led, led_with, listening, request, running};

fn ids(answer: &Value) -> BTreeSet<String> {
    let runners = answer["runners"].as_array().unwrap();
    runners.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

async fn assigned(world: &World) -> usize {
    let snapshot = world.store.snapshot().await.unwrap();
    snapshot.assignments.values().map(|assignment| assignment.runners.len()).sum()
}

#[tokio::test]
async fn scale_up_without_a_body_means_one_runner() {
    let world = led().await;
    let bare = request("POST", "/api/v1/runners/scale-up").body(Body::empty()).unwrap();
    let answer = world.send(bare).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["runners_created"], 1);
    assert_eq!(answer.json["requested"], 1);
    assert_eq!(answer.json["pool"], "default");
    assert_eq!(answer.json["reason"], Value::Null);
    assert_eq!(answer.json["state"], "settled");
    assert!(answer.json["message"].as_str().unwrap().contains("1 of 1"));
    assert_eq!(assigned(&world).await, 1);
    let list = world.get("/api/v1/runners").await.json;
    let shown: BTreeSet<String> = list["runners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|runner| runner["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(shown, ids(&answer.json));
}

/// D60: the original says success when capped.
#[tokio::test]
async fn d60_scale_up_says_how_many_and_why_not_all() {
    let world = led().await;
    let answer = world.post("/api/v1/runners/scale-up", r#"{"count":6}"#).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json["requested"], 6);
    assert_eq!(answer.json["runners_created"], 4);
    assert_eq!(ids(&answer.json).len(), 4);
    assert_eq!(answer.json["reason"], "at_maximum");
    assert!(answer.json["detail"].as_str().unwrap().contains("MAX_RUNNERS is 4"));
    let again = world.post("/api/v1/runners/scale-up", "{}").await;
    assert_eq!(again.json["runners_created"], 0);
    assert_eq!(again.json["reason"], "at_maximum");
    assert!(again.json["message"].as_str().unwrap().contains("0 of 1"), "{}", again.text);
    assert_eq!(assigned(&world).await, 4);
}

#[tokio::test]
async fn a_paused_pool_and_a_frozen_fleet_refuse_with_their_reason() {
    let world = led().await;
    let paused = world.post("/api/v1/pools/default/pause", "").await;
    assert_eq!(paused.status, 200);
    assert_eq!(paused.json["message"], "Pool default is paused");
    let answer = world.post("/api/v1/runners/scale-up", "").await.json;
    assert_eq!((&answer["runners_created"], &answer["reason"]), (&json!(0), &json!("paused")));
    assert_eq!(world.post("/api/v1/pools/default/resume", "").await.status, 200);
    assert_eq!(world.post("/api/v1/freeze", "").await.status, 200);
    let answer = world.post("/api/v1/runners/scale-up", "").await.json;
    assert_eq!((&answer["runners_created"], &answer["reason"]), (&json!(0), &json!("frozen")));
    assert_eq!(world.post("/api/v1/unfreeze", "").await.status, 200);
    let answer = world.post("/api/v1/runners/scale-up", "").await.json;
    assert_eq!(answer["runners_created"], 1);
    world.post("/api/v1/pools/other/pause", "").await.is_problem(404, "unknown_pool");
}

#[tokio::test]
async fn scale_down_removes_idle_ones_and_never_a_busy_one() {
    let mut world = led().await;
    let now = world.now();
    let idle = world.runner(1, listening(now)).await;
    world.runner(2, running(now)).await;
    let rows = vec![Row {
        id: idle.github_id.unwrap(),
        name: idle.name.clone(),
        online: true,
        busy: false,
    }];
    world.registrations(rows);
    world.settled(|p| p.view.ledger.registrations.listed().len() == 1).await;
    let answer = world.post("/api/v1/runners/scale-down", r#"{"count":2}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json["runners_removed"], 1);
    assert_eq!(answer.json["runners"], json!([idle.id.to_string()]));
    assert!(answer.json["reason"].is_string(), "says why not two: {}", answer.text);
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_a_request_is_recorded_and_found_again() {
    let mut world = World::new(&Setup::default());
    world.report(|_| ()).await;
    let answer = world.post("/api/v1/runners/scale-up", r#"{"count":2}"#).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.json["state"], "recorded");
    assert_eq!(answer.json["runners_created"], 0, "nothing is claimed");
    let path = format!("/api/v1/intents/{}", answer.json["intent"].as_str().unwrap());
    assert_eq!(world.get(&path).await.json["state"], "recorded");
    world.lead().await;
    world.settled(|p| p.view.assignments.values().any(|a| a.runners.len() == 2)).await;
    let settled = world.get(&path).await.json;
    assert_eq!(settled["state"], "settled");
    assert_eq!(ids(&settled).len(), 2);
    let unknown = "/api/v1/intents/00000000-0000-0000-0000-000000000000";
    world.get(unknown).await.is_problem(404, "unknown_intent");
    world.get("/api/v1/intents/x").await.is_problem(404, "unknown_intent");
}

#[tokio::test]
async fn the_same_key_is_carried_out_once() {
    let world = led().await;
    let send = async |key: &str, body: &'static str| {
        let request = request("POST", "/api/v1/runners/scale-up")
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", key);
        world.send(request.body(Body::from(body)).unwrap()).await
    };
    let first = send("deploy-7", r#"{"count":2}"#).await;
    let again = send("deploy-7", r#"{ "pool": "default", "count": 2 }"#).await;
    assert_eq!(first.json, again.json);
    assert_eq!(assigned(&world).await, 2);
    send("deploy-7", r#"{"count":1}"#).await.is_problem(422, "idempotency_mismatch");
    assert_eq!(assigned(&world).await, 2);
    let other = send("deploy-8", r#"{"count":2}"#).await;
    assert_ne!(first.json["intent"], other.json["intent"]);
    assert_eq!(assigned(&world).await, 4);
    send("", "").await.is_problem(400, "invalid_header");
    send(&"k".repeat(256), "").await.is_problem(400, "invalid_header");
}

/// D45: the original removes any container by name; D58: and answers 500 for a 404.
#[tokio::test]
async fn d45_d58_only_runners_of_ours_can_be_removed() {
    let mut world = led().await;
    let now = world.now();
    world.runner(1, listening(now)).await;
    let container = container_id(1);
    let short = &container.as_str()[..11];
    for foreign in ["orchestrator", "postgres-prod", "orchestrated-1234abcd", short, "0"] {
        let answer = world.delete(&format!("/api/v1/runners/{foreign}")).await;
        answer.is_problem(404, "unknown_runner");
    }
    let snapshot = world.store.snapshot().await.unwrap();
    assert!(snapshot.intents.is_empty() && snapshot.operator.deletes.is_empty());
    assert_eq!(world.docker.other_calls.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_idle_runner_is_removed_under_each_of_its_names() {
    let mut world = led().await;
    for n in 1..=5_u128 {
        let now = world.now();
        let runner = world.runner(n * 0x1111_1111_1111_1111, listening(now)).await;
        let container = runner.container.clone().unwrap();
        let name = match n {
            1 => runner.id.to_string(),
            2 => runner.name.to_string(),
            3 => runner.name.container_name(),
            4 => container.to_string(),
            _ => container.as_str()[..40].to_owned(),
        };
        let answer = world.delete(&format!("/api/v1/runners/{name}")).await;
        assert_eq!(answer.status, 202, "{name}: {}", answer.text);
        assert_eq!(answer.json["runner_id"], runner.id.to_string());
        assert_eq!(answer.json["container_id"], container.as_str());
        assert!(answer.json["message"].as_str().unwrap().contains("being removed"));
    }
    let snapshot = world.store.snapshot().await.unwrap();
    assert_eq!(snapshot.operator.deletes.len(), 5);
}

#[tokio::test]
async fn a_busy_runner_stays_unless_forced() {
    let mut world = led().await;
    let now = world.now();
    let runner = world.runner(1, running(now)).await;
    let path = format!("/api/v1/runners/{}", runner.id);
    world.delete(&path).await.is_problem(409, "runner_busy");
    let snapshot = world.store.snapshot().await.unwrap();
    assert!(snapshot.operator.deletes.is_empty());
    let forced = world.delete(&format!("{path}?force=true")).await;
    assert_eq!(forced.status, 202, "{}", forced.text);
    world.settled(|p| p.view.operator.deletes.values().any(|delete| delete.force)).await;
}

#[tokio::test]
async fn an_ended_runner_is_gone() {
    let mut world = led().await;
    let at = world.now();
    let ended = RunnerPhase::Ended { at, ran_job: Some(true), exit_code: 0, oom: false };
    let runner = world.runner(1, ended).await;
    let answer = world.delete(&format!("/api/v1/runners/{}", runner.id)).await;
    answer.is_problem(404, "unknown_runner");
}

#[tokio::test]
async fn of_several_pools_none_is_guessed() {
    let setup = Setup { pools: vec![("a", &["x"]), ("b", &["y"])], ..Setup::default() };
    let world = led_with(setup).await;
    let answer = world.post("/api/v1/runners/scale-up", "").await;
    answer.is_problem(422, "invalid_body");
    assert_eq!(answer.json["errors"], json!([{"field":"pool","detail":"name one of a, b"}]));
    let answer = world.post("/api/v1/runners/scale-up", r#"{"pool":"b"}"#).await;
    assert_eq!(answer.json["runners_created"], 1);
}

#[tokio::test]
async fn nothing_is_taken_on_while_stopping() {
    let world = led().await;
    world.ready.send_modify(|ready| ready.stopping = true);
    world.post("/api/v1/runners/scale-up", "").await.is_problem(503, "stopping");
    assert_eq!(assigned(&world).await, 0);
}

#[tokio::test]
async fn a_drained_host_gets_nothing_new() {
    let mut world = led().await;
    let hosts = world.get("/api/v1/hosts").await.json;
    let id = hosts["hosts"][0]["id"].as_str().unwrap().to_owned();
    let drained = world.post(&format!("/api/v1/hosts/{id}/drain"), "").await;
    let message = drained.json["message"].as_str().unwrap();
    assert!(message.starts_with("Host box is being drained; nothing is seen on it"), "{message}");
    let answer = world.post("/api/v1/runners/scale-up", "").await.json;
    assert_eq!((&answer["runners_created"], &answer["reason"]), (&json!(0), &json!("no_host")));
    world.settled(|p| !p.view.operator.draining.is_empty()).await;
    assert_eq!(world.get("/api/v1/hosts").await.json["hosts"][0]["draining"], true);
    assert_eq!(world.post("/api/v1/hosts/box/undrain", "").await.status, 200);
    let answer = world.post("/api/v1/runners/scale-up", "").await.json;
    assert_eq!(answer["runners_created"], 1);
    world.post("/api/v1/hosts/other/drain", "").await.is_problem(404, "unknown_host");
}

#[tokio::test]
async fn a_drain_tells_how_far_it_has_come() {
    let mut world = led().await;
    let host = async |world: &World| {
        world.get("/api/v1/hosts").await.json["hosts"].as_array().unwrap()[0].clone()
    };
    let before = host(&world).await;
    assert_eq!(before["drain"], Value::Null);
    assert_eq!(
        before["capacity"],
        json!({"cpus": null, "memory_bytes": null, "disk_free_bytes": null, "architecture": null}),
        "unknown is never nought"
    );
    let now = world.now();
    let idle = world.runner(1, listening(now)).await;
    let busy = world.runner(2, running(now)).await;
    let handed = world.runner(3, RunnerPhase::Handed { since: now }).await;
    let drained = world.post("/api/v1/hosts/box/drain", "").await;
    assert_eq!(drained.status, 200, "{}", drained.text);
    let left = json!({"idle": 1, "busy": 1, "starting": 1, "unknown": 0, "unclaimed": 0});
    let drain = &drained.json["drain"];
    assert_eq!((&drain["left"], &drain["runners_left"]), (&left, &json!(3)));
    assert_eq!((&drain["runners_at_first"], &drain["done"]), (&json!(3), &json!(false)));
    let message = drained.json["message"].as_str().unwrap();
    assert!(message.contains("1 idle, 1 busy, 1 starting"), "{message}");

    world.report(|record| drop(record.runners.remove(&idle.id))).await;
    world.settled(|p| p.view.hosts.values().all(|host| host.runners.len() == 2)).await;
    let going = &host(&world).await["drain"];
    assert_eq!((&going["runners_at_first"], &going["runners_left"]), (&json!(3), &json!(2)));
    assert!(going["since"].is_string(), "{going}");
    let ended = [busy.id, handed.id];
    world.report(|record| record.runners.retain(|id, _| !ended.contains(id))).await;
    world.settled(|p| p.view.hosts.values().all(|host| host.runners.is_empty())).await;
    // GitHub's list was never read: what it shows is unknown, not nothing.
    let unknown = &host(&world).await["drain"];
    assert_eq!((&unknown["done"], &unknown["runners_left"]), (&json!(false), &json!(0)));
    world.registrations(Vec::new());
    world.until("/api/v1/hosts", |body| body["hosts"][0]["drain"]["done"] == true).await;
    let done = &host(&world).await["drain"];
    assert_eq!(done["runners_at_first"], 3);

    assert_eq!(world.post("/api/v1/hosts/box/undrain", "").await.status, 200);
    world.settled(|p| p.view.operator.draining.is_empty()).await;
    assert_eq!(host(&world).await["drain"], Value::Null);
    assert!(world.store.snapshot().await.unwrap().operator.drains.is_empty());
}

/// What GitHub still lists for the host is not gone, and what is known of the machine is shown.
#[tokio::test]
async fn a_drain_is_not_done_while_github_lists_a_runner_there() {
    let mut world = led().await;
    let capacity =
        Capacity { cpus: Some(8), architecture: Some("x86_64".into()), ..Capacity::default() };
    world.report(|record| record.capacity = capacity).await;
    let name = RunnerName::compose(
        &ClusterMark::derive(MARK),
        &world.host,
        &RunnerId(uuid::Uuid::from_u128(0xfeed)),
    );
    let row = Row { id: GitHubRunnerId(7), name, online: false, busy: false };
    world.registrations(vec![row]);
    world.settled(|p| p.view.ledger.registrations.listed().len() == 1).await;
    let drain = world.post("/api/v1/hosts/box/drain", "").await.json["drain"].clone();
    assert_eq!((&drain["left"]["unclaimed"], &drain["done"]), (&json!(1), &json!(false)));
    world.registrations(Vec::new());
    world.settled(|p| p.view.ledger.registrations.listed().is_empty()).await;
    let drain = world.get("/api/v1/hosts").await.json["hosts"][0]["drain"].clone();
    let (left, done) = (&drain["left"]["unclaimed"], &drain["done"]);
    assert_eq!((left, done), (&json!(0), &json!(false)), "the host has not reported since");
    world.report(|_| ()).await;
    let shown =
        world.until("/api/v1/hosts", |body| body["hosts"][0]["drain"]["done"] == true).await;
    let capacity = &shown["hosts"][0]["capacity"];
    assert_eq!((&capacity["cpus"], &capacity["memory_bytes"]), (&json!(8), &Value::Null));
    assert_eq!(capacity["architecture"], "x86_64");
}
