//! Draining a replica, as the API shows it.

use runner_orchestrator::fleet::id::ReplicaId;
use serde_json::json;
use uuid::Uuid;

use super::world::{Setup, World, led, listening, pair, running};

#[tokio::test]
async fn a_drained_replica_passes_the_lead_on_and_takes_its_host_along() {
    let (mut first, second) = pair(Setup::default(), Setup::default()).await;
    let now = first.now();
    let busy = first.runner(1, running(now)).await;
    let idle = first.runner(2, listening(now)).await;
    let ids = [first.replica.to_string(), second.replica.to_string()];
    let path = |verb: &str| format!("/api/v1/replicas/{}/{verb}", ids[0]);
    let drained = second.post(&path("drain"), "").await;
    assert_eq!(drained.status, 200, "{}", drained.text);
    let body = &drained.json;
    assert_eq!((&body["drain"]["leads"], &body["drain"]["done"]), (&json!(false), &json!(false)));
    assert_eq!(body["drain"]["hosts"], json!([first.host.to_string()]));
    assert_eq!(body["drain"]["runners_left"], 2);
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("is being drained") && !message.contains("leads"), "{message}");

    let all = second.until("/api/v1/replicas", |body| body["leader"] == ids[1]).await;
    let of = |all: &serde_json::Value, id: &str| {
        let rows = all["replicas"].as_array().unwrap().iter();
        rows.filter(|row| row["id"] == id).map(|row| row["drain"].clone()).next().unwrap()
    };
    assert_eq!(of(&all, &ids[1]), json!(null));
    for world in [&first, &second] {
        let status = world
            .until("/api/v1/status", |body| {
                let hosts = body["hosts"].as_array().unwrap().iter();
                let drained: Vec<_> = hosts.filter(|host| host["draining"] == true).collect();
                drained.len() == 1
                    && drained[0]["id"] == first.host.to_string()
                    && drained[0]["drain"]["runners_at_first"] == 2
            })
            .await;
        assert_eq!(of(&status, &ids[0])["runners_left"], 2);
    }
    first.report(|record| record.runners.retain(|id, _| ![busy.id, idle.id].contains(id))).await;
    let done = |body: &serde_json::Value| of(body, &ids[0])["done"] == true;
    let nothing_seen = |body: &serde_json::Value| of(body, &ids[0])["runners_left"] == 0;
    let seen = second.until("/api/v1/replicas", nothing_seen).await;
    assert!(!done(&seen), "GitHub's list was never read");
    second.registrations(Vec::new());
    second.until("/api/v1/replicas", done).await;

    let host = second.post("/api/v1/hosts/box/undrain", "").await;
    let message = host.json["message"].as_str().unwrap();
    assert!(message.contains("with its replica box ("), "{message}");
    assert_eq!(second.post(&path("undrain"), "").await.status, 200);
    let free = |body: &serde_json::Value| {
        body["hosts"].as_array().unwrap().iter().all(|host| host["draining"] == false)
    };
    second.until("/api/v1/hosts", free).await;
    second.post("/api/v1/replicas/nobody/drain", "").await.is_problem(404, "unknown_replica");
}

#[tokio::test]
async fn the_only_replica_leads_on_and_says_so() {
    let mut world: World = led().await;
    world.announce();
    let there = |body: &serde_json::Value| body["replicas"].as_array().unwrap().len() == 1;
    world.until("/api/v1/replicas", there).await;
    let drained = world.post("/api/v1/replicas/box/drain", "").await;
    assert_eq!(drained.status, 200, "{}", drained.text);
    let message = drained.json["message"].as_str().unwrap();
    assert!(message.contains("leads on, for no other replica is there"), "{message}");
    assert_eq!(drained.json["drain"]["leads"], true);
    let told = |body: &serde_json::Value| {
        let rows = body["degraded"].as_array().unwrap().iter();
        rows.filter(|row| row["what"] == "replica").any(|row| {
            row["problem"].as_str().unwrap().contains("leads on")
                && row["fix"].as_str().unwrap().contains("undrain")
        })
    };
    let ready = world.until("/readyz", told).await;
    assert_eq!(ready["status"], "ready");
}

/// A process that has just started has reported nothing yet, and its host's record is of the
/// one before it: what runs there is not nothing.
#[tokio::test]
async fn a_replica_that_has_not_reported_yet_is_not_dispensable() {
    let (first, mut second) = pair(Setup::default(), Setup::default()).await;
    let before = ReplicaId(Uuid::from_u128(0xdead));
    first.report(|record| record.replica = before).await;
    let path = format!("/api/v1/replicas/{}/drain", first.replica);
    let drained = second.post(&path, "").await.json["drain"].clone();
    assert_eq!(drained["hosts"], json!([first.host.to_string()]));
    first.report(|_| ()).await;
    second.registrations(Vec::new());
    let rows = |body: &serde_json::Value| body["replicas"].as_array().unwrap().clone();
    let drain = |body: &serde_json::Value| {
        let mut rows = rows(body).into_iter();
        rows.find(|row| row["id"] == first.replica.to_string()).unwrap()["drain"].clone()
    };
    second.until("/api/v1/replicas", |body| drain(body)["runners_left"] == 0).await;
    for _ in 0..20 {
        assert_eq!(drain(&second.get("/api/v1/replicas").await.json)["done"], false);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    first.report(|record| record.replica = first.replica).await;
    second.settled(|p| p.view.ledger.draining_since.contains_key(&first.host)).await;
    first.report(|_| ()).await;
    second.registrations(Vec::new());
    second.until("/api/v1/replicas", |body| drain(body)["done"] == true).await;
}
