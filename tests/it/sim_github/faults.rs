//! Every fault switch, over real sockets.

use std::time::{Duration, Instant};

use runner_orchestrator::sim::github::{Fault, NewJobs, SettingsPatch};
use serde_json::json;

use super::support::Model;

const MINT: &str = "POST /orgs/{org}/actions/runners/generate-jitconfig";
const LIST: &str = "GET /orgs/{org}/actions/runners";

fn fault(route: &str) -> Fault {
    Fault { route: route.into(), ..Fault::default() }
}

#[tokio::test]
async fn a_status_with_retry_after_as_often_as_asked() {
    let model = Model::start().await;
    let spec = Fault { status: Some(503), retry_after: Some(7), count: Some(2), ..fault(LIST) };
    model.handle.add_fault(spec).unwrap();
    for _ in 0..2 {
        let answer = model.get("/orgs/acme/actions/runners").await;
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "7");
    }
    assert_eq!(model.get("/orgs/acme/actions/runners").await.status(), 200);
    assert_eq!(model.handle.state().calls[LIST], 3);
}

#[tokio::test]
async fn latency_and_probability() {
    let model = Model::start().await;
    model.handle.add_fault(Fault { latency_ms: Some(80), ..fault("GET *") }).unwrap();
    let begin = Instant::now();
    model.get("/user").await;
    assert!(begin.elapsed() >= Duration::from_millis(80));
    model.handle.clear_faults();
    let never = Fault { status: Some(500), probability: Some(0.0), ..fault("*") };
    model.handle.add_fault(never).unwrap();
    assert_eq!(model.get("/user").await.status(), 200);
    model.handle.clear_faults();
    let half = Fault { status: Some(500), probability: Some(0.5), ..fault("*") };
    model.handle.add_fault(half).unwrap();
    let mut broken = 0;
    for _ in 0..40 {
        broken += u32::from(model.get("/user").await.status() == 500);
    }
    assert!((5..35).contains(&broken), "{broken}");
}

#[tokio::test]
async fn a_dropped_response_has_its_effect_and_no_answer() {
    let model = Model::start().await;
    model.handle.add_fault(Fault { drop_response: true, count: Some(1), ..fault(MINT) }).unwrap();
    let body = json!({"name": "lost", "runner_group_id": 1, "labels": ["x"]});
    let path = "/orgs/acme/actions/runners/generate-jitconfig";
    let sent = model.request("POST".parse().unwrap(), path).json(&body).send().await;
    assert!(sent.is_err(), "{sent:?}");
    assert_eq!(model.handle.state().runners[0].name, "lost");
    // A second attempt under the same name meets the first one's registration.
    assert_eq!(model.post(path, body).await.status(), 409);
}

#[tokio::test]
async fn truncated_and_corrupt_bodies() {
    let model = Model::start().await;
    model.handle.add_fault(Fault { truncate: true, count: Some(1), ..fault(LIST) }).unwrap();
    let answer = model.get("/orgs/acme/actions/runners").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err());
    model.handle.add_fault(Fault { corrupt: true, count: Some(1), ..fault(LIST) }).unwrap();
    let answer = model.get("/orgs/acme/actions/runners").await;
    assert_eq!(answer.status(), 200);
    assert!(serde_json::from_slice::<serde_json::Value>(&answer.bytes().await.unwrap()).is_err());
    assert_eq!(model.get_json("/orgs/acme/actions/runners").await["total_count"], 0);
}

#[tokio::test]
async fn a_stale_list_by_fault_only() {
    let model = Model::start().await;
    model.handle.add_fault(Fault { stale_seconds: Some(60), ..fault(LIST) }).unwrap();
    let (id, _) = model.mint("new", &["x"]).await;
    let list = "/orgs/acme/actions/runners";
    assert_eq!(model.get_json(list).await["total_count"], 0);
    assert_eq!(model.get(&format!("{list}/{id}")).await.status(), 200);
    model.handle.clear_faults();
    assert_eq!(model.get_json(list).await["total_count"], 1);
}

#[tokio::test]
async fn open_requests_are_limited_and_given_back_when_a_client_goes_away() {
    let model = Model::start().await;
    let patch = SettingsPatch { concurrent_max: Some(2), ..SettingsPatch::default() };
    model.handle.change_settings(&patch);
    model.handle.add_fault(Fault { latency_ms: Some(60_000), ..fault("GET /user") }).unwrap();
    for _ in 0..2 {
        let slow = model.request("GET".parse().unwrap(), "/user");
        assert!(slow.timeout(Duration::from_millis(100)).send().await.is_err());
    }
    super::support::until("both are closed", || model.handle.state().points >= 2).await;
    assert_eq!(model.get("/rate_limit").await.status(), 200);
    assert_eq!(model.handle.state().limit_crossings.secondary, 0);
    let both = [model.get("/user"), model.get("/user")];
    let both = futures_util::future::join_all(both);
    let third = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        model.get("/meta").await.status()
    };
    tokio::select! {
        _ = both => panic!("they are slow"),
        status = third => assert_eq!(status, 403),
    }
    assert_eq!(model.handle.state().limit_crossings.secondary, 1);
}

#[tokio::test]
async fn control_over_http_does_what_the_typed_one_does() {
    let model = Model::start().await;
    let base = model.handle.base_url().to_owned();
    let post =
        |path: &str, body| model.client.post(format!("{base}/_sim{path}")).json(&body).send();
    let jobs = json!({"count": 2, "labels": ["a"], "duration_seconds": 1, "repo": "acme/repo-9"});
    let answer: serde_json::Value = post("/jobs", jobs).await.unwrap().json().await.unwrap();
    assert_eq!(answer["ids"].as_array().unwrap().len(), 2);
    let id = answer["ids"][0].as_u64().unwrap();
    assert_eq!(post(&format!("/jobs/{id}/cancel"), json!({})).await.unwrap().status(), 202);
    assert_eq!(post("/jobs/1/cancel", json!({})).await.unwrap().status(), 404);
    assert_eq!(post("/jobs", json!({"count": 0})).await.unwrap().status(), 422);
    assert!(post("/jobs", json!({"nonsense": 1})).await.unwrap().status().is_client_error());
    assert_eq!(post("/faults", json!({"route": "*", "status": 500})).await.unwrap().status(), 204);
    assert_eq!(model.get("/user").await.status(), 500);
    let cleared = model.client.delete(format!("{base}/_sim/faults")).send().await.unwrap();
    assert_eq!(cleared.status(), 204);
    let planted = json!({"count": 3, "name_prefix": "f", "status": "online", "busy": true});
    assert_eq!(post("/runners", planted).await.unwrap().status(), 200);
    let repos: serde_json::Value =
        post("/repos", json!({"count": 10})).await.unwrap().json().await.unwrap();
    assert_eq!(repos["repos"], 12);
    let patch = json!({"lost_after_seconds": 1.5, "hostile": ["busy_from", "etag_weak"]});
    let settings: serde_json::Value = post("/settings", patch).await.unwrap().json().await.unwrap();
    assert_eq!(settings["lost_after_ms"], 1_500);
    let token = json!({"token": "t2", "kind": "classic"});
    assert_eq!(post("/tokens", token).await.unwrap().status(), 204);
    let url = format!("{base}/_sim/state");
    let body = model.client.get(url).send().await.unwrap().text().await.unwrap();
    // The state never shows a token.
    assert!(!body.contains("sim-token") && !body.contains("t2\""), "{body}");
    let state: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(state["jobs"][0]["status"], "completed");
    assert_eq!(state["jobs"][1]["repo"], "acme/repo-9");
    assert_eq!(state["runners"].as_array().unwrap().len(), 3);
    assert_eq!(state["limit_crossings"]["primary"], 0);
    let typed = model.handle.post_jobs(&NewJobs { count: 10_001, ..NewJobs::default() });
    assert!(typed.is_err());
}
